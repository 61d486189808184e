"""Bytecode that is the same wherever and whenever it is compiled.

What the compiler gives depends on more than the source, so all of that is fixed: the seed of
string hashes (order of sets), the name of the file (a path inside the entry, never of a build
folder; Python corrects it when it loads the module), and the state of the interpreter, since
marshal marks an object as shared if anything at all in the process holds it. Hence one fresh
process per wheel that imports nothing and compiles in one order.
"""

import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence

from cvs.store import tree
from cvs.store.errors import SHOWN, InputError

#: Bytes of the largest source that is compiled: a compiler takes up to 700 times as much memory.
#: Python compiles larger ones by itself when they are imported.
SOURCE_LIMIT = 4 << 20

#: Seconds of processor time for one wheel; PyTorch takes one minute. There are sources of some
#: kilobytes that would take hours.
TIME_LIMIT = 1800

#: Runs in the interpreter of the lock, which may be older than the one that runs cvs. All that
#: it imports is frozen into every interpreter. Files that do not compile, such as templates and
#: tests of syntax errors, are answered with nothing.
_COMPILE = """
import sys, _imp
from _frozen_importlib_external import MAGIC_NUMBER, _code_to_hash_pyc
root, output = sys.argv[1], sys.stdout.buffer
key = int.from_bytes(MAGIC_NUMBER, "little")
for raw in sys.stdin.buffer.read().split(b"\\0"):
    name = raw.decode("utf-8", "surrogateescape")
    try:
        with open(root + "/" + name, "rb") as file:
            source = file.read()
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
        data = bytes(_code_to_hash_pyc(code, _imp.source_hash(key, source), False))
    except Exception:
        data = b""
    output.write(len(data).to_bytes(8, "little"))
    output.write(data)
    output.flush()
"""


def compiled(executable: str, root: str, paths: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Compiles files below `root` to unchecked hash-based .pyc files, in the order given.

    Args:
        executable: the interpreter that the bytecode is for.
        paths: relative to `root`; the code objects are named after them.

    Yields:
        Path and bytes of the .pyc for every file that compiles.

    Raises:
        InputError: the interpreter does not run, ends early, or takes more than TIME_LIMIT.
    """
    if not paths:
        return
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    # -I would ignore the seed, so the parts of it that matter stand here one by one.
    environment |= {"PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1", "LC_ALL": "C"}
    command = [executable, "-S", "-B", "-X", "utf8", "-W", "ignore", "-c", _COMPILE, root]
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                cwd="/",
            )
        except OSError as error:
            raise InputError(f"{executable} does not run: {error.strerror}") from None
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _limit(process.pid)
            try:
                process.stdin.write(b"\0".join(paths))
                process.stdin.close()
            except BrokenPipeError:
                pass  # It ended already; the first answer that is missing says so.
            for path in paths:
                head = process.stdout.read(8)
                size = int.from_bytes(head, "little")
                data = process.stdout.read(size) if len(head) == 8 else b""
                if len(head) < 8 or len(data) < size:
                    process.wait()
                    errors.seek(0)
                    said = errors.read(1 << 16).decode(errors="replace").strip().splitlines()
                    why = said[-1] if said else f"exit code {process.returncode}"
                    if process.returncode == -signal.SIGXCPU:
                        why = f"it took more than {TIME_LIMIT} s"
                    raise InputError(
                        f"{executable} ended while it compiled {tree.quote(path)}: {why[:SHOWN]}"
                    )
                if data:
                    yield path, data
        finally:
            process.stdout.close()  # type: ignore[union-attr]
            process.kill()
            process.wait()


def _limit(pid: int) -> None:
    """Gives a process that was just started its time."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or hard > TIME_LIMIT:
        resource.prlimit(pid, resource.RLIMIT_CPU, (TIME_LIMIT, hard))
