"""Finding paths in trees: as the file system would, from the manifest alone."""

import os
import tempfile

import hypothesis
import pytest
from hypothesis import strategies as st
from strategies import names, trees

from cvs.store import lookup, manifest, tree
from cvs.store.errors import InputError

DIGEST = "0" * 64


def tree_of(*nodes: tree.Node, name: str = "node") -> manifest.TreeManifest:
    size = sum(node.size for node in nodes if isinstance(node, tree.File))
    return manifest.TreeManifest(1, name, size, tuple(nodes))


NODES = (
    tree.File("main.py", 3, DIGEST),
    tree.File("50%25.txt", 1, DIGEST),
    tree.Folder("lib"),
    tree.File("lib/loader.py", 4, DIGEST),
    tree.Folder("lib/deep"),
    tree.File("lib/deep/main.py", 5, DIGEST),
    tree.Link("lib/up", "../main.py"),
    tree.Link("shortcut", "lib/deep"),
    tree.Link("lost", "lib/nothing"),
    tree.Link("one", "two"),
    tree.Link("two", "one"),
)


@pytest.mark.parametrize(
    ("path", "real"),
    [
        *(("", ""), ("/", ""), ("./.", ""), ("main.py", "main.py"), ("//main.py", "main.py")),
        *(("lib", "lib"), ("lib/", "lib"), ("lib/loader.py", "lib/loader.py")),
        *(("lib/up", "main.py"), ("lib/deep/../up", "main.py"), ("lib/..", "")),
        *(("shortcut", "lib/deep"), ("shortcut/main.py", "lib/deep/main.py")),
        *(("shortcut/..", "lib"), ("shortcut/../up", "main.py"), ("50%.txt", "50%.txt")),
    ],
)
def test_found(path: str, real: str) -> None:
    """A path leads where it would on a disk; `..` climbs from where a link has led."""
    where, node = lookup.find(tree_of(*NODES), path.encode())

    assert where == real.encode()
    assert (node.path if node else "") == tree.quote(real.encode())


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("man.py", "node has no 'man.py'", "did you mean 'main.py'?"),
        ("loader.py", "node has no 'loader.py'", "did you mean 'lib/loader.py'?"),
        ("lib/MAIN.py", "node has no 'lib/MAIN.py'", "'lib/deep/main.py' or 'main.py'"),
        ("zzz", "node has no 'zzz'", None),
        ("a\x1bb", "node has no 'a%1Bb'", None),
        ("main.py/x", "node has no 'main.py/x': 'main.py' is a file", None),
        ("main.py/..", "node has no 'main.py/..': 'main.py' is a file", None),
        ("lost", "node has no 'lost': a link leads to 'lib/nothing', which is not there", None),
        ("one/x", "node has no 'one/x': links lead in a circle", None),
        ("..", "'..' leads out of node", None),
        ("lib/../../x", "'lib/../../x' leads out of node", None),
    ],
)
def test_not_found(path: str, message: str, hint: str | None) -> None:
    """What is not there is said with the reason, and with names that may have been meant."""
    with pytest.raises(InputError) as caught:
        lookup.find(tree_of(*NODES), path.encode())

    assert message == caught.value.message
    assert (hint or "") in (caught.value.hint or "")
    assert (hint is None) == (caught.value.hint is None)


def test_children() -> None:
    """What lies right in a folder, in the order of the names."""
    document = tree_of(*NODES)

    assert [name for name, _ in lookup.children(document, b"lib")] == [b"deep", b"loader.py", b"up"]
    assert len(lookup.children(document, b"")) == 7
    assert lookup.children(tree_of(), b"") == []


@hypothesis.given(trees(), st.lists(names() | st.sampled_from([b"..", b"."]), max_size=4))
def test_as_on_a_disk(nodes: list[tree.Node], parts: list[bytes]) -> None:
    """For every tree, what a path leads to is what the file system says of it."""
    path = b"/".join(parts)
    candidates = [path, *(tree.unquote(node.path) + b"/" + path for node in nodes)]
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.realpath(os.fsencode(folder)) + b"/root"
        os.mkdir(root)
        for node in sorted(nodes, key=lambda node: (isinstance(node, tree.Link), node.path)):
            at = root + b"/" + tree.unquote(node.path)
            if isinstance(node, tree.Folder):
                os.makedirs(at, exist_ok=True)
            elif isinstance(node, tree.Link):
                os.makedirs(os.path.dirname(at), exist_ok=True)
                os.symlink(tree.unquote(node.target), at)
            else:
                os.makedirs(os.path.dirname(at), exist_ok=True)
                os.close(os.open(at, os.O_CREAT | os.O_EXCL))
        for candidate in candidates:
            # `file/` and `file/.` ask for a folder, which `find` does not mind.
            asked = b"/".join(
                [root, *(part for part in candidate.split(b"/") if part not in (b"", b"."))]
            )
            try:
                where, _ = lookup.find(tree_of(*nodes), candidate)
            except InputError as error:
                outside = "leads out" in error.message
                assert outside or not os.path.exists(asked), candidate
            else:
                assert os.path.exists(asked), candidate
                assert os.path.realpath(asked) == (root + b"/" + where).rstrip(b"/")
