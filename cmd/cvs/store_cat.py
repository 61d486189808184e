"""`cvs store cat`: the bytes of one file of the store, checked while they are printed."""

import os
import stat
import sys
from collections.abc import Iterable
from typing import Any

from blake3 import blake3

from cvs import entry as entries
from cvs.cli import Parser, Session, size, table
from cvs.store import lookup, manifest, pack, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError
from cvs.store.ingest import chunks

EXAMPLES = """\
  cvs store cat 6cae6c8c main.py
  cvs store cat 6cae6c8c comfy/
  cvs store cat ccdb92d2 > model.safetensors
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "store cat",
        "Print the bytes of a file entry, or of one file of a tree; a folder is listed. Links are "
        "followed inside the tree. What is printed is compared with its digest: bytes that "
        "differ end with a sentence and 2. With --json what is there is told, not its bytes.",
        EXAMPLES,
    )
    entries.argument(found, "entry")
    found.add_argument(
        "path", nargs="?", metavar="PATH", help="a path in the tree, as it is or quoted as listed"
    )
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    store = session.store
    path: str | None = session.options.path
    entry = entries.find(store, session.options.entry)
    document = store.manifest(entry)
    if manifest.identity(document) != entry:
        raise IntegrityError(
            f"{store.path(entry)} is not what its name says: nothing of it can be checked",
            hint="cvs store verify names what is damaged, cvs store path where its content is",
        )
    if isinstance(document, manifest.SetManifest):
        raise InputError(
            f"{entry[: entries.DIGITS]} is a set and has no content of its own",
            hint=f"`cvs store show {entry[: entries.DIGITS]}` lists its members",
        )
    if isinstance(document, manifest.TreeManifest):
        return _tree(session, store, entry, document, path or "")
    if path:
        raise InputError(f"{entry[: entries.DIGITS]} is a file and has no {path!r} in it")
    content = os.path.join(store.path(entry), document.content)
    whole = tree.File(document.content, document.size, document.digest)
    _file(session, entry, whole, os.fsencode(content))
    return 0


def _tree(
    session: Session, store: Store, entry: EntryId, document: manifest.TreeManifest, path: str
) -> int:
    real, node = _find(document, path)
    if isinstance(node, tree.File):
        packed = pack.find(store.path(entry), document)
        if packed is not None:
            _packed_file(session, entry, packed, document, real)
            return 0
        root = os.fsencode(os.path.join(store.path(entry), document.name))
        _file(session, entry, node, root + b"/" + real)
        return 0
    found = lookup.children(document, real)
    data = {
        "id": entry,
        "path": tree.quote(real),
        "kind": "folder",
        "nodes": [entries.node(child) for _, child in found],
    }
    rows = [_row(document, name, child) for name, child in found]
    session.result(data, table(rows))
    return 0


def _find(
    document: manifest.TreeManifest, given: str
) -> tuple[bytes, tree.File | tree.Folder | None]:
    """Takes a path as lists show it; else as it is."""
    raw = os.fsencode(given)
    try:
        listed = tree.unquote(given)
    except tree.TreeError:
        listed = raw
    try:
        return lookup.find(document, listed)
    except InputError:
        if listed == raw:
            raise
    return lookup.find(document, raw)


def _row(document: manifest.TreeManifest, name: bytes, node: tree.Node) -> tuple[str, str, str]:
    shown = tree.quote(name)
    if isinstance(node, tree.File):
        return "executable" if node.executable else "file", size(node.size), shown
    if isinstance(node, tree.Link):
        return "link", "", f"{shown} -> {node.target}"
    below = sum(
        file.size
        for file in document.nodes
        if isinstance(file, tree.File) and file.path.startswith(f"{node.path}/")
    )
    return "folder", size(below), f"{shown}/"


def _file(session: Session, entry: EntryId, node: tree.File, path: bytes) -> None:
    if session.json:
        _described(session, entry, node)
        return
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise _damaged(entry, node, "it is not a file")
        _print(entry, node, chunks(path))
    except (FileNotFoundError, NotADirectoryError):
        raise _damaged(entry, node, "it is missing") from None


def _packed_file(
    session: Session, entry: EntryId, packed: str, document: manifest.TreeManifest, path: bytes
) -> None:
    """Of a pack those frames alone are read that have something of the file."""
    found = next(extent for extent in pack.layout(document) if extent.path == path)
    if session.json:
        _described(session, entry, found.node)
        return
    try:
        with pack.Pack(packed, document) as opened:
            _print(entry, found.node, opened.read(found))
    except IntegrityError as error:
        if error.hint:
            raise
        raise _damaged(entry, found.node, error.message) from None


def _described(session: Session, entry: EntryId, node: tree.File) -> None:
    data: dict[str, Any] = {"id": entry, **entries.node(node)}
    session.result(data, "")


def _print(entry: EntryId, node: tree.File, pieces: Iterable[memoryview]) -> None:
    hasher = blake3()
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        hasher.update(piece)
    sys.stdout.buffer.flush()
    if hasher.hexdigest() != node.digest:
        raise _damaged(entry, node, "what was printed is not what was stored")


def _damaged(entry: EntryId, node: tree.File, why: str) -> IntegrityError:
    short = entry[: entries.DIGITS]
    return IntegrityError(
        f"{short}/{node.path} is damaged: {why}", hint=f"cvs store verify {short}"
    )
