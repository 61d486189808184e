"""Digests: BLAKE3 for names of the store, SHA-256 beside it because the world publishes that.

A file's digest is the plain BLAKE3 of its bytes, so `b3sum` prints it. Everything that is not a
file is hashed in BLAKE3's derive-key mode under a context of its own, so that no file can pass
for a folder or a set.
"""

from typing import NewType

from blake3 import blake3

from cvs.store.errors import InputError

#: 64 lower-case hexadecimal digits: the name of an entry.
EntryId = NewType("EntryId", str)

#: Hexadecimal digits of a digest in full, and the fewest that a user may type.
LENGTH = 64
SHORTEST_PREFIX = 8

_HEX = frozenset("0123456789abcdef")


def parse_id(text: str) -> EntryId:
    """Reads a full entry id.

    Raises:
        InputError: `text` is not 64 lower-case hexadecimal digits.
    """
    if not is_id(text):
        raise InputError(f"{text!r} is not an entry: 64 lower-case hexadecimal digits are needed")
    return EntryId(text)


def is_id(text: str) -> bool:
    """Whether `text` has the form of an entry id."""
    if len(text) != LENGTH:
        return False
    try:
        return bytes.fromhex(text).hex() == text
    except ValueError:
        return False


def is_prefix(text: str) -> bool:
    """Whether `text` can be the beginning of an entry id that a user typed."""
    return SHORTEST_PREFIX <= len(text) <= LENGTH and _HEX.issuperset(text)


def derive(context: str, *parts: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3 in derive-key mode over the concatenated parts: 32 bytes."""
    hasher = blake3(derive_key_context=context)
    for part in parts:
        hasher.update(part)
    return hasher.digest()
