"""How the command line names an entry and shows what it is."""

import re
from typing import Any

from cvs.cli import Parser, size
from cvs.store import manifest, tree
from cvs.store.digest import EntryId
from cvs.store.entries import AmbiguousPrefix, Store
from cvs.store.errors import EntryMissing, InputError, IntegrityError

#: Digits of a hash that lists show: enough for any store.
DIGITS = 16

#: What an entry can be; the last has no manifest that can be read.
KINDS = ("file", "tree", "set", "damaged")

#: The heads of the columns of `row`.
HEADS = ("HASH", "KIND", "SIZE", "NAME")

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def argument(parser: Parser, name: str = "entries", **options: Any) -> None:
    """Adds an argument that names entries."""
    what = "an entry, by 8 or more digits of its hash"
    parser.add_argument(name, **{"metavar": "HASH", "help": what, **options})


def find(store: Store, text: str) -> EntryId:
    """The entry that was named; of an ambiguous name the hint shows what it may mean.

    Raises:
        InputError, EntryMissing: as `Store.find`.
    """
    try:
        return store.find(text)
    except AmbiguousPrefix as error:
        rows = [row(entry, read(store, entry)) for entry in error.candidates]
        meant = "; ".join(f"{digits} {' '.join(rest).rstrip()}" for digits, *rest in rows)
        raise InputError(error.message, hint=f"more digits name one of them: {meant}") from None


def read(store: Store, entry: EntryId) -> manifest.Manifest | None:
    """The manifest of an entry; None where there is none that can be read."""
    try:
        return store.manifest(entry)
    except (EntryMissing, IntegrityError):
        # Collected meanwhile, or damaged: `verify` says which.
        return None


def described(entry: EntryId, document: manifest.Manifest | None) -> dict[str, Any]:
    """What lists say of an entry, as JSON."""
    if document is None:
        return {"id": entry, "kind": "damaged", "size": None, "name": ""}
    count = manifest.content_size(document)
    return {"id": entry, "kind": kind(document), "size": count, "name": name(document)}


def row(entry: EntryId, document: manifest.Manifest | None) -> tuple[str, str, str, str]:
    """What lists say of an entry, as text: hash, kind, size and name."""
    if document is None:
        return entry[:DIGITS], "damaged", "?", ""
    count = size(manifest.content_size(document))
    return entry[:DIGITS], kind(document), count, shown_name(document)


def node(found: tree.Node) -> dict[str, Any]:
    """What lists say of a node of a tree, as JSON."""
    if isinstance(found, tree.Link):
        return {"path": found.path, "kind": "link", "target": found.target}
    if isinstance(found, tree.Folder):
        return {"path": found.path, "kind": "folder"}
    return {
        "path": found.path,
        "kind": "file",
        "size": found.size,
        "digest": found.digest,
        "executable": found.executable,
    }


def kind(document: manifest.Manifest) -> str:
    """Which of KINDS it is."""
    if isinstance(document, manifest.FileManifest):
        return "file"
    return "tree" if isinstance(document, manifest.TreeManifest) else "set"


def name(document: manifest.Manifest) -> str:
    """What people call an entry, as it is: for JSON."""
    if isinstance(document, manifest.TreeManifest):
        return document.name
    if isinstance(document, manifest.SetManifest):
        return f"{len(document.members)} members"
    return document.origin.rpartition("/")[2]


def shown_name(document: manifest.Manifest) -> str:
    """What people call an entry, for a terminal."""
    if isinstance(document, manifest.TreeManifest):
        return tree.quote(document.name.encode())
    return shown(name(document))


def shown(text: str) -> str:
    """Text from a manifest that is no path, without what a terminal would obey."""
    return _CONTROL.sub(lambda match: tree.quote(match[0].encode()), text)
