"""Damaged marks."""

import os
from pathlib import Path

import pytest

from cvs.store import damage
from cvs.store.digest import EntryId
from cvs.store.errors import IntegrityError
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
