"""`cvs store ls`: list the entries."""

from typing import Any

from cvs import entry as entries
from cvs.cli import Parser, Session, size, table
from cvs.store import manifest
from cvs.store.errors import EntryMissing, IntegrityError

EXAMPLES = """\
  cvs store ls
  cvs store ls --kind file
  cvs store ls --json
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "store ls", "List the entries of the store in the order of their hashes.", EXAMPLES
    )
    found.add_argument("--kind", choices=entries.KINDS, help="only these")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    wanted: str | None = session.options.kind
    store = session.store
    data: list[dict[str, Any]] = []
    rows = [("HASH", "KIND", "SIZE", "NAME")]
    total = 0
    for entry in sorted(store.ids()):
        kind, count, name, shown = "damaged", None, "", ""
        try:
            document = store.manifest(entry)
        except (EntryMissing, IntegrityError):
            # Collected meanwhile, or damaged: `verify` says which.
            pass
        else:
            kind, count = entries.kind(document), manifest.content_size(document)
            name, shown = entries.name(document), entries.shown_name(document)
        if wanted in (None, kind):
            total += count or 0
            data.append({"id": entry, "kind": kind, "size": count, "name": name})
            rows.append((entry[: entries.DIGITS], kind, size(count), shown))
    if data:
        text = f"{table(rows)}\n{len(data)} entries, {size(total)}"
    else:
        text = f"the store has no {wanted} entries" if wanted else "the store is empty"
    session.result(data, text)
    return 0
