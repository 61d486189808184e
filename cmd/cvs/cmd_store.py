"""`cvs store`: look at, compare, verify and repair the entries of the store."""

from cvs import actions
from cvs.cli import Parser

#: The actions in the order of the help, with one line each.
ACTIONS = {
    "add": "take local files and folders into the store",
    "ls": "list the entries",
    "show": "what an entry is: kind, name, size, path, origin",
    "path": "the path of an entry's content",
    "cat": "the bytes of a file, checked; of a folder the list",
    "diff": "what differs between two entries",
    "du": "how much there is, what each version needs of it, what none needs",
    "verify": "read entries and compare them with their manifests and names",
    "repair": "make damaged entries whole again from where they came from",
}

EXAMPLES = """\
  cvs store ls
  cvs store show 4f1c2a9b
  cvs store cat 4f1c2a9b main.py
  cvs store du
"""


def parser() -> Parser:
    """What all actions have in common, for the help."""
    return actions.parser(
        "store",
        "Look at, compare, verify and repair the entries of the store. An entry is named by 8 or "
        "more digits of its hash.",
        ACTIONS,
        EXAMPLES,
    )


def run(arguments: list[str]) -> int:
    """Runs an action."""
    return actions.run("store", parser(), ACTIONS, arguments)
