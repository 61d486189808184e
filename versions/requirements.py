"""Requirement files of the core and of custom nodes, read without being followed anywhere.

What can be locked is a name with a range, the https URL of a wheel, and what a wheel can be built
from: a git repository or the https URL of a source archive. Whatever else such a file may say
(options, local paths, other kinds of repositories) is listed as ignored.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from cvs.store import damage, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store, content_path
from cvs.store.errors import InputError, IntegrityError, one_line, shown
from cvs.store.manifest import TreeManifest
from cvs.versions.paths import relative_path
from cvs.versions.repository import split_ref

#: How deep `-r` may nest; deeper is a loop that grows or a joke.
_DEPTH = 8

#: Bytes of the largest file, characters of the longest line, and how many of them are noted where
#: it is ignored. Python refuses to read numbers that are longer than such a line.
_FILE_LIMIT = 1 << 20
_LINE_LIMIT = 4096
_SHOWN = 500

#: What stands before these is looked at, not matched: white space of any length would be tried
#: from each of its places.
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$")
_HASH = re.compile(r"\s--hash[=\s]\S+")
_OPTION_AFTER = re.compile(r"(?<=\s)--?[A-Za-z].*$")
_INCLUDE = re.compile(r"^(?:-r|--requirement)(?:\s*=\s*|\s*)(?P<file>.+)$")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")
_EDITABLE = re.compile(r"^(?:-e|--editable)(?:\s*=\s*|\s*)(?=git\+)")
_NAME = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?P<extras>\[[^\]]*\])?")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


#: How the names of source archives end: those that Python's build tools make, and GitHub's.
ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


class Project(msgspec.Struct, frozen=True):
    """Where the source is that a wheel has to be built from."""

    url: str
    """Of a git repository, without `git+`, or of a source archive; may hold a user name."""
    is_git: bool
    ref: str | None = None
    """A branch, tag or commit of the repository; None for its HEAD."""
    subdirectory: str = ""
    """Where in it the project is; "" for its root."""
    name: str = ""
    """The package, canonical; "" where the line does not say: the wheel will."""
    extras: str = ""
    """`[a,b]`, or ""."""
    marker: str = ""
    """`python_version >= "3.11"`, or ""."""

    @property
    def called(self) -> str:
        """The package, or what it is likely to be called: as its repository or archive is."""
        last = posixpath.basename(urlsplit(self.url).path.rstrip("/"))
        return self.name or canonicalize_name(last.removesuffix(".git"))


class Requirement(msgspec.Struct, frozen=True):
    """One line that asks for a package."""

    text: str
    """As packaging writes it: `numpy>=2; python_version >= "3.11"`, `x @ https://…/x-1-….whl`."""
    requirer: str
    """Who asks: `ComfyUI`, a node's name, `python_packages`."""
    where: str
    """File and line for messages: `ComfyUI/requirements.txt:3`."""
    project: Project | None = None
    """What it is built from first, where it names a repository or a source archive."""


class Requirements(msgspec.Struct, frozen=True):
    """What requirement files ask for, in their order."""

    wanted: tuple[Requirement, ...] = ()
    ignored: tuple[str, ...] = ()
    """Lines that were not followed, as `requirer: line`, without credentials."""

    def __add__(self, other: "Requirements") -> "Requirements":
        return Requirements(self.wanted + other.wanted, self.ignored + other.ignored)


def parse(
    data: bytes,
    *,
    requirer: str,
    file: str = "requirements.txt",
    read: Callable[[str], bytes | None] = lambda _: None,
) -> Requirements:
    """Reads a requirements file.

    Args:
        data: the bytes of the file.
        requirer: the core's or node's name.
        file: its path in the requirer's tree.
        read: gives the bytes of another file of the same tree, None if there is none.

    Raises:
        InputError: a line that is no requirement, or a `-r` that leads nowhere, out of the tree
            or in a circle; names file and line.
    """
    wanted: list[Requirement] = []
    ignored: list[str] = []
    _read(data, requirer, file, read, (file,), {file}, wanted, ignored)
    return Requirements(tuple(wanted), tuple(ignored))


def of_tree(store: Store, entry: EntryId, requirer: str) -> Requirements:
    """What the requirements.txt of a stored tree asks for; nothing if it has none.

    Raises:
        EntryMissing, IntegrityError: the entry is not in the store, or damaged.
        InputError: as `parse`.
    """
    damage.refuse(store.volume, [entry])
    document = store.manifest(entry)
    assert isinstance(document, TreeManifest)  # Commits are stored as trees alone.
    files = {node.path for node in document.nodes if isinstance(node, tree.File)}
    root = os.path.join(store.volume.store, content_path(entry, document))

    def read(path: str) -> bytes | None:
        quoted = tree.quote(path.encode())
        if quoted not in files:
            return None
        try:
            with open(os.path.join(root, path), "rb") as file:
                data = file.read(_FILE_LIMIT + 1)
        except OSError as error:
            raise IntegrityError(
                f"{os.path.join(root, path)} cannot be read: {error.strerror}",
                hint=damage.cure(entry),
            ) from None
        if len(data) > _FILE_LIMIT:
            raise InputError(f"{requirer}/{path} is larger than {_FILE_LIMIT >> 20} MiB")
        return data

    name = "requirements.txt"
    data = read(name)
    return Requirements() if data is None else parse(data, requirer=requirer, file=name, read=read)


def packages(lines: Iterable[str], *, requirer: str = "python_packages") -> Requirements:
    """Reads requirements that a user wrote by hand: each must be one that can be locked.

    Raises:
        InputError: one is not; names it.
    """
    wanted = []
    for number, line in enumerate(lines):
        where = f"{requirer}[{number}]"
        if options := _options(line):
            raise InputError(
                f"{where}: options such as {shown(clean(options))} have no meaning here"
            )
        text, reason, project = _requirement(line.strip(), where)
        if reason:
            raise InputError(f"{where}: {shown(clean(line))} {reason}: it cannot be locked")
        wanted.append(Requirement(text, requirer, where, project))
    return Requirements(tuple(wanted))


def _read(
    data: bytes,
    requirer: str,
    file: str,
    read: Callable[[str], bytes | None],
    open_files: tuple[str, ...],
    seen: set[str],
    wanted: list[Requirement],
    ignored: list[str],
) -> None:
    for number, line in _logical_lines(_decode(data, f"{requirer}/{file}")):
        where = f"{requirer}/{file}:{number}"
        if len(line) > _LINE_LIMIT:
            raise InputError(f"{where}: the line is longer than {_LINE_LIMIT} characters")
        included = _INCLUDE.match(line)
        if included:
            path = _inside(file, included["file"].strip().strip("'\""), where)
            if path in open_files or len(open_files) >= _DEPTH:
                raise InputError(f"{where}: -r {path[:_SHOWN]} includes itself")
            if path in seen:
                # What is asked for twice is asked for once, and a few files that name each other
                # often would never end.
                continue
            seen.add(path)
            other = read(path)
            if other is None:
                raise InputError(f"{where}: there is no {path[:_SHOWN]} in {requirer}")
            _read(other, requirer, path, read, (*open_files, path), seen, wanted, ignored)
            continue
        # Where a repository is installed from its clone it is installed all the same.
        line = _EDITABLE.sub("", line)
        if line.startswith("-"):
            ignored.append(_noted(requirer, line))
        else:
            if options := _options(line):
                ignored.append(_noted(requirer, options))
            text, reason, project = _requirement(line, where)
            if reason:
                ignored.append(_noted(requirer, line))
            else:
                wanted.append(Requirement(text, requirer, where, project))


def _decode(data: bytes, where: str) -> str:
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not text (byte {error.start})") from None


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments and continuations, with the number of the first line of each."""
    start = 0
    parts: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not parts:
            start = number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            parts.append(line[:-1])
            continue
        parts.append(line)
        whole = _COMMENT.sub("", " ".join(parts)).strip()
        parts = []
        if whole:
            yield start, whole
    rest = _COMMENT.sub("", " ".join(parts)).strip()
    if rest:
        yield start, rest


def _inside(file: str, other: str, where: str) -> str:
    """The path of `other`, which `file` names, relative to the tree."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(file), other))
    if posixpath.isabs(other) or path == ".." or path.startswith("../") or _SCHEME.match(other):
        raise InputError(f"{where}: -r {clean(other)[:_SHOWN]} is not a file of the same tree")
    return path


def _options(line: str) -> str:
    """The options behind a requirement, other than hashes: pip would apply them to it alone."""
    found = _OPTION_AFTER.search(_HASH.sub("", line))
    return found[0].strip() if found else ""


def _requirement(line: str, where: str) -> tuple[str, str, Project | None]:
    """The requirement of a line, or why it cannot be locked, and what it has to be built from.

    Raises:
        InputError: the line is no requirement at all.
    """
    line = _OPTION_AFTER.sub("", _HASH.sub("", line)).strip()
    if _SCHEME.match(line):
        # A bare URL; the name of a wheel says which package it is, anything else may.
        return _address(line, where)
    if line.startswith((".", "/", "~")) or ("/" in line and "@" not in line):
        return "", "is a local path", None
    try:
        parsed = Parsed(line)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: {shown(clean(line))} is not a requirement: {reason}") from None
    except RecursionError:
        raise InputError(f"{where}: {shown(clean(line))} is nested too deep") from None
    if not parsed.url:
        return str(parsed), "", None
    text, reason, project = _address(parsed.url, where)
    if project is not None:
        project = msgspec.structs.replace(
            project,
            name=canonicalize_name(parsed.name),
            extras=f"[{','.join(sorted(parsed.extras))}]" if parsed.extras else "",
            marker=str(parsed.marker or ""),
        )
    return text and str(parsed), reason, project


def _address(url: str, where: str) -> tuple[str, str, Project | None]:
    """The requirement of a URL, or why it cannot be locked, and what it has to be built from."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", "is not a URL", None
    if parts.scheme.startswith(("hg+", "svn+", "bzr+")):
        return "", "is a repository of another kind than git", None
    is_git = parts.scheme.startswith("git+")
    if not is_git and parts.scheme != "https":
        return "", "is not an https URL", None
    if not is_git and parts.path.endswith(".whl"):
        try:
            name = parse_wheel_filename(unquote(posixpath.basename(parts.path)))[0]
        except InvalidWheelFilename:
            return "", "is not the URL of a wheel", None
        return f"{name} @ {url}", "", None
    if not is_git and not parts.path.endswith(ARCHIVES):
        return "", "is not the URL of a wheel or of a source archive", None
    address = url.partition("#")[0].removeprefix("git+")
    ref = None
    if is_git:
        address, ref = split_ref(address)
    more = parse_qs(parts.fragment)
    egg = _NAME.fullmatch(more.get("egg", [""])[0])
    subdirectory = more.get("subdirectory", [""])[0].strip("/")
    if subdirectory:
        relative_path(subdirectory, f"{where}: subdirectory")
    project = Project(
        url=address,
        is_git=is_git,
        ref=ref,
        subdirectory=subdirectory,
        name=canonicalize_name(egg["name"]) if egg else "",
        extras=(egg["extras"] or "") if egg else "",
    )
    return url, "", project


def clean(text: str) -> str:
    """The text without user names, passwords and tokens in URLs."""
    return _CREDENTIALS.sub("", text)


def _noted(requirer: str, line: str) -> str:
    """A line that is not followed, in a form that a lock can keep and a terminal show."""
    return f"{requirer}: {one_line(clean(line))[:_SHOWN]}"
