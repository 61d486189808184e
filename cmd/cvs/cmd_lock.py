"""`cvs lock`: look into locks."""

from cvs import actions
from cvs.cli import Parser

#: The actions in the order of the help, with one line each.
ACTIONS = {
    "diff": "what differs between the lock of a version and an older one, or what is realized",
}

EXAMPLES = """\
  cvs lock diff wan-demo
  cvs lock diff wan-demo wan-test
"""


def parser() -> Parser:
    """What all actions have in common, for the help."""
    return actions.parser("lock", "Look into locks.", ACTIONS, EXAMPLES)


def run(arguments: list[str]) -> int:
    """Runs an action."""
    return actions.run("lock", parser(), ACTIONS, arguments)
