"""`cvs why`: who needs a Python package of a version's lock."""

from typing import Any

import msgspec

from cvs import project
from cvs.cli import Parser, Session, size, table
from cvs.versions import why
from cvs.versions.lock import Wheel
from cvs.versions.why import Link

EXAMPLES = """\
  cvs why wan-demo numpy
  cvs why wan-demo opencv-python --json
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "why",
        "Show who needs a Python package: every chain from the core, a node or python_packages to "
        "it, the shortest first, as the lock has them; and where its wheel comes from. Asks "
        "nobody.",
        EXAMPLES,
    )
    found.version_argument()
    found.add_argument("package", metavar="PACKAGE", help="the name of the package")
    found.add_argument("--lock-file", metavar="FILE", help="the lock, instead of its place")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    lock = project.load_lock(session, project.version_id(session))
    name = project.locked_package(lock, session.options.package)
    found = why.why(lock, name)
    assert found is not None  # The package is in the lock.
    data: dict[str, Any] = {
        "package": name,
        "wheel": msgspec.to_builtins(found.wheel),
        "chains": msgspec.to_builtins(found.chains),
        "complete": found.complete,
    }
    lines = [f"{name} {found.wheel.version}", _origin(found.wheel), ""]
    lines += [" → ".join(map(_link, chain)) for chain in found.chains]
    if not found.chains and not found.complete:
        lines.append("it is needed through more packages than can be told")
    elif not found.chains:
        lines.append("neither the core nor a node nor python_packages needs it")
        if found.wheel.required_by:
            lines.append(f"it is named by: {', '.join(found.wheel.required_by)}")
    elif not found.complete:
        lines.append(f"… there are more than these {len(found.chains)}")
    session.result(data, "\n".join(lines))
    return 0


def _origin(wheel: Wheel) -> str:
    """What the lock says of the wheel itself, a line each."""
    told = msgspec.to_builtins(wheel)
    told |= {"url": wheel.url or "a folder of wheels", "size": size(wheel.size)}
    if wheel.built is not None:
        tools = " ".join(f"{one.name}=={one.version}" for one in wheel.built.requires)
        told |= {
            "url": wheel.built.url or "a folder of this machine",
            "built": wheel.built.shown,
            "built with": " ".join(filter(None, (tools, wheel.built.compiler))),
        }
    others = ("name", "version", "required_by")
    return table([(name, str(text)) for name, text in told.items() if text and name not in others])


def _link(link: Link) -> str:
    if link.kind == "package":
        return f"{link.name} {link.version}"
    return link.name if link.kind == "python_packages" else f"{link.kind} {link.name}"
