"""Random trees for property tests."""

from typing import Any

from hypothesis import strategies as st

from cvs.store import tree
from cvs.store.tree import File, Folder, Link, Node

#: Few letters, so that names meet: in case, in normal form, around '.', beyond UTF-8.
_LETTERS = [b"a", b"A", b"b", b".", b"%", b"\n", b" ", b"\xff", b"\xc3\xa9", b"e\xcc\x81", b"-"]


def names() -> st.SearchStrategy[bytes]:
    """Names that a file in a tree may have."""
    meeting = st.lists(st.sampled_from(_LETTERS), min_size=1, max_size=4).map(b"".join)
    anything = st.binary(min_size=1, max_size=12)
    return (meeting | anything).filter(
        lambda name: name not in (b".", b"..") and not {0, 0x2F} & set(name)
    )


def digests() -> st.SearchStrategy[str]:
    """Digests of no file in particular."""
    return st.binary(min_size=32, max_size=32).map(bytes.hex)


def _targets(depth: int) -> st.SearchStrategy[bytes]:
    climbs = st.integers(0, depth).map(lambda count: [b".."] * count)
    return st.builds(
        lambda up, down: b"/".join(up + down) or b".", climbs, st.lists(names(), max_size=3)
    )


@st.composite
def trees(draw: st.DrawFn, depth: int = 0, prefix: bytes = b"") -> list[Node]:
    """The nodes of a tree that is one, in an order of its own."""
    nodes: list[Node] = []
    for name in draw(st.lists(names(), max_size=4, unique_by=tree.folded)):
        path = prefix + name
        shown = tree.quote(path)
        kind = draw(st.sampled_from("ffld" if depth < 3 else "fl"))
        if kind == "f":
            size = draw(st.integers(0, 2**63 - 1))
            nodes.append(File(shown, size, draw(digests()), draw(st.booleans())))
        elif kind == "l":
            nodes.append(Link(shown, tree.quote(draw(_targets(depth)))))
        else:
            nodes.append(Folder(shown))
            nodes += draw(trees(depth + 1, path + b"/"))
    return draw(st.permutations(nodes)) if depth == 0 else nodes


def any_nodes() -> st.SearchStrategy[list[Node]]:
    """Lists of nodes of which most are no tree."""
    text: st.SearchStrategy[Any] = (
        st.text(max_size=6)
        | st.sampled_from(
            ["a", "b", "a/b", "/a", "a/", "..", "a/../b", "", "%FF", "\udc80", "a//b"]
        )
        | st.text(alphabet="aA/.%é2F", max_size=6)
    )
    size = st.integers(-2, 2) | st.integers()
    file = st.builds(File, text, size, text | digests(), st.booleans())
    return st.lists(file | st.builds(Link, text, text) | st.builds(Folder, text), max_size=6)
