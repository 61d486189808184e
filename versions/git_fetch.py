"""Fetching: a commit and its submodules, each without its history, before anything is written."""

import os
import re

from cvs.store.errors import OfflineError, SourceError
from cvs.store.progress import Progress
from cvs.store.tree import NODE_LIMIT, TreeError, quote
from cvs.versions import git_errors, submodules
from cvs.versions.git_objects import (
    Node,
    Part,
    damaged,
    in_words,
    local_folder,
    nodes_of,
)
from cvs.versions.git_process import Failed, Git, workspace
from cvs.versions.git_refs import tips_of
from cvs.versions.lock import Submodule
from cvs.versions.repository import Repository, is_commit

_RECEIVING = re.compile(rb"Receiving objects:\s+\d+% \((\d+)/(\d+)\)")

#: How much of a history is fetched, commit by commit, from a server that gives only its refs.
_DEPTHS = (1, 100, 2147483647)

#: Limits that no real commit comes near; what exceeds them is made to exhaust its reader.
_PATH_LIMIT = 2048
_DEPTH_LIMIT = 128
_SUBMODULE_DEPTH = 8
_SUBMODULE_LIMIT = 256

#: Bytes of the largest .gitmodules, and of what git makes of it: it names each section in full
#: before each of its settings.
_MODULES_LIMIT, _LISTING_LIMIT = 1 << 20, 8 << 20

#: How much of what git says is kept, in bytes.
_TAIL = 1 << 16


class Gathering:
    """Fetches a commit and its submodules."""

    def __init__(self, folder: str, progress: Progress, offline: bool) -> None:
        self.parts: list[Part] = []
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
        part = Part(git, commit, prefix, nodes_of(git, commit))
        self.parts.append(part)
        self.files += len(part.nodes)
        with in_words(part):
            _check(part)
            if self.files > NODE_LIMIT:
                raise TreeError(f"with its submodules it has more than {NODE_LIMIT:,} files")
        links = [node for node in part.nodes if node.mode == "160000"]
        if links:
            self._add_submodules(part, links, depth + 1)

    def _add_submodules(self, part: Part, links: list[Node], depth: int) -> None:
        parent = part.git.repository
        if len(links) > _SUBMODULE_LIMIT:
            raise SourceError(f"{parent.shown} has more than {_SUBMODULE_LIMIT} submodules")
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


def fetch_history(git: Git, commit: str) -> None:
    """Fetches a commit with all that led to it and the tags, and makes it the HEAD and the index.

    Raises:
        SourceError: the repository does not give it.
    """
    repository = git.repository
    try:
        if repository.is_local:
            _borrow(git, commit)
            tips = tips_of(git)
            with open(os.path.join(git.directory, "packed-refs"), "w", encoding="utf-8") as file:
                for name in sorted(tips):
                    if name.startswith("refs/tags/") and not name.endswith("^{}"):
                        file.write(f"{tips[name]} {name}\n")
        else:
            git.init(commit)
            options = ("--quiet", "--tags", "--no-write-fetch-head")
            branches = "+refs/heads/*:refs/remotes/origin/*"
            git.output(git.inside, "fetch", *options, "--", repository.url, branches)
            try:
                git.output(git.inside, "cat-file", "-e", f"{commit}^{{commit}}")
            except Failed:
                git.output(git.inside, "fetch", *options, "--", repository.url, commit)
        git.output(git.inside, "update-ref", "--no-deref", "HEAD", commit)
        git.output(git.inside, "read-tree", commit)
        git.output(git.inside, "config", "core.bare", "false")
    except Failed as failed:
        raise git_errors.explain(failed.stderr, repository) from failed


def _fetch(git: Git, commit: str, ref: str | None, progress: Progress) -> None:
    """Fetches one commit without its history; more only where the server gives no less."""
    repository = git.repository
    try:
        git.init(commit)
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
            git.output(git.inside, "cat-file", "-e", f"{commit}^{{commit}}")
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
        git.process(git.inside, "fetch", *options, "--", git.repository.url, *names) as process,
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
    with workspace(repository) as trees:
        try:
            trees.init(commit)
            options = ("--quiet", "--depth=1", "--no-tags", "--filter=blob:none")
            trees.output(trees.inside, "fetch", *options, "--", repository.url, commit)
            nodes = nodes_of(trees, commit)
        except (Failed, SourceError):
            nodes = []
    path = next((quote(node.path) for node in nodes if node.id == missing), path)
    return damaged(path, "missing", commit, repository)


def _borrow(git: Git, commit: str) -> None:
    """Reads the objects of a local repository where they are, with nothing of its settings."""
    try:
        _, objects, format = local_folder(git)
        git.init(commit)
    except Failed as failed:
        raise git_errors.explain(failed.stderr, git.repository) from failed
    if format != ("sha256" if len(commit) == 64 else "sha1"):
        raise SourceError(f"commit {commit} is not in {git.repository.shown}")
    with open(os.path.join(git.directory, "objects/info/alternates"), "w") as file:
        file.write(objects + "\n")


def _check(part: Part) -> None:
    """Raises TreeError for a tree that git itself would not check out, or made to exhaust us."""
    folders = {b""}
    for node in part.nodes:
        path = part.prefix + node.path
        if len(path) > _PATH_LIMIT or path.count(b"/") > _DEPTH_LIMIT:
            raise TreeError(f"the path {quote(path[:80])!r}… is too long")
        parent, _, name = node.path.rpartition(b"/")
        if name.lower() == b".git":
            raise TreeError(f"{quote(path)!r} would be a repository inside the tree")
        # A name with a '/' in it looks like a file in a folder that nobody listed.
        if parent not in folders or node.path.startswith(b"/"):
            raise TreeError(f"{quote(path)!r} cannot be the name of a file in an entry")
        if node.mode == "040000":
            folders.add(node.path)


def _modules(part: Part) -> dict[bytes, str]:
    """The URLs that `.gitmodules` gives, by path."""
    found = [node for node in part.nodes if node.path == b".gitmodules"]
    if not found or not found[0].mode.startswith("100"):
        return {}
    git, blob = part.git, found[0].id
    where = f"{git.repository.shown} at {part.commit[:12]}: .gitmodules"
    try:
        if int(git.output(git.inside, "cat-file", "-s", blob)) > _MODULES_LIMIT:
            raise SourceError(f"{where} is larger than {_MODULES_LIMIT >> 20} MiB")
        with git.process(
            *(git.inside, "config", "-z", "--no-includes", "--blob", blob, "--list")
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            listing = process.stdout.read(_LISTING_LIMIT + 1)
            if len(listing) > _LISTING_LIMIT:
                raise SourceError(f"{where} has sections that are too long")
            git.check(process.wait(), process.stderr.read())
    except Failed as failed:
        raise SourceError(f"{where} cannot be read") from failed
    return submodules.read(listing)
