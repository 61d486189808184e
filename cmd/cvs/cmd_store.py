"""`cvs store`: look at, compare, verify and repair the entries of the store.

Each action is a module `cvs.store_<action>` with `parser()` and `run(arguments) -> exit code`, as a
command is; it is imported when it is asked for.
"""

import importlib
import itertools

from cvs.cli import Parser
from cvs.store.errors import InputError

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
    """What all actions have in common, for the help; the options of one are its module's."""
    actions = "\n".join(f"  {name:<8} {text}" for name, text in ACTIONS.items())
    found = Parser(
        "store",
        "Look at, compare, verify and repair the entries of the store. An entry is named by 8 or "
        f"more digits of its hash.\n\nactions:\n{actions}\n\n"
        "`cvs store ACTION --help` has the options and examples of an action.",
        EXAMPLES,
    )
    found.add_argument("action", metavar="ACTION", help="what to do, see above")
    found.add_argument("arguments", metavar="…", nargs="*", help="its entries and options")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs an action."""
    # `cvs store --json ls` has always been understood.
    leading = list(itertools.takewhile(lambda text: text.startswith("-"), arguments))
    rest = arguments[len(leading) :]
    if not rest:
        parser().parse_args(leading)
        raise AssertionError("argparse lets nothing pass without an action")
    name = rest[0]
    if name not in ACTIONS:
        import difflib

        near = difflib.get_close_matches(name, ACTIONS, 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"`cvs store` has no action {name!r}{hint}", hint="`cvs store --help` lists them"
        )
    module = importlib.import_module(f"cvs.store_{name}")
    code: int = module.run([*leading, *rest[1:]])
    return code
