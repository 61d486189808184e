"""Who fetches what: every byte once, the tail shared, nothing lost where a connection fails."""

import random

from hypothesis import given
from hypothesis import strategies as st

from cvs.store.spans import Spans
from cvs.versions.ranges import LARGEST, SMALLEST, Ranges

MIB = 1 << 20


def test_pieces_are_taken_from_the_beginning_on() -> None:
    ranges = Ranges(20 * MIB, Spans([(0, 2 * MIB)]))

    taken = [ranges.take(0.0) for _ in range(3)]

    assert [(one.at, one.end) for one in taken if one] == [
        (2 * MIB, 10 * MIB),
        (10 * MIB, 18 * MIB),
        (18 * MIB, 20 * MIB),
    ]


def test_the_idle_take_half_of_what_takes_longest() -> None:
    ranges = Ranges(16 * MIB, Spans())
    slow, quick = ranges.take(0.0), ranges.take(0.0)
    assert slow is not None and quick is not None
    ranges.arrived(slow, 1 * MIB)
    ranges.arrived(quick, 6 * MIB)

    third = ranges.take(1.0)

    assert third is not None
    assert (slow.at, slow.end) == (1 * MIB, third.at)
    assert (third.at, third.end) == (4 * MIB + MIB // 2, 8 * MIB)
    assert (quick.at, quick.end) == (14 * MIB, 16 * MIB)


def test_what_is_nearly_there_is_left_alone() -> None:
    ranges = Ranges(8 * MIB, Spans())
    one = ranges.take(0.0)
    assert one is not None
    ranges.arrived(one, 8 * MIB - 1000)

    assert ranges.take(1.0, rate=8.0 * MIB) is None
    assert not ranges.has_more(1.0)


def test_a_connection_that_hardly_moves_loses_all_that_is_left() -> None:
    ranges = Ranges(100_000, Spans())
    one = ranges.take(0.0)
    assert one is not None
    ranges.arrived(one, 100)

    other = ranges.take(60.0, rate=1e6)

    assert other is not None
    assert (other.at, other.end) == (100, 100_000)
    assert one.end == one.at == 100


def test_what_failed_is_missing_again() -> None:
    ranges = Ranges(8 * MIB, Spans())
    one = ranges.take(0.0)
    assert one is not None
    ranges.arrived(one, MIB)
    ranges.ended(one)

    again = ranges.take(0.0)

    assert again is not None
    assert (again.at, again.end) == (MIB, 8 * MIB)


def test_what_is_not_there_after_all_is_fetched() -> None:
    ranges = Ranges(8 * MIB, Spans([(0, 8 * MIB)]))
    assert ranges.is_whole
    ranges.reopen(MIB, 2 * MIB)

    one = ranges.take(0.0)

    assert not ranges.is_whole
    assert one is not None
    assert (one.at, one.end) == (MIB, 2 * MIB)


def test_a_file_of_unknown_length_is_one_range() -> None:
    ranges = Ranges(None, Spans())
    one = ranges.take(0.0)
    assert one is not None and one.end is None
    assert ranges.take(0.0) is None
    ranges.arrived(one, 10)
    ranges.ended(one)
    again = ranges.take(0.0)
    assert again is not None and again.at == 10
    ranges.set_size(10)
    ranges.ended(again)

    assert ranges.is_whole
    assert ranges.take(0.0) is None


def test_pieces_suit_the_line() -> None:
    ranges = Ranges(None, Spans())
    for latency, rate, piece in (
        (0.001, 1e6, SMALLEST),
        (0.1, 10e6, 20_000_000),
        (1, 1e9, LARGEST),
    ):
        ranges.suit(latency, rate)
        assert ranges.piece == piece


@given(st.integers(1, 40 * MIB), st.integers(0, 1 << 32), st.integers(1, 8))
def test_every_byte_comes_whatever_happens(size: int, seed: int, workers: int) -> None:
    """Connections that go on, fail and take from each other, in any order."""
    chance = random.Random(seed)
    ranges = Ranges(size, Spans())
    running = []
    now = 0.0
    for _ in range(10_000):
        if ranges.is_whole:
            break
        now += 0.05
        if len(running) < workers and (one := ranges.take(now, chance.random() * 1e7)) is not None:
            running.append(one)
        for one in list(running):
            assert one.end is not None
            if one.claimed == one.at:
                ranges.claim(one, chance.randrange(1, MIB))
                continue
            # Others took ranges since, and none of what is being written.
            assert one.end >= one.claimed
            ranges.arrived(one, one.claimed - one.at)
            if one.at >= one.end or chance.random() < 0.05:
                ranges.ended(one)
                running.remove(one)

    assert ranges.is_whole
    assert list(ranges.there) == [(0, size)]
