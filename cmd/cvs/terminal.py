"""Progress as people expect it: bars on a terminal, plain lines every few seconds elsewhere."""

import os
import sys
from typing import TYPE_CHECKING

from cvs.cli import escaped
from cvs.counts import Board, Count, amounts, duration, named, pace
from cvs.store.progress import Progress
from cvs.store.units import size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table

#: Seconds between two plain lines.
INTERVAL = 5.0

#: Seconds between two drawings of the bars.
REDRAW = 0.1

#: Tasks that a plain line names when several run.
NAMED = 4

#: Bytes of a task whose end is worth a line.
LARGE = 100_000_000

#: Columns that a bar takes, and what stands behind it: amounts and speed, and the time left.
_BAR, _BEHIND, _LEFT = 20, 36, 16

#: Columns that are left for names where all else is shown; a narrower terminal shows less.
_NAMES = 16


def progress(*, as_json: bool = False) -> Progress:
    """The form that is asked for, or that standard error can show."""
    if as_json:
        from cvs.events import Events

        return Events()
    drawable = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    return Bars() if drawable else Lines()


class Lines(Board):
    """Lines for logs and pipes: one stream of them, however much runs; what is quick says nothing.

    A large file that is done has a line of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told = 0.0

    def begins(self, one: Count, now: float) -> None:
        if len(self.running) == 1:
            self._told = now

    def moves(self, one: Count, now: float) -> None:
        if now - self._told >= INTERVAL:
            self._told = now
            _say(self._line(now))

    def ends(self, one: Count, well: bool, now: float) -> None:
        if well and one.unit == "bytes" and one.done >= LARGE:
            _say(_end(one, now))

    def _line(self, now: float) -> str:
        tasks = list(self.running.values())
        if not self.several:
            return "; ".join(one.line(now) for one in tasks)
        total = amounts(self.done, self.whole) + pace(self.speed.at(now), self.left(now))
        return f"all: {total}: {named(tasks, NAMED)}"

    def note(self, text: str) -> None:
        _say(escaped(text))

    def warn(self, text: str) -> None:
        _say(f"warning: {escaped(text)}")


def _say(text: str) -> None:
    # In one write, or lines of several threads would mix.
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _end(one: Count, now: float) -> str:
    there = f" ({size(one.skipped)} of it were there)" if one.skipped else ""
    seconds = max(now - one.begun, 0.001)
    time = f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
    rate = size(int((one.done - one.skipped) / seconds))
    return f"{one.what}: {size(one.done)}{there} in {time}, {rate}/s"


class Bars(Board):
    """Bars that are there while something runs, and vanish after."""

    def __init__(self) -> None:
        super().__init__()
        self._live: Live | None = None
        self._drawn = 0.0

    def begins(self, one: Count, now: float) -> None:
        if len(self.running) == 1:
            self._start()
        self.moves(one, now)

    def moves(self, one: Count, now: float) -> None:
        if now - self._drawn >= REDRAW and self._live is not None:
            self._drawn = now
            self._live.update(self._table(self._live, now), refresh=True)

    def ends(self, one: Count, well: bool, now: float) -> None:
        if not self.running:
            self._stop()
        else:
            self.moves(one, now)

    def _start(self) -> None:
        """rich is imported when the first bar is wanted."""
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            # Results are for standard output, wherever that leads.
            redirect_stdout=False,
        )
        self._live.start()
        self._drawn = 0.0

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self, live: "Live", now: float) -> "RenderableType":
        from rich.table import Table

        width, height = live.console.size
        narrow = width < _BAR + _BEHIND + _LEFT + _NAMES
        room = width - _BEHIND - (0 if narrow else _BAR + _LEFT)
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(_NAMES, room))
        if not narrow:
            table.add_column(width=_BAR)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True)
        tasks = list(self.running.values())
        # A display that is higher than the terminal would lose its end, and with it the total.
        for one in tasks[: max(1, height - 3)]:
            left = None if narrow else one.left(now)
            behind = pace(one.speed.at(now), left, one.unit)
            _row(table, narrow, one.what, one.done, one.whole, one.amounts(), behind)
        if self.several:
            left = None if narrow else self.left(now)
            total, behind = amounts(self.done, self.whole), pace(self.speed.at(now), left)
            _row(table, narrow, f"all ({len(tasks)} run)", self.done, self.whole, total, behind)
        return table

    def note(self, text: str) -> None:
        self._print(escaped(text))

    def warn(self, text: str) -> None:
        self._print(f"warning: {escaped(text)}")

    def _print(self, text: str) -> None:
        with self._lock:
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                _say(text)


def _row(
    table: "Table", narrow: bool, what: str, done: int, whole: int | None, amount: str, behind: str
) -> None:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    bar = [] if narrow else [ProgressBar(whole or None, done, width=_BAR, pulse=not whole)]
    table.add_row(Text(what), *bar, Text(amount), Text(behind.removeprefix(", ")))
