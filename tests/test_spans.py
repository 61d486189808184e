"""Sets of byte ranges, compared with sets of bytes."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cvs.store.spans import Spans

_AT = st.integers(0, 60)
_CHANGES = st.lists(st.tuples(st.booleans(), _AT, _AT), max_size=12)


@given(_CHANGES, st.integers(0, 70))
def test_ranges_are_what_sets_of_bytes_are(changes: list[tuple[bool, int, int]], size: int) -> None:
    spans, there = Spans(), set[int]()
    for adds, start, end in changes:
        if adds:
            spans.add(start, end)
            there |= set(range(start, end))
        else:
            spans.remove(start, end)
            there -= set(range(start, end))

    found = list(spans)

    assert {byte for start, end in found for byte in range(start, end)} == there
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(found))
    assert all(start < end for start, end in found)
    assert spans.total() == len(there)
    assert spans.prefix() == next(byte for byte in range(99) if byte not in there)
    missing = {byte for start, end in spans.gaps(size) for byte in range(start, end)}
    assert missing == set(range(size)) - there
    assert spans == Spans(found)


def test_ranges_that_touch_are_one() -> None:
    assert list(Spans([(0, 5), (10, 15), (5, 10)])) == [(0, 15)]
    assert repr(Spans([(0, 5)])) == "Spans([(0, 5)])"
