"""Commands that are groups of actions, such as `cvs store` and `cvs lock`.

An action is a module `cvs.<command>_<action>` with `parser()` and `run(arguments) -> exit code`, as
a command is; it is imported when it is asked for.
"""

import importlib
import itertools
from collections.abc import Mapping, Sequence

from cvs.cli import Parser
from cvs.store.errors import InputError


def parser(command: str, description: str, actions: Mapping[str, str], examples: str) -> Parser:
    """What all actions of a command have in common, for the help; the options of one are its own.

    Args:
        actions: in the order of the help, with one line each.
    """
    listed = "\n".join(f"  {name:<8} {text}" for name, text in actions.items())
    found = Parser(
        command,
        f"{description}\n\nactions:\n{listed}\n\n"
        f"`cvs {command} ACTION --help` has the options and examples of an action.",
        examples,
    )
    found.add_argument("action", metavar="ACTION", help="what to do, see above")
    found.add_argument("arguments", metavar="…", nargs="*", help="its arguments and options")
    found.common()
    return found


def run(command: str, own: Parser, actions: Mapping[str, str], arguments: Sequence[str]) -> int:
    """Runs an action.

    Raises:
        InputError: there is no such action.
    """
    # `cvs store --json ls` has always been understood.
    leading = list(itertools.takewhile(lambda text: text.startswith("-"), arguments))
    rest = arguments[len(leading) :]
    if not rest:
        own.parse_args(leading)
        raise AssertionError("argparse lets nothing pass without an action")
    name = rest[0]
    if name not in actions:
        import difflib

        near = difflib.get_close_matches(name, actions, 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"`cvs {command}` has no action {name!r}{hint}",
            hint=f"`cvs {command} --help` lists them",
        )
    module = importlib.import_module(f"cvs.{command}_{name}")
    code: int = module.run([*leading, *rest[1:]])
    return code
