"""`cvs store path`: the path of an entry's content."""

import os

from cvs import entry as entries
from cvs.cli import Parser, Session
from cvs.store import manifest, pack
from cvs.store.digest import EntryId
from cvs.store.entries import Store, content_path
from cvs.store.errors import InputError

EXAMPLES = """\
  cvs store path 4f1c2a9b
  b3sum "$(cvs store path ccdb92d2)"
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "store path",
        "Print the path of the file or folder of entries, a line each; of a packed one that of "
        "its pack; of a set, which has none, that of its folder.",
        EXAMPLES,
    )
    entries.argument(found, nargs="+")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    store = session.store
    found = [entries.find(store, given) for given in session.options.entries]
    paths = [_path(store, entry) for entry in found]
    if not session.json:
        for entry, path in zip(found, paths, strict=True):
            if entries.shown(path) != path:
                # Quoted it would be the path of nothing, raw a terminal would obey it.
                raise InputError(
                    f"the path of {entry[: entries.DIGITS]} has control characters in it: "
                    f"{entries.shown(path)}",
                    hint="--json gives it",
                )
    data = [{"id": entry, "path": path} for entry, path in zip(found, paths, strict=True)]
    session.result(data, "\n".join(paths))
    return 0


def _path(store: Store, entry: EntryId) -> str:
    document = store.manifest(entry)
    if isinstance(document, manifest.SetManifest):
        return store.path(entry)
    if isinstance(document, manifest.TreeManifest):
        packed = pack.find(store.path(entry), document)
        if packed is not None:
            return packed
    return os.path.join(store.volume.store, content_path(entry, document))
