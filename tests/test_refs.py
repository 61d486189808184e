"""Refs: what led to which entry."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from faults import fail_at
from hypothesis import given
from hypothesis import strategies as st

from cvs.store import refs
from cvs.store.digest import EntryId
from cvs.store.volume import Volume

ONE, TWO = EntryId("1" * 64), EntryId("2" * 64)


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


def test_key_of_the_page() -> None:
    """The key over two inputs, as docs/format.md says it: length and bytes of each."""
    raw = (2).to_bytes(8, "little") + "é".encode() + (0).to_bytes(8, "little")

    assert refs.key("é", "") == blake3(raw).hexdigest()


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_no_two_lists_give_one_key(one: list[str], other: list[str]) -> None:
    """A key tells lists of inputs apart, however they are cut."""
    clean = [
        [text.encode("utf-8", "replace").decode() for text in inputs] for inputs in (one, other)
    ]

    assert (clean[0] == clean[1]) == (refs.key(*clean[0]) == refs.key(*clean[1]))


def test_what_was_noted_is_found(volume: Volume) -> None:
    """The last note counts; kinds and keys are apart."""
    key = refs.key("a")
    assert refs.get(volume, "wheel", key) is None
    refs.put(volume, "wheel", key, ONE)
    refs.put(volume, "commit", key, TWO)
    assert refs.get(volume, "wheel", key) == ONE
    refs.put(volume, "wheel", key, TWO)

    assert refs.get(volume, "wheel", key) == TWO
    assert refs.get(volume, "wheel", refs.key("b")) is None
    assert os.listdir(os.path.join(volume.refs, "wheel")) == [key]


@pytest.mark.parametrize("target", ["x", "../../etc/passwd", "1" * 63, "A" * 64])
def test_other_links_are_no_refs(volume: Volume, target: str) -> None:
    """A link to anything but an id leads nowhere, and can be replaced."""
    os.makedirs(os.path.join(volume.refs, "wheel"))
    os.symlink(target, os.path.join(volume.refs, "wheel", "k"))

    assert refs.get(volume, "wheel", "k") is None
    refs.put(volume, "wheel", "k", ONE)
    assert refs.get(volume, "wheel", "k") == ONE


def test_files_and_folders_are_no_refs(volume: Volume) -> None:
    """What is not a link is no ref."""
    folder = Path(volume.refs, "wheel")
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_text(ONE)

    assert refs.get(volume, "wheel", "folder") is None
    assert refs.get(volume, "wheel", "file") is None


def test_refs_may_be_lost(volume: Volume, small: Callable[..., EntryId]) -> None:
    """Without any ref nothing is wrong, and noting begins anew."""
    entry = small()
    os.rmdir(volume.refs)

    assert refs.get(volume, "wheel", "k") is None
    refs.put(volume, "wheel", "k", entry)
    assert refs.get(volume, "wheel", "k") == entry


def test_noting_may_fail(volume: Volume) -> None:
    """Whichever change fails, the old note or the new one is there and nothing beside it."""
    refs.put(volume, "wheel", "k", ONE)
    number, failed = 1, True
    while failed:
        try:
            with fail_at(number):
                refs.put(volume, "wheel", "k", TWO)
            failed = False
        except OSError:
            number += 1
        assert refs.get(volume, "wheel", "k") in (ONE, TWO)
        assert os.listdir(os.path.join(volume.refs, "wheel")) == ["k"]

    assert number > 2
