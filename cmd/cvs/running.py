"""What run-ui, run-handler, exec and shell share: options, and opening a session for a version."""

import contextlib
import os
from collections.abc import Iterator

from cvs import project
from cvs.cli import Parser, Session
from cvs.profiles import process
from cvs.profiles import session as sessions

#: Seconds that ComfyUI may take until it answers; a cold network volume is slow.
READY_TIMEOUT = 600.0


def options(parser: Parser) -> None:
    """Adds the options of everything that starts ComfyUI."""
    parser.add_argument("--target", metavar="DIR", help="accepted for old scripts, not needed")
    parser.add_argument("--models-dir", metavar="DIR", help="in place of MODELS_DIR")
    parser.add_argument("--wheels-dir", metavar="DIR", help="accepted for old scripts, not needed")
    parser.add_argument("--offline", action="store_true", help="set COMFY_OFFLINE for the run")
    parser.add_argument("--generation", type=int, metavar="N", help="not the current one but N")
    parser.add_argument(
        "--extra-args",
        action="store_true",
        help="what follows `--extra-args --` goes to ComfyUI's main.py as it is",
    )
    parser.common()


def foreground_options(parser: Parser) -> None:
    """Adds the options of what runs something of the user's choice in the foreground."""
    parser.version_argument()
    parser.add_argument("--models-dir", metavar="DIR", help="in place of MODELS_DIR")
    parser.add_argument("--generation", type=int, metavar="N", help="not the current one but N")
    parser.common()


def behind(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Parts `… -- REST` into cvs's own options and what is run or given."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Parts `… --extra-args -- REST` into cvs's own options and ComfyUI's."""
    if "--extra-args" not in arguments:
        return arguments, []
    at = arguments.index("--extra-args")
    rest = arguments[at + 1 :]
    return arguments[:at], rest[1:] if rest[:1] == ["--"] else rest


def warn_of_failed_imports(session: Session, comfy: process.ComfyUI) -> list[str]:
    """Names the nodes that ComfyUI could not import; it runs without them and looks healthy."""
    failed = [os.path.basename(path) for path in comfy.failed_imports]
    if failed:
        session.progress.warn(f"nodes that could not be imported: {', '.join(failed)}")
        if comfy.denied:
            session.progress.warn(
                'a write was refused: nothing that is stored may be changed; "writable": true '
                "beside a node's repo in the spec gives it a copy of its own"
            )
    return failed


@contextlib.contextmanager
def open_session(session: Session, more: str = "") -> Iterator[sessions.Session]:
    """Opens a session for the version that the command names, and says on standard error what
    is started, how far it is sealed off the store, and `more`."""
    extra = dict(project.environment_of(session))
    if getattr(session.options, "offline", False) or session.flag("COMFY_OFFLINE"):
        extra["COMFY_OFFLINE"] = "1"
    with sessions.open_session(
        session.store,
        project.profile(session),
        generation=session.options.generation,
        base=os.environ,
        extra=extra,
        models_dir=project.models_dir(session),
        local_root=session.settings.local_root,
        chosen=project.chosen_python(session),
        progress=session.progress,
    ) as opened:
        line = f"{opened.version}, generation {opened.generation}, sealed: {opened.seal.state}"
        if opened.seal.state == "full":
            session.say(line + more)
        else:
            session.progress.warn(line + more)
        yield opened
