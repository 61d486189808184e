"""Work that may take as long as it goes on, and is stopped when nothing moves for some time."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from cvs.store.progress import Progress, Task, Unit

#: The time; tests put their own here.
clock: Callable[[], float] = time.monotonic


class Patience(threading.Event):
    """Is set when another event is, and when nothing moved for so many seconds."""

    def __init__(self, seconds: float, other: threading.Event) -> None:
        super().__init__()
        self._seconds = seconds
        self._other = other
        self._end = clock() + seconds

    def moved(self) -> None:
        """Something moved."""
        self._end = clock() + self._seconds

    @property
    def is_over(self) -> bool:
        """Whether nothing moved for too long."""
        return clock() > self._end

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set() or self.is_over


class Watched(Progress):
    """Passes progress on, and tells patience of what moves."""

    def __init__(self, other: Progress, patience: Patience) -> None:
        self._other = other
        self._patience = patience

    def task(self, what: str, total: int | None = None, unit: Unit = "bytes") -> Task:
        return _Task(self._other.task(what, total, unit), self._patience)

    def expect(self, amount: int) -> None:
        self._other.expect(amount)

    def note(self, text: str) -> None:
        self._other.note(text)

    def warn(self, text: str) -> None:
        self._other.warn(text)


class _Task(Task):
    def __init__(self, other: Task, patience: Patience) -> None:
        self._other = other
        self._patience = patience

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._other.__exit__(kind, error, traceback)

    def advance(self, amount: int) -> None:
        if amount:
            self._patience.moved()
        self._other.advance(amount)

    def skip(self, amount: int) -> None:
        self._patience.moved()
        self._other.skip(amount)

    def total(self, amount: int) -> None:
        self._other.total(amount)
