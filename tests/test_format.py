"""docs/format.md against the code, and against a second implementation made from the page."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import strategies
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from cvs.store import digest, manifest, pack, tree
from cvs.store.digest import EntryId

PAGE = (Path(__file__).parent.parent / "docs/format.md").read_text(encoding="utf-8")
VECTORS = Path(__file__).parent / "vectors"


# A second implementation, from the page alone.


def bytes_of(text: str) -> bytes:
    """Undoes the quoting of a path."""
    return re.sub(rb"%([0-9A-F]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode())


def number(value: int, length: int) -> bytes:
    """A little-endian unsigned number."""
    return value.to_bytes(length, "little")


def derived(context: str, data: bytes) -> bytes:
    """BLAKE3's derive_key with 32 bytes of output."""
    return blake3(data, derive_key_context=context).digest()


def encoding(nodes: list[Any], folder: bytes = b"") -> bytes:
    """The encoding of a directory, from the nodes of its tree as JSON has them."""
    children: list[tuple[bytes, bytes, list[Any]]] = []
    for node in nodes:
        path = bytes_of(node[1])
        parent, _, name = path.rpartition(b"/")
        if parent == folder:
            children.append((name, path, node))
    encoded = b""
    for name, path, (kind, _, *rest) in sorted(children, key=lambda child: child[0]):
        head = number(len(name), 4) + name
        if kind == "f":
            executable = len(rest) == 3 and rest[2]
            encoded += (b"x" if executable else b"f") + head
            encoded += number(rest[0], 8) + bytes.fromhex(rest[1])
        elif kind == "l":
            target = bytes_of(rest[0])
            encoded += b"l" + head + number(len(target), 4) + target
        else:
            encoded += b"d" + head + root(nodes, path)
    return encoded


def root(nodes: list[Any], folder: bytes = b"") -> bytes:
    """The digest of a directory."""
    return derived("cvs 2026 directory v1", encoding(nodes, folder))


def tree_id(name: str, nodes: list[Any]) -> str:
    """The id of a tree."""
    raw = name.encode()
    return derived("cvs 2026 tree v1", number(len(raw), 4) + raw + root(nodes)).hex()


def set_id(members: list[str]) -> str:
    """The id of a set."""
    return derived("cvs 2026 set v1", b"".join(sorted(map(bytes.fromhex, set(members))))).hex()


def second_identity(document: dict[str, Any]) -> str:
    """The id that follows from a manifest."""
    if document["kind"] == "file":
        return str(document["digest"])
    if document["kind"] == "tree":
        return tree_id(document["name"], document["nodes"])
    return set_id(document["members"])


def second_unpacking(data: bytes, document: dict[str, Any]) -> dict[str, bytes]:
    """The files of a pack, by their paths."""
    count, descriptor = int.from_bytes(data[-9:-5], "little"), data[-5]
    assert data[-4:] == bytes.fromhex("b1ea928f")
    width = 12 if descriptor & 0x80 else 8
    start = len(data) - 9 - count * width
    assert data[start - 8 : start - 4] == bytes.fromhex("5e2a4d18")
    assert int.from_bytes(data[start - 4 : start], "little") == len(data) - start
    whole, at = b"", 0
    for row in range(start, len(data) - 9, width):
        packed = int.from_bytes(data[row : row + 4], "little")
        frame = zstandard.ZstdDecompressor().decompress(data[at : at + packed], 1 << 24)
        assert len(frame) == int.from_bytes(data[row + 4 : row + 8], "little")
        whole += frame
        at += packed
    assert at == start - 8
    found = {}
    files = sorted((node for node in document["nodes"] if node[0] == "f"), key=_raw_path)
    for _, path, size, expected, *_ in files:
        data, whole = whole[:size], whole[size:]
        assert blake3(data).hexdigest() == expected
        found[bytes_of(path).decode()] = data
    assert whole == b""
    return found


def _raw_path(node: list[Any]) -> bytes:
    return bytes_of(node[1])


# The examples of the page.


def blocks(kind: str) -> list[tuple[str, str]]:
    """The page's examples of one kind: what follows the kind on the fence, and the body."""
    found = re.findall(
        rf"^```json {kind}(?: ([^\n]*))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found
    return found


def examples(kind: str) -> list[Any]:
    """The page's examples of one kind, parsed."""
    return [json.loads(body) for _, body in blocks(kind)]


def table(heading: str) -> list[list[str]]:
    """The rows of the page's table under a row of headings, without the backticks."""
    _, found, rest = PAGE.partition(f"\n| {heading} |\n")
    assert found
    rows = rest.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip(" ").strip("`") for cell in row.strip("|").split("|")] for row in rows]


def typed(nodes: list[Any]) -> list[tree.Node]:
    """Nodes of a manifest as the code has them."""
    return msgspec.convert(nodes, list[tree.Node])


def plain(nodes: list[tree.Node]) -> list[Any]:
    """Nodes as JSON has them."""
    return json.loads(msgspec.json.encode(nodes))


@pytest.mark.parametrize("example", examples("tree"), ids=lambda example: str(example["name"]))
def test_trees_of_the_page(example: dict[str, Any]) -> None:
    """Every tree of the page has the digests that stand there, in both implementations."""
    nodes = example["nodes"]

    assert example["root"] == tree.digest(typed(nodes)).hex()
    assert example["root"] == root(nodes).hex()
    assert example["id"] == tree.tree_id(example["name"], tree.digest(typed(nodes)))
    assert example["id"] == tree_id(example["name"], nodes)


def test_encoding_of_the_page() -> None:
    """The encoding that the page spells out byte by byte is that of its example."""
    (example,) = [example for example in examples("tree") if "encoding" in example]
    rows = [row for row in table("field | bytes | value") if len(row) == 3]
    spelled = PAGE.partition("Byte by byte")[2].partition("```")[0]
    cells = "".join(re.findall(r"^\| \w+ \| `([0-9a-f]+)` \|", spelled, re.MULTILINE))

    assert rows
    assert example["encoding"] == cells
    assert example["encoding"] == encoding(example["nodes"]).hex()
    assert example["root"] == digest.derive(tree.DIRECTORY_CONTEXT, bytes.fromhex(cells)).hex()


def test_contexts_of_the_page() -> None:
    """The contexts of the page are those of the code."""
    contexts = dict(table("what | context"))

    assert contexts == {
        "directory": tree.DIRECTORY_CONTEXT,
        "tree": tree.TREE_CONTEXT,
        "set": tree.SET_CONTEXT,
        "the check of a manifest": manifest.CHECK_CONTEXT,
    }


@pytest.mark.parametrize("example", examples("set"), ids=lambda example: len(example["members"]))
def test_sets_of_the_page(example: dict[str, Any]) -> None:
    """Every set of the page has the id that stands there, whatever the order of its members."""
    members = [EntryId(member) for member in example["members"]]

    assert example["id"] == tree.set_id(members) == tree.set_id(reversed(members))
    assert example["id"] == set_id(example["members"])


def test_files_of_the_page() -> None:
    """Every file of the page has the digest that stands there."""
    megabyte = bytes(number % 251 for number in range(1 << 20))
    rows = {row[0]: row[1] for row in table("bytes | BLAKE3")}

    assert {
        "none": blake3(b"").hexdigest(),
        "68656c6c6f0a": blake3(b"hello\n").hexdigest(),
        "1 MiB, byte number i (from 0) is i mod 251": blake3(megabyte).hexdigest(),
    } == rows


@pytest.mark.parametrize(("raw", "text"), [row[:2] for row in table("bytes | text")])
def test_quoting_of_the_page(raw: str, text: str) -> None:
    """Every quoted path of the page is written and read so."""
    assert text == tree.quote(bytes.fromhex(raw))
    assert raw == tree.unquote(text).hex() == bytes_of(text).hex()


@pytest.mark.parametrize(("entry", "body"), blocks("manifest"), ids=lambda text: text[:8])
def test_manifests_of_the_page(entry: str, body: str) -> None:
    """Every manifest of the page is read, belongs to its id, and is written so again."""
    document = manifest.decode(body.encode(), "the page")

    assert entry == manifest.identity(document) == second_identity(json.loads(body))
    assert body.encode() == manifest.encode(document)
    covered, check = body.encode()[:-77], json.loads(body)["check"]
    assert check == derived("cvs 2026 manifest v1", covered).hex()


def test_fields_of_the_page() -> None:
    """The page lists the fields that the code has, and no others."""
    listed = [[row[0], row[1].strip("`")] for row in table("kind | field | type |")]
    fields: dict[type[Any], str] = {
        manifest.FileManifest: "file",
        manifest.TreeManifest: "tree",
        manifest.SetManifest: "set",
    }
    common = {name for kind, name in listed if kind == "all"} - {"kind"}

    for document, kind in fields.items():
        here = {name for row_kind, name in listed if row_kind == kind} | common
        assert here == set(document.__struct_fields__)


@pytest.mark.parametrize("example", examples("pack"), ids=lambda example: example["tree"][:8])
def test_packs_of_the_page(example: dict[str, Any], tmp_path: Path) -> None:
    """Every pack of the page is that of its tree, in both implementations."""
    (body,) = [body for entry, body in blocks("manifest") if entry == example["tree"]]
    document = manifest.decode(body.encode(), "the page")
    assert isinstance(document, manifest.TreeManifest)
    files = {name: bytes.fromhex(text) for name, text in example["files"].items()}
    path = tmp_path / pack.NAME
    path.write_bytes(bytes.fromhex(example["pack"]))

    with pack.Pack(str(path), document) as opened:
        found = {
            extent.node.path: b"".join(opened.read(extent)) for extent in pack.layout(document)
        }
    assert found == files == second_unpacking(path.read_bytes(), json.loads(body))


@given(st.dictionaries(st.text("abc/ü", min_size=1, max_size=4), st.binary(max_size=99)))
def test_two_implementations_unpack_alike(files: dict[str, bytes]) -> None:
    """What one writes the other reads, whatever the names."""
    flat = {name.replace("/", "_").casefold(): data for name, data in files.items()}
    with tempfile.TemporaryDirectory() as folder:
        nodes = [
            tree.File(tree.quote(name.encode()), len(data), blake3(data).hexdigest())
            for name, data in flat.items()
        ]
        document = manifest.TreeManifest(
            format=1, name="any", size=sum(map(len, flat.values())), nodes=tuple(nodes)
        )
        for name, data in flat.items():
            Path(folder, name).write_bytes(data)
        path = Path(folder, pack.NAME)
        pack.write(document, folder, str(path), synced=False)
        assert second_unpacking(path.read_bytes(), json.loads(manifest.encode(document))) == flat


def test_limits_of_the_page() -> None:
    """The limits of the page are those of the code."""
    assert f"1 to {pack.FRAME_LIMIT:,} bytes unpacked" in PAGE
    assert f"at most {pack._COMPRESSED_LIMIT:,} packed" in PAGE
    assert f"at most {pack._TABLE_LIMIT >> 20} MiB" in PAGE
    for limit in (tree.NAME_LIMIT, tree.TARGET_LIMIT):
        assert f" 1 to {limit} bytes" in PAGE
    assert f"at most {tree.PATH_LIMIT} bytes" in PAGE


@given(strategies.trees())
def test_two_implementations_agree(nodes: list[tree.Node]) -> None:
    """On any tree the second implementation finds the id that the first finds."""
    assert tree.digest(nodes) == root(plain(nodes))
    assert tree.tree_id("any", tree.digest(nodes)) == tree_id("any", plain(nodes))


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.manifest.json")), ids=lambda p: p.name[:20])
def test_old_manifests_are_still_read(path: Path) -> None:
    """A manifest that was once written keeps its id, which its file here is called by."""
    data = path.read_bytes()
    entry = path.name.partition(".")[0]

    assert entry == manifest.identity(manifest.decode(data, path.name))
    assert entry == second_identity(json.loads(data))
