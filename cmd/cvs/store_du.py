"""`cvs store du`: what the store holds, what each version needs of it, and what none needs."""

from typing import Any

from cvs import entry as entries
from cvs.cli import Parser, Session, size, table
from cvs.store import manifest, usage
from cvs.store.digest import EntryId
from cvs.store.errors import StoreError
from cvs.store.record import Record

EXAMPLES = """\
  cvs store du
  cvs store du --json
"""

#: Entries that no version needs, as many as are listed as text.
_LISTED = 20

#: Said beside every table: what the sizes are not.
_NOTE = (
    "sizes are those of the files' bytes, as manifests give them; what a file system takes, and a "
    "quota counts, may be more"
)


def parser() -> Parser:
    """The options."""
    found = Parser(
        "store du",
        "Show the size of the entries by kind, what each version needs, alone and together with "
        "others, and the entries that no version needs. A version needs what its generations and "
        "its leases name. Sizes are the files' bytes as manifests give them; what the file system "
        "takes may be more.",
        EXAMPLES,
    )
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    store = session.store
    documents: dict[EntryId, manifest.Manifest | None] = {}
    chosen = sorted(store.ids())
    with session.progress.task("reading manifests", len(chosen), "items") as task:
        for entry in chosen:
            documents[entry] = entries.read(store, entry)
            task.advance(1)
    sizes = {
        entry: None if document is None else manifest.content_size(document)
        for entry, document in documents.items()
    }
    roots = store.roots()
    unread = [root.path for root in roots if isinstance(root.record, StoreError)]
    for path in unread:
        session.progress.warn(f"{path} cannot be read: what it alone needs counts as unused")
    records = [root.record for root in roots if isinstance(root.record, Record)]
    uses, unused = usage.by_version(sizes, ((one.version, one.entries) for one in records))
    kinds = _kinds(documents)
    data = {
        "kinds": kinds,
        "versions": [{**use._asdict(), "unique": use.unique} for use in uses],
        "unused": [entries.described(entry, documents[entry]) for entry in unused],
        "unreadable_roots": unread,
    }
    parts = [_kinds_table(kinds)]
    if uses:
        parts.append(_uses_table(uses))
    if unused:
        total = size(sum(sizes[entry] or 0 for entry in unused))
        # The largest first: these are what somebody looks for who is short of space.
        largest = sorted(unused, key=lambda entry: -(sizes[entry] or 0))
        lines = [f"{len(unused)} entries are needed by no version, {total}:"]
        rows = [entries.row(entry, documents[entry]) for entry in largest[:_LISTED]]
        lines += [f"  {line}" for line in table(rows).splitlines()]
        if len(unused) > _LISTED:
            lines.append(f"  and {len(unused) - _LISTED} more; --json lists all")
        parts.append("\n".join(lines))
    session.result(data, "\n\n".join([*parts, _NOTE]) if documents else "the store is empty")
    return 0


def _kinds(documents: dict[EntryId, manifest.Manifest | None]) -> list[dict[str, Any]]:
    found = [entries.described(entry, document) for entry, document in documents.items()]
    return [
        {"kind": kind, "entries": len(these), "size": sum(item["size"] or 0 for item in these)}
        for kind in entries.KINDS
        if (these := [item for item in found if item["kind"] == kind])
    ]


def _kinds_table(kinds: list[dict[str, Any]]) -> str:
    total = {
        "kind": "all",
        "entries": sum(item["entries"] for item in kinds),
        "size": sum(item["size"] for item in kinds),
    }
    rows = [("KIND", "ENTRIES", "SIZE")]
    rows += [(item["kind"], str(item["entries"]), size(item["size"])) for item in [*kinds, total]]
    return table(rows)


def _uses_table(uses: list[usage.Use]) -> str:
    rows = [("VERSION", "ENTRIES", "SIZE", "SHARED", "UNIQUE", "")]
    for use in uses:
        missing = f"{use.missing} missing" if use.missing else ""
        rows.append(
            (
                use.version,
                str(use.entries),
                size(use.size),
                size(use.shared),
                size(use.unique),
                missing,
            )
        )
    return table(rows)
