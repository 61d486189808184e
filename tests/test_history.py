"""The log of a file on its way: what is believed of it, and what is not."""

from hypothesis import given
from hypothesis import strategies as st

from cvs.store import history
from cvs.store.history import MARK
from cvs.store.spans import Spans

NOW = "boot-2 29"
BEFORE = history.era_line("boot-1 29")
ERA = history.era_line(NOW)


def read(*lines: bytes) -> history.History:
    return history.parse(b"".join(lines), NOW)


def test_what_this_era_wrote_is_there() -> None:
    found = read(
        ERA,
        history.version_line(100, '"a"'),
        history.have_line(0, 10),
        history.have_line(50, 60),
        history.have_line(10, 20),
    )

    assert (found.size, found.validator) == (100, '"a"')
    assert found.there == Spans([(0, 20), (50, 60)])
    assert not found.digests


def test_another_era_counts_as_far_as_a_digest_says() -> None:
    """A power cut may have undone everything else."""
    found = read(
        BEFORE,
        history.version_line(5 * MARK, ""),
        history.have_line(0, 4 * MARK),
        history.good_line(MARK, b"1" * 32),
        history.good_line(2 * MARK, b"2" * 32),
        ERA,
        history.have_line(3 * MARK, 3 * MARK + 7),
    )

    assert found.there == Spans([(0, 2 * MARK), (3 * MARK, 3 * MARK + 7)])
    assert found.digests == {MARK: b"1" * 32, 2 * MARK: b"2" * 32}


def test_what_was_lost_is_not_there() -> None:
    found = read(
        ERA,
        history.version_line(5 * MARK, ""),
        history.have_line(0, 4 * MARK),
        history.good_line(MARK, b"1" * 32),
        history.good_line(2 * MARK, b"2" * 32),
        history.lost_line(MARK),
        history.have_line(2 * MARK, 3 * MARK),
    )

    assert found.there == Spans([(0, MARK), (2 * MARK, 3 * MARK)])
    assert found.digests == {MARK: b"1" * 32}


def test_the_last_version_counts() -> None:
    lines = [history.version_line(7, "a"), history.version_line(None, 'W/"b\n"')]

    assert read(ERA, *lines)[:2] == (None, 'W/"b\n"')


def test_nothing_lies_behind_the_end() -> None:
    found = read(ERA, history.version_line(50, ""), history.have_line(40, 90))

    assert found.there == Spans([(40, 50)])


def test_what_was_cut_off_is_no_line() -> None:
    """A kill ends a line anywhere; a power cut leaves bytes of any kind."""
    whole = history.version_line(99, "x") + history.have_line(0, 10)
    last = history.have_line(10, 99)
    for cut in range(len(last)):
        found = read(ERA, whole, last[:cut], b"\n" if cut % 2 else b"")
        assert found.there == Spans([(0, 10)]), last[:cut]
    assert read(ERA, whole, b"\0" * 30 + b"\n", b"have 20 30 40\n").there == Spans([(0, 10)])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_log(data: bytes) -> None:
    found = history.parse(data, NOW)

    assert all(start < end for start, end in found.there)


@given(st.none() | st.integers(0, 1 << 62), st.text(max_size=40))
def test_versions_come_back(size: int | None, validator: str) -> None:
    found = read(ERA, history.version_line(size, validator))

    assert (found.size, found.validator) == (size, validator)


def test_a_digest_of_an_odd_length_is_none_of_ours() -> None:
    """What follows compares at marks alone, so nothing else may count as proven."""
    assert not read(BEFORE, history.good_line(MARK + 1, b"1" * 32)).there.total()
