"""The record: a list of entries that something needs, and the links that a view makes of them.

A lease and a generation are the same document, byte for byte: publishing a generation is making
a hard link of its lease. Its number is its file name only.
"""

import msgspec

from cvs.store import tree
from cvs.store.digest import EntryId, is_id
from cvs.store.document import read_stored
from cvs.store.errors import SHOWN, StoreError, shown

FORMAT = 1

#: Bytes of the largest record; one of 500 entries has 50 kB.
SIZE_LIMIT = 4 << 20


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
    provided: tuple[str, ...] = ()
    """What of Python's packages is no entry, since the image's interpreter has it."""
    overlaps: tuple[str, ...] = ()
    """Patterns of paths where wheels of the set may have different files."""

    def same_content(self, other: "Record") -> bool:
        """Whether a view and environment of both would be the same."""
        return self._content == other._content

    @property
    def _content(self) -> tuple[object, ...]:
        python = (self.wheel_set, self.interpreter, self.provided, self.overlaps)
        return (self.entries, self.links, *python)


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
    data = read_stored(path, SIZE_LIMIT)
    try:
        # First of all: a newer record has fields that are not known here.
        newest = msgspec.json.decode(data, type=_Head).format
        record = _DECODER.decode(data) if newest <= FORMAT else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"{path} is not a record: {str(error)[:SHOWN]}") from None
    if record is None:
        raise StoreError(
            f"{path} has format {str(newest)[:20]}, this cvs reads up to {FORMAT}",
            hint="update cvs",
        )
    if fault := _fault(record):
        raise StoreError(f"{path} is not a record: {fault}")
    return record


def _fault(record: Record) -> str | None:
    """What no writer could have meant; version and paths become parts of links of the view."""
    if not all(map(is_id, (*record.entries, record.wheel_set))):
        return "an entry is not a hash"
    if record.format < 1:
        return f"there is no format {str(record.format)[:20]}"
    if not _is_name(record.version):
        return f"a version cannot be called {shown(record.version)}"
    if sum(not place.path for place in record.links) != 1:
        return "one of its links must be that of the core"
    paths: set[str] = set()
    for place in record.links:
        entry, _, name = place.target.partition("/")
        parts = [*place.path.split("/"), name] if place.path else [name]
        if (
            not is_id(entry)
            or not all(map(_is_name, parts))
            or len(place.path.encode()) > tree.PATH_LIMIT
        ):
            return f"a link cannot be {shown(place.path)} to {shown(place.target)}"
        if place.path in paths:
            return f"two of its links are {shown(place.path)}"
        paths.add(place.path)
    for path in paths:
        above = path
        while above := above.rpartition("/")[0]:
            if above in paths:
                return f"its link {shown(path)} lies below another"
    return None


def _is_name(text: str) -> bool:
    """Whether a text can be one component of a path."""
    try:
        tree.check_name(text.encode())
    except tree.TreeError:
        return False
    return True
