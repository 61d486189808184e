"""Manifests: what an entry consists of, as `manifest.json` inside it says (docs/format.md).

A manifest answers size, list, diff and verify without touching the content. Its identity part
decides the entry's id; `origin` and `created` are advice that honest writers may differ in.
"""

import re

import msgspec

from cvs.store import tree
from cvs.store.digest import EntryId, is_id
from cvs.store.errors import IntegrityError

#: The version of the format that this code writes, and the newest it reads.
FORMAT = 1

NAME = tree.RESERVED

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
    members: tuple[EntryId, ...]
    origin: str = ""
    created: str = ""


Manifest = FileManifest | TreeManifest | SetManifest

_DECODER: msgspec.json.Decoder[Manifest] = msgspec.json.Decoder(Manifest)


def identity(manifest: Manifest) -> EntryId:
    """Computes the id that a manifest's identity part stands for.

    Raises:
        TreeError: the nodes of a tree cannot be an entry.
    """
    if isinstance(manifest, FileManifest):
        return EntryId(manifest.digest)
    if isinstance(manifest, TreeManifest):
        return tree.tree_id(manifest.name, manifest.nodes)
    return tree.set_id(manifest.members)


def encode(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`: JSON on one line and a final newline."""
    return msgspec.json.encode(manifest) + b"\n"


def decode(data: bytes, where: str) -> Manifest:
    """Reads a manifest; whether it fits an entry's name is for `identity` to say.

    Raises:
        IntegrityError: not a manifest, or of a format newer than this code reads, or its parts
            contradict each other.
    """
    try:
        manifest = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{where} is not a manifest: {error}") from error
    if manifest.format > FORMAT:
        raise IntegrityError(
            f"{where} has format {manifest.format}, this cvs reads up to {FORMAT}",
            hint="update cvs",
        )
    if fault := _fault(manifest):
        raise IntegrityError(f"{where} is not a manifest: {fault}")
    return manifest


def _fault(manifest: Manifest) -> str | None:
    """What no writer could have meant, nodes of a tree aside: `identity` judges those."""
    if manifest.format < 1:
        return f"there is no format {manifest.format}"
    if isinstance(manifest, FileManifest):
        digests = [manifest.digest, manifest.sha256]
        if not _CONTENT.fullmatch(manifest.content):
            return f"its file cannot be called {manifest.content!r}"
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
