"""ComfyUI as a child process: its command line, environment, log and end."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from world import DEMO, OLD, until

from cvs.profiles import process
from cvs.store.errors import InputError, RunError
from cvs.store.seal import Seal

NO_SEAL = Seal("none", lambda: None, lambda: None)


@contextmanager
def started(
    folder: Path, script: str, *user: str, log: Callable[[str], None] = lambda _: None
) -> Iterator[process.ComfyUI]:
    """A script in the place of main.py."""
    (folder / "main.py").write_text(script)
    with process.ComfyUI(
        python=sys.executable,
        view=str(folder),
        variables=os.environ,
        user=user,
        host="127.0.0.1",
        port=process.free_port(),
        database=None,
        scratch=str(folder),
        seal=NO_SEAL,
        log=log,
    ) as comfy:
        yield comfy


# The command line


def test_known_flags() -> None:
    """What a core's cli_args.py declares, of today and of 2024, without running it."""
    new = process.known_flags(str(DEMO / "core"))
    old = process.known_flags(str(OLD))

    assert {"--listen", "--port", "--database-url", "--temp-directory"} <= new
    assert {"--listen", "--port", "--temp-directory"} <= old
    assert "--database-url" not in old


@pytest.mark.parametrize("text", [None, "def", "raise SystemExit(1)\n", "\0"])
def test_flags_of_a_strange_core(tmp_path: Path, text: str | None) -> None:
    """A core whose file cannot be read has no flags that are known."""
    (tmp_path / "comfy").mkdir()
    if text is not None:
        (tmp_path / "comfy" / "cli_args.py").write_text(text)

    assert process.known_flags(str(tmp_path)) == frozenset()


ALL = frozenset({"--disable-auto-launch", "--database-url", "--temp-directory"})
START = ["--listen", "::1", "--port", "1"]


@pytest.mark.parametrize(
    ("flags", "user", "expected"),
    [
        (frozenset(), [], START),
        (
            ALL,
            [],
            [*START, "--disable-auto-launch", "--database-url", "db", "--temp-directory", "t"],
        ),
        (
            ALL,
            ["--database-url", "mine", "--temp-directory", "m"],
            [*START, "--disable-auto-launch", "--database-url", "mine", "--temp-directory", "m"],
        ),
        (frozenset(), ["--cpu", "--", "-x"], [*START, "--cpu", "--", "-x"]),
    ],
)
def test_arguments(flags: frozenset[str], user: list[str], expected: list[str]) -> None:
    """Only what the core knows is passed; the user's options come last and win."""
    found = process.arguments(flags, host="::1", port=1, database="db", temp="t", user=user)

    assert expected == found


def test_port_of_the_user(tmp_path: Path) -> None:
    """A port among the user's own options is where ComfyUI is looked for."""
    for user in (["--port", "7"], ["--port=7"], ["--port", "5", "--port", "7", "--cpu"]):
        with started(tmp_path, "", *user) as comfy:
            assert comfy.url == "http://127.0.0.1:7"
    with started(tmp_path, "", "--port") as comfy:
        assert comfy.url != "http://127.0.0.1:7"


def test_environment() -> None:
    """The version's Python is first on PATH, what would unlock it is gone, the spec has the
    last word."""
    base = {
        "PATH": "/bin",
        "PYTHONPATH": "/x",
        "PYTHONHOME": "/x",
        "CONDA_PREFIX": "/x",
        "VIRTUAL_ENV": "/x",
        "HOME": "/h",
        "MODELS_DIR": "/old",
    }
    found = process.environment(
        base, python="/e/bin/python", home="/v", models_dir="/m", extra={"HOME": "/mine", "A": "1"}
    )

    expected = {
        "PATH": "/e/bin:/bin",
        "VIRTUAL_ENV": "/e",
        "HOME": "/mine",
        "COMFY_HOME": "/v",
        "MODELS_DIR": "/m",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "A": "1",
    }
    assert expected == found


# Ports and addresses


def test_check_port() -> None:
    """A free port is fine, also one that was just left; a taken one is refused."""
    port = process.free_port()
    process.check_port("127.0.0.1", port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        for host in ("127.0.0.1", "0.0.0.0", "localhost"):
            with pytest.raises(InputError, match=f"port {port} on {host} cannot be used"):
                process.check_port(host, port)
    process.check_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "http://127.0.0.1:7"),
        ("::", "http://127.0.0.1:7"),
        ("10.0.0.1", "http://10.0.0.1:7"),
        ("::1", "http://[::1]:7"),
    ],
)
def test_url(host: str, expected: str) -> None:
    """Where it answers, seen from this host."""
    comfy = process.ComfyUI.__new__(process.ComfyUI)
    comfy.host, comfy.port = host, 7

    assert expected == comfy.url


# The log


def test_log(tmp_path: Path) -> None:
    """Every line is passed on and the end is kept; failed imports and refused writes are seen."""
    script = (
        "import sys\n"
        "for n in range(50): print('line', n)\n"
        "print('   0.0 seconds (IMPORT FAILED): /x/custom_nodes/a b')\n"
        "sys.stdout.flush()\n"
        "sys.stderr.buffer.write(b'\\xff PermissionError: no\\nno newline')\n"
    )
    lines: list[str] = []
    with started(tmp_path, script, log=lines.append) as comfy:
        comfy.process.wait()
        tail = comfy.last_lines(2)
        with pytest.raises(RunError, match=r"ended with code 0; its log ends:\n"):
            comfy.check_alive()

    assert [f"line {n}" for n in range(50)] == lines[:50]
    assert tail == "\ufffd PermissionError: no\nno newline"
    assert comfy.failed_imports == ["/x/custom_nodes/a b"]
    assert comfy.denied


def test_wait_ready(tmp_path: Path) -> None:
    """It returns at the first answer, says that ComfyUI has ended, or that it does not answer."""
    answers = iter([False, False, True])
    with started(tmp_path, "import time; time.sleep(600)") as comfy:
        comfy.wait_ready(lambda: next(answers), 60)
        with pytest.raises(RunError, match="did not answer at http://127"):
            comfy.wait_ready(lambda: False, 0)
    with (
        started(tmp_path, "print('so be it'); raise SystemExit(3)") as comfy,
        pytest.raises(RunError, match=r"ended with code 3; its log ends:\nso be it"),
    ):
        comfy.wait_ready(lambda: False, 60)


def test_python_that_does_not_run(tmp_path: Path) -> None:
    """An interpreter that is not there is a sentence."""
    with pytest.raises(RunError, match="/no/python cannot be started: "):
        process.ComfyUI(
            python="/no/python",
            view=str(tmp_path),
            variables={},
            user=(),
            host="127.0.0.1",
            port=1,
            database=None,
            scratch=str(tmp_path),
            seal=NO_SEAL,
            log=print,
        )


# The end

READY = "print('ready', flush=True)\n"


def ready(comfy: process.ComfyUI) -> None:
    until(lambda: "ready" in comfy.last_lines() or comfy.process.poll() is not None)


def test_stop_with_sigint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT comes first, and is heeded although the parent ignores it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        script = (
            "import time\n"
            f"try:\n    {READY}    time.sleep(600)\n"
            "except KeyboardInterrupt:\n    raise SystemExit(5)\n"
        )
        with started(tmp_path, script) as comfy:
            ready(comfy)
            assert comfy.stop() == 5
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("ignored", "code"), [(["SIGINT"], -15), (["SIGINT", "SIGTERM"], -9)], ids=str
)
def test_stop_by_harder_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: list[str], code: int
) -> None:
    """What ignores SIGINT gets SIGTERM, and what ignores that is killed."""
    monkeypatch.setattr(process, "GRACE_INTERRUPT", 0.2)
    monkeypatch.setattr(process, "GRACE_TERMINATE", 0.2)
    lines = [f"signal.signal(signal.{name}, signal.SIG_IGN)\n" for name in ignored]
    script = "import signal, time\n" + "".join(lines) + READY + "time.sleep(600)\n"
    with started(tmp_path, script) as comfy:
        ready(comfy)

        assert comfy.stop() == code


def test_stop_takes_children_along(tmp_path: Path) -> None:
    """What nodes started ends with ComfyUI, and does not hold its log open."""
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('child', 'w').write(str(child.pid))\n" + READY + "time.sleep(600)\n"
    )
    with started(tmp_path, script) as comfy:
        ready(comfy)
        comfy.stop()
    pid = int((tmp_path / "child").read_text())

    until(lambda: not Path(f"/proc/{pid}").exists() or state_of(pid) == "Z")
    assert not comfy._reader.is_alive()


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_stop_twice(tmp_path: Path) -> None:
    """Stopping what has ended is fine and gives its code."""
    with started(tmp_path, "raise SystemExit(4)") as comfy:
        comfy.process.wait()
        assert comfy.stop() == 4
        assert comfy.stop() == 4


def test_error_inside_ends_it(tmp_path: Path) -> None:
    """Whatever is raised inside the block, ComfyUI is ended."""
    with (
        pytest.raises(ZeroDivisionError),
        started(tmp_path, READY + "import time; time.sleep(600)") as comfy,
    ):
        raise ZeroDivisionError

    assert comfy.process.poll() is not None
