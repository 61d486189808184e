"""`cvs exec`: run a command in a version's environment and folder."""

import signal
import subprocess

from cvs import running
from cvs.cli import Parser, Session
from cvs.store.errors import InputError

EXAMPLES = """\
  cvs exec wan-demo -- python main.py --cpu
  cvs exec wan-demo -- python -c "import torch; print(torch.__version__)"
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "exec",
        "Run a command in the folder of a version's current generation, with its Python first "
        "on PATH and its environment variables.",
        EXAMPLES,
    )
    found.version_argument()
    found.add_argument("--models-dir", metavar="DIR", help="in place of MODELS_DIR")
    found.add_argument("--generation", type=int, metavar="N", help="not the current one but N")
    found.common()
    found.add_argument("command", nargs="*", metavar="-- COMMAND", help="what to run")
    return found


def run(arguments: list[str]) -> int:
    """Runs the command; its exit code is that of what it ran."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    command = arguments[at + 1 :]
    session = Session(parser().parse_args(arguments[:at]))
    command = [*session.options.command, *command]
    if not command:
        raise InputError("no command was given", hint="cvs exec ID -- python main.py")
    with running.open_session(session) as opened:
        try:
            child = subprocess.Popen(
                command, cwd=opened.view, env=opened.variables, preexec_fn=opened.seal.apply
            )
        except FileNotFoundError:
            raise InputError(f"there is no command {command[0]!r}") from None
        except OSError as error:
            raise InputError(f"{command[0]} cannot be run: {error.strerror}") from None
        except subprocess.SubprocessError as error:
            raise InputError(f"{command[0]} cannot be run: {error}") from None
        # A Ctrl-C reaches the child from the terminal; its exit code is waited for here.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
        code = child.wait()
    return code if code >= 0 else 128 - code
