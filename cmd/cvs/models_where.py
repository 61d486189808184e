"""`cvs models where`: which versions use a model."""

import os

from cvs import entry as entries
from cvs import model, project
from cvs.cli import Parser, Session, table
from cvs.model import Item
from cvs.store import hashing
from cvs.store.digest import EntryId, is_id
from cvs.store.entries import Store
from cvs.store.errors import InputError

EXAMPLES = """\
  cvs models where loras/detail.safetensors
  cvs models where /workspace/ComfyUI/models/checkpoints/sd15.safetensors
  cvs models where 4f1c2a9b
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "models where",
        "Show which versions use a model: whose locks name it, whose generations link it, under "
        "which places. A file outside of the store is known by its bytes.",
        EXAMPLES,
    )
    found.add_argument(
        "file", metavar="FILE", help="a path, a name or place below models/, a hash or sha256"
    )
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    given: str = session.options.file
    store = session.store
    found = _found(session, store, given, model.items(session, store))
    if not found:
        raise InputError(
            f"the store has no model {given!r}",
            hint="`cvs models ls` lists them; `cvs models add` puts one into the store",
        )
    data = [model.described(item, model.format_of(store, item)) for item in found]
    session.result(data, "\n\n".join(map(_told, found)))
    return 0


def _found(session: Session, store: Store, given: str, known: list[Item]) -> list[Item]:
    entry = _entry_at(session, store, given)
    if entry is not None:
        return [item for item in known if item.entry == entry]
    exact = [item for item in known if given in (*item.paths, entries.name(item.document))]
    return exact or [item for item in known if model.matches(item, given)]


def _entry_at(session: Session, store: Store, given: str) -> EntryId | None:
    """The entry that a path leads into, or whose bytes the file there has; None for no path."""
    folders = ("", project.models_dir(session), store.volume.models)
    paths = [os.path.join(folder, os.path.expanduser(given)) for folder in folders]
    path = next(filter(os.path.exists, paths), None)
    if path is None:
        return None
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(store.volume.store))
    name = inside.partition("/")[0]
    if is_id(name):
        return EntryId(name)
    if os.path.isdir(path):
        raise InputError(f"{given} is a folder", hint="`cvs models ls` lists the models")
    with (
        open(path, "rb") as file,
        session.progress.task(f"reading {given}", os.path.getsize(path)) as task,
    ):
        found = hashing.plain(file.fileno(), os.path.getsize(path), task.advance)
    return EntryId(found)


def _told(item: Item) -> str:
    """The uses of one model, a line each."""
    head = f"{item.entry[: entries.DIGITS]}  {entries.shown(item.name)}"
    rows = [
        (
            f"  {use.version}",
            {"lock": "lock", "pin": "adopted", "lease": "in use now"}.get(use.kind)
            or f"generation {use.name.rpartition('@')[2]}",
            f"models/{entries.shown(use.path)}" if use.path else "",
        )
        for use in item.uses
    ]
    return f"{head}\n{table(rows)}" if rows else f"{head}\n  no version uses it"
