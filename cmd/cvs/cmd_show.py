"""`cvs show`: what a version consists of, where it is, and what differs from its lock."""

import os
from typing import Any

import msgspec

from cvs import project
from cvs.cli import Parser, Session
from cvs.cmd_resolve import flags, installs, rows, told
from cvs.profiles import drift, state
from cvs.versions import lock as locks
from cvs.versions import resolve
from cvs.versions import spec as specs

EXAMPLES = "  cvs show wan-demo\n  cvs show wan-demo --json\n"


def parser() -> Parser:
    """The options."""
    found = Parser("show", "What a version consists of, and its drift from the lock.", EXAMPLES)
    found.version_argument()
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    profile = project.profile(session)
    version, volume = profile.version, session.volume
    path = project.spec_file(session)
    spec = specs.load(path) if os.path.exists(path) else None
    lock = locks.read(project.lock_file(session, version))
    if spec is None and lock is None and not profile.exists():
        project.load_spec(session)
    number = profile.current() if profile.exists() else None
    record = None if number is None else profile.record(number)
    home = session.settings.comfy_home(version)
    stale = [] if spec is None else resolve.stale(spec, lock)
    loose_nodes = drift.nodes(volume, version)
    loose_models = [] if record is None else drift.models(volume, record)
    pickles = [] if lock is None else flags(session, lock, spec)
    data: dict[str, Any] = {
        "version": version,
        "spec": path if spec else None,
        "lock": msgspec.to_builtins(lock),
        "stale": stale,
        "generation": number,
        "comfy_home": home,
        "view": None if number is None else profile.view(number),
        "state": state.folder(volume, version),
        "pickles": [one.path for one in pickles],
        "drift": {"nodes": loose_nodes, "models": loose_models},
    }
    text = [f"{version}: {'generation ' + str(number) if number else 'not realized here'}"]
    if spec is not None:
        text.append(f"spec        {path}")
    if number is not None:
        text.append(f"view        {profile.view(number)}")
        text.append(f"COMFY_HOME  {home}{'' if os.path.islink(home) else ' (not there)'}")
        text.append(f"state       {data['state']}")
    if lock is not None:
        text += ["", rows(lock), *installs(lock), *told(pickles, spec)]
    if stale and lock is not None:
        text.append(f"changed in the spec since it was locked: {', '.join(stale)}")
    if loose_nodes or loose_models:
        text += ["", "drift, found at run time and not in the lock:"]
        text += [f"  custom_nodes/{name}" for name in loose_nodes]
        text += [f"  models/{name}" for name in loose_models]
    session.result(data, "\n".join(text))
    return 0
