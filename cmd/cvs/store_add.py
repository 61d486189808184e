"""`cvs store add`: take local files and folders into the store."""

import os

from cvs import entry as entries
from cvs.cli import Parser, Session
from cvs.store import moving
from cvs.store.errors import InputError
from cvs.store.manifest import content_size

EXAMPLES = """\
  cvs store add model.safetensors
  cvs store add my-node --name ComfyUI-My-Node
  cvs store add --move ~/Downloads/flux1-dev.safetensors
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "store add",
        "Take files and folders into the store and print their hashes, a line each. A file's hash "
        "is its BLAKE3, which b3sum prints as well. Nothing keeps an entry that no version needs: "
        "a collection may remove it.",
        EXAMPLES,
    )
    found.add_argument("paths", nargs="+", metavar="PATH", help="a file or folder")
    found.add_argument("--name", help="of the one folder that is added, in place of its own")
    found.add_argument(
        "--move",
        action="store_true",
        help="adopt the files where they can be, without a copy, and remove them at their old "
        "place once they are stored; what has other names or is being written is copied",
    )
    found.add_argument(
        "--no-sha256",
        dest="sha256",
        action="store_false",
        help="leave out a file's SHA-256, by which specs and hubs know it: quicker",
    )
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    if options.name and len(options.paths) > 1:
        raise InputError("--name is for one path", hint="add the others by themselves")
    for path in options.paths:
        # Before the first is taken: a word that is wrong is known at once.
        if not os.path.lexists(path) and not (options.move and moving.is_begun(path)):
            raise InputError(f"{path} is not there")
    store = session.store
    store.volume.prepare()
    data, lines = [], []
    for path in options.paths:
        entry = store.add(
            path,
            name=options.name,
            move=options.move,
            sha256=options.sha256,
            progress=session.progress,
        )
        document = store.manifest(entry)
        data.append(
            {
                "id": entry,
                "kind": entries.kind(document),
                "size": content_size(document),
                "name": entries.name(document),
            }
        )
        lines.append(f"{entry}  {entries.shown(path)}")
    session.result(data, "\n".join(lines))
    return 0
