"""`cvs models verify`: compare the models of a lock or list with their checksums."""

import argparse
import functools
import os
from collections.abc import Sequence

from cvs import entry as entries
from cvs import model, project
from cvs.cli import Parser, Session, table
from cvs.profiles.state import link_target
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.volume import Volume
from cvs.versions import model_check
from cvs.versions.model_check import Checked

EXAMPLES = """\
  cvs models verify wan-demo
  cvs models verify --lock resolved/wan-demo.lock.json --models-dir /workspace/ComfyUI/models
  cvs models verify --list models.yaml --models-dir models --overwrite
"""

#: Said of each state; those that are well only with --verbose.
_WORDS = {
    "ok": "ok",
    "unchecked": "there, no checksum is known",
    "fetched": "was missing, fetched",
    "replaced": "differed, replaced",
    "differs": "DIFFERS",
    "failed": "FAILED",
}


def parser() -> Parser:
    """The options."""
    found = Parser(
        "models verify",
        "Read the models of a version, a lock or a list where they lie below the models folder "
        "and compare them with their checksums. A missing one is fetched into the store and a "
        "link put in its place; one that differs is replaced only with --overwrite. Exit status "
        "1 if not all is well then.",
        EXAMPLES,
    )
    found.add_argument("version", metavar="ID", nargs="?", help="a version, by name or spec")
    found.add_argument("--lock", metavar="FILE", help="a lock, also one of the tool before cvs")
    found.add_argument(
        "--list", metavar="FILE", help="a list of models as specs have them, JSON or YAML"
    )
    found.add_argument(
        "--models-dir", metavar="DIR", help="where the models lie; by default MODELS_DIR"
    )
    found.add_argument("--cache-dir", metavar="DIR", help="the volume, instead of COMFY_CACHE_ROOT")
    found.add_argument(
        "--overwrite", action="store_true", help="replace a model that differs from its checksum"
    )
    found.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SEC",
        help="how long a server may be silent before it is asked again, by default 30",
    )
    found.add_argument("--verbose", action="store_true", help="name the models that are well, too")
    found.common()
    model.fetching(found)
    return found


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    given = [options.version, options.lock, options.list]
    if sum(one is not None for one in given) != 1:
        raise InputError("one of ID, --lock and --list is needed", hint="and only one")
    listed, access = model.listed(session, options.version, options.lock or options.list)
    if options.timeout is not None:
        from cvs.versions import http

        http.wait(options.timeout)
    models_dir = project.models_dir(session)
    if os.path.lexists(models_dir) and not os.path.isdir(models_dir):
        raise InputError(f"--models-dir: {models_dir} is not a folder")
    store = _store(session)
    found = model_check.check(
        store,
        listed,
        models_dir,
        access,
        overwrite=options.overwrite,
        link_target=functools.partial(link_target, volume=store.volume),
    )
    well = all(one.is_well for one in found)
    data = {
        "models_dir": models_dir,
        "well": well,
        "models": [one._asdict() for one in found],
    }
    session.result(data, report(found, verbose=options.verbose))
    return 0 if well else 1


def _store(session: Session) -> Store:
    """The store, prepared; that of another volume where --cache-dir names one."""
    if not session.options.cache_dir:
        store = session.store
    else:
        volume = Volume(os.path.expanduser(session.options.cache_dir))
        store = Store(volume)
    store.volume.prepare()
    return store


def report(found: Sequence[Checked], *, verbose: bool) -> str:
    """What is the case, a line for each model of which there is something to say."""
    rows = []
    for one in found:
        if one.state == "ok" and not verbose:
            continue
        digests = ""
        if one.state == "differs" and one.found:
            digests = f"has {one.found[:16]}…, expected is {(one.expected or '')[:16]}…"
        rows.append((_WORDS[one.state], entries.shown(one.path), one.why or digests))
    count = sum(one.is_well for one in found)
    end = f"{count} of {len(found)} models are well"
    return "\n".join([*([table(rows)] if rows else []), end])
