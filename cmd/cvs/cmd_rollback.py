"""`cvs rollback`: make an earlier generation current, in one flip."""

from cvs import project
from cvs.cli import Parser, Session
from cvs.profiles import realize

EXAMPLES = "  cvs rollback wan-demo\n  cvs rollback wan-demo 3\n"


def parser() -> Parser:
    """The options."""
    found = Parser(
        "rollback",
        "Switch to the generation before the current one, or to N. State, spec and lock stay "
        "as they are.",
        EXAMPLES,
    )
    found.version_argument()
    found.add_argument("number", nargs="?", type=int, metavar="N", help="the generation")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    profile = project.profile(session)
    before, after = realize.rollback(session.store, profile, session.options.number)
    text = f"{profile.version}: generation {after} is current"
    if before == after:
        text += ", as it was"
    else:
        text += f", {before} was; `cvs rollback {profile.version} {before}` goes back to it"
    session.result({"version": profile.version, "from": before, "to": after}, text)
    return 0
