"""Patience with servers: how often a request is tried again, and how long is waited between."""

import random
import threading

from cvs.store.errors import SourceError
from cvs.versions.remote import Passing

#: Tries without any progress between them.
ATTEMPTS = 5

#: Seconds before the second try; doubles, with jitter, up to the longest wait.
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0


def pause(seconds: float, stop: threading.Event) -> None:
    """Waits, or until `stop` is set."""
    stop.wait(seconds)


class Retry:
    """Counts the failures of one piece of work.

    Args:
        shown: what failed, the beginning of a sentence.
        stop: set when the work is to end.
    """

    def __init__(self, shown: str, stop: threading.Event | None = None) -> None:
        self._shown = shown
        self._stop = stop or threading.Event()
        self.failures = 0

    def progressed(self) -> None:
        """Something came: what failed before counts no more."""
        self.failures = 0

    def again(self, error: Passing) -> None:
        """Waits before the next try.

        Raises:
            SourceError: there were enough of them.
        """
        self.failures += 1
        if self.failures >= ATTEMPTS:
            raise SourceError(f"{self._shown} {error}, {ATTEMPTS} times in a row") from None
        pause(self.wait(error), self._stop)

    def wait(self, error: Passing) -> float:
        """Seconds until the next try."""
        if error.wait is not None:
            return min(error.wait, LONGEST_WAIT)
        # Jitter, so that many workers do not come back all at once.
        longest: float = min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, self.failures - 1))
        return longest * (0.5 + random.random() / 2)
