"""The SHA-256 of many files."""

import hashlib
import os
from pathlib import Path

import pytest

from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.progress import Progress, Task, Unit
from cvs.versions import checksums
from cvs.versions.access import Access


class Counted(Progress):
    """Counts the bytes that were read, and those that need not be."""

    def __init__(self) -> None:
        self.read = 0
        self.skipped = 0
        self.total = 0

    def task(self, what: str, total: int | None = None, unit: Unit = "bytes") -> Task:
        counted = self
        self.total += total or 0

        class Counting(Task):
            def advance(self, amount: int) -> None:
                counted.read += amount

            def skip(self, amount: int) -> None:
                counted.skipped += amount

        return Counting()


def sha256(data: bytes) -> str:
    """The digits of a checksum."""
    return hashlib.sha256(data).hexdigest()


def test_many_files(store: Store, tmp_path: Path) -> None:
    """In their order, whatever is done first; each file is read once."""
    datas = [os.urandom(size) for size in (0, 1, 300_000, 5, 700_000)] * 4
    paths = []
    for number, data in enumerate(datas):
        path = tmp_path / str(number)
        path.write_bytes(data)
        paths.append(str(path))
    (tmp_path / "again").symlink_to("2")
    counted = Counted()
    found = checksums.of_files(store, [*paths, str(tmp_path / "again")], Access(progress=counted))
    assert found == [sha256(data) for data in [*datas, datas[2]]]
    assert counted.read == counted.total == sum(map(len, datas))


def test_a_link_into_the_store_is_not_read(store: Store, tmp_path: Path) -> None:
    """Its manifest says it, unless nothing was computed when it was added."""
    (tmp_path / "a.safetensors").write_bytes(b"model")
    (tmp_path / "b").write_bytes(b"other")
    known, unknown = (
        store.add(str(tmp_path / "a.safetensors")),
        store.add(str(tmp_path / "b"), sha256=False),
    )
    links = []
    for entry in (known, unknown):
        link = tmp_path / f"{entry}.link"
        link.symlink_to(store.get(entry))
        links.append(str(link))
    counted = Counted()
    found = checksums.of_files(store, links, Access(progress=counted))
    assert found == [sha256(b"model"), sha256(b"other")]
    assert (counted.skipped, counted.read) == (5, 5)


def test_what_lies_beside_the_content(store: Store, tmp_path: Path) -> None:
    """A manifest is no model, nor is what is gone from the store."""
    (tmp_path / "a").write_bytes(b"model")
    entry = store.add(str(tmp_path / "a"))
    path = Path(store.path(entry)) / "manifest.json"
    (found,) = checksums.of_files(store, [str(path)], Access())
    assert found == sha256(path.read_bytes())


def test_a_file_that_cannot_be_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named."""
    (tmp_path / "a").write_bytes(b"model")

    def refuse(path: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checksums, "chunks", refuse)
    with pytest.raises(InputError, match="a: Input/output error"):
        checksums.of_files(store, [str(tmp_path / "a")], Access())
