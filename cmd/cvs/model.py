"""What the actions of `cvs models` have in common: models of the store, and who uses them."""

import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cvs import entry as entries
from cvs import project
from cvs.cli import Parser, Session, size, table
from cvs.store import manifest, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import CvsError
from cvs.store.manifest import FileManifest, TreeManifest
from cvs.versions import formats, model_list, model_uses
from cvs.versions import spec as specs
from cvs.versions.access import Access
from cvs.versions.formats import Format
from cvs.versions.model_list import Listed
from cvs.versions.model_uses import Use

#: Bytes of a manifest that is that of no file.
_LARGE = 64 << 10


class Item(NamedTuple):
    """A model of the store."""

    entry: EntryId
    document: FileManifest | TreeManifest
    uses: tuple[Use, ...]

    @property
    def paths(self) -> list[str]:
        """Its places below models/."""
        return sorted({use.path for use in self.uses if use.path})

    @property
    def name(self) -> str:
        """What people call it: its first place, or what it was called where it came from."""
        return self.paths[0] if self.paths else entries.name(self.document)

    @property
    def versions(self) -> list[str]:
        """The versions that use it."""
        return sorted({use.version for use in self.uses if use.kind != "pin"})

    @property
    def pinned(self) -> bool:
        """Whether it stays without a version."""
        return any(use.kind == "pin" for use in self.uses)


def fetching(parser: Parser) -> None:
    """Adds the options of an action that may fetch."""
    parser.add_argument("--offline", action="store_true", help="make no connection at all")
    parser.add_argument(
        "--connections",
        metavar="N",
        help="of one download: 1 to 64; by default as many as make it quicker",
    )
    parser.set_defaults(allow_local=False, wheels_dir=None, no_build=False)


def listed(session: Session, version: str | None, file: str | None) -> tuple[list[Listed], Access]:
    """The models of a version or of a file, and what may be used to fetch them.

    Raises:
        InputError: there is no lock of the version, or the file is none.
    """
    if file is not None:
        return model_list.read(file), project.access(session)
    session.options.version = version
    path = project.spec_file(session)
    lock = project.load_lock(session, project.version_id(session))
    if not os.path.exists(path):
        where = project.lock_file(session, lock.version_id)
        return model_list.of_lock(lock, where), project.access(session)
    spec = specs.load(path)
    return model_list.of_version(spec, lock), project.access(session, spec)


def items(session: Session, store: Store) -> list[Item]:
    """The models of the store by name: its files, and the trees that are models of some version."""
    uses = model_uses.find(store, session.progress)
    used = {use.entry for use in uses if use.path}
    documents = {
        entry: entries.read(store, entry)
        for entry in store.ids()
        if entry in used or _may_be_file(store, entry)
    }
    sums = {
        document.sha256: entry
        for entry, document in documents.items()
        if isinstance(document, FileManifest) and document.sha256
    }
    users: dict[EntryId, list[Use]] = {}
    for use in uses:
        entry = use.entry or sums.get(use.sha256 or "")
        if entry is not None:
            users.setdefault(entry, []).append(use)
    found = [
        Item(entry, document, tuple(users.get(entry, ())))
        for entry, document in documents.items()
        if isinstance(document, FileManifest)
        or (isinstance(document, TreeManifest) and _is_model(users.get(entry, ())))
    ]
    return sorted(found, key=lambda item: (item.name.casefold(), item.entry))


def _may_be_file(store: Store, entry: EntryId) -> bool:
    """Whether an entry is worth a look: the manifests of wheels are large, those of files not."""
    try:
        return os.path.getsize(os.path.join(store.path(entry), manifest.NAME)) < _LARGE
    except OSError:
        return False


def _is_model(uses: Sequence[Use]) -> bool:
    return any(use.path for use in uses)


def matches(item: Item, pattern: str) -> bool:
    """Whether a pattern names a model: its hash, checksum, or name or place, or a part of these."""
    texts = [item.name, *item.paths, entries.name(item.document)]
    if len(pattern) >= 8 and item.entry.startswith(pattern.lower()):
        return True
    if isinstance(item.document, FileManifest) and item.document.sha256 == pattern.lower():
        return True
    low = pattern.lower()
    return any(low in text.lower() or fnmatch.fnmatch(text.lower(), low) for text in texts)


def format_of(store: Store, item: Item) -> Format | str:
    """What a model is, from its header; or why that cannot be told."""
    path = os.path.join(
        store.volume.store, item.entry, *(_content(item.document), *_main(item.document))
    )
    name = item.name if formats.is_model(item.name) else os.path.basename(path)
    try:
        return formats.read(path, name)
    except CvsError as error:
        return error.message
    except OSError as error:
        return error.strerror or str(error)


def _content(document: FileManifest | TreeManifest) -> str:
    return document.content if isinstance(document, FileManifest) else document.name


def _main(document: FileManifest | TreeManifest) -> list[str]:
    """Of a folder the largest file that is a model: what it is, all of it is."""
    if isinstance(document, FileManifest):
        return []
    files = [
        node
        for node in document.nodes
        if isinstance(node, tree.File) and formats.is_model(node.path)
    ]
    largest = max(files, key=lambda node: node.size, default=None)
    return [] if largest is None else [os.fsdecode(tree.unquote(largest.path))]


def kind(found: Format | str) -> str:
    """The format in one word."""
    return found.kind if isinstance(found, Format) else "broken"


def dtypes(found: Format | str) -> str:
    """The types of its numbers, the one that takes most first."""
    if isinstance(found, str):
        return ""
    return "+".join(_by_bytes(found.dtypes))


def _by_bytes(found: Mapping[str, int]) -> list[str]:
    return sorted(found, key=lambda name: (-found[name], name))


def described(item: Item, found: Format | str) -> dict[str, Any]:
    """What is known of a model, as JSON."""
    data: dict[str, Any] = {
        "id": item.entry,
        "name": item.name,
        "paths": item.paths,
        "kind": entries.kind(item.document),
        "size": manifest.content_size(item.document),
        "sha256": item.document.sha256 if isinstance(item.document, FileManifest) else None,
        "origin": item.document.origin,
        "format": kind(found),
        "versions": item.versions,
        "pinned": item.pinned,
        "uses": [
            {"version": use.version, "kind": use.kind, "name": use.name, "path": use.path}
            for use in item.uses
        ],
    }
    if isinstance(found, str):
        return {**data, "fault": found}
    return {
        **data,
        "tensors": found.tensors,
        "dtypes": dict(found.dtypes),
        "metadata": dict(found.metadata),
    }


def rows(found: Sequence[tuple[Item, Format | str]]) -> str:
    """Models as a table."""
    lines = [("HASH", "SIZE", "FORMAT", "DTYPE", "USED BY", "NAME")]
    for item, what in found:
        users = ", ".join(item.versions) or ("pinned" if item.pinned else "unused")
        count = size(manifest.content_size(item.document))
        short = item.entry[: entries.DIGITS]
        name = entries.shown(item.name)
        lines.append((short, count, kind(what), dtypes(what), users, name))
    return table(lines)
