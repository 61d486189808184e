"""The record: a list of entries that something needs, and the links that a view makes of them.

A lease and a generation are the same document, byte for byte: publishing a generation is making
a hard link of its lease. Its number is its file name only.
"""

import msgspec

from cvs.store.digest import EntryId, is_id
from cvs.store.errors import StoreError

FORMAT = 1


class Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One path of a view and what lies there."""

    path: str
    """Relative to the view; "" for the tree that the view itself shows."""
    target: str
    """Relative to store/: `<hash>/<name>`."""
    private: bool = False
    """Shown as a copy in the version's state, which may be written."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one generation of a version consists of; immutable."""

    format: int = FORMAT
    version: str
    created: str
    host: str
    """Who made it; advice."""
    parts: dict[str, str]
    """One digest per part of the spec that it was made from."""
    entries: tuple[EntryId, ...]
    """The closure, in ascending order."""
    wheel_set: EntryId
    interpreter: dict[str, str]
    """What the wheel set is for, as the lock has it."""
    links: tuple[Place, ...]
    lock: str
    """BLAKE3 of the lock's bytes; advice."""

    def same_content(self, other: "Record") -> bool:
        """Whether a view and environment of both would be the same."""
        return (self.entries, self.links, self.wheel_set, self.interpreter) == (
            other.entries,
            other.links,
            other.wheel_set,
            other.interpreter,
        )


class _Head(msgspec.Struct):
    """What every version of a record has."""

    format: int


_DECODER = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """The bytes of a record: JSON on one line and a final newline."""
    return msgspec.json.encode(record) + b"\n"


def read(path: str) -> Record:
    """Reads a record.

    Raises:
        FileNotFoundError: it is gone.
        StoreError: it is damaged, or newer than this code.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        # First of all: a newer record has fields that are not known here.
        newest = msgspec.json.decode(data, type=_Head).format
        record = _DECODER.decode(data) if newest <= FORMAT else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"{path} is not a record: {error}") from None
    if record is None:
        raise StoreError(
            f"{path} has format {newest}, this cvs reads up to {FORMAT}", hint="update cvs"
        )
    if fault := _fault(record):
        raise StoreError(f"{path} is not a record: {fault}")
    return record


def _fault(record: Record) -> str | None:
    """What no writer could have meant."""
    if not all(map(is_id, (*record.entries, record.wheel_set))):
        return "an entry is not a hash"
    if record.format < 1:
        return f"there is no format {record.format}"
    if sum(not place.path for place in record.links) != 1:
        return "one of its links must be that of the core"
    for place in record.links:
        entry, _, name = place.target.partition("/")
        parts = [*place.path.split("/"), name] if place.path else [name]
        if not is_id(entry) or "/" in name or not {"", ".", ".."}.isdisjoint(parts):
            return f"a link cannot be {place.path!r} to {place.target!r}"
    return None
