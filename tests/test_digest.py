"""Digests and their written form."""

import pytest
from blake3 import blake3

from cvs.store import digest
from cvs.store.errors import InputError

ID = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_an_id_is_64_hexadecimal_digits() -> None:
    """The full written form is an id."""
    assert digest.parse_id(ID) == ID


@pytest.mark.parametrize("text", ["", ID[:63], ID + "0", ID.upper(), " " + ID[1:], ID[:63] + "g"])
def test_other_text_is_no_id(text: str) -> None:
    """Too short, too long, upper case, other characters: refused with a sentence."""
    assert not digest.is_id(text)
    with pytest.raises(InputError, match="64 lower-case"):
        digest.parse_id(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(ID[:7], False), (ID[:8], True), (ID, True), (ID + "0", False), ("ABCDEF01", False)],
)
def test_a_prefix_has_8_to_64_digits(text: str, expected: bool) -> None:
    """What a user may type for an entry is neither too short nor anything but digits."""
    assert expected == digest.is_prefix(text)


def test_contexts_keep_digests_apart() -> None:
    """The same bytes under two contexts, or under none, have different digests."""
    digests = {digest.derive("one", b"x"), digest.derive("two", b"x"), blake3(b"x").digest()}

    assert len(digests) == 3


def test_parts_are_joined() -> None:
    """Deriving over parts is deriving over the whole."""
    assert digest.derive("one", b"ab", b"", b"c") == digest.derive("one", b"abc")
