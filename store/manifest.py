"""Manifests: what an entry consists of, as `manifest.json` inside it says (docs/format.md).

A manifest answers size, list, diff and verify without touching the content. Its identity part
decides the entry's id; `origin` and `created` are advice that honest writers may differ in. The
check at its end, which older manifests do not have, covers both.
"""

import itertools
import re
from typing import Annotated

import msgspec

from cvs.store import tree
from cvs.store.digest import LENGTH, EntryId, derive, is_id
from cvs.store.errors import SHOWN, IntegrityError, shown

#: The version of the format that this code writes, and the newest it reads.
FORMAT = 1

NAME = tree.RESERVED

#: Bytes of the largest manifest, which takes ten times as much memory to read; one of 160,000
#: files with names of the usual length is about as large.
SIZE_LIMIT = 24 << 20

_BRACKET = ord("[")

#: The beginnings of lists in JSON, and texts, in which brackets mean nothing.
_LISTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|\[', re.DOTALL)

#: How a manifest ends: a digest over all before, for what the id does not cover.
CHECK_CONTEXT = "cvs 2026 manifest v1"
_CHECK = b',"check":"%s"}\n'
_CHECKED = re.compile(rb',"check":"([0-9a-f]{64})"\}\n\Z')
_CHECK_LENGTH = len(_CHECK) - len(b"%s") + LENGTH

#: How the file of a file entry may be called; the manifest of another writer may come from afar.
_CONTENT = re.compile(r"content(\.[a-z0-9]{1,16})?", re.ASCII)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """What the three kinds have in common."""


class FileManifest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="file", tag_field="kind"
):
    """A single file, such as a model. The id is `digest`, the plain BLAKE3 of its bytes."""

    format: int
    digest: str
    size: int
    sha256: str
    """Empty if it was not computed."""
    content: str
    """The file's name beside the manifest: `content`, with a suffix where loaders look at it."""
    origin: str = ""
    created: str = ""


class TreeManifest(_Document, frozen=True, tag="tree"):
    """A folder: a commit, an installed wheel. Lies beside the manifest under `name`."""

    format: int
    name: str
    size: int
    """Bytes of all files together."""
    nodes: tuple[tree.Node, ...]
    origin: str = ""
    created: str = ""


class SetManifest(_Document, frozen=True, tag="set"):
    """A set of other entries, with no content of its own; marking follows its members."""

    format: int
    # The first that is too short ends the reading: millions of them would fill the memory.
    members: tuple[Annotated[EntryId, msgspec.Meta(min_length=LENGTH, max_length=LENGTH)], ...]
    origin: str = ""
    created: str = ""


Manifest = FileManifest | TreeManifest | SetManifest

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Manifest] = msgspec.json.Decoder(Manifest)


def identity(manifest: Manifest) -> EntryId:
    """Computes the id that a manifest's identity part stands for.

    Raises:
        TreeError: the nodes of a tree cannot be an entry.
    """
    if isinstance(manifest, FileManifest):
        return EntryId(manifest.digest)
    if isinstance(manifest, TreeManifest):
        return tree.tree_id(manifest.name, tree.digest(manifest.nodes))
    return tree.set_id(manifest.members)


def encode(manifest: Manifest) -> bytes | bytearray:
    """The bytes of `manifest.json`: JSON on one line with its check, and a final newline.

    Raises:
        TreeError: its names make it larger than any reader takes.
    """
    data = bytearray()
    _ENCODER.encode_into(manifest, data)
    # In place: that of a large tree is many megabytes.
    del data[-1:]
    data += _CHECK % _check(data)
    if len(data) > SIZE_LIMIT:
        raise tree.TreeError(f"the entry's manifest would be larger than {SIZE_LIMIT >> 20} MiB")
    return data


def decode(data: bytes | bytearray, where: str) -> Manifest:
    """Reads a manifest; whether it fits an entry's name is for `identity` to say.

    Raises:
        IntegrityError: not a manifest, or of a format newer than this code reads, or its parts
            contradict each other.
    """
    if fault := _excess(data):
        raise IntegrityError(f"{where} is not a manifest: {fault}")
    if found := _CHECKED.search(data, max(0, len(data) - _CHECK_LENGTH)):
        body = memoryview(data)[: found.start()]
        if found[1] != _check(body):
            raise IntegrityError(f"{where} is not a manifest: it was changed after it was written")
        data = b"".join((body, b"}"))
    return _decoded(data, where)


def decode_unchecked(data: bytes | bytearray, where: str) -> Manifest:
    """Reads a manifest of which only the check, or what it alone covers, is broken.

    What does not belong to the id may be anything; `identity` must judge the rest.

    Raises:
        IntegrityError: as `decode`.
    """
    if fault := _excess(data):
        raise IntegrityError(f"{where} is not a manifest: {fault}")
    return _decoded(data[:-_CHECK_LENGTH] + b"}", where)


def _decoded(data: bytes | bytearray, where: str) -> Manifest:
    try:
        manifest = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{where} is not a manifest: {str(error)[:SHOWN]}") from error
    if manifest.format > FORMAT:
        raise IntegrityError(
            f"{where} has format {str(manifest.format)[:20]}, this cvs reads up to {FORMAT}",
            hint="update cvs",
        )
    if fault := _fault(manifest):
        raise IntegrityError(f"{where} is not a manifest: {fault}")
    return manifest


def _check(body: bytes | bytearray | memoryview) -> bytes:
    return derive(CHECK_CONTEXT, body).hex().encode()


def _excess(data: bytes | bytearray) -> str | None:
    """What would fill the memory before anything of it can be judged."""
    if len(data) > SIZE_LIMIT:
        return f"it is larger than {SIZE_LIMIT >> 20} MiB"
    # Each node is a list. Names seldom have brackets, so the texts are seldom looked for.
    if data.count(b"[") <= tree.NODE_LIMIT + 1:
        return None
    lists = (found for found in _LISTS.finditer(data) if data[found.start()] == _BRACKET)
    if next(itertools.islice(lists, tree.NODE_LIMIT + 1, None), None):
        return f"it has more than {tree.NODE_LIMIT:,} nodes"
    return None


def _fault(manifest: Manifest) -> str | None:
    """What no writer could have meant, nodes of a tree aside: `identity` judges those."""
    if manifest.format < 1:
        return f"there is no format {str(manifest.format)[:20]}"
    if isinstance(manifest, FileManifest):
        digests = [manifest.digest, *([manifest.sha256] if manifest.sha256 else [])]
        if not _CONTENT.fullmatch(manifest.content):
            return f"its file cannot be called {shown(manifest.content)}"
    elif isinstance(manifest, SetManifest):
        digests = list(manifest.members)
        if digests != sorted(set(digests)):
            return "its members are not in ascending order, each once"
    else:
        files = [node for node in manifest.nodes if isinstance(node, tree.File)]
        digests = [node.digest for node in files]
        try:
            tree.check_tree_name(manifest.name)
        except tree.TreeError as error:
            return error.message
        if manifest.size != sum(node.size for node in files):
            return "its size is not that of its files together"
    if not all(map(is_id, digests)):
        return "a digest is not 64 hexadecimal digits"
    return None


def content_size(manifest: Manifest) -> int:
    """Bytes of the entry's own content, without its manifest."""
    return 0 if isinstance(manifest, SetManifest) else manifest.size
