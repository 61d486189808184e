"""How long work tells what it does. The silent form here; the command line has one that shows."""

from types import TracebackType
from typing import Literal, Self

Unit = Literal["bytes", "items"]


class Task:
    """One piece of work with a known or unknown amount; use as a context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the task, well or not."""

    def advance(self, amount: int) -> None:
        """Counts `amount` more bytes or items as done; 0 while nothing comes, to say so."""

    def skip(self, amount: int) -> None:
        """Counts bytes or items that were done already, so that they are no part of the speed."""

    def total(self, amount: int) -> None:
        """Says how much there is, once that is known."""


class Progress:
    """Receives what goes on; this one keeps silent. May be called from several threads."""

    def task(self, what: str, total: int | None = None, unit: Unit = "bytes") -> Task:
        """Begins a task that can be counted."""
        return Task()

    def expect(self, amount: int) -> None:
        """Says that tasks to come will have so many bytes, for the total of all."""

    def note(self, text: str) -> None:
        """Says what was done, in one line."""

    def warn(self, text: str) -> None:
        """Says what the user should know although the work goes on."""


SILENT = Progress()
