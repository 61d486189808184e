"""The reserve: a little room on the volume for what frees room or switches when there is none.

Where no inode or block is left nothing can be made, and even a rollback or a removal makes
something: a lease, a scratch folder. So the volume holds some room while it has it:

    reserve/inode-00 … 63      symbolic links that lead nowhere: an inode each, no block
    reserve/block-0 … 7        files of 64 KiB

Whatever runs `within` it gives up a piece when a call finds no room, and makes that call again;
in the end the pieces are made anew. Nothing else gives any up. No piece belongs to anybody: several
processes may take and make them at once, and what a killed one took is made by the next
`Volume.prepare`.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator

from blake3 import blake3

from cvs.store import fs

#: Bytes of a file of blocks. Where a hard link is charged to the quota, as on MooseFS, each pays
#: for one of a record; XFS makes no folder with less than 200 kB free.
BLOCK = 64 << 10

#: What the links say.
TARGET = "room"

INODES = tuple(f"inode-{number:02}" for number in range(64))
BLOCKS = tuple(f"block-{number}" for number in range(8))


def fill(folder: str) -> None:
    """Makes what the reserve lacks, as far as there is room. One look where it is whole.

    Args:
        folder: `reserve/` of a volume, which exists.
    """
    token = fs.make_room.set(None)
    try:
        with contextlib.suppress(OSError):
            whole = _whole(folder)
            _make(folder, INODES, whole, functools.partial(fs.symlink, TARGET))
            _make(folder, BLOCKS, whole, _make_block)
    finally:
        fs.make_room.reset(token)


def _whole(folder: str) -> set[str]:
    """The pieces that are there; of a killed process there may be a block without its bytes."""
    with os.scandir(folder) as items:
        return {
            item.name
            for item in items
            if item.name not in BLOCKS or item.stat(follow_symlinks=False).st_size == BLOCK
        }


def _make(folder: str, names: Iterable[str], whole: set[str], make: Callable[[str], None]) -> None:
    with contextlib.suppress(OSError):
        for name in names:
            if name not in whole:
                # Another process may be quicker.
                with contextlib.suppress(FileExistsError):
                    make(os.path.join(folder, name))


def _make_block(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        fs.unlink(path)
    # Noise: a file system that compresses would give zeros no room.
    fs.write_file(path, blake3(os.fsencode(path)).digest(length=BLOCK))


def release(folder: str) -> bool:
    """Gives up a block and an inode of the reserve; False where nothing was left to give.

    Of both, because a file system does not say what it lacks: a quota's error is the same for all.
    """
    try:
        there = set(os.listdir(folder))
    except OSError:
        return False
    block = _give(folder, there.intersection(BLOCKS))
    inode = _give(folder, there.intersection(INODES))
    return block or inode


def _give(folder: str, names: set[str]) -> bool:
    for name in sorted(names):
        # Another process may be quicker, or the file system be read-only.
        with contextlib.suppress(OSError):
            fs.unlink(os.path.join(folder, name))
            return True
    return False


@contextlib.contextmanager
def within(folder: str) -> Iterator[None]:
    """What this thread does in the `with` block may use the reserve.

    For what frees room or switches alone: small, and over soon.

    Args:
        folder: as of `fill`; need not exist.
    """
    used = False

    def make_room() -> bool:
        nonlocal used
        used = True
        return release(folder)

    token = fs.make_room.set(make_room)
    try:
        yield
    finally:
        fs.make_room.reset(token)
        if used:
            fill(folder)
