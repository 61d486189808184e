"""Progress as people expect it: bars on a terminal, plain lines every few seconds elsewhere."""

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from cvs.cli import size
from cvs.store.progress import Progress, Task, Unit

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

#: Seconds between two plain lines of one task.
INTERVAL = 5.0

#: Seconds between two drawings of the bars.
REDRAW = 0.1


def progress() -> Progress:
    """The form that standard error can show."""
    return _Terminal() if sys.stderr.isatty() else _Plain()


class _PlainTask(Task):
    def __init__(self, what: str, total: int | None, unit: Unit) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._started = self._told = time.monotonic()
        self._lock = threading.Lock()

    def total(self, amount: int) -> None:
        self._total = amount

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
            now = time.monotonic()
            if now - self._told < INTERVAL:
                return
            self._told = now
        print(self._line(now), file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        amount = size if self._unit == "bytes" else str
        of = f" of {amount(self._total)}" if self._total else ""
        rate = self._done / max(now - self._started, 0.001)
        speed = f", {size(int(rate))}/s" if self._unit == "bytes" else ""
        left = ""
        if self._total and rate:
            left = f", {max(0, self._total - self._done) / rate:.0f} s left"
        return f"{self._what}: {amount(self._done)}{of}{speed}{left}"


class _Plain(Progress):
    """Lines for logs and pipes; a task that is quick says nothing."""

    def task(self, what: str, total: int | None = None, unit: Unit = "bytes") -> Task:
        return _PlainTask(what, total, unit)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr, flush=True)


class _BarTask(Task):
    def __init__(self, owner: "_Terminal", bar: "TaskID") -> None:
        self._owner, self._bar = owner, bar

    def advance(self, amount: int) -> None:
        self._owner.bars.advance(self._bar, amount)
        self._owner.refresh()

    def total(self, amount: int) -> None:
        self._owner.bars.update(self._bar, total=amount)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._owner.end(self._bar)


class _Terminal(Progress):
    """Bars that are there while something runs, and vanish after."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._running = 0
        self._shown = 0.0
        self._lock = threading.RLock()

    @property
    def bars(self) -> "Bars":
        """rich is imported when the first bar is wanted."""
        if self._bars is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                SpinnerColumn,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )
            from rich.progress import Progress as Bars

            self._bars = Bars(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                # A thread that draws would keep this process from sharing work among others.
                auto_refresh=False,
            )
        return self._bars

    def task(self, what: str, total: int | None = None, unit: Unit = "bytes") -> Task:
        with self._lock:
            bar = self.bars.add_task(what, total=total)
            self._running += 1
            if self._running == 1:
                self.bars.start()
        return _BarTask(self, bar)

    def refresh(self) -> None:
        """Draws the bars anew, if that is some time ago."""
        now = time.monotonic()
        if now - self._shown >= REDRAW:
            with self._lock:
                self._shown = now
                self.bars.refresh()

    def end(self, bar: "TaskID") -> None:
        """Removes a bar; the display ends with the last one."""
        with self._lock:
            self.bars.remove_task(bar)
            self._running -= 1
            if not self._running:
                self.bars.stop()

    def note(self, text: str) -> None:
        self._print(text)

    def warn(self, text: str) -> None:
        self._print(f"warning: {text}")

    def _print(self, text: str) -> None:
        with self._lock:
            if self._running:
                self.bars.console.print(text, markup=False, highlight=False)
            else:
                print(text, file=sys.stderr, flush=True)
