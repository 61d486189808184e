"""`cvs delete`: remove a version's generations and lock; its entries go at a collection."""

import os

from cvs import project
from cvs.cli import Parser, Session
from cvs.profiles import home, state
from cvs.profiles.generations import Profile
from cvs.store import fs, leases, reserve
from cvs.store.errors import InputError
from cvs.store.scratch import Scratch, sweep
from cvs.store.volume import Volume

EXAMPLES = """\
  cvs delete wan-demo
  cvs delete wan-demo --remove-spec
  cvs delete wan-demo --purge-state
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "delete",
        "Remove a version's generations, its lock and the COMFY_HOME link to it. Its state "
        "(output, input, user data) stays unless --purge-state is given.",
        EXAMPLES,
    )
    found.version_argument()
    found.add_argument("--target", metavar="DIR", help="in place of COMFY_HOME")
    found.add_argument("--remove-spec", action="store_true", help="remove the spec as well")
    found.add_argument("--purge-state", action="store_true", help="remove output and user data too")
    found.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    found.add_argument("--force", action="store_true", help="although it is in use")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    profile = project.profile(session)
    version = profile.version
    lock = os.path.join(session.volume.resolved, f"{version}.lock.json")
    spec = project.spec_file(session)
    kept = state.folder(session.volume, version)
    link = session.settings.comfy_home(version, options.target)
    going = [path for path in (profile.folder, lock) if os.path.lexists(path)]
    if home.version_at(link, session.volume.profiles) == version:
        going.append(link)
    if options.remove_spec and os.path.lexists(spec):
        going.append(spec)
    if options.purge_state and os.path.isdir(kept):
        going.append(kept)
    if not going:
        raise InputError(f"there is nothing of {version!r} to delete", hint="`cvs list` shows all")
    with reserve.within(session.volume.reserve):
        if not options.force:
            _refuse_in_use(session.volume, version)
        if not options.dry_run:
            _delete(profile, [path for path in going if path != profile.folder])
    word = "would remove" if options.dry_run else "removed"
    lines = [f"{word} {path}" for path in going]
    if os.path.isdir(kept) and not options.purge_state:
        lines.append(f"kept {kept} (output and user data): --purge-state removes it")
    result = {"version": version, "removed": going, "dry_run": options.dry_run}
    session.result(result, "\n".join(lines))
    return 0


def _refuse_in_use(volume: Volume, version: str) -> None:
    held = leases.held(volume)
    count = sum(record.version == version and age < leases.LIVE for _, record, age in held)
    if count:
        raise InputError(
            f"{version} is in use by {count} running process(es)",
            hint="end them first, or --force",
        )


def _delete(profile: Profile, others: list[str]) -> None:
    """Links first, then what they lead to."""
    sweep(profile.volume.tmp)
    for path in others:
        if os.path.islink(path):
            fs.unlink(path)
    fs.remove_tree(profile.current_link)
    if os.path.isdir(profile.folder):
        # Out of sight in one rename; a killed delete leaves nothing that looks realized.
        with Scratch(profile.volume.tmp) as trash:
            fs.rename(profile.folder, os.path.join(trash.folder, profile.version))
    for path in others:
        fs.remove_tree(path)
