"""Trees: quoting, names, links, digests."""

import itertools
import os
import unicodedata
from pathlib import Path

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from cvs.store import tree
from cvs.store.digest import EntryId
from cvs.store.tree import File, Folder, Link, Node, TreeError

ZERO, ONE = "0" * 64, "1" * 64


def file(path: str, *, size: int = 0, digest: str = ZERO, executable: bool = False) -> File:
    """A file of a tree."""
    return File(path, size, digest, executable)


# Quoting.


@given(st.binary())
def test_quote_loses_nothing(raw: bytes) -> None:
    """Any bytes come back from their quoted form, which JSON can hold."""
    text = tree.quote(raw)

    assert raw == tree.unquote(text)
    assert text == text.encode().decode()


@given(st.text() | st.text(alphabet="%aF2f9é\udc80", max_size=8))
def test_a_path_has_one_form(text: str) -> None:
    """Text is refused or it is what `quote` makes of its bytes."""
    try:
        raw = tree.unquote(text)
    except TreeError:
        return
    assert text == tree.quote(raw)


@pytest.mark.parametrize(
    "text",
    ["%41", "%2f", "%e9", "%", "%F", "%GG", "%+1", "%\udc80", "\n", "\x85", "\udcff", "%C3%A9"],
)
def test_other_forms_of_a_path_are_refused(text: str) -> None:
    """Escapes that are not needed, broken ones, and characters that need one are refused."""
    with pytest.raises(TreeError):
        tree.unquote(text)


# Names.


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0", b"x" * 256])
def test_bad_names_are_refused(name: bytes) -> None:
    """A name that would be a path, nothing, or too long is refused."""
    with pytest.raises(TreeError):
        tree.check_name(name)


@pytest.mark.parametrize("name", [b"...", b" ", b"-rf", b"\xff", b"x" * 255, b"a\nb", b"..a"])
def test_strange_names_are_names(name: bytes) -> None:
    """What Linux takes as a name is one."""
    tree.check_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "manifest.json", "Manifest.JSON", "\udcff", "x" * 256]
)
def test_bad_names_of_trees_are_refused(name: str) -> None:
    """A tree lies beside its manifest: it cannot have that name, or one that is not UTF-8."""
    with pytest.raises(TreeError):
        tree.tree_id(name, tree.digest([]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "A"),
        ("straße", "STRASSE"),
        ("é", "e\u0301"),
        ("É", "e\u0301"),
        ("\u212a", "k"),
        ("\u0390", "\u03aa\u0301"),
        ("\ufb01", "FI"),
    ],
)
def test_names_that_are_one_elsewhere_are_refused(one: str, other: str) -> None:
    """Two names that differ in case or normal form alone cannot lie in one folder."""
    with pytest.raises(TreeError, match="case or normal form"):
        tree.digest([file(one), file(other)])
    tree.digest([Folder("d"), file(one), file(f"d/{other}")])


@given(st.text())
def test_folding_is_canonical_caseless_matching(text: str) -> None:
    """Folding what was folded, or what was composed or decomposed before, changes nothing."""
    raw = text.encode("utf-8", "ignore")
    folded = tree.folded(raw)

    assert folded == tree.folded(folded)
    for form in ("NFC", "NFD"):
        assert folded == tree.folded(unicodedata.normalize(form, raw.decode()).encode())


# Links.


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"l", b"/etc/passwd"),
        (b"l", b".."),
        (b"l", b"../x"),
        (b"l", b"./../x"),
        (b"a/l", b"../../x"),
        (b"a/l", b"x/../../.."),
        (b"l", b"x/../y"),
        (b"l", b"x/.."),
        (b"l", b""),
        (b"l", b"a\0b"),
        (b"l", b"x" * 4096),
    ],
)
def test_links_that_may_leave_are_refused(path: bytes, target: bytes) -> None:
    """Absolute targets, more '..' than folders, '..' after a name: refused."""
    with pytest.raises(TreeError):
        tree.check_target(path, target)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"l", b"x"),
        (b"l", b"."),
        (b"l", b"x/./y//z/"),
        (b"a/l", b".."),
        (b"a/b/l", b"../..//c"),
        (b"a/l", b"./.././x"),
        (b"l", b"...."),
        (b"l", b"..x"),
        (b"l", b"\xff\n"),
    ],
)
def test_links_that_stay_are_kept(path: bytes, target: bytes) -> None:
    """Targets inside the tree are taken as they are, whether they exist or not."""
    tree.check_target(path, target)


_PARTS = (b"..", b"m", b"a")
_TARGETS = [
    b"/".join(parts) for count in (1, 2, 3) for parts in itertools.product(_PARTS, repeat=count)
]


def test_no_link_of_a_tree_leads_out(tmp_path: Path) -> None:
    """Of all pairs of links that are taken, the kernel resolves none to a place outside."""
    # The names that a link could meet outside are there.
    root = os.fsencode(tmp_path.resolve()) + b"/a/m/root"
    os.makedirs(root + b"/a")
    taken = [target for target in _TARGETS if _stays(b"a/m", target)]
    for first, second in itertools.product(taken, repeat=2):
        for name, target in ((b"m", first), (b"l", second)):
            path = root + b"/a/" + name
            if os.path.lexists(path):
                os.unlink(path)
            os.symlink(target, path)
        for name in (b"m", b"l"):
            real = _resolved(root + b"/a/" + name)
            assert real is None or (real + b"/").startswith(root + b"/"), (first, second)


def _stays(path: bytes, target: bytes) -> bool:
    try:
        tree.check_target(path, target)
    except TreeError:
        return False
    return True


def _resolved(path: bytes) -> bytes | None:
    """Where the kernel ends up, if anywhere."""
    try:
        descriptor = os.open(path, os.O_PATH)
    except OSError:
        return None
    try:
        return os.fsencode(os.readlink(f"/proc/self/fd/{descriptor}"))
    finally:
        os.close(descriptor)


def test_two_links_cannot_leave_together() -> None:
    """'..' after a name that is itself a link would climb from where that leads."""
    with pytest.raises(TreeError):
        tree.digest([Folder("a"), Folder("a/b"), Link("a/b/x", "../.."), Link("a/b/l", "x/../out")])


# Digests.


@given(st.data())
def test_order_of_nodes_does_not_count(data: st.DataObject) -> None:
    """The digest is that of the tree, not of a list."""
    nodes = data.draw(strategies.trees())
    again = data.draw(st.permutations(nodes))

    assert tree.digest(nodes) == tree.digest(again)


@given(st.data())
def test_every_field_counts(data: st.DataObject) -> None:
    """A change of any field of any node, or one node less, gives another digest or no tree."""
    nodes = data.draw(strategies.trees().filter(bool))
    at = data.draw(st.integers(0, len(nodes) - 1))
    node = nodes[at]
    changed: list[Node | None] = [None]
    if isinstance(node, File):
        changed += [
            File(node.path, node.size ^ 1, node.digest, node.executable),
            File(node.path, node.size, ZERO if node.digest != ZERO else ONE, node.executable),
            File(node.path, node.size, node.digest, not node.executable),
            File(node.path + "~", node.size, node.digest, node.executable),
            Link(node.path, "x"),
            Folder(node.path),
        ]
    elif isinstance(node, Link):
        changed += [Link(node.path, node.target + "~"), Link(node.path + "~", node.target)]
        changed += [Folder(node.path), file(node.path)]
    else:
        changed += [Folder(node.path + "~"), file(node.path)]
    before = tree.digest(nodes)

    for other in changed:
        rest = nodes[:at] + ([] if other is None else [other]) + nodes[at + 1 :]
        try:
            assert before != tree.digest(rest)
        except TreeError:
            continue


@given(strategies.any_nodes())
def test_no_tree_is_a_tree_error(nodes: list[Node]) -> None:
    """Nodes from anywhere have a digest or are refused as a tree; nothing else happens."""
    try:
        digest = tree.digest(nodes)
    except TreeError:
        return
    assert len(digest) == 32


@pytest.mark.parametrize(
    "nodes",
    [
        [file("a"), file("a")],
        [file("a"), Folder("a")],
        [Folder("a"), Folder("a")],
        [file("a/b")],
        [file("a"), file("a/b")],
        [Link("a", "b"), file("a/b")],
        [file("/a")],
        [Folder("/a")],
        [Folder("a"), Folder("a/")],
        [Folder("")],
        [file("a", size=-1)],
        [file("a", size=1 << 63)],
        [file("a", digest="0" * 63)],
        [file("a", digest="A" * 64)],
        [file("\udc80")],
    ],
    ids=repr,
)
def test_nodes_that_are_no_tree(nodes: list[Node]) -> None:
    """Doubles, orphans, absolute paths, and sizes and digests that no file has are refused."""
    with pytest.raises(TreeError):
        tree.digest(nodes)


def test_paths_have_a_limit() -> None:
    """A path of 1024 bytes is taken, however deep; a longer one is refused, not a crash."""
    parts = ["d" * 1] * 512
    folders: list[Node] = [Folder("/".join(parts[:depth])) for depth in range(1, 513)]

    tree.digest(folders)
    with pytest.raises(TreeError, match="longer"):
        tree.digest([*folders, Folder("/".join([*parts, "d"]))])


def test_name_of_a_tree_counts() -> None:
    """Trees that differ in their name alone are two entries."""
    empty = tree.digest([])
    assert tree.tree_id("one", empty) != tree.tree_id("two", empty)


def test_kinds_of_entries_never_meet() -> None:
    """The empty tree, the empty set and the empty file have three ids."""
    empty = EntryId("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")

    assert len({empty, tree.set_id([]), tree.tree_id("x", tree.digest([]))}) == 3


@given(st.lists(strategies.digests().map(EntryId), max_size=5))
def test_a_set_has_no_order(members: list[EntryId]) -> None:
    """A set is its members, each once, in any order."""
    assert tree.set_id(members) == tree.set_id([*reversed(members), *members])


def test_trees_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """More nodes than any real tree has are refused before they fill the memory."""
    monkeypatch.setattr(tree, "NODE_LIMIT", 3)
    nodes = [Folder(name) for name in "abcd"]

    assert len(tree.digest(nodes[:3])) == 32
    with pytest.raises(TreeError, match="has more than 3 files, links and folders"):
        tree.digest(nodes)


def test_messages_about_trees_are_short() -> None:
    """A message shows the beginning of what is at fault, however long that is."""
    long = "x" * 100_000
    for refuse in (
        lambda: tree.unquote(long + "%"),
        lambda: tree.unquote(long + "%41"),
        lambda: tree.unquote(long + "\ud800"),
        lambda: tree.check_name(b"/" + long.encode()),
        lambda: tree.check_tree_name(long + "\ud800"),
        lambda: tree.check_target(long.encode(), b""),
        lambda: tree.check_target(b"a", b"/" + long[:4000].encode()),
        lambda: tree.check_target(b"a", b"b/../" + long[:4000].encode()),
    ):
        with pytest.raises(TreeError) as caught:
            refuse()
        assert len(caught.value.message) < 300
