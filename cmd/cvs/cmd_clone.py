"""`cvs clone`: copy a spec under a new name."""

from cvs import project
from cvs.cli import Parser, Session
from cvs.store import document
from cvs.versions import spec as specs

EXAMPLES = """\
  cvs clone wan-demo wan-test
  cvs clone wan-demo wan-test --output other/wan-test.json
"""


def parser() -> Parser:
    """The options."""
    found = Parser("clone", "Copy a spec under a new name; nothing else is copied.", EXAMPLES)
    found.version_argument("the spec to copy")
    found.add_argument("new", metavar="NEW", help="the new version's name")
    found.add_argument("--output", metavar="FILE", help="the new spec's file")
    found.add_argument("--force", action="store_true", help="replace an existing spec")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    specs.check_version_id(options.new, "the new version")
    spec = project.load_spec(session)
    data = {**document.load(spec.file), "version_id": options.new}
    path = options.output or session.settings.spec_file(options.new, options.versions_dir)
    specs.parse(data, path)
    project.write_spec(path, data, replace=options.force)
    session.result(
        {"version": options.new, "file": path, "from": spec.version_id},
        f"wrote {path}, a copy of {spec.version_id}",
    )
    return 0
