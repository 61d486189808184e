"""The sandbox: what runs in it changes its own folders, and is gone when it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import PATIENCE, until

from cvs.store import reaper, sandbox, seal, unplugged
from cvs.store.errors import RunError

STATES = (seal.state(), unplugged.state())
pytestmark = pytest.mark.skipif(set(STATES) != {"full"}, reason=", ".join(STATES))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own").mkdir()
    yield tmp_path / "own"


def run(
    folder: Path,
    code: str,
    *arguments: str,
    seconds: float = PATIENCE,
    stop: threading.Event | None = None,
) -> sandbox.Done:
    """Runs Python code in a sandbox that may write in a folder."""
    return sandbox.run(
        [sys.executable, "-c", code, *arguments],
        "the script",
        folder=str(folder),
        variables={"PATH": os.environ["PATH"], "TMPDIR": str(folder)},
        writable=[str(folder)],
        seconds=seconds,
        stop=stop,
    )


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or none that does anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_it_gives(own: Path) -> None:
    """Exit code and output, both streams in their order; a signal counts 128 more; no input."""
    done = run(own, "import sys; print(sys.stdin.read(), 1); sys.stdout.flush(); sys.exit('two')")
    assert done == (1, " 1\ntwo\n")
    assert run(own, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)").code == 137
    assert run(own, "").code == 0


def test_both_walls(own: Path) -> None:
    """Its folder can be written and no other, and nobody can be asked."""
    code = (
        "import socket\n"
        "open('mine', 'w').write('x')\n"
        "for what in (lambda: open('../other', 'w'), socket.socket):\n"
        "    try: what()\n"
        "    except PermissionError: print('no')\n"
    )
    with socket.create_server(("127.0.0.1", 0)):
        assert run(own, code) == (0, "no\nno\n")
    assert os.listdir(own.parent) == ["own"]


def test_variables_are_those_that_are_given(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller has in its environment is not to be had, nor in that of its process."""
    monkeypatch.setenv("CVS_TEST_TOKEN", "a secret")
    code = (
        "import os\n"
        "print(sorted(set(os.environ) - {'LC_CTYPE'}))\n"
        "parents = [os.getppid()]\n"
        "while parents[-1] > 1:\n"
        "    text = open(f'/proc/{parents[-1]}/stat').read()\n"
        "    parents.append(int(text.rpartition(')')[2].split()[1]))\n"
        "for pid in parents[:2]:\n"
        "    try: open(f'/proc/{pid}/environ').read(); print('read')\n"
        "    except PermissionError: print('no')\n"
    )

    assert run(own, code) == (0, "['PATH', 'TMPDIR']\nno\nno\n")


def test_the_end_of_what_it_says_is_kept(own: Path) -> None:
    """However much that is."""
    done = run(own, "for number in range(200000): print(number)")

    assert done.code == 0
    assert done.said.endswith("199998\n199999\n")
    assert len(done.said) <= 1 << 16


@pytest.mark.parametrize("way", ["plainly", "in a session of its own", "twice removed"])
@pytest.mark.parametrize("end", ["ends", "is ended"])
def test_what_it_started_is_gone(own: Path, way: str, end: str) -> None:
    """However far it went from its parent, and whether that ended or took too long."""
    start = {
        "plainly": "subprocess.Popen(sleep)",
        "in a session of its own": "subprocess.Popen(sleep, start_new_session=True)",
        "twice removed": (
            "subprocess.run(['setsid', 'sh', '-c', 'sleep 600 >/dev/null 2>&1 & echo $! >pid'])"
        ),
    }[way]
    code = (
        "import os, signal, subprocess, sys, time\n"
        "sleep = ['sleep', '600']\n"
        f"one = {start}\n"
        "if hasattr(one, 'pid'): open('pid', 'w').write(str(one.pid))\n"
        "if sys.argv[1] == 'is ended':\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    while True: time.sleep(600)\n"
    )
    done = run(own, code, end, seconds=PATIENCE if end == "ends" else 2.0)

    assert done.code == (0 if end == "ends" else None)
    assert is_gone(int((own / "pid").read_text()))


def test_who_closes_its_output_is_waited_for(own: Path) -> None:
    """A process may close what it writes to and go on; it has its time all the same."""
    code = "import os, time; os.close(1); os.close(2); open('file', 'w').write('x'); os._exit(3)"
    assert run(own, code).code == 3
    assert run(own, "import os, time; os.close(1); os.close(2); time.sleep(600)", seconds=1.0) == (
        None,
        "",
    )


def test_it_cannot_end_who_watches_it(own: Path) -> None:
    """What runs can neither end nor trace the process that ends it."""
    if seal._version() < 6:
        pytest.skip("this kernel does not refuse signals")
    code = (
        "import ctypes, os\n"
        "try: os.kill(os.getppid(), 9)\n"
        "except PermissionError: print('no')\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.ptrace(0x4206, os.getppid(), None, None), ctypes.get_errno())\n"
    )

    assert run(own, code) == (0, "no\n-1 1\n")


def test_it_ends_with_its_parent(own: Path) -> None:
    """A process that is killed leaves nobody who runs in its sandbox."""
    code = (
        "import os, subprocess, time\n"
        "one = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "open('pids.new', 'w').write(f'{os.getppid()} {os.getpid()} {one.pid}')\n"
        "os.rename('pids.new', 'pids'); time.sleep(600)\n"
    )
    parent = (
        "import sys\n"
        "from cvs.store import sandbox\n"
        "own, code = sys.argv[1:]\n"
        "sandbox.run([sys.executable, '-c', code], 'it', folder=own, variables={'PATH': '/bin:"
        "/usr/bin'}, writable=[own], seconds=600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent, str(own), code]) as running:
        pids = until(lambda: (own / "pids").exists() and (own / "pids").read_text().split())
        running.kill()

    until(lambda: all(is_gone(int(pid)) for pid in pids))


def test_a_command_that_is_not_there(own: Path) -> None:
    """That is its exit code and what it says."""
    done = sandbox.run(
        ["./none"], "it", folder=str(own), variables={}, writable=[], seconds=PATIENCE
    )

    assert done == (127, "./none cannot be run: No such file or directory\n")


@pytest.mark.parametrize("which", [seal, unplugged])
def test_without_a_seal_nothing_runs(
    own: Path, monkeypatch: pytest.MonkeyPatch, which: object
) -> None:
    """Where one of both walls is missing the command is refused, in a sentence, not run."""
    none = seal.Seal("none: this container forbids it", lambda: None, lambda: None)
    name = "only" if which is seal else "make"
    monkeypatch.setattr(which, name, lambda *_: none)
    monkeypatch.setattr(which, "state", lambda: none.state)
    for refused in (lambda: run(own, "open('mine', 'w')"), lambda: sandbox.check("the script")):
        with pytest.raises(RunError, match="forbids it") as error:
            refused()
        assert error.value.message == (
            "the script is not run: it cannot be sealed here, this container forbids it"
        )
    assert os.listdir(own) == []


def test_the_reaper_alone(own: Path) -> None:
    """Told to end, it ends what it runs and says so by its code."""
    command = [sys.executable, "-I", "-S", reaper.__file__, "sh", "-c", "echo $$ >pid; sleep 600"]
    with subprocess.Popen(command, cwd=own) as running:
        pid = until(lambda: (own / "pid").exists() and (own / "pid").read_text())
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE) == 143
    assert is_gone(int(pid))


def test_a_file_is_moved(own: Path) -> None:
    """Inside of its folders a file may be renamed from one into another: every build does it."""
    (own / "below").mkdir()

    done = run(own, "import os; open('a', 'w').close(); os.rename('a', 'below/b')")

    assert done == (0, "")
    assert [path.name for path in (own / "below").iterdir()] == ["b"]


def test_told_to_stop(own: Path) -> None:
    """It ends when somebody else says so, with all that it started."""
    stop = threading.Event()
    (own / "started").touch()
    code = "import os, time; os.remove('started'); time.sleep(1000)"

    def watch() -> None:
        until(lambda: not (own / "started").exists())
        stop.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    done = run(own, code, seconds=1000, stop=stop)
    watcher.join()

    assert done.code is None
