"""`cvs doctor`: whether the volume, the seal and this machine's tools are as they should be."""

import msgspec

from cvs import project
from cvs.cli import Parser, Session
from cvs.profiles import doctor

EXAMPLES = "  cvs doctor\n  cvs doctor --json\n"


def parser() -> Parser:
    """The options."""
    found = Parser(
        "doctor",
        "Look at the volume, its file system and space, the seal, the local root, Python, uv and "
        "git, leftovers of killed processes, and entries that were found damaged. Each is fine, "
        "degraded (cvs works, with less than it could) or broken, with what to do. Makes one "
        "folder in tmp/ of the volume, which it removes, and changes nothing else. Ends with 1 "
        "if something is broken.",
        EXAMPLES,
    )
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    subject = doctor.Subject(
        volume=session.volume,
        local_root=session.settings.local_root,
        chosen=project.chosen_python(session),
    )
    found = list(doctor.examine(subject))
    count = {state: sum(one.state == state for one in found) for state in ("degraded", "broken")}
    worst = next((state for state in ("broken", "degraded") if count[state]), "fine")
    data = {"state": worst, "findings": [msgspec.to_builtins(one) for one in found]}
    width = max(len(one.name) for one in found)
    lines = []
    for one in found:
        lines.append(f"{one.state:<8}  {one.name:<{width}}  {one.text}")
        if one.cure:
            lines.append(f"{'':<8}  {'':<{width}}  → {one.cure}")
    parts = [f"{number} {state}" for state, number in count.items() if number]
    lines.append(", ".join(parts) if parts else "all is fine")
    session.result(data, "\n".join(lines))
    return 1 if count["broken"] else 0
