"""Records: one list of entries for a lease and for a generation."""

import os
from pathlib import Path
from typing import Any

import locks
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import digests

from cvs.store import record as documents
from cvs.store.errors import StoreError
from cvs.store.record import Place, Record, encode, read

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_name = st.text(st.characters(categories=["L", "N", "Zs"]), min_size=1, max_size=8)
_targets = st.builds(lambda entry, name: f"{entry}/{name}", digests(), _name)
_places = st.builds(
    Place, st.lists(_name, min_size=1, max_size=3).map("/".join), _targets, st.booleans()
)


def _lie_apart(places: list[Place]) -> bool:
    paths = [place.path for place in places]
    return not any(path.startswith(above + "/") for path in paths for above in paths)


_records = st.builds(
    Record,
    version=_name,
    created=_text,
    host=_text,
    parts=st.dictionaries(_text, _text, max_size=3),
    entries=st.lists(digests(), max_size=4).map(tuple),
    wheel_set=digests(),
    interpreter=st.dictionaries(_text, _text, max_size=3),
    links=st.builds(
        lambda core, rest: (Place("", core), *rest),
        _targets,
        st.lists(_places, max_size=3, unique_by=lambda place: place.path).filter(_lie_apart),
    ),
    lock=_text,
    provided=st.lists(_text, max_size=2).map(tuple),
    overlaps=st.lists(_text, max_size=2).map(tuple),
)


def write(folder: Path, data: bytes) -> str:
    """A file with these bytes."""
    path = folder / "1.json"
    path.write_bytes(data)
    return str(path)


@given(_records)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(memory: Path, record: Record) -> None:
    """Every record survives writing and reading, on one line."""
    data = encode(record)

    assert read(write(memory, data)) == record
    assert data.endswith(b"}\n") and data.count(b"\n") == 1


def test_a_record_that_is_gone(tmp_path: Path) -> None:
    """That there is none is for the caller to judge."""
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "1.json"))


@given(st.binary(max_size=40) | st.sampled_from([b"", b"{}", b"[" * 5000, b'{"format": "\xff"}']))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(memory: Path, data: bytes) -> None:
    """What is no record is damaged, whatever the bytes."""
    with pytest.raises(StoreError, match="is not a record"):
        read(write(memory, data))


def test_a_newer_record(tmp_path: Path) -> None:
    """A record of a newer cvs is told apart from a damaged one, with fields unknown here too."""
    newer = msgspec.to_builtins(locks.record()) | {"format": documents.FORMAT + 1, "new": []}
    path = write(tmp_path, msgspec.json.encode(newer))
    with pytest.raises(StoreError) as caught:
        read(path)

    assert caught.value.message == f"{path} has format 2, this cvs reads up to 1"
    assert caught.value.hint == "update cvs"


def test_a_record_of_before_has_less(tmp_path: Path) -> None:
    """One without what came later is read and means the same as one with nothing in it."""
    older = msgspec.to_builtins(locks.record())
    del older["provided"], older["overlaps"]

    assert read(write(tmp_path, msgspec.json.encode(older))) == locks.record()


def linked(*paths: str) -> dict[str, Any]:
    """The links of a record with these beside that of the core."""
    return {"links": [[path, f"{locks.entry(1)}/a"] for path in ("", *paths)]}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"entries": ["x"]}, "an entry is not a hash"),
        ({"entries": ["../" + "0" * 61]}, "an entry is not a hash"),
        ({"wheel_set": "A" * 64}, "an entry is not a hash"),
        ({"format": 0}, "there is no format 0"),
        ({"links": []}, "one of its links must be that of the core"),
        ({"links": [["", f"{locks.entry(1)}/a"]] * 2}, "one of its links must be that of the core"),
        ({"links": [["", "../x"]]}, "a link cannot be '' to '../x'"),
        ({"links": [["", f"{locks.entry(1)}"]]}, f"a link cannot be '' to '{locks.entry(1)}'"),
        (
            {"links": [["", f"{locks.entry(1)}/.."]]},
            f"a link cannot be '' to '{locks.entry(1)}/..'",
        ),
        (
            {"links": [["", f"{locks.entry(1)}/a"], ["models/../../x", f"{locks.entry(1)}/a"]]},
            f"a link cannot be 'models/../../x' to '{locks.entry(1)}/a'",
        ),
        (
            {"links": [["", f"{locks.entry(1)}/a"], ["/x", f"{locks.entry(1)}/a"]]},
            f"a link cannot be '/x' to '{locks.entry(1)}/a'",
        ),
        (linked("a\0b"), f"a link cannot be 'a\\x00b' to '{locks.entry(1)}/a'"),
        (linked("a" * 256), f"a link cannot be '{'a' * 200}…' to '{locks.entry(1)}/a'"),
        (linked("a/" * 512 + "b"), f"a link cannot be '{'a/' * 100}…' to '{locks.entry(1)}/a'"),
        (linked("a", "a"), "two of its links are 'a'"),
        (linked("a/b/c", "a"), "its link 'a/b/c' lies below another"),
        ({"version": "../x"}, "a version cannot be called '../x'"),
        ({"version": ""}, "a version cannot be called ''"),
        ({"version": ".."}, "a version cannot be called '..'"),
        ({"version": "\0"}, r"a version cannot be called '\x00'"),
    ],
)
def test_records_that_nobody_meant(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    """Entries and links are paths: what leaves its folder is no record."""
    path = write(tmp_path, msgspec.json.encode(msgspec.to_builtins(locks.record()) | change))
    with pytest.raises(StoreError) as caught:
        read(path)

    assert caught.value.message == f"{path} is not a record: {fault}"


def test_unknown_fields(tmp_path: Path) -> None:
    """A record with a field that is not known is damaged."""
    with pytest.raises(StoreError, match="unknown field `what`"):
        read(write(tmp_path, encode(locks.record()).replace(b"{", b'{"what":1,', 1)))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"created": "", "host": "there", "lock": "", "parts": {}}, True),
        ({"version": "y"}, True),
        ({"entries": ()}, False),
        ({"links": ()}, False),
        ({"wheel_set": locks.entry(8)}, False),
        ({"interpreter": {}}, False),
        ({"provided": ("torch",)}, False),
        ({"overlaps": ("bin/*",)}, False),
        ({"links": (*locks.record().links[:1], Place("custom_nodes/n", "x", True))}, False),
    ],
)
def test_same_content(change: dict[str, Any], same: bool) -> None:
    """Two records are of one content if view and environment are; when and where do not count."""
    one, other = locks.record(), locks.record(**change)

    assert one.same_content(other) is same
    assert other.same_content(one) is same


def test_a_record_that_is_no_file(tmp_path: Path) -> None:
    """A pipe, a folder or a file without end in the place of a record is damage."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        with pytest.raises(StoreError, match="is not a file"):
            read(str(tmp_path / name))
    path = write(tmp_path, encode(locks.record(host="x" * documents.SIZE_LIMIT)))
    with pytest.raises(StoreError, match="is larger than 4 MiB"):
        read(path)
