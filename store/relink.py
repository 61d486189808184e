"""Files of a user's that become entries where they lie: their names become links to the entries.

One file after the other, so that whoever is killed has lost nothing and the next run goes on. Each
is digested, gets a second name in a stage (a hard link; or shares its blocks with a copy there, or
is copied where that is asked for), which is published and pinned; then its own name is replaced by
a link, in one rename. At every instant each path can be read, with the same bytes; who has a file
open keeps it. What is there twice is kept once: the room of the others is won.

A file that somebody writes, or that changed since it was digested, is left as it is.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from cvs.store import copying, fs, loose, pins, refs, scratch, tree
from cvs.store.copying import Copied
from cvs.store.digest import EntryId
from cvs.store.errors import InputError, IntegrityError, StoreError
from cvs.store.manifest import FileManifest
from cvs.store.stage import KEPT_SUFFIXES, Stage

if TYPE_CHECKING:
    from cvs.store.entries import Store

State = Literal["adopted", "duplicate", "left"]

#: What a link in a folder says to lead to a path: from path and folder.
LinkTarget = Callable[[str, str], str]


class Group(NamedTuple):
    """One file, and all its names among those that are looked at."""

    paths: tuple[str, ...]
    """Absolute, in ascending order."""
    status: os.stat_result

    @property
    def known(self) -> tuple[int, int, int]:
        """By what the file is known again; see `loose.known`."""
        return self.status.st_ino, self.status.st_size, self.status.st_mtime_ns


class Outcome(NamedTuple):
    """What became of one file."""

    paths: tuple[str, ...]
    state: State
    size: int
    won: int = 0
    """Bytes that its old names took and nothing takes any more."""
    entry: EntryId | None = None
    why: str = ""
    """Why it was left."""


class _Left(Exception):
    """The file stays as it is; the text says why."""


class _Changed(_Left):
    """It is not what it was."""

    def __init__(self, path: bytes) -> None:
        is_link = os.path.islink(path)
        super().__init__("it is a link by now" if is_link else "it was changed meanwhile")


def groups(paths: Iterable[str]) -> list[Group]:
    """The files at some paths, each once; links and what is gone are left out."""
    names: dict[tuple[int, int], list[str]] = {}
    found: dict[tuple[int, int], os.stat_result] = {}
    for path in sorted(paths):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            key = (status.st_dev, status.st_ino)
            names.setdefault(key, []).append(path)
            found[key] = status
    return [Group(tuple(names[key]), status) for key, status in found.items()]


def digest(group: Group, advance: Callable[[int], None]) -> Copied:
    """Digests a file; may be called in several threads.

    Raises:
        OSError: it cannot be read.
    """
    opened = os.open(group.paths[0], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return copying.digest(opened, size=group.status.st_size, sha256=True, advance=advance)
    finally:
        os.close(opened)


class Relinking:
    """The taking in of files of a user's.

    Args:
        copy: whether files are copied that cannot be had otherwise.
        link_target: what links say.
    """

    def __init__(self, store: "Store", *, copy: bool, link_target: LinkTarget) -> None:
        self._store = store
        self._copy = copy
        self._link_target = link_target
        self._device = os.stat(store.volume.store).st_dev
        self._whole: set[EntryId] = set()
        """Entries that were made or compared in this run."""
        self._lock = threading.Lock()

    def check(self, found: Sequence[Group]) -> None:
        """Refuses files that can only be copied, unless they may be.

        Raises:
            InputError: one lies on another file system.
        """
        for group in found:
            if not self._copy and group.status.st_dev != self._device:
                raise InputError(
                    f"{group.paths[0]} lies on another file system than the store "
                    f"{self._store.volume.store}: it can only be copied",
                    hint="--copy does so; a COMFY_CACHE_ROOT on that file system needs no copy",
                )

    def take(self, group: Group, digested: Copied) -> Outcome:
        """Takes a file in that was digested; one at a time, whoever calls.

        Raises:
            StoreError: the quota allows no second name.
            OSError: the file system refuses.
        """
        with self._lock:
            try:
                return self._take(group, digested)
            except _Left as left:
                why = str(left)
            except IntegrityError as error:
                why = f"{error.message} ({error.hint})"
            return Outcome(group.paths, "left", group.status.st_size, why=why)

    def _take(self, group: Group, digested: Copied) -> Outcome:
        path = os.fsencode(group.paths[0])
        if digested.size != group.status.st_size or loose.known(path, group.known) is None:
            raise _Changed(path)
        entry = EntryId(digested.digest.hex())
        is_new = not self._store.has(entry)
        if is_new:
            self._publish(group, digested)
        content = self._store.content(entry)
        # The entry is this very file where an earlier run was ended before it had replaced names.
        is_own = self._is_content(group, content)
        if not (is_new or is_own or entry in self._whole):
            # Another file is about to go for it.
            self._store.check(entry)
        self._whole.add(entry)
        pins.hold(self._store.volume, entry, content)
        refs.put(self._store.volume, "sha256", digested.sha256.hex(), entry)
        for name in group.paths:
            self._replace(name, os.path.join(self._store.volume.store, content), group)
        size = group.status.st_size
        if is_new or is_own:
            return Outcome(group.paths, "adopted", size, 0, entry)
        is_last = group.status.st_nlink <= len(group.paths)
        return Outcome(group.paths, "duplicate", size, size if is_last else 0, entry)

    def _is_content(self, group: Group, content: str) -> bool:
        try:
            there = os.stat(os.path.join(self._store.volume.store, content))
        except FileNotFoundError:
            return False
        return os.path.samestat(there, group.status)

    def _publish(self, group: Group, digested: Copied) -> None:
        path = os.fsencode(group.paths[0])
        base = os.path.basename(path)
        with self._store.stage() as stage:
            is_linked = self._write(path, group, digested, stage)
            staged = stage.taken(digested, origin=tree.quote(base), name=os.fsdecode(base))
            if loose.known(path, group.known) is None:
                raise _Changed(path)
            if is_linked:
                assert isinstance(staged.manifest, FileManifest)
                # Of the file itself: from here on nobody opens it for writing by accident.
                fs.chmod(os.path.join(stage.folder, staged.manifest.content), 0o444)
            self._store.publish(staged)

    def _write(self, path: bytes, group: Group, digested: Copied, stage: Stage) -> bool:
        """Makes the content of an entry of a file; whether it is the file itself."""
        target = os.fsencode(os.path.join(stage.folder, "content"))
        try:
            opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            raise _Changed(path) from None
        try:
            status = os.fstat(opened)
            if loose.is_written(opened):
                raise _Left("somebody has it open for writing")
            names = len(group.paths) + self._in_stages(status)
            if loose.is_owned(status, names) and self._link(path, target):
                if stage.synced:
                    fs.sync(opened)
                return True
            written = fs.create(target, 0o444, readable=True)
            try:
                if not fs.clone(opened, written):
                    self._copy_bytes(opened, written, group, digested)
                if stage.synced:
                    fs.sync(written)
            finally:
                fs.close(written)
            return False
        finally:
            os.close(opened)

    def _in_stages(self, status: os.stat_result) -> int:
        """How many names of a file are those of runs that were ended before they published it."""
        if status.st_nlink == 1:
            return 0
        count = 0
        tmp = self._store.volume.tmp
        for folder in os.listdir(tmp):
            for suffix in ("", *KEPT_SUFFIXES):
                with contextlib.suppress(OSError):
                    found = os.lstat(os.path.join(tmp, folder, f"content{suffix}"))
                    count += os.path.samestat(found, status)
        return count

    def _link(self, path: bytes, target: bytes) -> bool:
        try:
            fs.link(path, target)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                return False
            if error.errno == errno.EDQUOT:
                raise StoreError(
                    f"the quota is used up: {os.fsdecode(path)} gets no second name, for on this "
                    "file system a hard link counts as much as the file until the first is gone",
                    hint="free as much as the largest file takes, and run it again: what was "
                    "adopted stays, and nothing is half done",
                ) from None
            raise
        return True

    def _copy_bytes(self, source: int, target: int, group: Group, digested: Copied) -> None:
        if not self._copy:
            raise _Left("it has other names, another owner or another place: --copy copies it")
        copied = copying.copy(
            source,
            target,
            size=group.status.st_size,
            sha256=False,
            advance=lambda _: None,
        )
        if copied.digest != digested.digest:
            raise _Changed(os.fsencode(group.paths[0]))

    def _replace(self, path: str, content: str, group: Group) -> None:
        """Makes a name of the file a link to its entry, in one rename."""
        if loose.known(os.fsencode(path), group.known) is None:
            raise _Changed(os.fsencode(path))
        folder = os.path.dirname(path)
        tmp = self._store.volume.tmp if group.status.st_dev == self._device else None
        target = self._link_target(content, folder)
        try:
            scratch.replace_symlink(target, path, tmp)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # One file system that is mounted twice: no rename leads from one to the other.
            scratch.replace_symlink(target, path)
        fs.sync_folder(folder)
