"""`cvs store verify`: read entries and compare them with what they should be."""

from cvs import entry as entries
from cvs.cli import Parser, Session
from cvs.store import damage
from cvs.store.errors import EntryMissing
from cvs.store.verify import Damage

EXAMPLES = """\
  cvs store verify
  cvs store verify 4f1c2a9b --json
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "store verify",
        "Read every file of all entries, or of those named, and compare it with the manifest, and "
        "the manifest with the name. Ends with 1 if something is damaged: that is marked, and "
        "not served until `cvs store repair` has made it whole.",
        EXAMPLES,
    )
    entries.argument(found, nargs="*")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    store = session.store
    chosen = [entries.find(store, given) for given in session.options.entries]
    chosen = chosen or sorted(store.ids())
    damaged: list[Damage] = []
    with session.progress.task("verifying", len(chosen), "items") as task:
        for entry in chosen:
            try:
                damaged += damage.examine(store, entry)
            except EntryMissing:
                continue
            task.advance(1)
    data = {
        "entries": len(chosen),
        "damaged": [{"id": d.entry, "path": d.path, "what": d.what} for d in damaged],
    }
    lines = [f"{d.entry[: entries.DIGITS]}/{d.path} {d.what}" for d in damaged]
    ids = sorted({d.entry for d in damaged})
    summary = f"{len(ids)} of {len(chosen)} entries are damaged"
    lines.append(summary if damaged else f"{len(chosen)} entries, all well")
    session.result(data, "\n".join(lines))
    if unmarked := set(ids) - damage.marked(store.volume):
        session.progress.warn(
            f"{len(unmarked)} damaged entries could not be marked and may be served: is the "
            "volume read-only?"
        )
    if damaged:
        session.say(f"hint: {damage.cure(*ids)}")
    return 1 if damaged else 0
