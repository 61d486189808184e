"""Who fetches what of a file: pieces for several connections, the tail split among the idle."""

from cvs.store.spans import Span, Spans

#: Bytes of a piece; one more request for each, and what digests may have to wait for.
SMALLEST = 8 << 20
LARGEST = 64 << 20

#: How many times as long as a server takes to answer a piece should take to arrive.
_WORTH = 20

#: What is left of a range is not split below so many bytes, or so many seconds of its own rate.
_SPLIT = 256 << 10
_SPLIT_SECONDS = 0.1

#: What is so many times slower than the idle loses all that is left.
_SLOW = 4


class Range:
    """A range that one connection fetches, from `at` on; `end` may come nearer meanwhile, but no
    nearer than `claimed`, up to where it is writing."""

    __slots__ = ("_begun", "_first", "at", "claimed", "end")

    def __init__(self, start: int, end: int | None, now: float) -> None:
        self.at = self.claimed = start
        self.end = end
        self._first = start
        self._begun = now

    def rate(self, now: float) -> float:
        """Bytes per second so far; those before the first bytes count as well."""
        return (self.at - self._first) / max(now - self._begun, 1e-6)

    @property
    def left(self) -> int:
        """Bytes that are still to come, of a range that ends, and could be another's."""
        assert self.end is not None
        return self.end - self.claimed


class Ranges:
    """What is there of a file, what is on its way, and what nobody fetches yet.

    No thread may call while another does.

    Args:
        size: of the file; None if its server does not say, then it has one range.
        there: what need not be fetched.
    """

    def __init__(self, size: int | None, there: Spans) -> None:
        self.size = size
        self.there = there
        self.piece = SMALLEST
        self._running: list[Range] = []
        if size is None:
            self._missing: list[Span] = []
        else:
            self._missing = list(there.gaps(size))
        self._open = size is None

    @property
    def is_whole(self) -> bool:
        """Whether all of the file is there."""
        return self.size is not None and self.there.prefix() >= self.size

    def has_more(self, now: float) -> bool:
        """Whether one more connection would have something to do."""
        return self._open or bool(self._missing) or self._slowest(now) is not None

    def suit(self, latency: float, rate: float) -> None:
        """Chooses the size of pieces by how long an answer takes, in seconds, and how many bytes
        per second follow."""
        self.piece = int(min(LARGEST, max(SMALLEST, _WORTH * latency * rate)))

    def take(self, now: float, rate: float = 0.0) -> Range | None:
        """A range for a connection that has nothing to do; None if there is none.

        Args:
            rate: bytes per second that it brought before.
        """
        if self._open:
            self._open = False
            return self._run(self.there.prefix(), None, now)
        if self._missing:
            start, end = self._missing.pop(0)
            if end - start > self.piece:
                self._missing.insert(0, (start + self.piece, end))
                end = start + self.piece
            return self._run(start, end, now)
        slowest = self._slowest(now)
        if slowest is not None:
            middle = slowest.claimed + slowest.left // 2
            return self._cut(slowest, middle, now)
        for one in self._running:
            if one.end is not None and one.left > 0 and one.rate(now) * _SLOW < rate:
                # Too little to share, and it would take long.
                return self._cut(one, one.claimed, now)
        return None

    def _cut(self, one: Range, at: int, now: float) -> Range:
        end, one.end = one.end, at
        return self._run(at, end, now)

    def _run(self, start: int, end: int | None, now: float) -> Range:
        made = Range(start, end, now)
        self._running.append(made)
        return made

    def _slowest(self, now: float) -> Range | None:
        """What would take longest, if it is worth sharing."""

        def seconds(one: Range) -> float:
            return one.left / max(one.rate(now), 1)

        large = [one for one in self._running if one.end is not None and one.left >= _SPLIT]
        slowest = max(large, key=seconds, default=None)
        return slowest if slowest is not None and seconds(slowest) >= _SPLIT_SECONDS else None

    def claim(self, one: Range, count: int) -> int:
        """How many of the next bytes a connection may write: nobody else does, whatever happens.

        Two that write to one place would leave what was not digested, if a server gave them
        different bytes.
        """
        if one.end is not None:
            count = min(count, max(0, one.end - one.at))
        one.claimed = one.at + count
        return count

    def arrived(self, one: Range, count: int) -> None:
        """Counts bytes of a range that are there now."""
        self.there.add(one.at, one.at + count)
        one.at += count
        one.claimed = max(one.claimed, one.at)

    def ended(self, one: Range) -> None:
        """A connection is done with a range, or gave it up: what is left of it is missing again."""
        self._running.remove(one)
        if one.end is None:
            self._open = self.size is None
        elif one.at < one.end:
            self._put_back(one.at, one.end)

    def reopen(self, start: int, end: int) -> None:
        """What was taken for there is not: it has to be fetched."""
        self.there.remove(start, end)
        self._put_back(start, end)

    def _put_back(self, start: int, end: int) -> None:
        self._missing.append((start, end))
        self._missing.sort()

    def set_size(self, size: int) -> None:
        """Says how long the file is after all."""
        self.size = size
        self._open = False
