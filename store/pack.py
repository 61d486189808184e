"""Packs: the files of a tree in one file, for volumes on which every file is dear (docs/format.md).

A pack is in zstd's seekable format: frames that can be read one by one, and a table of their sizes
in a frame that other readers skip. What it unpacks to is the bytes of the tree's files one after
the other, in the ascending order of their paths; the manifest beside it says the rest. An entry
has one id, whether its tree lies unpacked or in a pack.

Format of the table: https://github.com/facebook/zstd/blob/dev/contrib/seekable_format
"""

import bisect
import itertools
import os
import stat
import struct
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Self

from blake3 import blake3

from cvs.store import fs, tree
from cvs.store.errors import IntegrityError
from cvs.store.ingest import chunks
from cvs.store.manifest import TreeManifest
from cvs.store.stage import Stage, Staged

if TYPE_CHECKING:
    import zstandard

#: What a pack is called in its entry's folder.
NAME = "content.pack"

#: A frame ends when it has so many bytes: small enough that one file is read cheaply, large enough
#: to compress well and to be cheap per byte.
FRAME = 1 << 20

#: The largest frame that is read; another writer may have chosen larger ones than ours.
FRAME_LIMIT = 16 << 20

#: Compressed a frame is never much larger.
_COMPRESSED_LIMIT = FRAME_LIMIT + (1 << 17)

#: The quickest that is still nearly as small as any; a wheel is unpacked at each cold start.
_LEVEL = 3

_SKIPPED = struct.Struct("<II")
_SKIPPED_MAGIC = 0x184D2A5E
_SIZES = struct.Struct("<II")
_FOOTER = struct.Struct("<IBI")
_FOOTER_MAGIC = 0x8F92EAB1

#: Of the footer's descriptor: each frame in the table has four bytes more, a checksum.
_HAS_CHECKSUMS = 0x80
_KNOWN = 0x80 | 0x03

#: Bytes of the largest table: of a tree of some hundred gigabytes.
_TABLE_LIMIT = 4 << 20


class Extent(NamedTuple):
    """One file of a tree, and where its bytes are in what the pack unpacks to."""

    path: bytes
    node: tree.File
    start: int


def layout(document: TreeManifest) -> list[Extent]:
    """The files of a tree in the order in which a pack has them."""
    files = [node for node in document.nodes if isinstance(node, tree.File)]
    found = sorted(((tree.unquote(node.path), node) for node in files), key=lambda item: item[0])
    starts = itertools.accumulate((node.size for _, node in found), initial=0)
    return [Extent(path, node, start) for (path, node), start in zip(found, starts, strict=False)]


def find(folder: str, document: TreeManifest) -> str | None:
    """The pack in an entry's folder; None where its tree lies unpacked, or nothing does."""
    path = os.path.join(folder, NAME)
    unpacked = os.path.join(folder, document.name)
    return path if os.path.lexists(path) and not os.path.lexists(unpacked) else None


class Writer:
    """Writes a pack into an open file; its files are given in the order of `layout`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # Not on the way of those who only ask whether there is a pack.
        import zstandard

        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._waiting = bytearray()
        self._table = bytearray()

    def file(self, size: int, chunks: Iterable[bytes | memoryview]) -> None:
        """Adds a file. A small one is never in two frames."""
        if len(self._waiting) + size > FRAME:
            self._end_frame()
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                room = FRAME - len(self._waiting)
                self._waiting += rest[:room]
                rest = rest[room:]
                if len(self._waiting) == FRAME:
                    self._end_frame()

    def finish(self) -> None:
        """Writes the table."""
        self._end_frame()
        frames = len(self._table) // _SIZES.size
        head = _SKIPPED.pack(_SKIPPED_MAGIC, len(self._table) + _FOOTER.size)
        fs.write(self._descriptor, head + self._table + _FOOTER.pack(frames, 0, _FOOTER_MAGIC))

    def _end_frame(self) -> None:
        if self._waiting:
            frame = self._compressor.compress(self._waiting)
            self._table += _SIZES.pack(len(frame), len(self._waiting))
            fs.write(self._descriptor, frame)
            self._waiting.clear()


class Pack:
    """An open pack; use as a context manager. May be read by threads and forks at once.

    Args:
        path: the file.
        document: the manifest of its tree.

    Raises:
        IntegrityError: it is not the pack of such a tree; here as far as that is told by its table.
        OSError: it cannot be read.
    """

    def __init__(self, path: str | bytes, document: TreeManifest) -> None:
        self._where = os.fsdecode(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        #: Where each frame begins, in the pack and in what it unpacks to, and where the last ends.
        self._places: list[int] = []
        self._starts: list[int] = []
        self._local = threading.local()
        try:
            self._read_table()
            if self._starts[-1] != document.size:
                raise self._wrong(f"unpacks to {self._starts[-1]} bytes, not {document.size}")
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, extent: Extent) -> Iterator[memoryview]:
        """The bytes of a file, in pieces; compared with its size alone.

        Raises:
            IntegrityError: what should be a frame of it is none.
            OSError: it cannot be read.
        """
        at, end = extent.start, extent.start + extent.node.size
        number = bisect.bisect_right(self._starts, at) - 1
        while at < end:
            frame = memoryview(self._frame(number))
            first = at - self._starts[number]
            piece = frame[first : first + end - at]
            yield piece
            at += len(piece)
            number += 1

    def is_sound(self, extent: Extent) -> bool:
        """Whether the bytes of a file are those of its digest. Raises as `read`."""
        hasher = blake3()
        for piece in self.read(extent):
            hasher.update(piece)
        return hasher.hexdigest() == extent.node.digest

    def faults(self, extents: Iterable[Extent]) -> Iterator[tuple[str, str]]:
        """The files that are not what they should be: path, quoted, and what is wrong."""
        for extent in extents:
            try:
                if not self.is_sound(extent):
                    yield extent.node.path, "has other bytes"
            except IntegrityError as error:
                yield extent.node.path, f"cannot be read: {error.message}"
            except OSError as error:
                yield extent.node.path, f"cannot be read: {error.strerror}"

    def runs(self, extents: list[Extent]) -> list[range]:
        """The files of `layout`, by index, in runs that have frames of their own where they can."""
        if not extents:
            return []
        cuts = [0]
        for index, extent in enumerate(extents):
            frame = bisect.bisect_right(self._starts, extent.start) - 1
            begins = self._starts[frame] == extent.start
            if begins and extent.start > extents[cuts[-1]].start:
                cuts.append(index)
        return [range(*pair) for pair in itertools.pairwise([*cuts, len(extents)])]

    def _read_table(self) -> None:
        size = self._size()
        tail = self._pread(size - _FOOTER.size, _FOOTER.size) if size >= _FOOTER.size else b""
        count, descriptor, magic = _FOOTER.unpack(tail) if tail else (0, 0, 0)
        if magic != _FOOTER_MAGIC or descriptor & ~_KNOWN:
            raise self._wrong("has no table at its end")
        width = _SIZES.size + (4 if descriptor & _HAS_CHECKSUMS else 0)
        length = count * width
        start = size - length - _FOOTER.size - _SKIPPED.size
        if length > _TABLE_LIMIT or start < 0:
            raise self._wrong(f"has a table of {count} frames, which cannot be")
        table = self._pread(start, _SKIPPED.size + length)
        if _SKIPPED.unpack_from(table) != (_SKIPPED_MAGIC, length + _FOOTER.size):
            raise self._wrong("has no table at its end")
        sizes = [
            _SIZES.unpack_from(table, at)
            for at in range(_SKIPPED.size, _SKIPPED.size + length, width)
        ]
        for packed, unpacked in sizes:
            if packed > _COMPRESSED_LIMIT or not 0 < unpacked <= FRAME_LIMIT:
                raise self._wrong(f"has a frame of {unpacked} bytes, packed {packed}")
        self._places = list(itertools.accumulate((packed for packed, _ in sizes), initial=0))
        self._starts = list(itertools.accumulate((unpacked for _, unpacked in sizes), initial=0))
        if self._places[-1] != start:
            raise self._wrong("has other bytes than its table says")

    def _size(self) -> int:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise self._wrong("is not a file")
        return status.st_size

    def _frame(self, number: int) -> bytes:
        """What a frame unpacks to; the last one is remembered, for each thread its own."""
        import zstandard

        known: tuple[int, bytes] | None = getattr(self._local, "last", None)
        if known is not None and known[0] == number:
            return known[1]
        start, end = self._places[number : number + 2]
        size = self._starts[number + 1] - self._starts[number]
        data = self._pread(start, end - start)
        try:
            # Asked before: unpacking would take as much memory as the frame says that it needs.
            said = zstandard.get_frame_parameters(data).content_size
            if said not in (size, zstandard.CONTENTSIZE_UNKNOWN):
                raise self._wrong(f"has a frame of {said} bytes instead of {size}")
            frame = self._decompressor().decompress(
                data, max_output_size=size, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise self._wrong(f"has a frame that cannot be unpacked: {error}") from None
        if len(frame) != size:
            raise self._wrong(f"has a frame of {len(frame)} bytes instead of {size}")
        self._local.last = (number, frame)
        return frame

    def _decompressor(self) -> "zstandard.ZstdDecompressor":
        import zstandard

        found: zstandard.ZstdDecompressor | None = getattr(self._local, "decompressor", None)
        if found is None:
            found = self._local.decompressor = zstandard.ZstdDecompressor()
        return found

    def _pread(self, at: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, at)
        while len(data) < count:
            more = os.pread(self._descriptor, count - len(data), at + len(data))
            if not more:
                raise self._wrong("ended while it was read")
            data += more
        return data

    def _wrong(self, what: str) -> IntegrityError:
        return IntegrityError(f"{self._where} {what}")


def stage(staged: Staged, into: Stage) -> Staged:
    """Packs a tree that lies unpacked in a stage, on any disk, into another stage.

    Raises:
        IntegrityError: a file is not any more what was written.
    """
    document = staged.manifest
    assert isinstance(document, TreeManifest)
    root = os.path.join(staged.folder, document.name)
    write(document, root, os.path.join(into.folder, NAME), synced=into.synced)
    return Staged(staged.id, document, into)


def write(document: TreeManifest, root: str, path: str, *, synced: bool) -> None:
    """Writes the pack of a tree.

    Args:
        root: where the tree's files lie.
        path: the pack's, which is made.
        synced: whether to wait until the file system has it.

    Raises:
        IntegrityError: a file is not what the manifest says.
    """
    descriptor = fs.create(path, 0o444)
    try:
        writer = Writer(descriptor)
        for extent in layout(document):
            place = os.path.join(os.fsencode(root), extent.path)
            writer.file(extent.node.size, _checked(place, extent.node))
        writer.finish()
        if synced:
            fs.sync(descriptor)
    finally:
        fs.close(descriptor)


def _checked(path: bytes, node: tree.File) -> Iterator[memoryview]:
    hasher = blake3()
    for chunk in chunks(path):
        hasher.update(chunk)
        yield chunk
    if hasher.hexdigest() != node.digest:
        raise IntegrityError(f"{os.fsdecode(path)} was changed while it was packed")
