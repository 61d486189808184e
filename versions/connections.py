"""The connections of a run: many files at once within one budget."""

import threading

#: Of all transfers together, and of one file: at first, and where its server slows down each.
TOTAL = 16
FEWEST = 4
MOST = 16


class Connections:
    """Hands out connections; may be asked by several threads at once.

    Args:
        each: how many a file gets; by default as many as make it quicker.
        total: of all files together.
    """

    def __init__(self, each: int | None = None, total: int = TOTAL) -> None:
        self.each = each
        self._free = max(total, each or 0)
        self._waiting = 0
        self._news = threading.Condition()

    def first(self, stop: threading.Event) -> bool:
        """Waits for the one connection that every file needs; False if `stop` was set before."""
        with self._news:
            self._waiting += 1
            try:
                while not self._free:
                    if stop.is_set():
                        return False
                    self._news.wait(0.1)
                self._free -= 1
                return True
            finally:
                self._waiting -= 1

    def another(self) -> bool:
        """One more, if there is one that nobody waits for."""
        with self._news:
            if self._free <= self._waiting:
                return False
            self._free -= 1
            return True

    def give(self) -> None:
        """Gives one back."""
        with self._news:
            self._free += 1
            self._news.notify()

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for their first: who has several should give one back."""
        return self._waiting > 0
