"""Sets of byte ranges: which parts of a file are there."""

import bisect
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
"""From the first byte up to but without the second."""


class Spans:
    """Ranges that neither overlap nor touch, in ascending order."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self.add(start, end)

    def __iter__(self) -> Iterator[Span]:
        return zip(self._starts, self._ends, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"Spans({list(self)})"

    def add(self, start: int, end: int) -> None:
        """Adds a range; an empty one adds nothing."""
        if start >= end:
            return
        first = bisect.bisect_left(self._ends, start)
        last = bisect.bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """Takes a range out."""
        if start >= end:
            return
        before = list(self)
        self._starts, self._ends = [], []
        for one, other in before:
            self.add(one, min(other, start))
            self.add(max(one, end), other)

    def prefix(self) -> int:
        """Where the range that begins at 0 ends; 0 if there is none."""
        return self._ends[0] if self._starts and not self._starts[0] else 0

    def total(self) -> int:
        """Bytes of all ranges."""
        return sum(self._ends) - sum(self._starts)

    def gaps(self, size: int) -> Iterator[Span]:
        """What is missing of a file, in ascending order."""
        at = 0
        for start, end in self:
            if start >= size:
                break
            if at < start:
                yield at, start
            at = end
        if at < size:
            yield at, size
