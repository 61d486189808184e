"""`cvs store show`: what an entry is."""

import os

import msgspec

from cvs import entry as entries
from cvs.cli import Parser, Session, size
from cvs.store import manifest, pack

EXAMPLES = """\
  cvs store show 4f1c2a9b
  cvs store show 4f1c2a9b 971c8d44 --json
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "store show",
        "Show kind, name, size, path and origin of entries; with --json their whole manifests.",
        EXAMPLES,
    )
    entries.argument(found, nargs="+")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    store = session.store
    data, text = [], []
    for entry in [entries.find(store, given) for given in session.options.entries]:
        document = store.manifest(entry)
        data.append({"id": entry, **msgspec.to_builtins(document)})
        text += [
            f"{entry}",
            f"kind     {entries.kind(document)}",
            f"name     {entries.shown_name(document)}",
            f"size     {size(manifest.content_size(document))}",
            f"path     {store.path(entry)}",
            f"origin   {entries.shown(document.origin) or '-'}",
            f"created  {entries.shown(document.created)}",
        ]
        if isinstance(document, manifest.FileManifest):
            text.append(f"sha256   {document.sha256}")
        elif isinstance(document, manifest.TreeManifest):
            text.append(f"nodes    {len(document.nodes)}")
            packed = pack.find(store.path(entry), document)
            if packed is not None:
                text.append(f"packed   {size(os.stat(packed).st_size)}")
        else:
            text += [f"member   {member}" for member in document.members]
    session.result(data, "\n".join(text))
    return 0
