"""What differs between two entries, from their manifests alone. Pure.

Only what an id covers counts: origin and date of two equal entries may differ.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from cvs.store import tree
from cvs.store.digest import EntryId

Aspect = Literal["added", "removed", "kind", "content", "mode", "target"]


class Change(NamedTuple):
    """One path that two trees do not have in common."""

    path: str
    """Quoted, as in the manifest."""
    before: tree.Node | None
    after: tree.Node | None

    @property
    def aspects(self) -> tuple[Aspect, ...]:
        """In what it differs; content and mode may both have changed."""
        before, after = self.before, self.after
        if before is None:
            return ("added",)
        if after is None:
            return ("removed",)
        if isinstance(before, tree.File) and isinstance(after, tree.File):
            found: list[Aspect] = []
            if (before.size, before.digest) != (after.size, after.digest):
                found.append("content")
            if before.executable != after.executable:
                found.append("mode")
            return tuple(found)
        return ("target",) if type(before) is type(after) else ("kind",)


def of_nodes(before: Iterable[tree.Node], after: Iterable[tree.Node]) -> list[Change]:
    """The paths that differ between the nodes of two trees, sorted by their bytes."""
    old = {node.path: node for node in before}
    new = {node.path: node for node in after}
    return [
        Change(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys(), key=tree.unquote)
        if old.get(path) != new.get(path)
    ]


def of_members(
    before: Iterable[EntryId], after: Iterable[EntryId]
) -> tuple[list[EntryId], list[EntryId]]:
    """The members that only the first and only the second of two sets has, ascending."""
    old, new = set(before), set(after)
    return sorted(old - new), sorted(new - old)
