"""Partial entries: what is fetched over minutes or hours, and survives whoever fetched it.

    partial/<key>.<random>/       held by whoever fetches, as scratch folders are
        log                       of each file, see `history`; `log-<n>` where there are several
        entry/                    becomes the entry: content, or the folder of a tree

The key is a digest over what is wanted, so that the next process finds it. A process that goes on
with the files of another must know that this one is gone, for it could still write into them when
they have become an entry. The kernel knows that of its own processes: their lock ends with them.
On a file system that other hosts use too, a lock proves nothing; there the bytes of a process of
another host are copied.

The last step is one rename of `entry/` into the store; until then nothing is lost, whenever the
process ends.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from cvs.store import fs, history, scratch
from cvs.store.history import History
from cvs.store.manifest import NAME as MANIFEST
from cvs.store.refs import key as digest_of
from cvs.store.volume import Volume

#: Seconds without any change after which what nobody holds is removed.
ABANDONED = 7 * 86400.0

#: Digits of a key, and of what tells two folders of one key apart.
_KEY = 32
_UNIQUE = 12

_NAME = re.compile(f"[0-9a-f]{{{_KEY}}}\\.[0-9a-f]{{{_UNIQUE}}}")

#: How the file of a file entry may be called already, see `manifest`.
_CONTENT = re.compile(r"content(\.[a-z0-9]{1,16})?", re.ASCII)

#: Bytes that are copied at once.
_STEP = 8 << 20

_ENTRY = "entry"
_BOOT = "boot"


def key(*wanted: str) -> str:
    """The key of what is wanted: its digest, or where it comes from."""
    return digest_of(*wanted)[:_KEY]


class Partial:
    """A partial entry that this process holds; a `stage.Place`. Use as a context manager.

    What is not published stays for the next process, unless `discard` is called.

    Args:
        home: its folder, held through `descriptor`.
        donors: folders of the same key whose files must not become this one's: they are copied.
    """

    def __init__(
        self, volume: Volume, home: str, descriptor: int, donors: Sequence[str] = ()
    ) -> None:
        self.home = home
        self._donors = donors
        self.folder = os.path.join(home, _ENTRY)
        self.descriptor = descriptor
        self.order = next(scratch.ORDER)
        self.synced = not volume.syncs_at_once
        self._era = _era(descriptor)

    def __enter__(self) -> Self:
        with contextlib.suppress(FileNotFoundError):
            # Of a process that ended right before the entry would have had its name.
            fs.unlink(os.path.join(self.folder, MANIFEST))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if not os.path.lexists(self.folder):
                # It became an entry.
                for path in [self.home, *(path for path in self._donors if not _is_busy(path))]:
                    _remove(path)
        finally:
            os.close(self.descriptor)

    def discard(self) -> None:
        """Removes it: it is an entry now, or good for nothing."""
        _remove(self.home)

    def has_bytes(self) -> bool:
        """Whether anything of its files is there."""
        for name in os.listdir(self.home):
            if name.startswith("log"):
                with open(os.path.join(self.home, name), "rb") as file:
                    if history.parse(file.read(), self._era).there.total():
                        return True
        return False

    def content(self) -> "PartialFile":
        """The file of a file entry."""
        path = os.path.join(self.folder, "content")
        found = _content(self.folder)
        if found != path and os.path.lexists(found):
            # Its last name, given by a process that then ended.
            fs.rename(found, path)
        donors = [(_content(os.path.join(home, _ENTRY)), f"{home}/log") for home in self._donors]
        return PartialFile(path, f"{self.home}/log", self._era, donors)

    def file(self, number: int, path: str) -> "PartialFile":
        """A file of a tree entry.

        Args:
            number: tells its log from those of others.
            path: in the entry's folder.
        """
        place = os.path.join(self.folder, path)
        fs.makedirs(os.path.dirname(place))
        donors = [
            (os.path.join(home, _ENTRY, path), f"{home}/log-{number}") for home in self._donors
        ]
        return PartialFile(place, f"{self.home}/log-{number}", self._era, donors)


class PartialFile:
    """One file that is there in parts, open for writing; use as a context manager.

    Args:
        donors: files that may have a part of it, with their logs.
    """

    def __init__(self, path: str, log: str, era: str, donors: Iterable[tuple[str, str]]) -> None:
        self.path = path
        self._log = log
        self._era = era
        self._donors = donors
        self.descriptor = -1
        self._journal = -1

    def __enter__(self) -> Self:
        try:
            is_new = not os.path.lexists(self._log)
            self.descriptor = fs.create_or_open(self.path, readable=True)
            self._journal = fs.create_or_open(self._log, appends=True)
            if is_new:
                self._take_over()
            # A line that a kill cut off ends here.
            fs.write(self._journal, b"\n" + history.era_line(self._era))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for descriptor in (self.descriptor, self._journal):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self._journal = -1

    def _take_over(self) -> None:
        """Copies what a donor has and can prove: whoever wrote it may write once more."""
        best: tuple[int, str, History] | None = None
        for path, log in self._donors:
            try:
                with open(log, "rb") as file:
                    found = history.parse(file.read(), self._era)
                known = max(found.digests, default=0)
                if known and known <= os.stat(path).st_size and (best is None or known > best[0]):
                    best = known, path, found
            except OSError:
                continue
        if best is None:
            return
        known, path, found = best
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while known and (count := fs.copy_range(source, self.descriptor, min(known, _STEP))):
                known -= count
        finally:
            os.close(source)
        self.is_version(found.size, found.validator)
        for count, digest in sorted(found.digests.items()):
            self.is_good(count, digest)

    def history(self) -> History:
        """What is there, as far as that is known."""
        with open(self._log, "rb") as file:
            found = history.parse(file.read(), self._era)
        size = os.fstat(self.descriptor).st_size
        if any(end > size for _, end in found.there):
            # The log outlived the bytes.
            found.there.remove(size, max(end for _, end in found.there))
        return found

    def reset(self) -> None:
        """Forgets all that is there."""
        fs.truncate(self._journal, 0)
        fs.truncate(self.descriptor, 0)
        fs.write(self._journal, history.era_line(self._era))

    def is_version(self, size: int | None, validator: str) -> None:
        """Notes which version of the file this is."""
        fs.write(self._journal, history.version_line(size, validator))

    def write(self, data: bytes | memoryview, at: int) -> None:
        """Writes bytes of the file in their place; `wrote` notes them."""
        fs.write_at(self.descriptor, data, at)

    def wrote(self, start: int, end: int) -> None:
        """Notes that these bytes were written."""
        fs.write(self._journal, history.have_line(start, end))

    def is_good(self, count: int, digest: bytes) -> None:
        """Notes the BLAKE3 of so many bytes from the beginning."""
        fs.write(self._journal, history.good_line(count, digest))

    def lost(self, start: int) -> None:
        """Notes that nothing that was noted of the bytes from `start` on is so."""
        fs.write(self._journal, history.lost_line(start))

    def reserve(self, size: int) -> None:
        """Gives the file its size: a quota refuses here and now what it would refuse later."""
        if os.fstat(self.descriptor).st_size != size:
            fs.truncate(self.descriptor, size)

    def finish(self) -> None:
        """Makes the file one of an entry. What the disk did not take is told here, also of bytes
        that an earlier process wrote."""
        fs.chmod(self.descriptor, 0o444)
        fs.sync(self.descriptor)


def _content(folder: str) -> str:
    """The file of a file entry, by whatever name it has."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if _CONTENT.fullmatch(name):
                return os.path.join(folder, name)
    return os.path.join(folder, "content")


def hold(volume: Volume, wanted: str, wait: Callable[[float], bool]) -> Partial | None:
    """The partial entry for a key: one that is there and free, or a new one.

    Args:
        wanted: the key.
        wait: called while another process holds it and its work goes on, with the seconds that it
            has not moved; returns whether to wait longer. If it does not, and this process is not
            needed any more, its caller knows.

    Returns:
        None if `wait` ended it.
    """
    fs.makedirs(volume.partial)
    watch = _Watch()
    while True:
        held, donors, busy = _survey(volume, wanted)
        if held is not None:
            return held
        if busy and not watch.is_still(busy):
            if not wait(watch.seconds):
                return None
            continue
        made = _make(volume, wanted, [*donors, *busy])
        rivals = [path for path in _of(volume, wanted) if path < made.home and path not in busy]
        if any(_is_busy(path) for path in rivals):
            # Two began at once: who has the smaller name goes on.
            made.discard()
            os.close(made.descriptor)
            continue
        return made


class _Watch:
    """Sees whether what others hold still grows. Decides when to wait no longer, and no more."""

    #: Seconds without a change after which whoever holds it is taken for dead, on another host.
    PATIENCE = 120.0

    def __init__(self) -> None:
        self._seen: object = None
        self._since = 0.0
        self.seconds = 0.0

    def is_still(self, paths: Sequence[str]) -> bool:
        import time

        now = time.monotonic()
        seen = [_size_of(os.path.join(path, "log")) for path in paths]
        if seen != self._seen:
            self._seen, self._since = seen, now
        self.seconds = now - self._since
        return self.seconds > self.PATIENCE


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _of(volume: Volume, wanted: str) -> list[str]:
    names = sorted(os.listdir(volume.partial))
    return [
        os.path.join(volume.partial, name)
        for name in names
        if name.startswith(f"{wanted}.") and _NAME.fullmatch(name)
    ]


def _survey(volume: Volume, wanted: str) -> tuple[Partial | None, list[str], list[str]]:
    """One that is free and may be gone on with; those that may only be copied; those held."""
    donors: list[str] = []
    busy: list[str] = []
    for path in _of(volume, wanted):
        try:
            descriptor = scratch.open_folder(path)
        except OSError:
            continue
        keep = False
        try:
            if not scratch.lock(descriptor):
                busy.append(path)
            elif not scratch.is_at(descriptor, path):
                continue
            elif not os.path.isdir(os.path.join(path, _ENTRY)):
                # A process ended right after it became an entry, or before anything was there.
                _remove(path)
            elif volume.syncs_at_once or _boot_of(path) == _boot():
                keep = True
                return Partial(volume, path, descriptor, donors), donors, busy
            else:
                donors.append(path)
        finally:
            if not keep:
                os.close(descriptor)
    return None, donors, busy


def _is_busy(path: str) -> bool:
    try:
        descriptor = scratch.open_folder(path)
    except OSError:
        return False
    try:
        return not scratch.lock(descriptor)
    finally:
        os.close(descriptor)


def _make(volume: Volume, wanted: str, donors: Sequence[str]) -> Partial:
    home = os.path.join(volume.partial, f"{wanted}.{fs.unique()[:_UNIQUE]}")
    with contextlib.suppress(FileExistsError):
        # As of scratch folders: nobody else has the name.
        fs.mkdir(home)
    descriptor = scratch.open_folder(home)
    try:
        scratch.lock(descriptor)
        scratch.replace_file(os.path.join(home, _BOOT), _boot().encode(), volume.tmp)
        with contextlib.suppress(FileExistsError):
            fs.mkdir(os.path.join(home, _ENTRY))
        return Partial(volume, home, descriptor, donors)
    except BaseException:
        os.close(descriptor)
        _remove(home)
        raise


def sweep(volume: Volume) -> None:
    """Removes what nobody went on with for a week."""
    for path in _all(volume):
        with contextlib.suppress(OSError):
            if _age(volume, path) > ABANDONED and not _is_busy(path):
                _remove(path)


def _remove(path: str) -> None:
    """Removes what is good for nothing; if that fails now, `sweep` does it later."""
    with contextlib.suppress(OSError):
        fs.remove_for_good(path)


def _all(volume: Volume) -> Iterator[str]:
    try:
        names = os.listdir(volume.partial)
    except OSError:
        return
    for name in names:
        if _NAME.fullmatch(name):
            yield os.path.join(volume.partial, name)


def _age(volume: Volume, path: str) -> float:
    """Seconds since the last change, by the clock of the server alone."""
    with os.scandir(path) as items:
        times = [item.stat(follow_symlinks=False).st_mtime for item in items]
    return scratch.server_time(volume.tmp) - max([os.stat(path).st_mtime, *times])


def _boot() -> str:
    """Names this run of this host's kernel."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _boot_of(path: str) -> str:
    try:
        with open(os.path.join(path, _BOOT), encoding="ascii") as file:
            return file.read(100).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _era(descriptor: int) -> str:
    """Names this run of the kernel and this mount: what was written in it is seen in it."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        mount = next((line.split()[1] for line in file if line.startswith("mnt_id:")), "?")
    return f"{_boot()} {mount}"
