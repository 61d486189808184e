"""The BLAKE3 of a file that is there: read plainly, or as fast as b3sum by a process of its own.

Mapped files are the fastest to digest, and the end of a process: a sector that cannot be read, or
a file that shrinks, is a signal (SIGBUS) there and no error. So a child maps the file, in windows
that keep its memory small, and may die of it. It is a new process, not a fork, because a fork has
none of the threads that BLAKE3 works with.

Only on this host's own disks: on a network volume that stops answering a mapped file hangs hard.
"""

import errno
import os
import sys
from collections.abc import Callable

import blake3

from cvs.store.copying import CHUNK

_CHILD = """
import mmap, os, sys
sys.path[:0] = [sys.argv[1]]
from blake3 import blake3
hasher = blake3(max_threads=blake3.AUTO)
file = int(sys.argv[2])
size, window = os.fstat(file).st_size, int(sys.argv[3])
for at in range(0, size, window):
    with mmap.mmap(file, min(window, size - at), prot=mmap.PROT_READ, offset=at) as mapped:
        hasher.update(mapped)
print(hasher.hexdigest())
"""

#: Bytes that are mapped at once.
_WINDOW = 32 << 20

#: Files from this size on are worth a process.
LARGE = 64 << 20


def digest(descriptor: int) -> str:
    """The BLAKE3 of an open file, as 64 hexadecimal digits.

    Raises:
        OSError: EIO, the file cannot be read or shrank meanwhile.
    """
    import subprocess

    packages = os.path.dirname(os.path.dirname(os.path.abspath(blake3.__file__)))
    command = [sys.executable, "-I", "-S", "-c", _CHILD, packages, str(descriptor), str(_WINDOW)]
    done = subprocess.run(
        command, pass_fds=[descriptor], capture_output=True, text=True, check=False
    )
    found = done.stdout.strip()
    if done.returncode or len(found) != 64:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return found


def plain(descriptor: int, size: int, advance: Callable[[int], None]) -> str:
    """The same by reading from where the file is, told of every piece.

    Args:
        size: what the file has, as far as known.
    """
    data = os.read(descriptor, min(size + 1, CHUNK))
    if len(data) == size < CHUNK:
        return blake3.blake3(data).hexdigest()
    hasher = blake3.blake3(data)
    buffer = memoryview(bytearray(CHUNK))
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
        advance(count)
    return hasher.hexdigest()
