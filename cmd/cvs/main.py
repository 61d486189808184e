"""The command line: finds the command, runs it, and turns errors into sentences and exit codes.

Imports only what a realize with nothing to do needs; each command is a module `cvs.cmd_<name>`
with `run(arguments) -> exit code`, imported when it is asked for.
"""

import os
import sys

VERSION = "0.1.0"

#: The commands in the order of the help, with one line each.
COMMANDS = {
    "create": "write the spec of a new version",
    "resolve": "resolve a spec: commits, wheels and models, into its lock",
    "validate": "resolve a spec and check every field of it",
    "update": "move pins to what branches and indexes say now",
    "realize": "store what the lock names and switch to it",
    "run-ui": "start ComfyUI with its web page",
    "run-handler": "run one workflow and give its result",
    "exec": "run a command in a version's environment",
    "shell": "a shell in a version's environment",
    "list": "the versions that are known",
    "show": "what a version consists of, and what differs from its lock",
    "why": "who needs a Python package of a version",
    "lock": "what differs between the lock of a version and another, or what is realized",
    "history": "the generations of a version",
    "rollback": "switch back to an earlier generation",
    "clone": "copy a spec under a new name",
    "delete": "remove a version's generations and lock",
    "models": "list, add, fetch, adopt and verify models, and see who uses them",
    "store": "look at, compare, measure and verify the entries of the store",
    "doctor": "whether the volume, the seal and the tools are as they should be",
    "demo": "the whole way on a small example, offline",
}

EPILOG = """\
examples:
  cvs create wan-demo --repo https://github.com/comfyanonymous/ComfyUI@master --nodes nodes.json
  cvs realize wan-demo
  cvs run-ui wan-demo
  cvs rollback wan-demo

`cvs COMMAND --help` has the options and examples of a command.

exit status: 0 well, 1 ComfyUI or a check failed, 2 bad input or something missing,
130 interrupted, 143 terminated; `cvs exec` and `cvs shell` have that of what they ran
"""


def usage() -> str:
    """The text of `cvs --help`."""
    lines = [
        "usage: cvs COMMAND [options]",
        "",
        "cvs, the ComfyUI version store: versions that are locked, stored and switched.",
        "",
        "commands:",
        *(f"  {name:<12} {text}" for name, text in COMMANDS.items()),
        "",
        EPILOG,
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        # While a command was still being imported; `run_command` sees to all later ones.
        return 130


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("--version", "-V"):
        print(f"cvs {VERSION}")
        return 0
    if name in ("--help", "-h", "help") and len(arguments) <= 1:
        print(usage(), end="")
        return 0 if arguments else 2
    if name == "help":
        arguments = [*arguments[1:], "--help"]
        name = arguments[0]
    if name not in COMMANDS:
        return _unknown(name)
    if name == "realize":
        from cvs.fresh import nothing_to_do

        line = nothing_to_do(arguments[1:], os.environ)
        if line is not None:
            print(line)
            return 0
    from cvs.cli import run_command

    return run_command(name, arguments[1:])


def _unknown(name: str) -> int:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    print(f"error: there is no command {name!r}{hint}", file=sys.stderr)
    print("hint: `cvs --help` lists the commands", file=sys.stderr)
    return 2
