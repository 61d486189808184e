"""Progress on a terminal and elsewhere."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator

import pytest

from cvs import counts, terminal
from cvs.terminal import INTERVAL, LARGE, Bars, Lines, progress

#: Hides the cursor, and shows it.
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"

PATIENCE = 60


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, which passes when a test says so."""
    time = [0.0]
    monkeypatch.setattr(counts, "clock", lambda: time[0])
    yield time


# Lines


def test_one_task(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """A line every few seconds, and none for what is quick."""
    board = Lines()
    with board.task("quick", 100) as task:
        task.advance(100)
    with board.task("slow", 1000) as task:
        for _ in range(12):
            now[0] += 1
            task.advance(50)

    assert capsys.readouterr() == (
        "",
        "slow: 250 B of 1.0 kB, 50 B/s, 15 s left\nslow: 500 B of 1.0 kB, 50 B/s, 10 s left\n",
    )


def test_many_tasks_are_one_stream(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Forty at once are a line every few seconds, with the total and some of them."""
    board = Lines()
    tasks = [board.task(f"m{number}", 1000) for number in range(40)]
    for _ in range(3 * int(INTERVAL)):
        now[0] += 1
        for task in tasks:
            task.advance(10)
    lines = capsys.readouterr().err.splitlines()

    assert len(lines) == 3
    assert lines[2] == (
        "all: 5.6 kB of 40.0 kB, 400 B/s, 1 min 26 s left: "
        "m0 15%, m1 14%, m2 14%, m3 14% and 36 more"
    )


def test_items(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """What is counted in pieces has no bytes, and stands beside what has."""
    board = Lines()
    with board.task("packages", 10, "items") as outer, board.task("file", 4000) as inner:
        outer.advance(3)
        now[0] += INTERVAL
        inner.advance(1000)

    assert capsys.readouterr().err == (
        "packages: 3 of 10, 12 s left; file: 1.0 kB of 4.0 kB, 200 B/s, 15 s left\n"
    )


def test_a_large_file_has_a_last_line(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """With its time and speed; not one that failed, nor a small one."""
    board = Lines()
    with board.task("large") as task:
        task.skip(LARGE)
        now[0] += 4
        task.advance(LARGE)
    with pytest.raises(ValueError, match="broken"), board.task("failed") as task:
        task.advance(LARGE)
        raise ValueError("broken")
    with board.task("small") as task:
        task.advance(LARGE - 1)

    assert capsys.readouterr().err == (
        "large: 200.0 MB (100.0 MB of it were there) in 4.0 s, 25.0 MB/s\n"
    )


def test_which_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars only where they can be drawn."""
    assert isinstance(progress(), Lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress(), Bars)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress(), Lines)


# Bars, on a real terminal


class Screen:
    """A Python program whose standard error is a terminal."""

    def __init__(self, code: str, columns: int = 120, rows: int = 24) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (rows, columns))
        # These would count for more than the terminal's size.
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code],
            env={**environment, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        assert self.process.stdout is not None
        self.said = ""

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        os.close(self._master)

    def until(self, text: str) -> None:
        """Reads until something was said."""
        while text not in self.said:
            assert self._read(), self.said

    def end(self) -> str:
        """Reads all and returns it."""
        while self._read():
            pass
        self.process.wait(PATIENCE)
        return self.said

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE)
        assert ready, self.said
        try:
            piece = os.read(self._master, 65536)
        except OSError:
            # Nobody has the terminal any more.
            return False
        self.said += piece.decode()
        return bool(piece)


PRELUDE = """
import sys, time
from cvs import counts, terminal
now = [0.0]
counts.clock = lambda: now[0]
board = terminal.progress()
"""


def words(said: str) -> str:
    """What was drawn, without what steers the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said)


def test_bars() -> None:
    """A bar for each file and the total, which vanish; notes stay, results go their own way."""
    code = """
board.expect(10_000)
with board.task("flux", 4000) as a, board.task("[b]vae[/b]", 2000) as b:
    for _ in range(10):
        now[0] += 1
        a.advance(200)
        b.advance(100)
    board.note("took [clip] from there")
    print("result")
"""
    with Screen(code) as screen:
        said = screen.end()
        assert screen.process.stdout.read() == b"result\n"

    drawn = words(said)
    assert re.search(r"flux +━+.* 2\.0 kB of 4\.0 kB +200 B/s, 10 s left", drawn)
    assert re.search(r"\[b\]vae\[/b\] +━+.* 900 B of 2\.0 kB", drawn)
    assert re.search(r"all \(2 run\) +━+.* 2\.9 kB of 10\.0 kB +290 B/s, 24 s left", drawn)
    assert "took [clip] from there" in drawn
    assert said.rfind(SHOWN) > said.rfind(HIDDEN) >= 0
    # The lines of the bars are cleared at the end.
    assert said.rstrip().endswith("\x1b[2K")


def test_more_bars_than_lines() -> None:
    """The total is seen whatever else does not find room; a narrow terminal has no bars."""
    code = """
tasks = [board.task(f"a-rather-long-name-{number}", 1000) for number in range(40)]
now[0] += 1
for task in tasks:
    task.advance(100)
now[0] += 1
tasks[0].advance(100)
for task in tasks:
    task.__exit__(None, None, None)
"""
    with Screen(code, columns=60, rows=10) as screen:
        said = screen.end()

    drawn = words(said)
    assert "all (40 run)" in drawn
    assert "4.1 kB of 40.0 kB" in drawn
    assert "name-9" not in drawn
    assert "━" not in drawn
    assert all(len(line) <= 60 for line in re.split(r"[\r\n]+", drawn))


def test_interrupted() -> None:
    """Ctrl-C leaves no bar behind, and the cursor is seen again."""
    code = """
from cvs import cli
class module:
    def run(arguments):
        with board.task("flux", 4000) as task:
            task.advance(1000)
            now[0] += 1
            task.advance(1000)
            time.sleep(60)
cli.importlib.import_module = lambda name: module
sys.exit(cli.run_command("x", []))
"""
    with Screen(code) as screen:
        screen.until("2.0 kB of 4.0 kB")
        screen.process.send_signal(signal.SIGINT)
        said = screen.end()
        assert screen.process.returncode == 130

    assert said.rfind(SHOWN) > said.rfind(HIDDEN) >= 0
    tail = words(said[said.rfind(SHOWN) :]).strip()
    assert tail == "interrupted: nothing is broken, run it again to go on"


def test_many_threads(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever comes at once is counted, and lines do not mix."""
    board = Lines()
    task = board.task("all", 80_000)

    def run() -> None:
        for _ in range(1000):
            now[0] += terminal.INTERVAL
            task.advance(10)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert board.running[1].done == 80_000
    assert all(
        re.fullmatch(r"all: .* of 80\.0 kB, .*", line)
        for line in capsys.readouterr().err.splitlines()
    )
