"""How much of the store each version needs, and what none needs. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cvs.store.digest import EntryId


class Use(NamedTuple):
    """What one version needs; sizes in bytes of the files' content."""

    version: str
    entries: int
    size: int
    shared: int
    """Of `size`, what other versions need as well."""
    missing: int
    """Entries that are not in the store, or have no manifest that can be read."""

    @property
    def unique(self) -> int:
        """Of `size`, what no other version needs."""
        return self.size - self.shared


def by_version(
    sizes: Mapping[EntryId, int | None], roots: Iterable[tuple[str, Iterable[EntryId]]]
) -> tuple[list[Use], list[EntryId]]:
    """What each version uses, by name, and the entries that none uses, ascending.

    Args:
        sizes: of every entry of the store; None for one whose manifest cannot be read.
        roots: versions and the closures that keep entries for them, in any number each.
    """
    needed: dict[str, set[EntryId]] = {}
    for version, entries in roots:
        needed.setdefault(version, set()).update(entries)
    times: dict[EntryId, int] = {}
    for closure in needed.values():
        for entry in closure:
            times[entry] = times.get(entry, 0) + 1
    uses = [
        Use(
            version=version,
            entries=len(closure),
            size=sum(sizes.get(entry) or 0 for entry in closure),
            shared=sum(sizes.get(entry) or 0 for entry in closure if times[entry] > 1),
            missing=sum(sizes.get(entry) is None for entry in closure),
        )
        for version, closure in sorted(needed.items())
    ]
    return uses, sorted(entry for entry in sizes if entry not in times)
