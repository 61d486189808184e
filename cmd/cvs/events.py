"""Progress for programs: events as JSON, one to a line of standard error.

The result alone goes to standard output.
"""

import json
import sys

from cvs.counts import Board, Count

#: Seconds between two events of a task, and of the total.
INTERVAL = 1.0


class Events(Board):
    """`start`, `progress`, `done` and `failed` of tasks, `total` where several run; `note` and
    `warning`."""

    def __init__(self) -> None:
        super().__init__()
        self._told = 0.0

    def begins(self, one: Count, now: float) -> None:
        self._tell("start", **_amounts(one))

    def moves(self, one: Count, now: float) -> None:
        if now - one.told >= INTERVAL:
            one.told = now
            self._tell("progress", **_amounts(one), **_pace(one.speed.at(now), one.left(now)))
        if self.several and now - self._told >= INTERVAL:
            self._told = now
            pace = _pace(self.speed.at(now), self.left(now))
            self._tell("total", done=self.done, total=self.whole, unit="bytes", **pace)

    def ends(self, one: Count, well: bool, now: float) -> None:
        seconds = now - one.begun
        moved = one.done - one.skipped
        rate = round(moved / seconds) if seconds > 0 else None
        event = "done" if well else "failed"
        self._tell(event, **_amounts(one), rate=rate, seconds=round(seconds, 3))

    def note(self, text: str) -> None:
        self._tell("note", text=text)

    def warn(self, text: str) -> None:
        self._tell("warning", text=text)

    def _tell(self, event: str, **members: object) -> None:
        # In one write, or lines of several threads would mix.
        sys.stderr.write(json.dumps({"event": event, **members}) + "\n")
        sys.stderr.flush()


def _amounts(one: Count) -> dict[str, object]:
    return {
        "id": one.number,
        "task": one.what,
        "done": one.done,
        "total": one.whole,
        "unit": one.unit,
    }


def _pace(speed: float | None, left: float | None) -> dict[str, object]:
    return {
        "rate": None if speed is None else round(speed),
        "eta": None if left is None else round(left, 1),
    }
