"""Amounts, speeds and times of what runs."""

from collections.abc import Iterator

import pytest

from cvs import counts
from cvs.counts import WINDOW, Board, Speed, duration


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, which passes when a test says so."""
    time = [100.0]
    monkeypatch.setattr(counts, "clock", lambda: time[0])
    yield time


def test_a_speed_is_that_of_the_last_seconds() -> None:
    """Not known at first; what was long ago does not count; it falls to nothing at a stall."""
    speed = Speed(0.0)
    speed.add(1000, 0.0)
    assert speed.at(0.1) is None
    for second in range(1, 31):
        speed.add(100 if second > 15 else 5000, float(second))
    assert speed.at(30.0) == pytest.approx(100, rel=0.2)
    assert speed.at(30.0 + 5 * WINDOW) < 30
    speed.add(0, 30.0 + 5 * WINDOW)
    assert speed.at(31.0 + 5 * WINDOW) == 0


def test_what_was_there_is_no_speed(now: list[float]) -> None:
    """Bytes of an earlier run count as done, and the time left follows from the others."""
    board = Board()
    with board.task("model", 10_000) as task:
        task.skip(6000)
        now[0] += 1
        task.advance(1000)
        line = board.running[1].line(now[0])

    assert line == "model: 7.0 kB of 10.0 kB, 1.0 kB/s, 3 s left"


def test_the_total(now: list[float]) -> None:
    """All bytes that are known of, those of tasks that ended too; items are no bytes."""
    board = Board()
    with board.task("items", 7, "items") as items, board.task("a", 100) as a:
        items.advance(5)
        a.advance(40)
        assert not board.several
        with board.task("b") as b:
            assert board.several
            assert board.whole is None
            b.total(50)
            assert (board.done, board.whole) == (40, 150)
            b.advance(30)
        # It was less than was said.
        assert (board.done, board.whole) == (70, 130)
        a.advance(60)
    with board.task("c", 10):
        assert (board.done, board.whole) == (0, 10)


def test_what_is_expected(now: list[float]) -> None:
    """Tasks that are still to come count too, also while none runs."""
    board = Board()
    board.expect(100)
    with board.task("a", 30) as a:
        assert board.several
        a.advance(30)
    with board.task("b", 70) as b:
        assert (board.done, board.whole, board.several) == (30, 100, False)
        b.advance(70)
    with board.task("c", 10):
        assert board.whole == 10


def test_durations() -> None:
    """As people say them."""
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3599.6, 7260)] == [
        *("0 s", "59 s", "1 min 1 s", "1 h 0 min", "2 h 1 min")
    ]


def test_control_characters_are_shown(now: list[float]) -> None:
    """The name of a task steers no terminal."""
    board = Board()
    with board.task("a\x1b[2Jb\nc"):
        assert board.running[1].what == "a\\x1b[2Jb c"
