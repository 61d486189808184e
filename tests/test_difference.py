"""What differs between two manifests."""

import hypothesis
from strategies import trees

from cvs.store import difference, tree
from cvs.store.digest import EntryId

A, B = "a" * 64, "b" * 64


def test_aspects() -> None:
    """Every way in which a path can differ has its word; content and mode may both."""
    before = [
        tree.File("same", 1, A),
        tree.File("gone", 1, A),
        tree.File("bytes", 1, A),
        tree.File("size", 1, A),
        tree.File("mode", 1, A),
        tree.File("both", 1, A),
        tree.Link("link", "a"),
        tree.File("kind", 1, A),
        tree.Folder("folder"),
    ]
    after = [
        tree.File("same", 1, A),
        tree.File("new", 1, A),
        tree.File("bytes", 1, B),
        tree.File("size", 2, B),
        tree.File("mode", 1, A, True),
        tree.File("both", 1, B, True),
        tree.Link("link", "b"),
        tree.Link("kind", "a"),
        tree.File("folder", 1, A),
    ]
    found = {change.path: change.aspects for change in difference.of_nodes(before, after)}

    assert found == {
        "gone": ("removed",),
        "new": ("added",),
        "bytes": ("content",),
        "size": ("content",),
        "mode": ("mode",),
        "both": ("content", "mode"),
        "link": ("target",),
        "kind": ("kind",),
        "folder": ("kind",),
    }


@hypothesis.given(trees(), trees())
def test_changes_lead_to_the_other(before: list[tree.Node], after: list[tree.Node]) -> None:
    """The first tree with all changes is the second; equal trees have none; paths ascend."""
    changes = difference.of_nodes(before, after)
    patched = {node.path: node for node in before}
    for change in changes:
        assert change.aspects
        assert patched.pop(change.path, None) == change.before
        if change.after is not None:
            patched[change.path] = change.after

    assert patched == {node.path: node for node in after}
    paths = [tree.unquote(change.path) for change in changes]
    assert paths == sorted(set(paths))
    assert difference.of_nodes(before, before[::-1]) == []


def test_members() -> None:
    """What only one of two sets has, ascending."""
    one, two, three, four = (EntryId(digit * 64) for digit in "1234")

    assert difference.of_members([one, two, three], [two, four]) == ([one, three], [four])
    assert difference.of_members([], []) == ([], [])
