"""`cvs validate`: resolve every commit, check every field, save the lock, and show it."""

from cvs import project
from cvs.cli import Parser, Session
from cvs.cmd_resolve import flags, installs, report, resolved, rows, told
from cvs.versions import pickles

EXAMPLES = """\
  cvs validate wan-demo
  cvs validate wan-demo --offline
"""


def parser() -> Parser:
    """The options."""
    found = Parser("validate", "Resolve a spec and check every field of it.", EXAMPLES)
    found.version_argument()
    found.common(network=True)
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    lock, changed, file = resolved(session)
    spec = project.load_spec(session)
    if not (spec.allow_pickle or spec.skip_models):
        pickles.refuse(session.store, lock.models, spec.file)
    flagged = flags(session, lock, spec)
    python = lock.python.interpreter
    text = [rows(lock), *installs(lock), f"Python {python.version} ({python.platform})"]
    built = [(wheel.name, wheel.built) for wheel in lock.python.wheels if wheel.built is not None]
    named = {name for name, one in built if one.request}
    undated = [
        wheel.name for wheel in lock.python.wheels if wheel.uploaded is None or wheel.name in named
    ]
    if lock.python.exclude_newer:
        text.append(f"no package newer than {lock.python.exclude_newer}")
        if undated:
            text.append(f"undated, so whatever their age: {', '.join(undated)}")
    text += [f"built: {name} from {one.shown}" for name, one in built]
    if lock.python.provided:
        text.append(f"provided by the image: {', '.join(lock.python.provided)}")
    text += [f"not followed: {line}" for line in lock.python.ignored]
    text += told(flagged, spec)
    text.append(f"{lock.version_id} is valid; its lock is {file}")
    data = {**report(lock, changed, file), "pickles": [one.path for one in flagged]}
    session.result(data, "\n".join(text))
    return 0
