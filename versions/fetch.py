"""Fetching into the store: what is on its way survives whoever fetches it, and is checked whole.

Of processes that want the same at once one fetches; the others wait, and go on with it if that one
is gone. Whatever they do, what is published was digested by who publishes it.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cvs.store import follower, partial, refs
from cvs.store.copying import Copied
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import IntegrityError, StoreError
from cvs.store.ingest import chunks
from cvs.store.partial import Partial, PartialFile
from cvs.store.stage import Staged, TreeListing, file_entry
from cvs.store.units import size as shown_size
from cvs.store.writeback import Writeback
from cvs.versions import download, parallel, transfer
from cvs.versions.access import Access
from cvs.versions.remote import Remote

#: Files of a folder that are fetched at once.
_FILES = 4

#: Seconds between two looks at what another process fetches.
_LOOK = 0.5

#: Where is noted what an address had under which name of its version.
_FETCHED = "fetched"


class Expected(NamedTuple):
    """A file that is wanted, and what is known of it."""

    name: str
    """What it is called, for messages, and for the suffix that loaders want."""
    origin: str
    """Where it comes from, without credentials."""
    where: str
    """The place in the spec, which begins messages."""
    size: int | None = None
    sha256: str | None = None
    entry: EntryId | None = None
    git: str | None = None
    """Its id as a blob of git."""

    @property
    def is_known(self) -> bool:
        """Whether a digest says what the bytes have to be."""
        return any((self.sha256, self.entry, self.git))

    @property
    def key(self) -> str:
        """What a partial entry of it is called."""
        if self.sha256 or self.entry:
            # By one of them, whichever else is known: the same file may be wanted from two origins.
            return partial.key("digest", self.sha256 or self.entry or "")
        return partial.key("origin", self.origin, self.git or "")


#: Looks at a complete file and raises if it is no model; told its path and its name.
Check = Callable[[str, str], object]


def file(store: Store, remote: Remote, expected: Expected, access: Access, check: Check) -> EntryId:
    """Fetches a file and publishes it as an entry.

    Raises:
        IntegrityError: the bytes have another digest; names both, keeps nothing.
        SourceError: the server does not give it.
        StoreError: there is no room.
    """
    partial.sweep(store.volume)
    waiting = _Waiting(store, expected, access)
    held = partial.hold(store.volume, expected.key, waiting.wait)
    if held is None:
        return waiting.result()
    with held, _kept(held):
        found = waiting.found() or (waiting.waited and _same(store, remote, expected))
        if found:
            held.discard()
            return found
        with held.content() as content:
            copied, validator = _complete(store, content, remote, expected, access, check)
        (entry,) = store.publish(
            file_entry(held, copied, origin=expected.origin, name=expected.name)
        )
        held.discard()
        refs.put(store.volume, "sha256", copied.sha256.hex(), entry)
        if validator and not validator.startswith("W/"):
            key = refs.key(expected.origin, str(copied.size), validator)
            refs.put(store.volume, _FETCHED, key, entry)
        return entry


def folder(
    store: Store,
    name: str,
    files: Sequence[tuple[str, Remote, Expected]],
    access: Access,
    check: Check,
    *,
    origin: str,
    where: str,
) -> EntryId:
    """Fetches the files of a folder and publishes them as one tree.

    Args:
        name: of the tree.
        files: by their paths in it.

    Raises: as `file`.
    """
    wanted = [f"{path} {one.key}" for path, _, one in files]
    held = partial.hold(
        store.volume, partial.key("folder", name, *wanted), functools.partial(_patience, access)
    )
    assert held is not None
    with held, _kept(held):
        jobs = [
            functools.partial(
                _one_of_many, store, held, number, f"{name}/{path}", remote, one, access, check
            )
            for number, (path, remote, one) in enumerate(files)
        ]
        copied = parallel.gather(jobs, workers=_FILES, stop=access.stop)
        listing = TreeListing(name)
        parents = {parent for path, _, _ in files for parent in _parents(path)}
        for parent in sorted(parents):
            listing.folder(os.fsencode(parent))
        for (path, _, _), one in zip(files, copied, strict=True):
            listing.file(os.fsencode(path), one.size, one.digest, False)
        entry, document = listing.finish(origin)
        (published,) = store.publish(Staged(entry, document, held))
        held.discard()
        return published


def _one_of_many(
    store: Store,
    held: Partial,
    number: int,
    path: str,
    remote: Remote,
    expected: Expected,
    access: Access,
    check: Check,
) -> Copied:
    with held.file(number, path) as content:
        return _complete(store, content, remote, expected, access, check)[0]


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _patience(access: Access, _seconds: float) -> bool:
    parallel.check(access.stop)
    access.stop.wait(_LOOK)
    return True


class _Waiting:
    """What happens while another process fetches the same."""

    def __init__(self, store: Store, expected: Expected, access: Access) -> None:
        self._store, self._expected, self._access = store, expected, access
        self.waited = False

    def found(self) -> EntryId | None:
        """The entry, where a digest says which one it is, and it is there."""
        entry = self._expected.entry
        if entry is None and self._expected.sha256 is not None:
            entry = refs.get(self._store.volume, "sha256", self._expected.sha256)
        return entry if entry is not None and self._store.has(entry) else None

    def result(self) -> EntryId:
        """What the waiting ended for."""
        found = self.found()
        assert found is not None
        return found

    def wait(self, seconds: float) -> bool:
        """Waits a moment; whether to wait longer."""
        if not self.waited:
            self._access.progress.note(
                f"another process is fetching {self._expected.name}: waiting for it"
            )
        self.waited = True
        if self.found():
            return False
        return _patience(self._access, seconds)


def _same(store: Store, remote: Remote, expected: Expected) -> EntryId | None:
    """What another process just fetched from the same address, if that still has it under the
    same name of its version."""
    reply = download.answer(remote)
    key = refs.key(expected.origin, str(reply.size), reply.validator)
    entry = refs.get(store.volume, _FETCHED, key) if reply.validator else None
    return entry if entry is not None and store.has(entry) else None


@contextlib.contextmanager
def _kept(held: Partial) -> Iterator[None]:
    """After an error keeps what is there for the next run, if anything is."""
    try:
        yield
    except BaseException:
        # What cannot be looked at now is for the next run to see.
        with contextlib.suppress(OSError):
            if not held.has_bytes():
                held.discard()
        raise


def _complete(
    store: Store,
    content: PartialFile,
    remote: Remote,
    expected: Expected,
    access: Access,
    check: Check,
) -> tuple[Copied, str]:
    """Completes a file and makes sure that it is what was wanted; what its server calls it."""
    local = store.volume.syncs_at_once
    with (
        Writeback(os.path.dirname(content.path)) as writeback,
        access.progress.task(f"fetching {expected.name}", expected.size) as task,
    ):

        def reserve(count: int) -> None:
            check_room(store, expected.name, count)
            if local and count >= follower.LARGE:
                writeback.start()

        def once() -> Copied:
            return transfer.fetch(
                remote,
                content,
                transfer.Wanted(expected.size, expected.is_known),
                connections=access.connections,
                task=task,
                stop=access.stop,
                reserve=reserve,
            )

        is_resumed = bool(content.history().there.total())
        copied = once()
        problem = _unlike(content.path, copied, expected)
        if problem and is_resumed:
            # What an earlier process left may be to blame.
            content.reset()
            copied = once()
            problem = _unlike(content.path, copied, expected)
    if not problem:
        try:
            check(content.path, expected.name)
        except BaseException:
            content.reset()
            raise
        validator = content.history().validator
        content.finish()
        return copied, validator
    content.reset()
    raise IntegrityError(f"{expected.where}: {expected.name} {problem}: nothing was kept")


def _unlike(path: str, copied: Copied, expected: Expected) -> str | None:
    """What a complete file has otherwise than it should, as the end of a sentence."""
    if expected.sha256 not in (None, copied.sha256.hex()):
        return f"has the digest {copied.sha256.hex()}, expected is {expected.sha256}"
    if expected.entry not in (None, copied.digest.hex()):
        return f"has the digest {copied.digest.hex()}, expected is {expected.entry}"
    if expected.git is not None and not (expected.sha256 or expected.entry):
        found = _git_blob(path, copied.size)
        if found != expected.git:
            return f"is the git object {found}, expected is {expected.git}"
    return None


def _git_blob(path: str, size: int) -> str:
    hasher = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for piece in chunks(path):
        hasher.update(piece)
    return hasher.hexdigest()


def check_room(store: Store, what: str, count: int) -> None:
    """Raises StoreError where a disk of this host has less room than so many bytes.

    A network volume shows the room of all its users; there a quota speaks when a file gets its
    size.
    """
    if not store.volume.syncs_at_once:
        return
    found = os.statvfs(store.volume.root)
    free = found.f_bavail * found.f_frsize
    if count > free:
        raise StoreError(
            f"{what} needs {shown_size(count)} more, {shown_size(free)} are free on "
            f"{store.volume.root}",
            hint="`cvs store du` shows what takes the room; what was fetched is kept and gone on "
            "with",
        )
