"""A real MooseFS for tests: a master, a chunk server, and two mounts as two pods have them.

    with MooseFS(folder) as moosefs:
        (moosefs.mounts[0] / "file").write_bytes(b"seen by both")

Servers and pods have network namespaces of their own, so the mounts share nothing but the
servers: each has its own client, with its own caches. Both mounts are seen by the tests.

All of it is set up by this file as a process of its own, which takes it down again when its
standard input ends: when the block is left, and when the tests are killed.
"""

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

#: Where to look for MooseFS besides PATH: a folder in which `scripts/moosefs` unpacked it.
VARIABLE = "CVS_MOOSEFS"

PROGRAMS = ("mfsmaster", "mfschunkserver", "mfsmount")

#: What else a mount takes; all of them are on every Debian.
TOOLS = ("ip", "nsenter", "umount")

#: Seconds for one step of setting up or taking down.
PATIENCE = 60

#: The servers' address, in a namespace where nobody else is. Clients must reach the chunk server
#: by the address that the master knows it by, so it cannot be the loopback one.
_SERVER = "10.99.0.1"

#: Of prctl(2).
_SET_CHILD_SUBREAPER = 36

_MASTER = """\
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = {folder}/meta
EXPORTS_FILENAME = {folder}/mfsexports.cfg
MATOML_LISTEN_HOST = {server}
MATOCS_LISTEN_HOST = {server}
MATOCL_LISTEN_HOST = {server}
"""

_CHUNK_SERVER = """\
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = {folder}/chunkserver
HDD_CONF_FILENAME = {folder}/mfshdd.cfg
HDD_LEAVE_SPACE_DEFAULT = 64MiB
MASTER_HOST = {server}
CSSERV_LISTEN_HOST = {server}
BIND_HOST = {server}
"""


class MooseFS:
    """A running MooseFS; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounts = (folder / "a", folder / "b")
        """Where the two pods see the same files."""
        # Two runs at once have nothing in common: these names are all that the machine shares.
        self._name = f"cvs-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, __file__, str(self.folder), self._name],
            env=search_path(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C in a terminal is for the tests.
            start_new_session=True,
        )
        self._wait("set up")
        return self

    def crash(self, number: int) -> None:
        """Lets the host of a mount die and start again: its client loses all that it has not sent
        to the servers, and is mounted anew."""
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{number}\n")
        self._guard.stdin.flush()
        self._wait("mounted again")

    def run(self, *command: str) -> str:
        """Runs one of the tools of MooseFS, such as `mfssetquota`, on the first host; returns what
        it printed."""
        network = f"--net=/run/netns/{self._name}-a"
        environment = search_path(os.environ)
        call = ["nsenter", network, *command]
        return subprocess.run(
            call, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def _wait(self, what: str) -> None:
        assert self._guard.stdout is not None
        said = ""
        try:
            said = self._guard.stdout.readline()
        finally:
            if said != "ready\n":
                said += self._guard.communicate()[0]
        if said != "ready\n":
            raise RuntimeError(f"MooseFS cannot be {what}: {said}")

    def __exit__(self, *_: object) -> None:
        said = self._guard.communicate(timeout=3 * PATIENCE)[0]
        if self._guard.returncode:
            raise RuntimeError(f"MooseFS was not taken down: {said}")


def unavailable() -> str | None:
    """Why there can be no MooseFS here, or None."""
    path = search_path(os.environ)["PATH"]
    missing = [name for name in (*PROGRAMS, *TOOLS) if shutil.which(name, path=path) is None]
    if missing:
        return f"{', '.join(missing)} not found; scripts/moosefs DIR and {VARIABLE}=DIR help"
    if os.geteuid() != 0:
        return "only root may mount MooseFS"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse here"
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "network namespaces are not permitted here" if probe.returncode else None


def search_path(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the programs and libraries of CVS_MOOSEFS are found too."""
    found = dict(environment)
    if root := environment.get(VARIABLE):
        folders = [os.path.join(root, name) for name in ("usr/sbin", "usr/bin", "sbin", "bin")]
        found["PATH"] = ":".join([environment.get("PATH", os.defpath), *folders])
        libraries = [str(path.parent) for path in Path(root).rglob("libfuse3.so.3")]
        found["LD_LIBRARY_PATH"] = ":".join(libraries)
    return found


# What follows runs in the process that sets up and takes down.


def run(*command: str) -> str:
    """Runs a command that has to succeed; returns what it printed."""
    # Into a file: a daemon that keeps a pipe open would be waited for.
    with open("commands.log", "a+b") as log:
        start = log.seek(0, os.SEEK_END)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=PATIENCE, check=False
        )
        log.seek(start)
        said = log.read().decode()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} gave {done.returncode}: {said}")
    return said


def attempt(*command: str) -> None:
    """Runs a command of taking down, after which the others are tried whatever comes of it."""
    with suppress(RuntimeError, subprocess.TimeoutExpired):
        run(*command)


def namespace(stack: ExitStack, name: str) -> None:
    """Makes a network namespace; in the end it goes, with every process and link in it."""
    run("ip", "netns", "add", name)
    stack.callback(run, "ip", "netns", "delete", name)
    stack.callback(kill_all_of, name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def reap() -> None:
    """Waits for the ends of all children."""
    with suppress(ChildProcessError):
        while True:
            os.wait()


def kill_all_of(name: str) -> None:
    """Kills the processes of a namespace, in which there are none but those of this file."""
    for number in run("ip", "netns", "pids", name).split():
        with suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)


def inside(name: str, *command: str) -> None:
    """Runs a command in a network namespace alone: what it mounts is seen by everybody."""
    run("nsenter", f"--net=/run/netns/{name}", *command)


def pod(stack: ExitStack, servers: str, name: str, number: int) -> None:
    """A namespace with a line of its own to the servers."""
    namespace(stack, name)
    ours, theirs = f"10.99.{number}.1", f"10.99.{number}.2"
    line = f"pod{number}"
    run("ip", "-n", servers, "link", "add", line, "type", "veth", "peer", "eth0", "netns", name)
    for where, device, address in ((servers, line, ours), (name, "eth0", theirs)):
        run("ip", "-n", where, "address", "add", f"{address}/24", "dev", device)
        run("ip", "-n", where, "link", "set", device, "up")
    run("ip", "-n", name, "route", "add", "default", "via", ours)


def configure(folder: Path) -> None:
    """The files that the servers begin with."""
    for name in ("meta", "chunkserver", "chunks", "a", "b"):
        (folder / name).mkdir()
    (folder / "meta" / "metadata.mfs").write_bytes(b"MFSM NEW")
    (folder / "mfsexports.cfg").write_text("* / rw,alldirs,admin,maproot=0:0\n* . rw\n")
    (folder / "mfshdd.cfg").write_text(f"{folder}/chunks\n")
    for name, text in (("mfsmaster", _MASTER), ("mfschunkserver", _CHUNK_SERVER)):
        (folder / f"{name}.cfg").write_text(text.format(folder=folder, server=_SERVER))


def mount(name: str, path: Path) -> None:
    """Mounts what the servers have in a folder, for everybody to see, as a pod does."""
    inside(name, "mfsmount", str(path), "-H", _SERVER)
    # The first write waits until the chunk server has told the master of itself.
    probe = path / f"probe-{name}"
    probe.write_bytes(b"hello\n")
    probe.unlink()


def start(stack: ExitStack, folder: Path, prefix: str) -> list[tuple[str, Path]]:
    """Starts everything; what is started is ended by the stack, also if this fails midway.

    Returns:
        The pods with their mounts.
    """
    configure(folder)
    servers, pods = f"{prefix}-servers", (f"{prefix}-a", f"{prefix}-b")
    namespace(stack, servers)
    run("ip", "-n", servers, "address", "add", f"{_SERVER}/32", "dev", "lo")
    for name in ("mfsmaster", "mfschunkserver"):
        inside(servers, name, "-c", str(folder / f"{name}.cfg"), "start")
    for number, name in enumerate(pods, 1):
        pod(stack, servers, name, number)
    mounts = list(zip(pods, (folder / "a", folder / "b"), strict=True))
    for name, path in mounts:
        # Lazily: whatever a test has left open there must not keep it.
        stack.callback(attempt, "umount", "-l", str(path))
        mount(name, path)
    return mounts


def serve(arguments: Sequence[str]) -> None:
    """Sets up and says so; mounts again what standard input names, and takes down at its end."""
    folder, prefix = Path(arguments[0]), arguments[1]
    os.chdir(folder)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Daemons become children of this process, which is not done before all of them are.
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
    with ExitStack() as stack:
        stack.callback(reap)
        mounts = start(stack, folder, prefix)
        print("ready", flush=True)
        for line in sys.stdin:
            name, path = mounts[int(line)]
            kill_all_of(name)
            run("umount", "-l", str(path))
            mount(name, path)
            print("ready", flush=True)


if __name__ == "__main__":
    serve(sys.argv[1:])
