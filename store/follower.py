"""A process that digests a mapped file, also while it grows.

Mapped files are the fastest to digest, and the end of a process: a sector that cannot be read, or
a file that shrinks, is a signal (SIGBUS) there and no error. So a child maps the file, in windows
that keep its memory small, and may die of it. It is a new process, not a fork, because a fork has
none of the threads that BLAKE3 works with.

Only on this host's own disks: on a network volume that stops answering a mapped file hangs hard.
"""

import errno
import os
import sys
from typing import TYPE_CHECKING, Literal, Self

import blake3

if TYPE_CHECKING:
    import subprocess

Algorithm = Literal["blake3", "sha256"]

_CHILD = """
import mmap, sys
file, window, threads = map(int, sys.argv[1:4])
packages = sys.argv[4:]
if packages:
    sys.path[:0] = packages
    from blake3 import blake3
    hasher = blake3(max_threads=threads)
else:
    from hashlib import sha256
    hasher = sha256()
at = 0
for line in sys.stdin.buffer:
    there = int(line)
    while at < there:
        size = min(window, there - at)
        with mmap.mmap(file, size, prot=mmap.PROT_READ, offset=at) as mapped:
            hasher.update(mapped)
        at += size
print(hasher.hexdigest())
"""

#: Bytes that are mapped at once.
WINDOW = 32 << 20

#: What is told of a file that grows is a multiple of this: pages are mapped whole.
STEP = 8 << 20

#: Files from this size on are worth a process.
LARGE = 64 << 20


class Follower:
    """A process that digests an open file from its beginning; it ends with the context.

    Args:
        threads: of BLAKE3; by default as many as there are processors.
    """

    def __init__(
        self,
        descriptor: int,
        algorithm: Algorithm = "blake3",
        *,
        threads: int = blake3.blake3.AUTO,
    ) -> None:
        self._descriptor = descriptor
        self._algorithm = algorithm
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        import subprocess

        packages = os.path.dirname(os.path.dirname(os.path.abspath(blake3.__file__)))
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _CHILD),
                *(str(self._descriptor), str(WINDOW), str(self._threads)),
                *([packages] if self._algorithm == "blake3" else []),
            ],
            pass_fds=[self._descriptor],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        return self

    def tell(self, there: int) -> None:
        """Lets it digest what is there: a multiple of STEP, or all that will ever be.

        Raises:
            OSError: EIO, the file cannot be read.
        """
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(b"%d\n" % there)
        except BrokenPipeError:
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from None

    def digest(self) -> bytes:
        """The digest of all that it was told of, 32 bytes.

        Raises:
            OSError: EIO, the file cannot be read or shrank meanwhile.
        """
        assert self._process is not None
        said, _ = self._process.communicate()
        if self._process.returncode or len(said) != 65:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return bytes.fromhex(said.decode())

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
