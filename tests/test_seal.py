"""The seal: what a sealed process may not do, as root, and what it may."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attacks
import pytest

from cvs.store import seal

ATTACKS = Path(attacks.__file__).read_text()


@pytest.fixture(autouse=True)
def landlock() -> Iterator[None]:
    """The tests need a kernel with Landlock; without it the state says so and why."""
    if seal.state() != "full":
        assert seal.state().startswith(("none: ", "partial: "))
        pytest.skip(f"the seal is {seal.state()}")
    yield


def run(made: seal.Seal, code: str, *arguments: str) -> str:
    """Runs Python code sealed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        preexec_fn=made.apply,
        capture_output=True,
        text=True,
        check=False,
    )
    made.close()
    assert done.returncode == 0, done.stderr
    return done.stdout


def listing(root: Path) -> list[tuple[str, bytes | None]]:
    """Everything below a folder."""
    return sorted((str(p), p.read_bytes() if p.is_file() else None) for p in root.rglob("*"))


def targets(root: Path) -> list[str]:
    """A file and a folder, for attacks to try."""
    (root / "closed" / "folder").mkdir(parents=True)
    (root / "closed" / "file").write_text("content\n")
    (root / "outside").mkdir()
    return [str(root / "closed" / "file"), str(root / "closed" / "folder")]


def test_every_write_is_refused(tmp_path: Path) -> None:
    """Nothing below a protected folder can be changed in any of many ways; reading goes on."""
    closed, (file, folder) = tmp_path / "closed", targets(tmp_path)
    before = listing(closed)

    made = seal.make([str(closed)], [])
    outside = str(tmp_path / "outside")
    said = run(made, ATTACKS, "all", outside, str(os.getpid()), file, folder).splitlines()

    assert [line for line in said if not line.endswith(": refused")] == []
    assert len(said) == len(attacks.NAMES)
    assert listing(closed) == before


@pytest.mark.parametrize("name", attacks.NAMES)
def test_the_attacks_are_real(tmp_path: Path, name: str) -> None:
    """Without the seal every one of them does what it is about."""
    command = [sys.executable, "-c", ATTACKS, name, str(tmp_path / "outside"), str(os.getpid())]
    if name == "bind mount":
        # So that it ends with the process.
        command = ["unshare", "-m", *command]
    done = subprocess.run(
        [*command, *targets(tmp_path)], capture_output=True, text=True, check=False
    )

    if name in attacks.PRIVILEGED and not done.stdout.endswith(": DONE\n"):
        pytest.skip("this takes more than is permitted here")
    assert done.stdout.endswith(f": {name}: DONE\n")


def test_what_is_granted_inside(tmp_path: Path) -> None:
    """Of a protected folder, the folders that are named may be written; their siblings not."""
    for name in ("volume/state/mine", "volume/state/other", "volume/store"):
        (tmp_path / name).mkdir(parents=True)
    made = seal.make([str(tmp_path / "volume")], [str(tmp_path / "volume/state/mine")])
    code = (
        "import os, sys\n"
        "for name in ('state/mine', 'state/other', 'state', 'store', '.'):\n"
        "    try: open(f'{sys.argv[1]}/{name}/x', 'w').close(); print('yes')\n"
        "    except PermissionError: print('no')\n"
    )

    assert run(made, code, str(tmp_path / "volume")).split() == ["yes", "no", "no", "no", "no"]


def test_the_rest_of_the_machine_can_be_written(tmp_path: Path) -> None:
    """Siblings of a protected folder, /dev/null and folders elsewhere stay as they were."""
    for name in ("volume", "beside"):
        (tmp_path / name).mkdir()
    code = (
        "import sys, tempfile, multiprocessing\n"
        "open(f'{sys.argv[1]}/beside/x', 'w').write('x')\n"
        "open('/dev/null', 'w').write('x')\n"
        "multiprocessing.Queue().put(1)\n"
        "print(open(sys.argv[2]).read())\n"
    )
    file = tmp_path / "volume" / "readable"
    file.write_text("read")

    said = run(seal.make([str(tmp_path / "volume")], []), code, str(tmp_path), str(file))
    assert said == "read\n"


def test_files_right_beside_are_not_granted(tmp_path: Path) -> None:
    """A file beside a protected folder cannot be written: a rule would hold it on the disk."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "file").write_text("kept")
    code = (
        "import sys\ntry: open(sys.argv[1], 'w')\nexcept PermissionError: print('no')\n"
        "print(open(sys.argv[1]).read())"
    )

    made = seal.make([str(tmp_path / "volume")], [])
    assert run(made, code, str(tmp_path / "file")) == "no\nkept\n"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A protected folder that does not exist, and one behind a link, are no error."""
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "link")
    made = seal.make([str(tmp_path / "none"), str(tmp_path / "link")], [])
    code = "import os, sys\ntry: os.mkdir(sys.argv[1])\nexcept PermissionError: print('no')"

    assert run(made, code, str(tmp_path / "real" / "x")) == "no\n"


# Only what is given may be written


def test_only_what_is_given_is_written(tmp_path: Path) -> None:
    """Of all attacks on anything else none works; the folder that is given can be written."""
    closed, (file, folder) = tmp_path / "closed", targets(tmp_path)
    before = listing(closed)

    made = seal.only([str(tmp_path / "outside")])
    outside = str(tmp_path / "outside")
    said = run(made, ATTACKS, "all", outside, str(os.getpid()), file, folder).splitlines()

    assert [line for line in said if not line.endswith(": refused")] == []
    assert len(said) == len(attacks.NAMES)
    assert listing(closed) == before
    assert (tmp_path / "outside" / "mine").read_text() == "mine"


#: What else nobody may do under `only`, beside a folder that is its own: sys.argv[1].
BESIDE = {
    "the parent of its folder": "open(f'{own}/../new', 'w')",
    "the folder itself": "os.rename(own, f'{own}/../other')",
    "a temporary file": "open(f'/tmp/{os.path.basename(own)}-{os.getpid()}', 'x')",
    "shared memory": "open(f'/dev/shm/{os.getpid()}', 'x')",
    "a semaphore": "__import__('multiprocessing').Lock()",
    "a device of its own": "os.mknod(f'{own}/disk', 0o60600, os.makedev(7, 0))",
    "a terminal of its own": "os.mknod(f'{own}/tty', 0o20600, os.makedev(5, 0))",
    "a setting of the kernel": "open('/proc/sys/kernel/hostname', 'w')",
    "a variable of a process": "open(f'/proc/{os.getppid()}/oom_score_adj', 'w')",
    "a signal": "os.kill(os.getppid(), 0)",
    "the variables of another": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "the host's name": "__import__('socket').sethostname(os.uname().nodename)",
    "another owner": "os.mkdir(f'{own}/x'); os.rmdir(f'{own}/x'); os.chown(own, 12345, 12345)",
    "the memory of another": (
        "pid, buffer = os.getppid(), (ctypes.c_char * 8)()\n"
        "class IO(ctypes.Structure):\n"
        "    _fields_ = (('base', ctypes.c_void_p), ('length', ctypes.c_size_t))\n"
        "mine, theirs = IO(ctypes.addressof(buffer), 8), IO(int(sys.argv[2]), 8)\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.process_vm_writev(pid, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0) < 0:\n"
        "    raise OSError(ctypes.get_errno(), 'process_vm_writev')"
    ),
}

#: What only later kernels refuse as well.
SINCE = {"a signal": 6}


@pytest.mark.parametrize("name", BESIDE)
def test_nothing_else_is_changed(tmp_path: Path, name: str) -> None:
    """No way leads from a folder that may be written to anything outside of it."""
    if seal._version() < SINCE.get(name, 0):
        pytest.skip("this kernel does not refuse it")
    own = tmp_path / "own"
    own.mkdir()
    buffer = ctypes.create_string_buffer(b"untouched")
    head = "import ctypes, os, sys, time\nown = sys.argv[1]\n"
    indented = BESIDE[name].replace("\n", "\n    ")
    code = f"{head}try:\n    {indented}\nexcept OSError as error: print(error.errno)"

    said = run(seal.only([str(own)]), code, str(own), str(ctypes.addressof(buffer)))
    assert said.strip() in ("1", "3", "13", "18"), said
    assert sorted(os.listdir(tmp_path)) == ["own"]
    assert os.listdir(own) == []
    assert buffer.value == b"untouched"


def test_what_a_build_does(tmp_path: Path) -> None:
    """In its folder a build does everything; it reads all, and its output and /dev/null take all.

    What it starts are its own: they can be told to end, and what they share is theirs.
    """
    (tmp_path / "file").write_text("read")
    (tmp_path / "own").mkdir()
    code = (
        "import os, signal, subprocess, sys, tempfile\n"
        "os.chdir(sys.argv[1])\n"
        "os.makedirs('a/b'); open('a/b/x', 'w').write('x'); os.truncate('a/b/x', 0)\n"
        "os.rename('a/b', 'c'); os.link('c/x', 'y'); os.symlink('y', 'z'); os.mkfifo('f')\n"
        "os.unlink('y'); os.chmod('c/x', 0o755); tempfile.TemporaryFile(dir='.').write(b'x')\n"
        "for name in ('null', 'zero'): open(f'/dev/{name}', 'w').write('x')\n"
        "print(open('../file').read(), flush=True)\n"
        "subprocess.run(['sh', '-c', 'echo child > /dev/stdout; cat ../file > copy'], check=True)\n"
        "one = subprocess.Popen(['sleep', '60']); one.send_signal(signal.SIGTERM)\n"
        "print(-one.wait())\n"
    )

    said = run(seal.only([str(tmp_path / "own")]), code, str(tmp_path / "own"))
    assert said.split() == ["read", "child", "15"]
    assert sorted(os.listdir(tmp_path / "own")) == ["a", "c", "copy", "f", "z"]


def test_only_nothing(tmp_path: Path) -> None:
    """Without a folder nothing can be written at all."""
    code = "import sys\ntry: open(sys.argv[1], 'w')\nexcept PermissionError: print('no')"

    assert run(seal.only([]), code, str(tmp_path / "new")) == "no\n"


def test_no_tcp_under_only(tmp_path: Path) -> None:
    """Where the kernel can, TCP is refused too: one wall more where nobody filters system calls."""
    if seal._version() < 4:
        pytest.skip("this kernel does not refuse it")
    code = (
        "import socket, sys\n"
        "for what in (socket.create_server, socket.create_connection):\n"
        "    try: what(('127.0.0.1', int(sys.argv[1])))\n"
        "    except PermissionError: print('no')\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = run(seal.only([str(tmp_path)]), code, str(server.getsockname()[1]))

    assert said == "no\nno\n"
