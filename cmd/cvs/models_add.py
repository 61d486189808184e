"""`cvs models add`: put models into the store, from anywhere, without a version."""

import json
import os
from typing import Any

from cvs import entry as entries
from cvs import model, project
from cvs.cli import Parser, Session
from cvs.store import manifest, pins
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.manifest import FileManifest
from cvs.versions import locate, model_list, models

EXAMPLES = """\
  cvs models add hf://stabilityai/sdxl-turbo/sd_xl_turbo_1.0_fp16.safetensors
  cvs models add civitai:128713 --name dreamshaper.safetensors --pin
  cvs models add https://host.example/x.safetensors --sha256 9f86d081884c7d65…
  cvs models add ~/Downloads/detail.safetensors
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "models add",
        "Put models into the store from any source that a spec can name, or from this machine, "
        "and print their hashes and the lines that a spec needs for them. Nothing keeps a model "
        "that no version needs, unless it is pinned: a collection may remove it.",
        EXAMPLES,
    )
    found.add_argument("sources", nargs="+", metavar="SOURCE", help="an address or path")
    found.add_argument("--sha256", metavar="HEX", help="what the one model must have")
    found.add_argument("--name", help="of the one model, in place of that of its source")
    found.add_argument("--pin", action="store_true", help="keep them though no version needs them")
    found.common()
    model.fetching(found)
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    if len(options.sources) > 1 and (options.name or options.sha256):
        raise InputError(
            "--name and --sha256 are for one source", hint="add the others by themselves"
        )
    extra = {"name": options.name, "sha256": options.sha256}
    given = {name: value for name, value in extra.items() if value is not None}
    wanted = model_list.parse(
        [{"source": source, **given} for source in options.sources], "the command line"
    )
    # Before the first is taken: a word that is wrong is known at once.
    places = [models.local_path(one) for one in wanted]
    for place in places:
        if place is not None and not os.path.exists(place):
            raise InputError(f"{place} is not there")
        if place is not None and os.path.isdir(place) and options.sha256:
            raise InputError(f"--sha256 is for a file, {place} is a folder")
    store, access = session.store, project.access(session)
    store.volume.prepare()
    data, lines = [], []
    for one, place in zip(wanted, places, strict=True):
        if place is not None and os.path.isdir(place):
            entry = store.add(place, name=options.name, progress=session.progress)
            item = _described(store, entry, "", one.name)
        else:
            found = models.ensure(store, one, locate.describe(store, one, access), access)
            assert found.entry is not None
            item = _described(store, found.entry, found.source, found.name)
        if options.pin:
            pins.hold(store.volume, item["id"], store.content(item["id"]))
        data.append(item)
        lines.append(f"{item['id']}  {entries.shown(one.source if place else item['source'])}")
        lines.append(f"  {json.dumps(item['spec'], ensure_ascii=False)}")
    session.result(data, "\n".join(lines))
    return 0


def _described(store: Store, entry: EntryId, source: str, name: str) -> dict[str, Any]:
    """What was added, and what a spec says of it; a local one is named by its entry."""
    source = source or f"cvs:{entry}"
    document = store.manifest(entry)
    spec = {"source": source, "target_path": name}
    if isinstance(document, FileManifest):
        spec["checksum"] = f"sha256:{document.sha256}"
    return {
        "id": entry,
        "source": source,
        "name": name,
        "size": manifest.content_size(document),
        "spec": spec,
    }
