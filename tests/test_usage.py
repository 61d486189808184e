"""What versions use of the store."""

import hypothesis
from hypothesis import strategies as st

from cvs.store import usage
from cvs.store.digest import EntryId

ONE, TWO, THREE, FOUR = (EntryId(digit * 64) for digit in "1234")


def test_shared_and_unique() -> None:
    """What two versions need is shared, what one needs is its own, the rest is unused."""
    uses, unused = usage.by_version(
        {ONE: 1, TWO: 10, THREE: 100, FOUR: 1000},
        [("b", [ONE]), ("a", [ONE, TWO]), ("a", [TWO])],
    )

    assert uses == [usage.Use("a", 2, 11, 1, 0), usage.Use("b", 1, 1, 1, 0)]
    assert [use.unique for use in uses] == [10, 0]
    assert unused == [THREE, FOUR]


def test_missing() -> None:
    """An entry that is gone or has no manifest is counted and has no size."""
    uses, unused = usage.by_version({ONE: None, TWO: None}, [("a", [ONE, THREE])])

    assert uses == [usage.Use("a", 2, 0, 0, 2)]
    assert unused == [TWO]


IDS = st.sampled_from([ONE, TWO, THREE, FOUR])


@hypothesis.given(
    st.dictionaries(IDS, st.integers(0, 2**63 - 1)),
    st.lists(st.tuples(st.sampled_from("abc"), st.sets(IDS))),
)
def test_every_byte_is_somewhere(
    sizes: dict[EntryId, int], roots: list[tuple[str, set[EntryId]]]
) -> None:
    """Unique bytes, bytes that are shared and unused ones are together all there are."""
    uses, unused = usage.by_version(sizes, roots)
    needed = [set().union(*(s for v, s in roots if v == use.version)) for use in uses]
    shared = {entry for entry in sizes if sum(entry in closure for closure in needed) > 1}

    total = sum(use.unique for use in uses) + sum(sizes[entry] for entry in {*shared, *unused})
    assert total == sum(sizes.values())
    assert all(0 <= use.shared <= use.size for use in uses)
