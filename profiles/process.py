"""ComfyUI as a child process: its command line, environment, log, readiness and end.

What real ComfyUI taught (docs/design.md): flags differ by version, so only those that the core's
cli_args.py declares are passed; a second instance deletes the first one's temp folder; a newer
core's database is refused by an older one; SIGINT ends it cleanly, but is ignored when it was
ignored in the parent; a node whose import fails leaves a healthy server.
"""

import ast
import collections
import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from cvs.profiles import child
from cvs.store import fs
from cvs.store.errors import InputError, RunError
from cvs.store.scratch import SHORT, Scratch, sweep
from cvs.store.seal import Seal

#: Seconds that a ComfyUI which was told to end gets before the next, harder signal.
GRACE_INTERRUPT = 10.0
GRACE_TERMINATE = 5.0

#: Lines of the log that are kept for messages.
LOG_TAIL = 40

_DENIED = re.compile(r"Permission ?denied|PermissionError|\[Errno 13\]", re.IGNORECASE)
_IMPORT_FAILED = re.compile(r"\(IMPORT FAILED\): (?P<path>.+?)\s*$")

#: What of the caller's environment must not reach a locked environment.
_DROPPED = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONPYCACHEPREFIX",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "__PYVENV_LAUNCHER__",
)

#: Caches of libraries that nodes use: variable, and where it leads below HOME if it is unset.
_CACHES = {
    "HF_HOME": ".cache/huggingface",
    "TORCH_HOME": ".cache/torch",
    "TRITON_CACHE_DIR": ".triton/cache",
    "TORCHINDUCTOR_CACHE_DIR": ".cache/torchinductor",
    "NUMBA_CACHE_DIR": ".cache/numba",
    "MPLCONFIGDIR": ".config/matplotlib",
}


def known_flags(view: str) -> frozenset[str]:
    """The options that a core's command line declares, read without running it."""
    path = os.path.join(view, "comfy", "cli_args.py")
    try:
        with open(path, "rb") as file:
            module = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    return frozenset(
        argument.value
        for call in ast.walk(module)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant)
        and isinstance(argument.value, str)
        and argument.value.startswith("--")
    )


def environment(
    base: Mapping[str, str],
    *,
    python: str,
    home: str,
    models_dir: str,
    extra: Mapping[str, str],
) -> dict[str, str]:
    """The environment variables of everything that runs in a version.

    Args:
        base: the caller's.
        python: the interpreter in the version's environment.
        home: COMFY_HOME for the process: the view.
        models_dir: MODELS_DIR for the process.
        extra: the spec's `env`, which has the last word.
    """
    variables = {name: value for name, value in base.items() if name not in _DROPPED}
    scripts = os.path.dirname(python)
    variables["PATH"] = scripts + os.pathsep + variables.get("PATH", os.defpath)
    variables["VIRTUAL_ENV"] = os.path.dirname(scripts)
    variables["COMFY_HOME"] = home
    variables["MODELS_DIR"] = models_dir
    # The store has the bytecode; nothing may write any beside it.
    variables["PYTHONDONTWRITEBYTECODE"] = "1"
    variables["PYTHONNOUSERSITE"] = "1"
    variables["PYTHONUNBUFFERED"] = "1"
    variables.update(extra)
    return variables


def write_locally(variables: dict[str, str], temporary: str, local_root: str) -> None:
    """Has what runs keep temporary files, and what libraries make, on this host's own disk.

    Args:
        variables: of what runs; changed.
        temporary: a folder that goes with the run.
    """
    variables["TMPDIR"] = temporary
    for name, path in _caches(variables, local_root).items():
        fs.makedirs(path)
        variables[name] = path


def _caches(variables: Mapping[str, str], local_root: str) -> dict[str, str]:
    """Where libraries keep what they make, for those that have no place yet.

    A folder that is there stays in use. A new one could not be made in HOME where the seal lies
    around a folder in it.
    """
    home = variables.get("HOME", "/")
    return {
        name: os.path.join(local_root, "caches", name.lower())
        for name, usual in _CACHES.items()
        if name not in variables and not os.path.isdir(os.path.join(home, usual))
    }


def scratch(local_root: str) -> Scratch:
    """A folder on this host's own disk for the files of what runs, sockets among them."""
    parent = os.path.join(local_root, "run")
    fs.makedirs(parent)
    sweep(parent)
    return Scratch(parent, digits=SHORT)


def arguments(
    flags: frozenset[str],
    *,
    host: str,
    port: int,
    database: str,
    temp: str,
    user: Sequence[str],
) -> list[str]:
    """The options for main.py, those of the user last so that they win.

    Args:
        flags: what the core knows.
        database: a database URL outside of the tree.
        temp: a folder of this process alone; ComfyUI makes and removes `temp` inside.
    """
    chosen = ["--listen", host, "--port", str(port)]
    if "--disable-auto-launch" in flags:
        chosen.append("--disable-auto-launch")
    if "--database-url" in flags and "--database-url" not in user:
        chosen += ["--database-url", database]
    if "--temp-directory" in flags and "--temp-directory" not in user:
        chosen += ["--temp-directory", temp]
    return [*chosen, *user]


def _last_port(user: Sequence[str], port: int) -> int:
    """The port that ComfyUI takes: the last one that it is given."""
    for option, value in zip(user, [*user[1:], ""], strict=False):
        name, _, rest = option.partition("=")
        given = rest or value
        if name == "--port" and given.isascii() and given.isdecimal():
            port = int(given)
    return port


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_port(host: str, port: int) -> None:
    """Raises InputError where something listens on the port already, or it is none."""
    if not 0 < port < 65536:
        raise InputError(f"--port: {port} is not a port", hint="1 to 65535 are")
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"--host {host} is not an address: {error.strerror}") from None
    family, kind, protocol, _, address = addresses[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise InputError(
                f"port {port} on {host} cannot be used: {error.strerror}",
                hint="--port names another one",
            ) from None


class ComfyUI:
    """A running ComfyUI; use as a context manager, which ends it whatever happens.

    Its log is read line by line: kept for messages, searched for failed imports, passed on.
    """

    def __init__(
        self,
        *,
        python: str,
        view: str,
        variables: Mapping[str, str],
        user: Sequence[str],
        host: str,
        port: int,
        database: str | None,
        scratch: str,
        seal: Seal,
        log: Callable[[str], None],
    ) -> None:
        """Starts ComfyUI.

        Args:
            python: the interpreter in the version's environment.
            view: the folder with main.py, where it runs.
            variables: from `environment`.
            user: options for main.py from the user.
            database: the file of the database; None for one in memory.
            scratch: a folder on the local disk for files of this process alone.
            seal: put on before ComfyUI's first instruction.
            log: receives every line of its log.
        """
        self.host, self.port = host, _last_port(user, port)
        self.failed_imports: list[str] = []
        self.denied = False
        """Whether its log speaks of a write that was refused."""
        self._tail: collections.deque[str] = collections.deque(maxlen=LOG_TAIL)
        self._log = log
        url = "sqlite:///:memory:" if database is None else f"sqlite:///{database}"
        command = [
            python,
            "main.py",
            *arguments(
                known_flags(view),
                host=host,
                port=port,
                database=url,
                temp=scratch,
                user=user,
            ),
        ]
        try:
            self.process = subprocess.Popen(
                command,
                cwd=view,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # A Ctrl-C in the terminal is for cvs, which ends ComfyUI in its own time.
                start_new_session=True,
                preexec_fn=functools.partial(_in_child, seal),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise RunError(f"{python} cannot be started: {error}") from None
        assert self.process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self.process.stdout,), name="comfyui-log", daemon=True
        )
        self._reader.start()

    @property
    def url(self) -> str:
        """Where it answers, seen from this host."""
        wildcard = self.host in ("0.0.0.0", "::", "")
        host = "127.0.0.1" if wildcard else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                self._tail.append(line)
                if match := _IMPORT_FAILED.search(line):
                    self.failed_imports.append(match["path"])
                self.denied = self.denied or bool(_DENIED.search(line))
                self._log(line)

    def last_lines(self, count: int = 8) -> str:
        """The end of the log, for a message."""
        self._reader.join(0.5)
        return "\n".join(list(self._tail)[-count:])

    def check_alive(self) -> None:
        """Raises RunError with the end of its log if ComfyUI has stopped."""
        code = self.process.poll()
        if code is not None:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            raise RunError(f"ComfyUI {how}; its log ends:\n{self.last_lines()}")

    def wait_ready(self, answers: Callable[[], bool], timeout: float) -> None:
        """Waits until `answers` says yes.

        Raises:
            RunError: ComfyUI ended, or did not answer within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not answers():
            self.check_alive()
            if time.monotonic() > deadline:
                raise RunError(
                    f"ComfyUI did not answer at {self.url} within {timeout:.0f} s; "
                    f"its log ends:\n{self.last_lines()}"
                )
            time.sleep(0.05)

    def stop(self) -> int:
        """Ends ComfyUI: SIGINT, then SIGTERM, then SIGKILL; returns its exit code."""
        for number, grace in (
            (signal.SIGINT, GRACE_INTERRUPT),
            (signal.SIGTERM, GRACE_TERMINATE),
            (signal.SIGKILL, None),
        ):
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(grace)
                except subprocess.TimeoutExpired:
                    continue
            break
        # What nodes started and left behind; the group is ComfyUI's own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._reader.join(2)
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _in_child(seal: Seal) -> None:
    """Between fork and exec: SIGINT as a program expects it, and what every child is."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    child.settle(seal)
