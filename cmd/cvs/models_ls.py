"""`cvs models ls`: list the models of the store."""

from cvs import entry as entries
from cvs import model
from cvs.cli import Parser, Session, size
from cvs.model import Item
from cvs.store import manifest
from cvs.versions.formats import Format

EXAMPLES = """\
  cvs models ls
  cvs models ls --unused
  cvs models ls flux --long
  cvs models ls 'loras/*' --json
"""

#: Characters of a value of its metadata that --long shows; training tools write whole books.
_SHOWN = 100


def parser() -> Parser:
    """The options."""
    found = Parser(
        "models ls",
        "List the models of the store: their formats as their own headers say them, and the "
        "versions whose locks or generations use them. Pickles (.ckpt, .pt and others) are "
        "programs that run when they are loaded. --json has places, metadata and all uses.",
        EXAMPLES,
    )
    found.add_argument(
        "patterns",
        nargs="*",
        metavar="NAME",
        help="only models whose name, place or hash has this in it, or fits this pattern",
    )
    found.add_argument("--unused", action="store_true", help="only what no version uses")
    found.add_argument("--version", metavar="ID", help="only what this version uses")
    found.add_argument("--long", "-l", action="store_true", help="places and metadata as well")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    store = session.store
    chosen = [
        item
        for item in model.items(session, store)
        if (not options.unused or not item.versions)
        and options.version in (None, *item.versions)
        and (not options.patterns or any(model.matches(item, one) for one in options.patterns))
    ]
    rows = [(item, model.format_of(store, item)) for item in chosen]
    total = size(sum(manifest.content_size(item.document) for item in chosen))
    if not rows:
        text = "there are no such models" if any(arguments) else "the store has no models"
    elif options.long:
        text = "\n\n".join(_long(item, found) for item, found in rows)
    else:
        text = f"{model.rows(rows)}\n{len(rows)} models, {total}"
    session.result([model.described(item, found) for item, found in rows], text)
    return 0


def _long(item: Item, found: Format | str) -> str:
    """All of one model."""
    lines = [entries.shown(item.name), f"  hash      {item.entry}"]
    if isinstance(item.document, manifest.FileManifest):
        lines.append(f"  sha256    {item.document.sha256 or 'not computed'}")
    lines.append(f"  size      {size(manifest.content_size(item.document))}")
    lines.append(f"  origin    {entries.shown(item.document.origin)}")
    if isinstance(found, str):
        lines.append(f"  broken    {entries.shown(found)}")
    else:
        tensors = "" if found.tensors is None else f", {found.tensors} tensors"
        kinds = f", {model.dtypes(found)}" if found.dtypes else ""
        lines.append(f"  format    {found.kind}{tensors}{kinds}")
        for name, value in sorted(found.metadata.items()):
            short = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
            lines.append(f"  metadata  {entries.shown(name)}: {entries.shown(short)}")
    for use in item.uses:
        place = f" as {entries.shown(use.path)}" if use.path else ""
        what = "pin" if use.kind == "pin" else f"{use.kind} {use.name}"
        lines.append(f"  used by   {what}{place}")
    if not item.uses:
        lines.append("  used by   nothing")
    return "\n".join(lines)
