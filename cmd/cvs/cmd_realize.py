"""`cvs realize`: store what the lock names, build the generation and switch to it."""

import os

import msgspec

from cvs import fresh, project
from cvs.cli import Parser, Session, size, table
from cvs.profiles import home, realize
from cvs.profiles import plan as plans
from cvs.profiles.generations import Profile
from cvs.versions import lock as locks
from cvs.versions import resolve
from cvs.versions.access import Access
from cvs.versions.spec import Spec

EXAMPLES = """\
  cvs realize wan-demo
  cvs realize wan-demo --dry-run
  COMFY_HOME=~/comfy-wan cvs realize wan-demo
  cvs realize wan-demo --offline --wheels-dir /workspace/wheels
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "realize",
        "Resolve what the lock lacks, store all that it names, build a generation, make it "
        "current and point COMFY_HOME at it.",
        EXAMPLES,
    )
    found.version_argument()
    found.add_argument("--target", metavar="DIR", help="in place of COMFY_HOME")
    found.add_argument("--models-dir", metavar="DIR", help="in place of MODELS_DIR")
    found.add_argument("--dry-run", action="store_true", help="show the plan, change nothing")
    found.add_argument(
        "--locked", action="store_true", help="refuse a lock that is not fresh, never resolve"
    )
    found.add_argument(
        "--replace", action="store_true", help="move a real folder at COMFY_HOME aside"
    )
    found.add_argument(
        "--no-trial", action="store_true", help="do not start ComfyUI once on new Python packages"
    )
    found.add_argument("--force", action="store_true", help="re-point a COMFY_HOME that is in use")
    found.common(network=True)
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    spec = project.load_spec(session)
    access = project.access(session, spec)
    lock_file = project.lock_file(session, spec.version_id)
    if options.dry_run:
        return _dry_run(session, spec, lock_file, access)
    target = realize.Target(
        lock_file=lock_file,
        home=session.settings.comfy_home(spec.version_id, options.target),
        models_dir=project.models_dir(session),
        local_root=session.settings.local_root,
        replace=options.replace,
        force=options.force,
        trial=None if options.locked or options.no_trial else os.environ,
    )
    done = realize.realize(session.store, spec, target, access, locked=options.locked)
    if arguments == [options.version]:
        fresh.remember(
            options.version,
            os.environ,
            number=done.generation,
            made=done.environment,
            entries=done.entries,
        )
    if done.moved_home:
        session.say(f"what was at {done.home} is now {done.moved_home}")
        for name in home.PRECIOUS:
            if os.path.isdir(os.path.join(done.moved_home, name)):
                session.say(f"  its {name} is {done.moved_home}/{name}")
    if done.changed:
        text = f"{done.version}: generation {done.generation} is current, {done.home} leads to it"
    else:
        text = fresh.message(done.version, done.generation)
    session.result(msgspec.to_builtins(done), text)
    return 0


def _dry_run(session: Session, spec: Spec, lock_file: str, access: Access) -> int:
    store = session.store
    lock = locks.read(lock_file)
    if session.options.locked:
        lock = resolve.check_locked(spec, lock, lock_file)
    found = plans.plan(store, spec, lock, access)
    current = Profile(store.volume, spec.version_id).current()
    rows = [
        (
            item.kind,
            item.name,
            item.pin[:12] or "?",
            size(item.size),
            _state(item),
        )
        for item in found.items
    ]
    text = [table(rows)] if rows else []
    if found.stale:
        text.append(f"to resolve first: {', '.join(found.stale)}")
    count = len(found.to_fetch)
    text.append(
        f"{spec.version_id}: {count} of {len(found.items)} parts to fetch, "
        f"{size(found.bytes_to_fetch)}; generation {current or '-'} is current; nothing was changed"
    )
    data = {
        **msgspec.to_builtins(found),
        "to_fetch": count,
        "bytes_to_fetch": found.bytes_to_fetch,
        "current": current,
    }
    session.result(data, "\n".join(text))
    return 0


def _state(item: plans.Item) -> str:
    if item.damaged:
        return "damaged"
    if item.stored:
        state = "stored"
    else:
        state = "to fetch" if item.resolved else "to resolve and fetch"
    if item.pickle:
        state += ", a pickle"
    return f"{state}, its install.py to run" if item.to_install else state
