"""`cvs exec`: run a command in a version's environment and folder."""

from cvs import running
from cvs.cli import Parser, Session
from cvs.profiles import child
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
    running.foreground_options(found)
    found.add_argument("command", nargs="*", metavar="-- COMMAND", help="what to run")
    return found


def run(arguments: list[str]) -> int:
    """Runs the command; its exit code is that of what it ran."""
    own, rest = running.behind(arguments)
    session = Session(parser().parse_args(own))
    command = [*session.options.command, *rest]
    if not command:
        raise InputError("no command was given", hint="cvs exec ID -- python main.py")
    with running.open_session(session) as opened:
        return child.run(command, folder=opened.view, variables=opened.variables, seal=opened.seal)
