"""`cvs store verify`: read entries and compare them with what they should be."""

import argparse

from cvs import entry as entries
from cvs.cli import Parser, Session
from cvs.store import damage
from cvs.store.errors import EntryMissing
from cvs.store.verify import Damage

EXAMPLES = """\
  cvs store verify
  cvs store verify 4f1c2a9b --json
  cvs store verify --sample 5%
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
    found.add_argument(
        "--sample",
        type=_percent,
        default=1.0,
        metavar="N%",
        help="read only so many of the files, by chance, others each time; names, kinds, sizes and "
        "modes are compared of all",
    )
    found.common()
    return found


def _percent(text: str) -> float:
    """`5%` or `5`, as a fraction."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100")
    return value / 100


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
                damaged += damage.examine(store, entry, sample=session.options.sample)
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
    well = f"{len(chosen)} entries, all well"
    if session.options.sample < 1:
        well += f"; {100 * session.options.sample:g}% of the files were read"
    lines.append(summary if damaged else well)
    session.result(data, "\n".join(lines))
    if unmarked := set(ids) - damage.marked(store.volume):
        session.progress.warn(
            f"{len(unmarked)} damaged entries could not be marked and may be served: is the "
            "volume read-only?"
        )
    if damaged:
        session.say(f"hint: {damage.cure(*ids)}")
    return 1 if damaged else 0
