"""Git: what a ref names, and the tree of a commit as an entry of the store.

No checkout is made: every object is read as it is, hashed, and compared with the name that the
commit gives it, so no attribute, filter or hook has a say and the entry is exactly the tree.
"""

import os

import msgspec

from cvs.store import progress as talk
from cvs.store import refs, temporary
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, InputError, OfflineError
from cvs.store.manifest import content_size
from cvs.store.progress import Progress
from cvs.store.stage import Stage, Staged
from cvs.versions import facts
from cvs.versions.facts import Facts
from cvs.versions.git_fetch import Gathering, fetch_history
from cvs.versions.git_objects import in_words
from cvs.versions.git_process import workspace
from cvs.versions.git_refs import SHORT, Resolved, abbreviated, named, tips_of, unknown
from cvs.versions.git_tree import write_part
from cvs.versions.lock import Submodule
from cvs.versions.repository import Repository, check_ref, is_commit


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
    with workspace(repository) as git:
        plain = ref is not None and ref != "HEAD" and not ref.startswith("refs/")
        tips = tips_of(git, only_branches_and_tags=plain)
        found = named(tips, ref, where, repository)
        if found is None and ref is not None and plain and "/" in ref:
            tips = tips_of(git)
            found = named(tips, f"refs/{ref}", where, repository)
        if found is None and ref is not None and SHORT.fullmatch(ref):
            found = abbreviated(git, tips, ref.lower(), where)
    if found is None:
        raise unknown(tips, ref, where, repository)
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
    _check(repository, commit, where, ref, allow_local)
    key = refs.key("commit 1", repository.canonical, commit, name)
    known = _stored(store, key, repository, commit)
    if known is not None:
        return known
    _check_online(repository, commit, where, offline)
    with store.stage() as stage:
        staged, learned = stage_commit(
            stage,
            repository,
            commit,
            name,
            where=where,
            ref=ref,
            progress=progress,
            offline=offline,
            allow_local=allow_local,
        )
        entry = store.publish(staged)[0]
    facts.put(store.volume, facts.COMMITS, key, learned)
    refs.put(store.volume, "commit", key, entry)
    return _described(repository, commit, entry, content_size(staged.manifest), learned)


def stage_commit(
    stage: Stage,
    repository: Repository,
    commit: str,
    name: str,
    *,
    where: str,
    ref: str | None = None,
    progress: Progress = talk.SILENT,
    offline: bool = False,
    allow_local: bool = False,
) -> tuple[Staged, Facts]:
    """Writes the tree of a commit, with submodules and LFS files, into a stage.

    Args, Raises: as `fetch_commit`, whatever is stored.
    """
    _check(repository, commit, where, ref, allow_local)
    _check_online(repository, commit, where, offline)
    with temporary.folder() as held:
        gathering = Gathering(held.folder, progress, offline)
        gathering.add(repository, commit, b"", ref, 0)
        writer = stage.tree(name)
        written = []
        with progress.task(f"store {name}", gathering.files, "items") as task:
            for part in gathering.parts:
                with in_words(part):
                    written.append(write_part(part, writer, task, offline))
        with in_words(gathering.parts[0]):
            staged = writer.finish(origin=f"{repository.public or name}@{commit}")
    learned = Facts(
        date=written[0].date,
        submodules=tuple(gathering.submodules),
        lfs=tuple(sorted(path for one in written for path in one.lfs)),
    )
    return staged, learned


def _check(
    repository: Repository, commit: str, where: str, ref: str | None, allow_local: bool
) -> None:
    if not is_commit(commit):
        raise InputError(f"{where}: {commit!r} is not a full commit")
    if ref is not None:
        check_ref(ref, f"{where}.ref")
    if (repository.is_local or repository.is_loopback) and not allow_local:
        raise InputError(f"{where}: {repository.shown} is on this machine, which is not allowed")


def _check_online(repository: Repository, commit: str, where: str, offline: bool) -> None:
    if offline and not repository.is_local:
        raise OfflineError(
            f"{where}: {repository.shown} at {commit} is not stored yet and no connection "
            "may be made"
        )


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
    entry, known = (
        refs.get(store.volume, "commit", key),
        facts.get(store.volume, facts.COMMITS, key, Facts),
    )
    if entry is None or known is None:
        return None
    try:
        size = content_size(store.manifest(entry))
    except EntryMissing:
        return None
    return _described(repository, commit, entry, size, known)


def add_history(repository: Repository, commit: str, folder: str) -> None:
    """Makes a folder that has the tree of a commit a repository with all that led to the commit,
    and the tags, for build tools that ask git which version this is.

    Raises:
        SourceError: the repository does not give it.
    """
    with workspace(repository) as git:
        fetch_history(git, commit)
        os.rename(git.directory, os.path.join(folder, ".git"))
