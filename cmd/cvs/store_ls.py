"""`cvs store ls`: list the entries."""

from typing import Any

from cvs import entry as entries
from cvs.cli import Parser, Session, size, table

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
    rows = [entries.HEADS]
    for entry in sorted(store.ids()):
        document = entries.read(store, entry)
        item = entries.described(entry, document)
        if wanted in (None, item["kind"]):
            data.append(item)
            rows.append(entries.row(entry, document))
    total = sum(item["size"] or 0 for item in data)
    if data:
        text = f"{table(rows)}\n{len(data)} entries, {size(total)}"
    else:
        text = f"the store has no {wanted} entries" if wanted else "the store is empty"
    session.result(data, text)
    return 0
