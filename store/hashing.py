"""The BLAKE3 of a file that is there: read plainly, or as fast as b3sum by a process of its own."""

import os
from collections.abc import Callable

import blake3

from cvs.store.copying import CHUNK
from cvs.store.follower import Follower


def digest(descriptor: int) -> str:
    """The BLAKE3 of an open file, as 64 hexadecimal digits.

    Raises:
        OSError: EIO, the file cannot be read or shrank meanwhile.
    """
    with Follower(descriptor) as follower:
        follower.tell(os.fstat(descriptor).st_size)
        return follower.digest().hex()


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
