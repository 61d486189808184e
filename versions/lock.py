"""The lock: every input of a version, exactly, and one digest per part of the spec it came from.

A lock says nothing of this machine: no credential, no local path. What came from a local path is
pinned by commit, digest and entry alone, and found again through the spec.
"""

import os
import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from cvs.store import document, fs, scratch
from cvs.store.digest import EntryId, is_id
from cvs.store.errors import InputError, shown
from cvs.versions.paths import check_distinct, check_places, relative_path
from cvs.versions.repository import is_commit

#: The version of the document that this code writes, and the newest it reads. Lower ones are locks
#: of the tool that cvs replaces, which lie in the same place and pin too little to be used.
SCHEMA = 3

#: What such a lock is renamed to when a new one takes its place.
BEFORE = ".before-cvs"


#: Bytes of a file or tree: a number that a file system can have.
_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]

#: A version of glibc; "" for none.
_GLIBC = re.compile(r"(?:[0-9]{1,4}\.[0-9]{1,4})?")

#: A moment in UTC.
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

#: The SHA-1 of a blob of git.
_BLOB = re.compile(r"[0-9a-f]{40}")

#: What no text of a lock has: it would steer a terminal or end a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all parts of a lock have in common."""


class Submodule(_Document, frozen=True):
    """A repository inside a tree: its commit's tree lies at `path`."""

    path: str
    repo: str
    """"" where it was a local path."""
    commit: str


class Installed(_Document, frozen=True):
    """What the `install.py` of a node made of its tree. Paths are quoted as in manifests; one that
    ends with `/` is a folder with all that is in it."""

    entry: EntryId
    """The tree that it left: the one that runs."""
    size: _Size
    python: str
    """Digest of the wheels and the interpreter that it ran with; with others it runs again."""
    wrote: tuple[str, ...]
    """What it added or changed."""
    removed: tuple[str, ...]


class Commit(_Document, frozen=True):
    """A commit of the core or of a custom node, and the tree entry that it is."""

    name: str
    """The folder's name: `ComfyUI` for the core, the name in custom_nodes/ for a node."""
    request: str
    """Digest of what the spec asks for (repository, ref, commit); another one is resolved again."""
    repo: str
    """The repository's URL without credentials; "" for a local path."""
    ref: str | None
    commit: str
    date: str
    """The committer's date in UTC, `YYYY-MM-DDTHH:MM:SSZ`."""
    entry: EntryId
    size: _Size
    submodules: tuple[Submodule, ...] = ()
    lfs: tuple[str, ...] = ()
    """Paths that are stored with Git LFS; the entry has their content."""
    installed: Installed | msgspec.UnsetType = msgspec.UNSET
    """Of a node with `run_install`, once its install.py ran; left out elsewhere."""

    @property
    def used(self) -> EntryId:
        """The tree that runs."""
        return self.installed.entry if self.installed else self.entry


class Interpreter(_Document, frozen=True, omit_defaults=True):
    """What an environment is made for. A patch difference at run time is only a warning.

    What has a default is left out where it says nothing: a record of before it is no other one.
    """

    implementation: str
    """`cpython`"""
    version: str
    """`3.11.7`; the first two numbers must match."""
    abi: str
    """`cp311`"""
    platform: str
    """`linux_x86_64`"""
    libc: str
    """`glibc 2.36`, the one that the wheels were chosen for; "" if unknown."""
    glibc_needed: str = ""
    """`2.28`, the highest that a wheel asks for by its tag; "" if none does."""
    glibc_needed_by: str = ""
    """The file name of that wheel, for messages."""


class Built(_Document, frozen=True, omit_defaults=True):
    """What a wheel was built from, where nobody publishes one that fits: all of its inputs."""

    url: str
    """Of the source archive, or of the repository, without credentials; "" for a local one."""
    date: str
    """What the build is told of the time, `YYYY-MM-DDTHH:MM:SSZ`: of the commit or the upload; ""
    where nobody says."""
    requires: "tuple[Wheel, ...]" = ()
    """The wheels that were installed for the build, its back end among them."""
    file: str = ""
    """The name of the source archive."""
    sha256: str = ""
    """Of the source archive."""
    commit: str = ""
    """Of the repository."""
    subdirectory: str = ""
    """Where in it the project is."""
    request: str = ""
    """Digest of the requirement that names the archive or repository; "" for what an index has."""
    compiler: str = ""
    """What the C compiler says of itself; "" for a wheel without compiled code."""

    @property
    def shown(self) -> str:
        """The source in words: `a-1.0.tar.gz`, `https://host/a@0123456789ab`."""
        if not self.commit:
            return self.file
        below = f"#{self.subdirectory}" if self.subdirectory else ""
        return f"{self.url or 'a local repository'}@{self.commit[:12]}{below}"


class Wheel(_Document, frozen=True, omit_defaults=True):
    """One wheel, pinned by its bytes."""

    name: str
    version: str
    file: str
    sha256: str
    size: _Size | None
    url: str
    """Where it is fetched; "" for one that came from a local folder (find_links, --wheels-dir)."""
    uploaded: str | None
    """When the index says it was uploaded; None if undated, so no date could exclude it."""
    required_by: tuple[str, ...] = ()
    """The requirers that name it: `ComfyUI`, a node's name, `python_packages`, other packages."""
    index: str = ""
    """The index that names it, without credentials, query and fragment; "" for a folder, for a
    wheel that was asked for by its URL, and where it is not known."""
    entry: EntryId | None = None
    """The tree that it became, once it was stored: found by it on a volume that has no ref. Another
    patch version of the interpreter may make another one, which is as good."""
    built: Built | None = None
    """What it was built from; None for one that was published."""


class Python(_Document, frozen=True):
    """The wheel set of a version."""

    interpreter: Interpreter
    exclude_newer: str | None
    """Nothing newer than this was considered; None for no limit."""
    wheels: tuple[Wheel, ...]
    ignored: tuple[str, ...] = ()
    """Lines of requirement files that were not followed, as `requirer: line`."""
    requirements: str = ""
    """Digest of all requirements that the wheels were chosen for."""
    provided: tuple[str, ...] = ()
    """Requirements that the image's interpreter meets, so that there is no wheel for them."""
    layout: int = 0
    """Of the wheels' entries, once they are known: those of another layout do not count."""


class ModelFile(_Document, frozen=True, omit_defaults=True):
    """A file of a model that is a folder."""

    path: str
    """In the folder, with '/' between the parts."""
    source: str
    """Its URL without credentials."""
    size: _Size | None
    sha256: str | None = None
    git: str | None = None
    """Its id as a blob of git, where its origin knows nothing better."""


class Model(_Document, frozen=True, omit_defaults=True):
    """One model and its place below models/. What has a default is left out where it says nothing:
    a lock of before it is no other one."""

    name: str
    path: str
    request: str
    """Digest of what the spec asks for (source, checksum)."""
    source: str
    """Its URL without credentials; "" for a local path."""
    size: _Size | None
    sha256: str | None
    """Known from the spec, or once it was fetched; a later fetch must fit it."""
    entry: EntryId | None
    """The BLAKE3 of its bytes, or the tree that a folder became, once known."""
    file: str = ""
    """What it is called at its origin, where that is another name."""
    mirrors: tuple[str, ...] = ()
    """Where else it is found: as `source`."""
    files: tuple[ModelFile, ...] = ()
    """Those of a folder; none for a model that is one file."""


class Parts(_Document, frozen=True):
    """One digest per part of the spec; a part whose digest differs is resolved again."""

    core: str
    nodes: str
    python: str
    models: str
    interpreter: str


class Lock(_Document, frozen=True):
    """A version, resolved."""

    schema_version: int
    version_id: str
    parts: Parts
    core: Commit
    nodes: tuple[Commit, ...]
    python: Python
    models: tuple[Model, ...]


def encode(lock: Lock) -> bytes:
    """The bytes of a lock file: sorted keys, two spaces, a final newline."""
    return document.pretty(lock)


def decode(data: bytes, where: str) -> Lock:
    """Reads a lock, strictly.

    Raises:
        InputError: not a lock, or newer than this code; names the field.
    """
    return _decode(document.load_json(data, where), where)


def _decode(parsed: Any, where: str) -> Lock:
    version = parsed.get("schema_version") if isinstance(parsed, dict) else None
    if type(version) is int and version != SCHEMA:
        raise InputError(
            f"{where}: schema_version: {str(version)[:40]} is not known, this cvs reads {SCHEMA}",
            hint="update cvs" if version > SCHEMA else "remove it: `cvs resolve` makes it anew",
        )
    lock = document.convert(parsed, Lock, where)
    _check_commit(lock.core, f"{where}: core")
    for index, node in enumerate(lock.nodes):
        _check_commit(node, f"{where}: nodes[{index}]")
    needed = lock.python.interpreter.glibc_needed
    if not _GLIBC.fullmatch(needed):
        raise InputError(
            f"{where}: python.interpreter.glibc_needed: {shown(needed)} is not like '2.28'"
        )
    for index, wheel in enumerate(lock.python.wheels):
        _check_wheel(wheel, f"{where}: python.wheels[{index}]")
    for index, model in enumerate(lock.models):
        place = f"{where}: models[{index}]"
        relative_path(model.path, f"{place}.path")
        for field, value in (("sha256", model.sha256), ("entry", model.entry)):
            if value is not None:
                _check_id(value, f"{place}.{field}")
        _check_files(model, place)
    nodes = [(node.name, f"{where}: nodes[{index}]") for index, node in enumerate(lock.nodes)]
    check_distinct(nodes, "custom node")
    models = [(model.path, f"{where}: models[{index}]") for index, model in enumerate(lock.models)]
    check_places(models, "model")
    for place, text in _texts(parsed, ""):
        if _CONTROL.search(text):
            raise InputError(f"{where}: {place[1:]}: {shown(text)} has control characters")
    return lock


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every text of a parsed lock, with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{place}[{index}]")


def _check_commit(commit: Commit, where: str) -> None:
    if "/" in relative_path(commit.name, f"{where}.name"):
        raise InputError(f"{where}.name: {shown(commit.name)} is not the name of one folder")
    _check_id(commit.entry, f"{where}.entry")
    if commit.installed:
        _check_id(commit.installed.entry, f"{where}.installed.entry")
    for text in (commit.commit, *(inner.commit for inner in commit.submodules)):
        if not is_commit(text):
            raise InputError(f"{where}: {shown(text)} is not a full commit")
    for inner in commit.submodules:
        relative_path(inner.path, f"{where}.submodules")


def _check_wheel(wheel: Wheel, where: str) -> None:
    if "/" in wheel.file or not wheel.file.endswith(".whl"):
        raise InputError(f"{where}.file: {shown(wheel.file)} is not the name of a wheel")
    relative_path(wheel.file, f"{where}.file")
    _check_id(wheel.sha256, f"{where}.sha256")
    if wheel.entry is not None:
        _check_id(wheel.entry, f"{where}.entry")
    if wheel.built is not None:
        _check_built(wheel.built, f"{where}.built")


def _check_built(built: Built, where: str) -> None:
    if bool(built.sha256) == bool(built.commit):
        raise InputError(f"{where}: either sha256 or commit is needed")
    if built.sha256:
        _check_id(built.sha256, f"{where}.sha256")
        if "/" in relative_path(built.file, f"{where}.file"):
            raise InputError(f"{where}.file: {shown(built.file)} is not the name of one file")
    elif not is_commit(built.commit):
        raise InputError(f"{where}.commit: {shown(built.commit)} is not a full commit")
    if built.subdirectory:
        relative_path(built.subdirectory, f"{where}.subdirectory")
    if built.date and not _MOMENT.fullmatch(built.date):
        raise InputError(f"{where}.date: {shown(built.date)} is not like '2026-01-31T12:00:00Z'")
    for index, wheel in enumerate(built.requires):
        place = f"{where}.requires[{index}]"
        if wheel.built is not None:
            raise InputError(f"{place}.built: what builds is not built itself")
        _check_wheel(wheel, place)


def _check_files(model: Model, where: str) -> None:
    if model.file and "/" in relative_path(model.file, f"{where}.file"):
        raise InputError(f"{where}.file: {shown(model.file)} is not the name of one file")
    if model.files and model.sha256 is not None:
        raise InputError(f"{where}.sha256: a folder has none")
    places = []
    for index, one in enumerate(model.files):
        place = f"{where}.files[{index}]"
        places.append((relative_path(one.path, f"{place}.path"), place))
        if one.sha256 is not None:
            _check_id(one.sha256, f"{place}.sha256")
        if one.git is not None and not _BLOB.fullmatch(one.git):
            raise InputError(f"{place}.git: {shown(one.git)} is not the id of a blob of git")
    check_places(places, "file")


def _check_id(text: str, where: str) -> None:
    if not is_id(text):
        raise InputError(f"{where}: {shown(text)} is not 64 lower-case hexadecimal digits")


def read(path: str) -> Lock | None:
    """The lock in a file; None if there is no such file, or one of the tool before cvs.

    Raises:
        InputError: as `decode`.
    """
    if not os.path.lexists(path):
        return None
    parsed = _parsed(path)
    return None if _is_before(parsed) else _decode(parsed, path)


def _parsed(path: str) -> Any:
    return document.load_json(document.read_bytes(path), path)


def _is_before(parsed: Any) -> bool:
    """Whether a parsed file is a lock of the tool that cvs replaces."""
    if not isinstance(parsed, dict) or "parts" in parsed:
        return False
    version = parsed.get("schema_version", 0)
    return "comfy" in parsed and type(version) is int and version < SCHEMA


def write(path: str, lock: Lock, tmp: str) -> None:
    """Replaces a lock file in one rename; on return it is kept, whatever happens.

    Args:
        tmp: the volume's folder for what is unfinished; a lock elsewhere is written beside itself,
            for no rename leads from one file system to another.
    """
    folder = os.path.dirname(os.path.abspath(path))
    fs.makedirs(folder)
    inside = os.path.dirname(folder) == os.path.dirname(tmp)
    with scratch.beside(folder, tmp if inside else None) as held:
        staged = os.path.join(held.folder, "lock")
        fs.write_synced(staged, encode(lock))
        if os.path.isfile(path) and _is_before(_parsed(path)):
            fs.rename(path, path + BEFORE)
        fs.rename(staged, path)
    fs.sync_folder(folder)
