"""How far running tasks are, how fast they move, and how that reads; the forms of it show it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from cvs.cli import escaped
from cvs.store.progress import Progress, Task, Unit
from cvs.store.units import size

#: Seconds that a speed is taken from: the last ones.
WINDOW = 10.0

#: Seconds between two points of it, and how long a speed is not known at first.
_STEP = 0.25

#: The time; tests put their own here.
clock: Callable[[], float] = time.monotonic


class Speed:
    """How much moved lately."""

    def __init__(self, now: float) -> None:
        self._moved = 0
        self._points = deque([(now, 0)])

    def add(self, amount: int, now: float) -> None:
        """Counts what moved."""
        self._moved += amount
        if now - self._points[-1][0] >= _STEP:
            self._points.append((now, self._moved))

    def at(self, now: float) -> float | None:
        """Per second; None while that is not known. Falls to 0 while nothing moves."""
        points = self._points
        # One that is older than the window stays: what happened since is the window's.
        while len(points) > 1 and points[1][0] <= now - WINDOW:
            points.popleft()
        begun, before = points[0]
        return (self._moved - before) / (now - begun) if now - begun >= _STEP else None


class Count(Task):
    """A task of a `Board`."""

    def __init__(
        self, board: "Board", number: int, what: str, whole: int | None, unit: Unit, now: float
    ) -> None:
        self._board = board
        self.number = number
        self.what = escaped(what).replace("\n", " ")
        self.whole = whole
        self.unit = unit
        self.done = 0
        self.skipped = 0
        """How much of it was done before."""
        self.begun = now
        self.told = now
        """When it was last told of, where that happens task by task."""
        self.speed = Speed(now)

    def advance(self, amount: int) -> None:
        self._board.move(self, amount, 0)

    def skip(self, amount: int) -> None:
        self._board.move(self, 0, amount)

    def total(self, amount: int) -> None:
        self._board.sized(self, amount)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._board.end(self, error is None)

    def amounts(self) -> str:
        """`1.2 GB of 3.0 GB`, or numbers of items."""
        return amounts(self.done, self.whole, self.unit)

    def left(self, now: float) -> float | None:
        """Seconds until it is done, as far as can be told."""
        return _left(self.done, self.whole, self.speed.at(now))

    def line(self, now: float) -> str:
        """All of it in one line."""
        return f"{self.what}: {self.amounts()}{pace(self.speed.at(now), self.left(now), self.unit)}"


class Board(Progress):
    """All tasks of a run, and the total of those that count bytes; a form of it shows them.

    No thread draws, or this process could not share work among others: what a form shows is made
    when something moves.
    """

    def __init__(self) -> None:
        self.running: dict[int, Count] = {}
        self._lock = threading.RLock()
        self._numbers = 0
        self._forget()

    def _forget(self) -> None:
        self._expected = 0
        self._known = 0
        self.done = 0
        """Bytes of all tasks since nothing ran."""
        self.speed = Speed(clock())

    @property
    def whole(self) -> int | None:
        """Bytes of all tasks that run, ended or are expected; None where one cannot tell."""
        if any(one.unit == "bytes" and one.whole is None for one in self.running.values()):
            return None
        return max(self._expected, self._known)

    @property
    def several(self) -> bool:
        """Whether a total says more than its parts do."""
        parts = sum(one.unit == "bytes" for one in self.running.values())
        return parts > 1 or (parts == 1 and self._expected > self._known)

    def left(self, now: float) -> float | None:
        """Seconds until all is done, as far as can be told."""
        return _left(self.done, self.whole, self.speed.at(now))

    # What tasks call

    def task(self, what: str, total: int | None = None, unit: Unit = "bytes") -> Task:
        now = clock()
        with self._lock:
            if not self.running and self.done >= self._expected:
                self._forget()
            self._numbers += 1
            made = Count(self, self._numbers, what, total, unit, now)
            self.running[made.number] = made
            if unit == "bytes":
                self._known += total or 0
            self.begins(made, now)
        return made

    def expect(self, amount: int) -> None:
        with self._lock:
            if not self.running and self.done >= self._expected:
                self._forget()
            self._expected += amount

    def move(self, one: Count, amount: int, skipped: int) -> None:
        """Counts what a task did, and what it need not do."""
        now = clock()
        with self._lock:
            one.done += amount + skipped
            one.skipped += skipped
            one.speed.add(amount, now)
            if one.unit == "bytes":
                self.done += amount + skipped
                self.speed.add(amount, now)
            self.moves(one, now)

    def sized(self, one: Count, amount: int) -> None:
        """Learns how much a task has to do."""
        with self._lock:
            if one.unit == "bytes":
                self._known += amount - (one.whole or 0)
            one.whole = amount

    def end(self, one: Count, well: bool) -> None:
        """Ends a task."""
        now = clock()
        with self._lock:
            if self.running.pop(one.number, None) is not None:
                if one.unit == "bytes":
                    # It may have been less than was said, and is no more to come.
                    self._known += one.done - (one.whole or 0)
                self.ends(one, well, now)

    # What a form does; nobody else calls meanwhile

    def begins(self, one: Count, now: float) -> None:
        """Shows that a task began."""

    def moves(self, one: Count, now: float) -> None:
        """Shows that a task went on; called very often."""

    def ends(self, one: Count, well: bool, now: float) -> None:
        """Shows that a task ended."""


def amounts(done: int, whole: int | None, unit: Unit = "bytes") -> str:
    """`1.2 GB of 3.0 GB`, or numbers of items."""
    text = size if unit == "bytes" else str
    return f"{text(done)} of {text(whole)}" if whole else text(done)


def pace(speed: float | None, left: float | None, unit: Unit = "bytes") -> str:
    """`, 120.0 MB/s, 15 s left`, as much of it as is known."""
    rate = f", {size(int(speed))}/s" if speed is not None and unit == "bytes" else ""
    return rate + (f", {duration(left)} left" if left is not None else "")


def duration(seconds: float) -> str:
    """A time for people: `15 s`, `2 min 5 s`, `3 h 2 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def share(one: Count) -> str:
    """A task in few words: `flux 31%`."""
    if not one.whole:
        return f"{one.what} {one.amounts()}" if one.done else one.what
    return f"{one.what} {min(100, one.done * 100 // one.whole)}%"


def named(many: Sequence[Count], most: int) -> str:
    """Some tasks in few words, the others as a number."""
    shown = [share(one) for one in many[:most]]
    more = len(many) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _left(done: int, whole: int | None, speed: float | None) -> float | None:
    return max(0, whole - done) / speed if whole and speed else None
