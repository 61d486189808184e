"""Damaged marks."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cvs.store import damage
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, IntegrityError
from cvs.store.volume import Volume

ONE, TWO, THREE = (EntryId(digit * 64) for digit in "123")


def test_marks(volume: Volume) -> None:
    """Set, set again, listed, taken off; on a volume without marks as well."""
    assert damage.marked(volume) == set()
    damage.mark(volume, ONE)
    damage.mark(volume, ONE)
    damage.mark(volume, TWO)
    assert damage.marked(volume) == {ONE, TWO}
    damage.clear(volume, ONE)
    damage.clear(volume, THREE)
    assert damage.marked(volume) == {TWO}


def test_what_was_kept_aside_is_no_mark(volume: Volume) -> None:
    """The remains of a repair stay and mark nothing."""
    os.makedirs(Path(volume.damaged) / f"{ONE}.{'0' * 32}")
    assert damage.marked(volume) == set()


def test_refusing(volume: Volume) -> None:
    """What is marked is refused by name, with the cure; what is not, is served."""
    damage.mark(volume, ONE)
    damage.mark(volume, TWO)
    damage.refuse(volume, [THREE])
    with pytest.raises(IntegrityError, match=f"entry {ONE[:16]} is damaged, and 1 more") as caught:
        damage.refuse(volume, [THREE, TWO, ONE])
    assert caught.value.hint == f"cvs store repair {ONE[:16]} {TWO[:16]}"
    with pytest.raises(IntegrityError, match=f"entry {TWO[:16]} is damaged$"):
        damage.refuse(volume, [TWO])


def test_the_cure_of_many(volume: Volume) -> None:
    """Of many entries the hint names none: without names all that is marked is repaired."""
    many = [EntryId(f"{number:064x}") for number in range(5)]
    assert damage.cure(*many) == "cvs store repair"
    assert damage.cure(*many[:4]).count(" ") == 6


def test_examining(store: Store, small: Callable[..., EntryId]) -> None:
    """What verifies damaged is marked and what verifies whole is not; one that is gone keeps its
    mark."""
    entry = small()
    path = Path(store.path(entry), "small/file.txt")
    assert damage.examine(store, entry) == []
    path.rename(path.with_name("other"))
    assert [one.path for one in damage.examine(store, entry)] == ["small/file.txt", "small/other"]
    assert damage.marked(store.volume) == {entry}
    path.with_name("other").rename(path)
    assert damage.examine(store, entry) == []
    assert damage.marked(store.volume) == set()
    damage.mark(store.volume, ONE)
    with pytest.raises(EntryMissing):
        damage.examine(store, ONE)
    assert damage.marked(store.volume) == {ONE}
