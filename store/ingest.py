"""Taking local files and folders into the store, and reading files in pieces."""

import os
import stat
from collections.abc import Iterator

from cvs.store import tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.stage import TreeWriter

#: Large enough to be cheap per byte, small enough to stay in the processor's cache.
CHUNK = 1 << 20


def chunks(path: str | bytes) -> Iterator[memoryview]:
    """The bytes of a file in pieces of up to 1 MiB; a piece is valid until the next is asked for.

    Plain sequential reads: mapped files hang hard where a network volume stops answering.
    """
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while count := os.readv(descriptor, [buffer]):
            yield view[:count]
    finally:
        os.close(descriptor)


def add_path(store: Store, path: str, *, name: str | None = None) -> EntryId:
    """Adds a local file or folder and returns its id.

    A folder becomes a tree called `name`, by default its own name. Executable is what its owner
    may execute. What the file system says of modes is believed here alone, once.

    Raises:
        InputError: neither file nor folder, or something else lies inside the folder.
        TreeError: names or links that no entry may have.
    """
    absolute = os.path.abspath(path)
    base = os.path.basename(absolute)
    origin = tree.quote(os.fsencode(base))
    with store.stage() as stage:
        if os.path.isdir(absolute):
            writer = stage.tree(name or base)
            _copy(os.fsencode(absolute), b"", writer)
            staged = writer.finish(origin=origin)
        elif os.path.isfile(absolute):
            staged = stage.file(chunks(absolute), origin=origin, name=name or base)
        else:
            raise InputError(f"{path} is neither a file nor a folder")
        return store.publish(staged)[0]


def _copy(folder: bytes, prefix: bytes, writer: TreeWriter) -> None:
    with os.scandir(folder) as scan:
        items = sorted(scan, key=lambda item: item.name)
    for item in items:
        path = prefix + item.name
        if item.is_symlink():
            writer.link(path, os.readlink(item.path))
        elif item.is_dir():
            writer.folder(path)
            _copy(item.path, path + b"/", writer)
        elif item.is_file():
            executable = bool(item.stat().st_mode & stat.S_IXUSR)
            writer.write_chunks(path, chunks(item.path), executable)
        else:
            raise InputError(f"{os.fsdecode(item.path)} is not a file, folder or link")
