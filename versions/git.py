"""Git: what a ref names, and the tree of a commit as an entry of the store.

No checkout is made: every object is read as it is, hashed, and compared with the name that the
commit gives it, so no attribute, filter or hook has a say and the entry is exactly the tree.
"""

import contextlib
import datetime
import difflib
import fcntl
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Literal, NamedTuple

import msgspec

from cvs.store import progress as talk
from cvs.store import refs
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, InputError, OfflineError, SourceError
from cvs.store.manifest import content_size
from cvs.store.progress import Progress
from cvs.store.stage import TreeWriter
from cvs.store.tree import TARGET_LIMIT, TreeError, quote
from cvs.versions import facts, git_errors, lfs, submodules
from cvs.versions.facts import Facts
from cvs.versions.git_process import Failed, Git
from cvs.versions.lock import Submodule
from cvs.versions.repository import Repository, check_ref, is_commit

#: What a ref turned out to be.
Kind = Literal["head", "branch", "tag", "ref", "commit"]

_SHORT = re.compile(r"[0-9a-fA-F]{7,39}")
_RECEIVING = re.compile(rb"Receiving objects:\s+\d+% \((\d+)/(\d+)\)")

#: How much of a history is fetched, commit by commit, from a server that gives only its refs.
_DEPTHS = (1, 100, 2147483647)

#: Limits that no real commit comes near; what exceeds them is made to exhaust its reader.
_NODE_LIMIT = 1_000_000
_PATH_LIMIT = 2048
_DEPTH_LIMIT = 128
_SUBMODULE_DEPTH = 8
_SUBMODULE_LIMIT = 256

_CHUNK = 1 << 20
_TAIL = 1 << 16


class Resolved(NamedTuple):
    """The commit that a ref names now."""

    commit: str
    kind: Kind


class FetchedCommit(msgspec.Struct, frozen=True):
    """A commit whose tree is an entry of the store; the fields are those of `lock.Commit`."""

    repo: str
    commit: str
    date: str
    entry: EntryId
    size: int
    submodules: tuple[Submodule, ...]
    lfs: tuple[str, ...]


def resolve(
    repository: Repository, ref: str | None, *, where: str, offline: bool = False
) -> Resolved:
    """Asks a repository which commit a ref names.

    Args:
        ref: a branch, a tag, a full name (`refs/…`), a commit of 7 or more digits, or None for
            HEAD. A full commit is taken as it is, without asking.
        where: the place of the repository in the spec, such as `versions/x.json: comfy`.
        offline: no connection may be made; a local repository needs none.

    Raises:
        InputError: no ref can be called so, there is none, or it names more than one commit.
        SourceError: the repository does not answer.
        OfflineError: a connection would be needed.
    """
    if ref is not None:
        check_ref(ref, f"{where}.ref")
        if is_commit(ref):
            return Resolved(ref, "commit")
    if offline and not repository.is_local:
        raise OfflineError(
            f"{where}: which commit {ref or 'HEAD'!r} of {repository.shown} is, only a connection "
            "tells, and none may be made"
        )
    with _workspace(repository) as git:
        tips = _tips(git, only_branches_and_tags=ref is not None and not ref.startswith("refs/"))
        found = _named(tips, ref, where, repository)
        if found is None and ref is not None and "/" in ref and not ref.startswith("refs/"):
            tips = _tips(git)
            found = _named(tips, f"refs/{ref}", where, repository)
        if found is None and ref is not None and _SHORT.fullmatch(ref):
            found = _abbreviated(git, tips, ref.lower(), where)
    if found is None:
        raise _unknown(tips, ref, where, repository)
    return found


def fetch_commit(
    store: Store,
    repository: Repository,
    commit: str,
    name: str,
    *,
    where: str,
    ref: str | None = None,
    progress: Progress = talk.SILENT,
    offline: bool = False,
    allow_local: bool = False,
) -> FetchedCommit:
    """Makes sure that the tree of a commit, with submodules and LFS files, is in the store.

    Args:
        name: what the folder is to be called; part of the entry.
        where: the place of the repository in the spec.
        ref: where to look first on a server that gives only what its refs name.
        offline: no connection may be made; a local repository needs none.
        allow_local: whether folders and servers of this machine may be read.

    Raises:
        InputError: not a commit, or a repository of this machine without `allow_local`.
        SourceError: the repository does not give the commit, a file of it, or a submodule.
        OfflineError: it is not stored yet and a connection would be needed.
        TreeError: the commit has names or links that no entry may have.
    """
    if not is_commit(commit):
        raise InputError(f"{where}: {commit!r} is not a full commit")
    if ref is not None:
        check_ref(ref, f"{where}.ref")
    if (repository.is_local or repository.is_loopback) and not allow_local:
        raise InputError(f"{where}: {repository.shown} is on this machine, which is not allowed")
    key = refs.key("commit 1", repository.canonical, commit, name)
    known = _stored(store, key, repository, commit)
    if known is not None:
        return known
    if offline and not repository.is_local:
        raise OfflineError(
            f"{where}: {repository.shown} at {commit} is not stored yet and no connection "
            "may be made"
        )
    with tempfile.TemporaryDirectory(prefix="cvs-git-") as folder:
        gathering = _Gathering(folder, progress, offline)
        gathering.add(repository, commit, b"", ref, 0)
        with store.stage() as stage:
            writer = stage.tree(name)
            files: list[str] = []
            with progress.task(f"store {name}", gathering.files, "items") as task:
                for part in gathering.parts:
                    with _in_words(part):
                        files += _write(part, writer, task, offline)
            with _in_words(gathering.parts[0]):
                staged = writer.finish(origin=f"{repository.public or name}@{commit}")
            entry = store.publish(staged)[0]
    learned = Facts(gathering.parts[0].date, tuple(gathering.submodules), tuple(sorted(files)))
    facts.put(store.volume, key, learned)
    refs.put(store.volume, "commit", key, entry)
    return _described(repository, commit, entry, content_size(staged.manifest), learned)


def _described(
    repository: Repository, commit: str, entry: EntryId, size: int, known: Facts
) -> FetchedCommit:
    return FetchedCommit(
        repo=repository.public,
        commit=commit,
        date=known.date,
        entry=entry,
        size=size,
        submodules=known.submodules,
        lfs=known.lfs,
    )


def _stored(store: Store, key: str, repository: Repository, commit: str) -> FetchedCommit | None:
    entry, known = refs.get(store.volume, "commit", key), facts.get(store.volume, key)
    if entry is None or known is None:
        return None
    try:
        size = content_size(store.manifest(entry))
    except EntryMissing:
        return None
    return _described(repository, commit, entry, size, known)


# Which commit a ref names


@contextlib.contextmanager
def _workspace(repository: Repository) -> Iterator[Git]:
    with tempfile.TemporaryDirectory(prefix="cvs-git-") as folder:
        yield Git(folder, repository)


def _tips(git: Git, *, only_branches_and_tags: bool = False) -> dict[str, str]:
    """The refs of a repository by their full names; a tag's peeled commit under `<name>^{}`."""
    repository = git.repository
    try:
        if repository.is_local:
            _local_folder(git)
            with git.process("-C", repository.url, "show-ref", "--head", "-d") as process:
                listing, errors = process.communicate()
            # Status 1: there is no ref at all.
            git.check(0 if process.returncode == 1 else process.returncode, errors)
        else:
            narrow = ("--heads", "--tags") if only_branches_and_tags else ()
            listing = git.output("ls-remote", *narrow, "--", repository.url)
    except Failed as failed:
        raise git_errors.explain(failed.stderr, repository) from failed
    tips = {}
    for line in listing.decode("utf-8", "surrogateescape").splitlines():
        commit, _, name = line.replace("\t", " ", 1).partition(" ")
        if is_commit(commit):
            tips[name] = commit
    return tips


def _named(
    tips: Mapping[str, str], ref: str | None, where: str, repository: Repository
) -> Resolved | None:
    def peeled(name: str) -> str | None:
        return tips.get(f"{name}^{{}}", tips.get(name))

    if ref is None or ref == "HEAD":
        head = tips.get("HEAD")
        return None if head is None else Resolved(head, "head")
    if ref.startswith("refs/"):
        kind: Kind = "ref"
        if ref.startswith(("refs/heads/", "refs/tags/")):
            kind = "branch" if ref.startswith("refs/heads/") else "tag"
        commit = peeled(ref)
        return None if commit is None else Resolved(commit, kind)
    branch, tag = peeled(f"refs/heads/{ref}"), peeled(f"refs/tags/{ref}")
    if branch is not None and tag is not None and branch != tag:
        raise InputError(
            f"ref {ref!r} is a branch and another tag of {repository.shown} ({where}.ref)",
            hint=f"write refs/heads/{ref} or refs/tags/{ref}",
        )
    if tag is not None:
        return Resolved(tag, "tag")
    return None if branch is None else Resolved(branch, "branch")


def _unknown(
    tips: Mapping[str, str], ref: str | None, where: str, repository: Repository
) -> InputError:
    names = [
        name.removeprefix("refs/heads/").removeprefix("refs/tags/")
        for name in tips
        if name.startswith(("refs/heads/", "refs/tags/")) and not name.endswith("^{}")
    ]
    printable = sorted({name for name in names if name.isprintable()})
    if ref is None or ref == "HEAD":
        if not tips:
            return InputError(f"{repository.shown} has no commit yet ({where})")
        hint = f"name one of its branches: {', '.join(printable[:5])}" if printable else None
        return InputError(f"{repository.shown} has no HEAD ({where})", hint=hint)
    near = difflib.get_close_matches(ref, printable, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else None
    if not near and 0 < len(printable) <= 5:
        hint = f"it has {', '.join(printable)}"
    return InputError(f"ref {ref!r} is not in {repository.shown} ({where}.ref)", hint=hint)


def _abbreviated(git: Git, tips: Mapping[str, str], short: str, where: str) -> Resolved | None:
    """The commit that begins with `short`: one that a ref names, else any of the history."""
    peeled = {
        commit
        for name, commit in tips.items()
        if commit.startswith(short) and f"{name}^{{}}" not in tips
    }
    if not peeled:
        peeled = set(_history(git, tips, short))
    if len(peeled) > 1:
        raise InputError(
            f"ref {short!r} is the beginning of several commits of {git.repository.shown} "
            f"({where}.ref)",
            hint=", ".join(sorted(commit[:16] for commit in peeled)[:4]),
        )
    return Resolved(peeled.pop(), "commit") if peeled else None


def _history(git: Git, tips: Mapping[str, str], short: str) -> list[str]:
    """The commits of the whole history that begin with `short`; no trees are fetched."""
    if not tips:
        return []
    try:
        place = [f"--git-dir={git.directory}"]
        if git.repository.is_local:
            place = ["-C", git.repository.url]
        else:
            _init(git, next(iter(tips.values())))
            git.output(
                *place,
                "fetch",
                "--quiet",
                "--no-tags",
                "--filter=tree:0",
                "--",
                git.repository.url,
                "+refs/heads/*:refs/heads/*",
                "+refs/tags/*:refs/tags/*",
            )
        found = git.output(*place, "rev-parse", f"--disambiguate={short}")
        with _listed(git, found.split()) as wanted:
            kinds = git.output(*place, "cat-file", "--batch-check", stdin=wanted)
    except Failed as failed:
        raise git_errors.explain(failed.stderr, git.repository) from failed
    lines = (line.split() for line in kinds.decode().splitlines())
    return [words[0] for words in lines if words[1:2] == ["commit"]]


# Fetching: every repository that a tree consists of, before anything is written


class _Node(NamedTuple):
    """A line of a commit's tree, as git has it."""

    mode: str
    id: str
    path: bytes


class _Part(NamedTuple):
    """A commit that was fetched, and where in the entry its tree goes (`prefix` ends in '/')."""

    git: Git
    commit: str
    prefix: bytes
    date: str
    root: str
    nodes: list[_Node]


class _Gathering:
    """Fetches a commit and its submodules."""

    def __init__(self, folder: str, progress: Progress, offline: bool) -> None:
        self.parts: list[_Part] = []
        self.submodules: list[Submodule] = []
        self.files = 0
        self._folder = folder
        self._progress = progress
        self._offline = offline

    def add(
        self, repository: Repository, commit: str, prefix: bytes, ref: str | None, depth: int
    ) -> None:
        """Fetches a commit whose tree is written below `prefix`."""
        folder = os.path.join(self._folder, str(len(self.parts)))
        os.mkdir(folder)
        git = Git(folder, repository)
        if repository.is_local:
            _borrow(git, commit)
        else:
            _fetch(git, commit, ref, self._progress)
        date, root = _commit(git, commit)
        part = _Part(git, commit, prefix, date, root, _nodes(git, commit))
        self.parts.append(part)
        self.files += len(part.nodes)
        with _in_words(part):
            links = [node for node in part.nodes if _checked(node, prefix).mode == "160000"]
        if links:
            self._add_submodules(part, links, depth + 1)

    def _add_submodules(self, part: _Part, links: list[_Node], depth: int) -> None:
        parent = part.git.repository
        urls = _modules(part)
        for node in links:
            path = part.prefix + node.path
            url = urls.get(node.path)
            if url is None:
                self._progress.warn(
                    f"{quote(path)} of {parent.shown} is a submodule that its .gitmodules does "
                    "not name: the folder stays empty"
                )
                continue
            if depth > _SUBMODULE_DEPTH or len(self.submodules) >= _SUBMODULE_LIMIT:
                raise SourceError(
                    f"{parent.shown} has submodules below submodules without end: {quote(path)}"
                )
            found = submodules.locate(url, parent, node.path)
            if self._offline and not found.is_local:
                raise OfflineError(
                    f"{quote(path)} of {parent.shown} is a submodule from {found.shown} and no "
                    "connection may be made"
                )
            self.submodules.append(Submodule(path=quote(path), repo=found.public, commit=node.id))
            self.add(found, node.id, path + b"/", None, depth)


def _init(git: Git, commit: str) -> None:
    """Makes the private repository that objects are fetched into."""
    format = "sha256" if len(commit) == 64 else "sha1"
    git.output(
        *("init", "--quiet", "--bare", "--template=", f"--object-format={format}"), git.directory
    )


def _fetch(git: Git, commit: str, ref: str | None, progress: Progress) -> None:
    """Fetches one commit without its history; more only where the server gives no less."""
    repository = git.repository
    try:
        _init(git, commit)
        _fetch_refs(git, 1, progress, commit)
        return
    except Failed as failed:
        if not git_errors.refuses_bare_commit(failed.stderr):
            raise _refused(git, commit, failed) from failed
    attempts = [] if ref is None or is_commit(ref) else [(depth, (ref,)) for depth in _DEPTHS]
    everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    for depth, names in (*attempts, *((depth, everything) for depth in _DEPTHS)):
        try:
            _fetch_refs(git, depth, progress, *names)
            git.output(f"--git-dir={git.directory}", "cat-file", "-e", f"{commit}^{{commit}}")
            return
        except Failed as failed:
            # Not among these; a ref that is gone is no reason to give up either.
            if "Not a valid object name" in failed.stderr or not failed.stderr.strip():
                continue
            if git_errors.has_no_commit(failed.stderr):
                continue
            raise _refused(git, commit, failed) from failed
    raise SourceError(f"commit {commit} is not in {repository.shown}")


def _fetch_refs(git: Git, depth: int, progress: Progress, *names: str) -> None:
    options = ("--progress", f"--depth={depth}", "--no-tags", "--no-write-fetch-head")
    with (
        progress.task(f"fetch {git.repository.name}", None, "items") as task,
        git.process(
            f"--git-dir={git.directory}", "fetch", *options, "--", git.repository.url, *names
        ) as process,
    ):
        assert process.stderr is not None
        tail, received = b"", 0
        while chunk := os.read(process.stderr.fileno(), _TAIL):
            tail = (tail + chunk)[-_TAIL:]
            if found := _RECEIVING.findall(chunk):
                done, total = map(int, found[-1])
                task.total(total)
                task.advance(max(0, done - received))
                received = max(done, received)
        git.check(process.wait(), tail)


def _refused(git: Git, commit: str, failed: Failed) -> Exception:
    """Why a server did not give a commit."""
    repository = git.repository
    if git_errors.has_no_commit(failed.stderr):
        return SourceError(f"commit {commit} is not in {repository.shown}")
    missing = git_errors.missing_object(failed.stderr)
    if missing is None:
        return git_errors.explain(failed.stderr, repository)
    # The trees alone tell which file it was.
    path = f"object {missing}"
    with _workspace(repository) as trees:
        try:
            _init(trees, commit)
            options = ("--quiet", "--depth=1", "--no-tags", "--filter=blob:none")
            trees.output(
                f"--git-dir={trees.directory}", "fetch", *options, "--", repository.url, commit
            )
            nodes = _nodes(trees, commit)
        except (Failed, SourceError):
            nodes = []
    path = next((quote(node.path) for node in nodes if node.id == missing), path)
    return _damaged(path, "missing", commit, repository)


def _damaged(path: str, how: str, commit: str, repository: Repository) -> SourceError:
    return SourceError(f"{repository.shown} is damaged: {path} of commit {commit[:12]} is {how}")


def _local_folder(git: Git) -> tuple[str, str, str]:
    """The git folder of a local repository, its objects' folder, and their format.

    Raises:
        Failed: there is no repository.
    """
    answer = git.output(
        *("-C", git.repository.url, "rev-parse", "--path-format=absolute", "--git-common-dir"),
        *("--git-path", "objects", "--show-object-format"),
    )
    common, objects, format = os.fsdecode(answer).rstrip("\n").split("\n")
    return common, objects, format


def _borrow(git: Git, commit: str) -> None:
    """Reads the objects of a local repository where they are, with nothing of its settings."""
    try:
        _, objects, format = _local_folder(git)
        _init(git, commit)
    except Failed as failed:
        raise git_errors.explain(failed.stderr, git.repository) from failed
    if format != ("sha256" if len(commit) == 64 else "sha1"):
        raise SourceError(f"commit {commit} is not in {git.repository.shown}")
    with open(os.path.join(git.directory, "objects/info/alternates"), "w") as file:
        file.write(objects + "\n")


def _commit(git: Git, commit: str) -> tuple[str, str]:
    """The date of a commit and the id of its tree."""
    shown = git.repository.shown
    with git.process(f"--git-dir={git.directory}", "cat-file", "commit", commit) as process:
        data, _ = process.communicate()
    if process.returncode != 0:
        raise SourceError(f"commit {commit} is not in {shown}")
    if _hasher(commit, "commit", len(data), data).hexdigest() != commit:
        raise SourceError(f"{shown} is damaged: its commit {commit} has other content")
    fields: dict[bytes, bytes] = {}
    for line in data.partition(b"\n\n")[0].split(b"\n"):
        key, _, value = line.partition(b" ")
        fields.setdefault(key, value)
    try:
        seconds = int(fields[b"committer"].rpartition(b"> ")[2].split(b" ")[0])
        date = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        root = fields[b"tree"].decode("ascii")
    except (KeyError, ValueError, OverflowError, OSError):
        raise SourceError(f"commit {commit} of {shown} has no valid date or tree") from None
    return date.strftime("%Y-%m-%dT%H:%M:%SZ"), root


def _nodes(git: Git, commit: str) -> list[_Node]:
    """All lines of a commit's tree, folders before what is in them."""
    nodes: list[_Node] = []
    options = ("-r", "-t", "-z", "--full-tree")
    with git.process(f"--git-dir={git.directory}", "ls-tree", *options, commit) as process:
        assert process.stdout is not None and process.stderr is not None
        rest = b""
        while chunk := os.read(process.stdout.fileno(), _CHUNK):
            *lines, rest = (rest + chunk).split(b"\0")
            for line in lines:
                head, _, path = line.partition(b"\t")
                mode, _, id = head.decode("ascii").split(" ")
                nodes.append(_Node(mode, id, path))
            if len(nodes) > _NODE_LIMIT:
                raise SourceError(
                    f"commit {commit[:12]} of {git.repository.shown} has more than "
                    f"{_NODE_LIMIT:,} files"
                )
        errors = process.stderr.read()
        status = process.wait()
    try:
        git.check(status, errors)
    except Failed as failed:
        missing = re.search(r"[0-9a-f]{40,64}", failed.stderr)
        what = f"object {missing[0]}" if missing else "a folder"
        raise _damaged(what, "missing", commit, git.repository) from failed
    return nodes


def _checked(node: _Node, prefix: bytes) -> _Node:
    """Raises TreeError for a path that git itself would not check out, or made to exhaust us."""
    path = prefix + node.path
    if len(path) > _PATH_LIMIT or path.count(b"/") > _DEPTH_LIMIT:
        raise TreeError(f"the path {quote(path[:80])!r}… is too long")
    if b".git" in path.lower().split(b"/"):
        raise TreeError(f"{quote(path)!r} would be a repository inside the tree")
    if b"" in node.path.split(b"/"):
        raise TreeError(f"{quote(path)!r} cannot be the name of a file in an entry")
    return node


def _modules(part: _Part) -> dict[bytes, str]:
    """The URLs that `.gitmodules` gives, by path."""
    found = [node for node in part.nodes if node.path == b".gitmodules"]
    if not found or not found[0].mode.startswith("100"):
        return {}
    pattern = r"^submodule\..*\.(path|url)$"
    options = ("--no-includes", "--blob", found[0].id, "--get-regexp", pattern)
    git = part.git
    with git.process(f"--git-dir={git.directory}", "config", "-z", *options) as process:
        listing, errors = process.communicate()
    # Status 1: nothing fits.
    if process.returncode > 1:
        raise SourceError(
            f"{git.repository.shown} at {part.commit[:12]}: .gitmodules cannot be read"
        ) from Failed(errors.decode("utf-8", "replace"))
    return submodules.read(listing)


# Writing: the objects of a part, in the order of its tree, out of one stream


def _write(part: _Part, writer: TreeWriter, task: talk.Task, offline: bool) -> list[str]:
    """Writes a part's tree and returns the paths of what Git LFS had."""
    git = part.git
    pointers: list[lfs.Pointer] = []
    objects = [part.root, *(node.id for node in part.nodes if node.mode != "160000")]
    with (
        _listed(git, [id.encode() for id in objects]) as wanted,
        git.process(
            f"--git-dir={git.directory}", "cat-file", "--batch", "--buffer", stdin=wanted
        ) as process,
    ):
        assert process.stdout is not None
        stream = _Objects(process.stdout, part)
        stream.folder(_Node("040000", part.root, b""))
        for node in part.nodes:
            path = part.prefix + node.path
            if node.mode == "040000":
                stream.folder(node)
                writer.folder(path)
            elif node.mode == "160000":
                writer.folder(path)
            elif node.mode == "120000":
                writer.link(path, stream.target(node))
            else:
                _write_file(stream, node, path, writer, pointers)
            task.advance(1)
    for item, chunks in _contents(part, pointers, offline):
        writer.write_chunks(item.path, chunks, item.executable)
    return [quote(item.path) for item in pointers]


def _write_file(
    stream: "_Objects", node: _Node, path: bytes, writer: TreeWriter, pointers: list[lfs.Pointer]
) -> None:
    executable = bool(int(node.mode, 8) & 0o100)
    size = stream.begin(node, "blob")
    if size > _CHUNK:
        writer.write_chunks(path, stream.chunks(node, size), executable)
        return
    data = stream.whole(node, "blob", size)
    found = lfs.pointer(path, data, executable) if size < lfs.POINTER_LIMIT else None
    if found is None:
        writer.write(path, data, executable)
    else:
        pointers.append(found)


def _contents(
    part: _Part, pointers: list[lfs.Pointer], offline: bool
) -> Iterator[tuple[lfs.Pointer, Iterable[bytes | memoryview]]]:
    git, objects = part.git, None
    if pointers and git.repository.is_local:
        try:
            objects = os.path.join(_local_folder(git)[0], "lfs", "objects")
        except Failed as failed:
            raise git_errors.explain(failed.stderr, git.repository) from failed
    return lfs.fetch(
        pointers, git.repository, objects=objects, login=lambda: _login(git), offline=offline
    )


def _login(git: Git) -> tuple[str, str] | None:
    """User name and password of the repository's host, as the user's credential helpers know it."""
    scheme, _, rest = git.repository.url.partition("://")
    host, _, path = rest.partition("/")
    with tempfile.TemporaryFile(dir=git.folder) as question:
        question.write(f"protocol={scheme}\nhost={host}\npath={path}\n\n".encode())
        question.seek(0)
        try:
            answer = git.output("credential", "fill", stdin=question)
        except Failed:
            # No helper knows one, and nobody may be asked.
            return None
    fields = dict(line.split("=", 1) for line in answer.decode().splitlines() if "=" in line)
    if "username" not in fields or "password" not in fields:
        return None
    return fields["username"], fields["password"]


class _Objects:
    """The output of `git cat-file --batch`: each object checked against the id it goes by."""

    def __init__(self, stream: IO[bytes], part: _Part) -> None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _CHUNK)
        self._stream = io.BufferedReader(io.FileIO(stream.fileno(), closefd=False), _CHUNK)
        self._part = part

    def folder(self, node: _Node) -> None:
        """Checks the object that a folder is; `git ls-tree` has read it."""
        self.whole(node, "tree", self.begin(node, "tree"))

    def target(self, node: _Node) -> bytes:
        """The target of a symbolic link."""
        size = self.begin(node, "blob")
        if size > TARGET_LIMIT:
            raise TreeError(f"the link {quote(node.path)!r} has a target that is too long")
        return self.whole(node, "blob", size)

    def begin(self, node: _Node, kind: str) -> int:
        """Reads the head of the next object, which is that of `node`, and returns its size."""
        words = self._stream.readline().split()
        if words != [node.id.encode(), kind.encode(), *words[2:]] or len(words) != 3:
            raise self._damaged(node, "missing" if words[1:] == [b"missing"] else "not readable")
        return int(words[2])

    def whole(self, node: _Node, kind: str, size: int) -> bytes:
        """The content of the object that was begun."""
        data = self._stream.read(size)
        if _hasher(node.id, kind, size, data).hexdigest() != node.id:
            raise self._damaged(node, "not what its name says")
        self._stream.read(1)
        return data

    def chunks(self, node: _Node, size: int) -> Iterator[bytes]:
        """The content of the blob that was begun, in pieces of up to 1 MiB."""
        hasher, left = _hasher(node.id, "blob", size), size
        while left:
            chunk = self._stream.read(min(left, _CHUNK))
            if not chunk:
                break
            hasher.update(chunk)
            left -= len(chunk)
            yield chunk
        if hasher.hexdigest() != node.id:
            raise self._damaged(node, "not what its name says")
        self._stream.read(1)

    def _damaged(self, node: _Node, how: str) -> SourceError:
        path = quote(self._part.prefix + node.path) or "the root folder"
        return _damaged(path, how, self._part.commit, self._part.git.repository)


def _hasher(id: str, kind: str, size: int, data: bytes = b"") -> "hashlib._Hash":
    """A hash of git's that names an object, SHA-1 or SHA-256 by the length of `id`."""
    new = hashlib.sha1 if len(id) == 40 else hashlib.sha256
    hasher = new(b"%s %d\0" % (kind.encode(), size), usedforsecurity=False)
    hasher.update(data)
    return hasher


@contextlib.contextmanager
def _listed(git: Git, ids: Iterable[bytes]) -> Iterator[IO[bytes]]:
    """A file with one id a line, as standard input: written whole, it can stop no pipe."""
    with tempfile.TemporaryFile(dir=git.folder) as file:
        file.write(b"".join(id + b"\n" for id in ids))
        file.seek(0)
        yield file


@contextlib.contextmanager
def _in_words(part: _Part) -> Iterator[None]:
    """Adds the repository and commit to what is wrong with a tree."""
    try:
        yield
    except TreeError as error:
        shown = part.git.repository.shown
        raise TreeError(f"{shown} at {part.commit[:12]}: {error.message}") from None
