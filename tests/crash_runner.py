"""Runs commands of cvs one after another, each with a file-system call that goes wrong.

A process of its own without threads, which forks for every run: that is quick, and what is imported
is imported once. Reads one JSON document a line from standard input and answers with one.

A fault says what happens to a call, and before it how:

    EIO            the call fails and was not done
    after EIO      it was done and its answer is lost
    half           a write or copy does a part, as the kernel may
    half ENOSPC    it does a part and the rest fails
    from ENOSPC    this call and all later ones that need space fail
    SIGKILL        all processes of the run die before the call
    half SIGKILL   they die when a part is done
    alone SIGKILL  only the process that makes the call dies
    SIGINT         Ctrl-C before the call, which a terminal gives to all of them
"""

import argparse
import contextlib
import ctypes
import errno
import gc
import importlib
import io
import json
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from remotes import Remote

from cvs import store_add
from cvs.cli import Session
from cvs.main import COMMANDS, main
from cvs.store import fs, workers
from cvs.versions import fetch as fetching
from cvs.versions import interpreter, ranges
from cvs.versions.access import Access
from cvs.versions.connections import Connections
from cvs.versions.fetch import Expected

#: What commands import when they need it; imported once.
_LATER = ("cvs.cmd_clone", "cvs.cmd_delete", "cvs.cmd_realize", "cvs.cmd_rollback", "cvs.cmd_store")
_LATER += ("cvs.store_repair", "cvs.terminal", "cvs.versions.download", "cvs.versions.git")
_LATER += ("cvs.versions.models", "cvs.versions.python", "cvs.versions.requirements")
_LATER += ("cvs.versions.wheels", "concurrent.futures.thread", "git.cmd", "packaging.requirements")
_LATER += ("requests", "uv")

#: The calls of the kernel that the seam makes.
_KERNEL = ("mkdir", "rename", "symlink", "link", "unlink", "rmdir", "utime", "chmod")
_KERNEL += ("open", "write", "pwrite", "copy_file_range", "ftruncate", "fsync", "close")

#: Kinds of calls: those that take a path, those that need space, those that make a name.
MAKING = frozenset({"mkdir", "create", "symlink", "link"})
NAMING = MAKING | {"rename", "unlink", "rmdir", "utime", "chmod"}
GROWING = MAKING | {"write", "copy", "truncate", "fsync", "syncfs", "close"}

#: Which calls a fault can meet; all calls where it is not here.
_MEETS = {
    "half": frozenset({"write", "copy"}),
    "from": GROWING,
    "EMFILE": frozenset({"create"}),
    "ENOENT": NAMING,
    "after ENOENT": frozenset({"rename", "unlink", "rmdir"}),
    "after EEXIST": MAKING,
}

#: prctl(2): whoever loses its parent becomes a child of this process.
_PR_SET_CHILD_SUBREAPER = 36


def meets(fault: str, call: str) -> bool:
    """Whether a fault can befall a call of this kind."""
    calls = _MEETS.get(fault, _MEETS.get(fault.partition(" ")[0]))
    return calls is None or call in calls


class Seam:
    """What lies between `store/fs.py` and the kernel; all processes of a run share it."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 4096)
        self._armed = threading.local()
        self._number = 0
        self._fault = self._how = self._what = ""
        self._log = ""

    def order(self, number: int, fault: str, log: str) -> None:
        """Lets a call go wrong in the next run.

        Args:
            number: counted from 1 among the calls that the fault can meet; 0 for none.
            log: a file for the names of all calls; "" for none.
        """
        first, _, second = fault.partition(" ")
        self._how, self._what = (first, second) if second or first == "half" else ("", first)
        self._number, self._fault, self._log = number, fault, log
        self._shared[:] = bytes(len(self._shared))
        # Another for each run: who is killed may hold it.
        self._lock = multiprocessing.get_context("fork").Lock()

    @property
    def hit(self) -> list[str]:
        """The call that went wrong and the path or descriptor that it was for, if one did."""
        text = self._shared[8:].rstrip(b"\0").decode("utf-8", "surrogateescape")
        return text.split("\n") if text else []

    def insert(self) -> None:
        """Puts it below `store/fs.py` in this process and those that it forks."""
        known = {name: self._around(getattr(os, name)) for name in _KERNEL}
        fs.os = types.SimpleNamespace(**{**vars(os), **known})
        fs._syncfs = self._around(fs._syncfs)
        fs.observer = self._observe

    def _observe(self, call: str, where: object) -> None:
        if self._log:
            with open(self._log, "a", encoding="ascii") as file:
                file.write(f"{call}\n")
        if not self._number or not meets(self._fault, call):
            return
        # A signal that another process of the run meets may not leave the lock with nobody.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            with self._lock:
                (before,) = struct.unpack_from("q", self._shared)
                struct.pack_into("q", self._shared, 0, before + 1)
                is_next = before + 1 == self._number
                ours = is_next or (self._how == "from" and before >= self._number)
                if is_next:
                    path = where if isinstance(where, str | bytes) else str(where)
                    text = os.fsencode(call) + b"\n" + os.fsencode(path)
                    self._shared[8 : 8 + len(text)] = text
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if ours and self._what.startswith("SIG") and self._how != "half":
            self._signal()
        elif ours:
            self._armed.now = self._happen

    def _signal(self) -> None:
        number = getattr(signal, self._what)
        if self._how == "alone":
            os.kill(os.getpid(), number)
        else:
            os.killpg(0, number)

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """A call of the kernel, of which that happens which was arranged in this thread."""

        def call(*arguments: Any, **options: Any) -> Any:
            happen = getattr(self._armed, "now", None)
            if happen is None:
                return real(*arguments, **options)
            self._armed.now = None
            return happen(real, *arguments, **options)

        return call

    def _happen(self, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self._how == "half":
            *files, data = arguments[:2] if real is os.pwrite else arguments
            part = (data + 1) // 2 if isinstance(data, int) else data[: (len(data) + 1) // 2]
            count = real(*files, part, *arguments[len(files) + 1 :])
            if self._what.startswith("SIG"):
                self._signal()
            if self._what:
                self._armed.now = self._refuse
            return count
        # Whatever close says, the descriptor is gone.
        if self._how == "after" or real is os.close:
            done = real(*arguments, **options)
            if real is os.open:
                os.close(done)
        return self._refuse(real, *arguments)

    def _refuse(self, real: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        """Raises what the kernel would, with the paths that it was given."""
        code = getattr(errno, self._what)
        texts = (
            []
            if real in (os.write, os.pwrite)
            else [a for a in arguments if isinstance(a, str | bytes)]
        )
        raise OSError(code, os.strerror(code), *[p for text in texts for p in (text, None)][:3])


class Runs:
    """The runs: each is a process group of its own."""

    def __init__(self) -> None:
        self._seam = Seam()

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Does what a line of standard input asks for.

        Its members: `arguments` of cvs, `number` and `fault`; `filesystem`, the type of the
        volume's as mountinfo would name it, "" for what it is; `log`, where the run writes what it
        said; `calls`, a file for the names of its calls, "" for none. The answer has `status` as
        waitpid gives it, the `text`, and the `hit`.
        """
        log = order["log"]
        self._seam.order(order["number"], order["fault"], order["calls"])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        child = os.fork()
        if not child:
            self._child(order)
        status = os.waitpid(child, 0)[1]
        with contextlib.suppress(ChildProcessError):
            # Also what it started: nothing of a run works on after its end.
            while os.waitpid(-child, 0):
                continue
        text = ""
        with contextlib.suppress(FileNotFoundError), open(log, encoding="utf-8") as file:
            text = file.read()
        return {"status": status, "text": text, "hit": self._seam.hit}

    def _child(self, order: dict[str, Any]) -> None:
        code = 99
        text = io.StringIO()
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if order["filesystem"]:
                pretend(order["filesystem"])
            self._seam.insert()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(text):
                code = main(order["arguments"])
            fs.observer = None
        except SystemExit as error:
            code = int(str(error.code))
        except BaseException:
            import traceback

            traceback.print_exc(file=text)
        finally:
            with open(order["log"], "w", encoding="utf-8") as file:
                file.write(text.getvalue())
            os._exit(code)


def pretend(filesystem: str) -> None:
    """Lets the volume lie on a file system of another type."""
    root, real = os.environ["COMFY_CACHE_ROOT"], fs.filesystem_of

    def filesystem_of(path: str) -> str:
        return filesystem if path.startswith(root) else real(path)

    fs.filesystem_of = filesystem_of


def add(arguments: list[str]) -> int:
    """As `cvs store add`, with several processes however little there is to do."""
    workers.SMALL = 0
    return store_add.run(arguments)


def publish(_: list[str]) -> int:
    """Publishes a file, a tree and a set at once."""
    store = Session(argparse.Namespace()).store
    store.volume.prepare()
    with store.stage() as one, store.stage() as two, store.stage() as three:
        file = one.file([b"a model ", b"in two pieces"], origin="model")
        writer = two.tree("several")
        for number in range(12):
            writer.write(b"%d/file" % number, b"x" * number, executable=number == 7)
        writer.folder(b"empty")
        writer.link(b"link", b"7/file")
        tree = writer.finish(origin="several")
        store.publish(file, tree, three.set([file.id, tree.id], origin="both"))
    return 0


def fetch(_: list[str]) -> int:
    """Fetches a file of several pieces over two connections, or goes on with it."""
    ranges.SMALLEST = 1 << 20
    store = Session(argparse.Namespace()).store
    store.volume.prepare()
    remote = Remote(bytes(range(251)) * 20_000)
    expected = Expected("m.bin", "http://server/m.bin", "spec")
    access = Access(connections=Connections(2))
    fetching.file(store, remote, expected, access, lambda path, name: None)
    return 0


def serve() -> None:
    """Runs what standard input asks for until that ends."""
    for function in (add, publish, fetch):
        # As commands, for what cvs explains of an error it explains of all commands.
        COMMANDS[function.__name__] = function.__doc__ or ""
        module = types.ModuleType(f"cvs.cmd_{function.__name__}")
        module.run = function
        sys.modules[module.__name__] = module
    # Standard output is for answers alone, whatever is started.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for name in _LATER:
        importlib.import_module(name)
    # Asked once, before any fork.
    interpreter.probe(interpreter.find(None))
    # No child touches, and thereby copies, what is there already.
    gc.freeze()
    runs = Runs()
    for line in sys.stdin:
        print(json.dumps(runs.run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    serve()
