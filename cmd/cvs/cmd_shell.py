"""`cvs shell`: a shell in a version's environment and folder."""

import os
import shlex
import signal
from collections.abc import Mapping

from cvs import running
from cvs.cli import Parser, Session
from cvs.profiles import child
from cvs.store.errors import InputError

EXAMPLES = """\
  cvs shell wan-demo
  cvs shell wan-demo --generation 3
  cvs shell wan-demo -- -c 'python -m pip list'
"""

#: The shell where SHELL names none.
_SHELL = "/bin/sh"


def parser() -> Parser:
    """The options."""
    found = Parser(
        "shell",
        "Start a shell ($SHELL, else /bin/sh) in the folder of a version's current generation, "
        "with its Python first on PATH and its environment variables. It is sealed as everything "
        "that cvs starts, and so is all that is started in it.",
        EXAMPLES,
    )
    running.foreground_options(found)
    found.add_argument("arguments", nargs="*", metavar="-- ARGS", help="what the shell is given")
    return found


def run(arguments: list[str]) -> int:
    """Runs the shell; its exit code is the command's."""
    own, rest = running.behind(arguments)
    session = Session(parser().parse_args(own))
    given = [*session.options.arguments, *rest]
    with running.open_session(session, "" if given else "; `exit` or Ctrl-D leaves") as opened:
        variables = dict(opened.variables)
        shell = variables.get("SHELL") or _SHELL
        if not given:
            variables |= prompt(shell, f"({opened.version}@{opened.generation}) ", variables)
        try:
            return child.run(
                [shell, *given],
                folder=opened.view,
                variables=variables,
                seal=opened.seal,
                # An interactive shell does not end at a SIGTERM.
                ending=signal.SIGHUP,
            )
        except InputError as error:
            raise InputError(error.message, hint="SHELL names the shell") from None


def prompt(shell: str, prefix: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Variables that put `prefix` before a shell's prompt; none where that takes files."""
    name = os.path.basename(shell)
    if name == "bash":
        # Its start files set PS1; this runs after them, before each prompt, and changes it once.
        quoted = shlex.quote(prefix)
        command = f"case $PS1 in {quoted}*) ;; *) PS1={quoted}$PS1 ;; esac"
        more = variables.get("PROMPT_COMMAND")
        return {"PROMPT_COMMAND": f"{command}; {more}" if more else command}
    if name == "zsh":
        return {"PS1": prefix + variables.get("PS1", "%m%# ")}
    if name in ("sh", "dash", "ash", "ksh", "mksh"):
        return {"PS1": prefix + variables.get("PS1", "# " if os.geteuid() == 0 else "$ ")}
    return {}
