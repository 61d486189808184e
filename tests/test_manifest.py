"""Manifests: written, read again, refused."""

import json
from typing import Any

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from cvs.store import manifest, tree
from cvs.store.digest import EntryId
from cvs.store.errors import IntegrityError
from cvs.store.manifest import FileManifest, Manifest, SetManifest, TreeManifest

ZERO, ONE = "0" * 64, "1" * 64

FILE = {"kind": "file", "format": 1, "digest": ZERO, "size": 0, "sha256": ONE, "content": "content"}
TREE = {"kind": "tree", "format": 1, "name": "t", "size": 3, "nodes": [["f", "a", 3, ZERO]]}
SET = {"kind": "set", "format": 1, "members": [ZERO, ONE]}

_ADVICE = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Manifests that a writer could have written."""
    origin, created = draw(_ADVICE), draw(_ADVICE)
    kind = draw(st.sampled_from(["file", "tree", "set"]))
    if kind == "file":
        content = draw(st.sampled_from(["content", "content.gguf", "content.safetensors"]))
        digests = draw(strategies.digests()), draw(strategies.digests())
        size = draw(st.integers(0, 2**63 - 1))
        return FileManifest(1, digests[0], size, digests[1], content, origin, created)
    if kind == "tree":
        nodes = tuple(draw(strategies.trees()))
        size = sum(node.size for node in nodes if isinstance(node, tree.File))
        return TreeManifest(1, "name", size, nodes, origin, created)
    members = draw(st.sets(strategies.digests().map(EntryId), max_size=4))
    return SetManifest(1, tuple(sorted(members)), origin, created)


@given(manifests())
def test_what_is_written_is_read(document: Manifest) -> None:
    """Encoding loses nothing and fits on one line."""
    data = manifest.encode(document)

    assert manifest.decode(data, "here") == document
    assert data.index(b"\n") == len(data) - 1


@given(manifests(), st.data())
def test_damaged_bytes_are_refused(document: Manifest, data: st.DataObject) -> None:
    """A changed byte gives an IntegrityError or another manifest, never another exception."""
    raw = bytearray(manifest.encode(document))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        other = manifest.decode(bytes(raw), "here")
    except IntegrityError:
        return
    try:
        manifest.identity(other)
    except tree.TreeError:
        return


@given(st.binary() | st.text().map(str.encode))
def test_garbage_is_refused(data: bytes) -> None:
    """Bytes from anywhere are no manifest."""
    with pytest.raises(IntegrityError):
        manifest.decode(data, "here")


def changed(document: dict[str, Any], **fields: Any) -> bytes:
    """A manifest with some fields changed; None removes one."""
    merged = document | fields
    return json.dumps({key: merged[key] for key in merged if merged[key] is not None}).encode()


@pytest.mark.parametrize("document", [FILE, TREE, SET], ids=lambda document: document["kind"])
def test_the_unchanged_documents_are_read(document: dict[str, Any]) -> None:
    """What the next tests change is a manifest before; advice may be missing."""
    assert document["format"] == manifest.decode(changed(document), "here").format


@pytest.mark.parametrize(
    "data",
    [
        changed(FILE, size=None),
        changed(FILE, size="0"),
        changed(FILE, more=1),
        changed(FILE, format=0),
        changed(FILE, format=-1),
        changed(FILE, format=True),
        changed(FILE, kind="folder"),
        changed(FILE, kind=None),
        changed(FILE, digest=ZERO[1:]),
        changed(FILE, sha256="A" * 64),
        changed(FILE, content="../../../etc/passwd"),
        changed(FILE, content="/etc/passwd"),
        changed(FILE, content="manifest.json"),
        changed(FILE, content="content.safetensors\n"),
        changed(FILE, content=""),
        changed(TREE, name="../up"),
        changed(TREE, name=".."),
        changed(TREE, name=""),
        changed(TREE, name="manifest.json"),
        changed(TREE, name="a\0"),
        changed(TREE, size=4),
        changed(TREE, more=1),
        changed(TREE, nodes=[["f", "a", 3, ZERO[1:]]]),
        changed(TREE, nodes=[["f", "a", 3, ZERO, False, 1]]),
        changed(TREE, nodes=[["f", "a", 3]]),
        changed(TREE, nodes=[["d", "a", "b"]]),
        changed(TREE, nodes=[["x", "a"]]),
        changed(SET, members=[ONE, ZERO]),
        changed(SET, members=[ZERO, ZERO]),
        changed(SET, members=["x"]),
        changed(SET, more=1),
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"kind":"set","format":1,"members":[],"origin":"\xff"}',
    ],
)
def test_no_manifest(data: bytes) -> None:
    """Missing, unknown, wrong and contradicting fields are refused, with the place."""
    with pytest.raises(IntegrityError, match=r"^store/x/manifest\.json "):
        manifest.decode(data, "store/x/manifest.json")


@pytest.mark.parametrize("document", [FILE, TREE, SET], ids=lambda document: document["kind"])
def test_a_newer_format_is_refused(document: dict[str, Any]) -> None:
    """A manifest that this code cannot know is refused, and the cure is said."""
    with pytest.raises(IntegrityError, match="format 2") as caught:
        manifest.decode(changed(document, format=2), "here")
    assert caught.value.hint == "update cvs"


@given(manifests(), _ADVICE, _ADVICE)
def test_advice_does_not_count(document: Manifest, origin: str, created: str) -> None:
    """Where an entry came from and when is not part of its id."""
    fields = json.loads(manifest.encode(document)) | {"origin": origin, "created": created}
    del fields["check"]
    other = manifest.decode(json.dumps(fields).encode(), "here")

    assert manifest.identity(document) == manifest.identity(other)


def test_size_of_content() -> None:
    """The size of an entry is that of its files; a set has none."""
    sizes = [
        manifest.content_size(manifest.decode(changed(document), "here"))
        for document in (FILE | {"size": 7}, TREE, SET)
    ]

    assert sizes == [7, 3, 0]


def test_no_manifest_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many bytes, nodes or members are refused before they are read; brackets in names are no
    nodes."""
    monkeypatch.setattr(tree, "NODE_LIMIT", 3)
    bracketed = [["d", name] for name in ("a[[[", 'b"[', "c\\[")]
    for nodes, fault in (
        (bracketed, None),
        ([*bracketed, ["d", "d"]], "it has more than 3 nodes"),
        ([[]] * 9, "it has more than 3 nodes"),
    ):
        data = changed(TREE, size=0, nodes=nodes)
        if fault is None:
            assert manifest.decode(data, "here").format == 1
        else:
            with pytest.raises(IntegrityError, match=f"here is not a manifest: {fault}"):
                manifest.decode(data, "here")
    with pytest.raises(IntegrityError, match="length >= 64"):
        manifest.decode(changed(SET, members=["a"] * 10), "here")
    large = FileManifest(1, ZERO, 0, ONE, "content", "x" * 300)
    data = manifest.encode(large)
    monkeypatch.setattr(manifest, "SIZE_LIMIT", len(data) - 1)
    with pytest.raises(IntegrityError, match="here is not a manifest: it is larger than 0 MiB"):
        manifest.decode(data, "here")
    with pytest.raises(tree.TreeError, match="manifest would be larger"):
        manifest.encode(large)


def test_messages_about_manifests_are_short() -> None:
    """Numbers and names of any length are cut."""
    for data in (
        changed(FILE, format=10**4000),
        changed(FILE, format=-(10**4000)),
        changed(FILE, content="x" * 100_000),
    ):
        with pytest.raises(IntegrityError) as caught:
            manifest.decode(data, "here")
        assert len(caught.value.message) < 300
