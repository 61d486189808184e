"""Roots: what keeps entries from collection, as records on the volume say it.

A generation is kept by its profile, a lease by a process, a pin by nobody but its name. All three
are the same document (docs/format.md). They are read in this order, leases first: publishing moves
a root from the first to the second, and whoever read them the other way round could miss it.
"""

import os
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from cvs.store.digest import EntryId
from cvs.store.errors import StoreError
from cvs.store.record import Record, read
from cvs.store.volume import Volume

Kind = Literal["lease", "generation", "pin"]

_GENERATION = re.compile(r"([1-9][0-9]*)\.json")


class Root(NamedTuple):
    """One thing that keeps entries."""

    kind: Kind
    name: str
    """Of a lease or pin; of a generation `<version>@<number>`."""
    path: str
    """The file of its record."""
    record: Record | StoreError
    """What it says, or why that cannot be told."""

    @property
    def entries(self) -> tuple[EntryId, ...]:
        """The closure that it keeps.

        Raises:
            StoreError: its record is damaged, or newer than this code: what it keeps is unknown.
        """
        if isinstance(self.record, StoreError):
            raise self.record
        return self.record.entries


def roots(volume: Volume) -> Iterator[Root]:
    """Every root of a volume; one that vanishes meanwhile is left out."""
    for name in _names(volume.leases):
        if name.endswith(".json"):
            yield from _read("lease", name.removesuffix(".json"), volume.leases, name)
    for version in _names(volume.profiles):
        folder = os.path.join(volume.profiles, version)
        for name in _names(folder):
            if match := _GENERATION.fullmatch(name):
                yield from _read("generation", f"{version}@{match[1]}", folder, name)
    for name in _names(volume.pins):
        if name.endswith(".json"):
            yield from _read("pin", name.removesuffix(".json"), volume.pins, name)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(kind: Kind, name: str, folder: str, file: str) -> Iterator[Root]:
    path = os.path.join(folder, file)
    try:
        yield Root(kind, name, path, read(path))
    except FileNotFoundError:
        return
    except StoreError as error:
        yield Root(kind, name, path, error)
