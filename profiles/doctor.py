"""The doctor: whether what cvs rests on is as it should be, and what to do where it is not.

A check is a function from a `Subject` to findings. It changes nothing, but in the one probe folder
that `examine` makes and removes. A further check is one more function in CHECKS.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import msgspec

from cvs.store import damage, fs, scratch, seal, unplugged
from cvs.store.digest import is_id
from cvs.store.errors import CvsError
from cvs.store.units import size
from cvs.store.volume import FOLDERS, Volume
from cvs.versions import interpreter

#: `degraded`: cvs works, with less than it could. `broken`: something of it does not work.
State = Literal["fine", "degraded", "broken"]

#: Less than this is little: free bytes, and files that may still be made. A torch and the packages
#: of a ComfyUI are 39,000 files.
LITTLE_SPACE = 2 << 30
FEW_FILES = 50_000

#: File systems that are gone with the machine or the container.
_PASSING = {
    "tmpfs": "in memory: it is gone with this machine",
    "overlay": "the container's own layer: it is gone with the container",
}

#: Damaged entries that are named, of any number.
_NAMED = 10

#: Seconds that a program may take to say its version.
_TIMEOUT = 60


class Finding(msgspec.Struct, frozen=True):
    """What one check found."""

    name: str
    state: State
    text: str
    cure: str = ""
    """What to do; empty where nothing has to be done, or can be."""


class Subject(NamedTuple):
    """What is looked at."""

    volume: Volume
    local_root: str
    chosen: interpreter.Chosen | None
    probe: str | None = None
    """A folder of its own in the volume's tmp/; None where the volume is not set up or cannot be
    written."""


Check = Callable[[Subject], Iterator[Finding]]


def examine(subject: Subject, checks: Sequence[Check] | None = None) -> Iterator[Finding]:
    """Runs checks, by default all, one after the other; what stops one is its finding."""
    with contextlib.ExitStack() as stack:
        if _is_ours(subject.volume) and os.path.isdir(subject.volume.tmp):
            try:
                probe = stack.enter_context(scratch.Scratch(subject.volume.tmp))
            except OSError as error:
                yield _unwritable(subject.volume.tmp, error)
            else:
                subject = subject._replace(probe=probe.folder)
        for check in CHECKS if checks is None else checks:
            try:
                yield from check(subject)
            except CvsError as error:
                yield Finding(_name(check), "broken", error.message, error.hint or "")
            except OSError as error:
                where = f": {os.fsdecode(error.filename)}" if error.filename else ""
                text = f"cannot be looked at: {error.strerror}{where}"
                yield Finding(_name(check), "broken", text)


def _is_ours(volume: Volume) -> bool:
    """Whether a volume is set up, with a layout that may be written to."""
    try:
        volume.check()
    except (CvsError, OSError):
        return False
    return volume.exists()


def _name(check: Check) -> str:
    return getattr(check, "__name__", "check").replace("_", " ").strip()


def _unwritable(path: str, error: OSError) -> Finding:
    cure = "give this user the right to write there, or name another volume with COMFY_CACHE_ROOT"
    return Finding("writing", "broken", f"{path} cannot be written: {error.strerror}", cure)


# The volume


def volume(subject: Subject) -> Iterator[Finding]:
    """Its place and layout."""
    root = subject.volume.root
    cure = "COMFY_CACHE_ROOT names another place"
    parent = _existing(root)
    if not os.path.isdir(parent):
        yield Finding("volume", "broken", f"{root}: {parent} is not a folder", cure)
        return
    subject.volume.check()
    if not subject.volume.exists():
        if not os.access(parent, os.W_OK | os.X_OK):
            text = f"{root} is not set up and cannot be: {parent} cannot be written"
            yield Finding("volume", "broken", text, cure)
            return
        cure = f"`cvs realize` sets it up; if it should be there, {cure}"
        yield Finding("volume", "degraded", f"{root} is not set up yet", cure)
        return
    missing = [name for name in FOLDERS if not os.path.isdir(os.path.join(root, name))]
    if missing:
        text = f"{root}, layout {subject.volume.layout}: {', '.join(missing)} missing"
        yield Finding("volume", "degraded", text, "`cvs realize` makes what is missing")
        return
    devices = {os.stat(path).st_dev for path in (subject.volume.store, subject.volume.tmp)}
    if len(devices) > 1:
        text = f"store/ and tmp/ of {root} are on two file systems: nothing can be published"
        yield Finding("volume", "broken", text, "have both on one")
        return
    form = "packed" if subject.volume.packs_wheels else "unpacked"
    text = f"{root}, layout {subject.volume.layout}: wheels are kept {form}"
    yield Finding("volume", "fine", text)


def file_system(subject: Subject) -> Iterator[Finding]:
    """What kind it is of."""
    kind = subject.volume.filesystem
    if kind in _PASSING:
        cure = "name a folder on a disk or volume that stays with COMFY_CACHE_ROOT"
        yield Finding("file system", "degraded", f"{kind}, {_PASSING[kind]}", cure)
    elif subject.volume.syncs_at_once:
        yield Finding("file system", "fine", f"{kind}, a disk of this machine")
    else:
        late = f"{subject.volume.staleness:.0f} s"
        text = f"{kind or 'unknown'}, taken for a network file system: other machines' changes may "
        yield Finding("file system", "fine", f"{text}be seen {late} late, files are synced singly")


#: Of a file system that has 0 of 0 bytes, such as a cluster whose servers have not told yet.
_UNTOLD = "the file system does not say how much is free"


def space(subject: Subject) -> Iterator[Finding]:
    """Free bytes and files."""
    root = subject.volume.root
    cure = "free some: `cvs store du` says what needs how much"
    state, text, cure = _space(root, cure)
    if text != _UNTOLD and not subject.volume.syncs_at_once:
        text += (
            "; on a network file system that may be the whole cluster's, not what a quota leaves"
        )
    yield Finding("space", state, text, cure)


def _space(path: str, cure: str) -> tuple[State, str, str]:
    found = os.statvfs(_existing(path))
    if not found.f_blocks:
        return "fine", _UNTOLD, ""
    free = found.f_bavail * found.f_frsize
    text = f"{size(free)} free of {size(found.f_blocks * found.f_frsize)}"
    # Some file systems make files as long as there is space, and say 0 of 0.
    counted = found.f_files > 0
    if counted:
        text += f", {found.f_favail} more files"
    if free == 0 or (counted and found.f_favail == 0):
        return "broken", text, cure
    if free < LITTLE_SPACE or (counted and found.f_favail < FEW_FILES):
        return "degraded", text, cure
    return "fine", text, ""


def _existing(path: str) -> str:
    """The path, or its nearest parent that is there."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def writing(subject: Subject) -> Iterator[Finding]:
    """Whether files, links and modes can be made in the probe folder, and are kept."""
    if subject.probe is None:
        return
    try:
        fs.write_synced(f"{subject.probe}/plain", b"cvs", 0o444)
        fs.write_synced(f"{subject.probe}/executable", b"cvs", 0o555)
        fs.symlink("plain", f"{subject.probe}/link")
        fs.link(f"{subject.probe}/link", f"{subject.probe}/hard")
        fs.rename(f"{subject.probe}/hard", f"{subject.probe}/renamed")
        fs.sync_folder(subject.probe)
        kept = os.readlink(f"{subject.probe}/renamed") == "plain"
        with open(f"{subject.probe}/link", "rb") as file:
            kept = kept and file.read() == b"cvs"
    except OSError as error:
        yield _unwritable(subject.volume.root, error)
        return
    if not kept:
        text = "files or links are not there as they were written"
        yield Finding("writing", "broken", text, "use another volume")
        return
    yield Finding("writing", "fine", "files, links, hard links and renames work")
    bits = [
        bool(os.stat(f"{subject.probe}/{name}").st_mode & 0o111) for name in ("plain", "executable")
    ]
    if bits == [False, True]:
        yield Finding("modes", "fine", "kept")
    else:
        text = "not kept: cvs takes them from manifests, and read-only bits protect nothing"
        yield Finding("modes", "degraded", text)


def leftovers(subject: Subject) -> Iterator[Finding]:
    """What killed processes left in tmp/."""
    if not os.path.isdir(subject.volume.tmp):
        return
    found = [path for path in scratch.leftovers(subject.volume.tmp) if path != subject.probe]
    if not found:
        yield Finding("leftovers", "fine", "none in tmp/")
        return
    text = f"{len(found)} in tmp/, {size(sum(map(_bytes_below, found)))}"
    cure = "the next `cvs realize` removes what a killed process left"
    if not subject.volume.syncs_at_once:
        text += ", of killed processes or of other machines at work"
        cure += ", when it has not changed for a day"
    yield Finding("leftovers", "degraded", text, cure)


def _bytes_below(folder: str) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def damaged(subject: Subject) -> Iterator[Finding]:
    """Entries that were found damaged, and what repairs put aside."""
    if not subject.volume.exists():
        return
    folder = subject.volume.damaged
    marked = sorted(damage.marked(subject.volume))
    if marked:
        text = f"{len(marked)} entries were found damaged: {_some(marked)}"
        yield Finding("damaged", "broken", text, damage.cure(*marked[:_NAMED]))
    aside = [name for name in _names(folder) if is_id(name.partition(".")[0]) and "." in name]
    if aside:
        total = sum(_bytes_below(os.path.join(folder, name)) for name in aside)
        text = f"{len(aside)} damaged entries lie aside, {size(total)}"
        yield Finding("aside", "degraded", text, f"look at them in {folder}, then remove them")
    if not marked and not aside:
        yield Finding("damaged", "fine", "no entry is known to be; `cvs store verify` looks")


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _some(entries: Sequence[str]) -> str:
    shown = ", ".join(entry[:16] for entry in entries[:_NAMED])
    return f"{shown}, …" if len(entries) > _NAMED else shown


# This machine


def sealing(subject: Subject) -> Iterator[Finding]:
    """How far what runs is sealed off the store, and in a trial whether it is."""
    state = seal.state()
    if state.startswith("none"):
        cure = "Landlock needs Linux 5.13, better 6.2, and a container that allows it"
        yield Finding("seal", "degraded", f"{state}: what runs can write into the store", cure)
        return
    if subject.probe is not None and _writes_sealed(subject.probe):
        text = f"{state}, says the kernel, and yet a sealed process could write"
        yield Finding("seal", "broken", text, "run nothing here that you do not trust")
        return
    text = "full: nothing that runs can write into the store" if state == "full" else state
    cure = "" if state == "full" else "Linux 6.2 or newer covers it"
    yield Finding("seal", "fine" if state == "full" else "degraded", text, cure)


def _writes_sealed(folder: str) -> bool:
    """Whether a process that is sealed off a folder can make a file in it."""
    made = seal.make([folder], [])
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", "import sys; open(sys.argv[1], 'x')", "sealed"],
            cwd=folder,
            preexec_fn=made.apply,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    finally:
        made.close()
    return os.path.lexists(os.path.join(folder, "sealed"))


def sandboxing(subject: Subject) -> Iterator[Finding]:
    """Whether code that nobody has read can be run so that it does no harm: builds of packages and
    what nodes bring along."""
    missing = [state for state in (seal.state(), unplugged.state()) if state != "full"]
    if missing:
        cure = "it takes Landlock of Linux 6.2 and seccomp, and a container that allows both"
        text = f"there is none: {missing[0].removeprefix('none: ')}"
        yield Finding("sandbox", "degraded", text, cure)
    else:
        yield Finding("sandbox", "fine", "code of builds and nodes can be run in one")


def local_root(subject: Subject) -> Iterator[Finding]:
    """The place of environments and temporary files."""
    path, volume = subject.local_root, subject.volume
    cure = "name a folder on this machine's own disk with CVS_LOCAL_ROOT"
    real, root = os.path.realpath(path), os.path.realpath(volume.root)
    existing = _existing(path)
    kind = fs.filesystem_of(path)
    if not os.path.isdir(existing):
        yield Finding("local root", "broken", f"{path}: {existing} is not a folder", cure)
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding("local root", "broken", f"{existing} cannot be written", cure)
        return
    if real == root or real.startswith(root + "/"):
        yield Finding("local root", "degraded", f"{path} lies in the volume", cure)
        return
    if kind not in fs.SYNCFS_TYPES:
        text = f"{path} is on {kind or 'an unknown file system'}, taken for a network file system"
        yield Finding("local root", "degraded", text, cure)
        return
    state, text, _ = _space(path, "")
    what = f"{path} ({kind}), {text}"
    yield Finding("local root", state, what, "" if state == "fine" else cure)


def python(subject: Subject) -> Iterator[Finding]:
    """The interpreter that versions run on unless they ask for another."""
    found = interpreter.probe(interpreter.find(None, subject.chosen))
    text = f"{found.implementation} {found.version} at {found.executable}, {found.platform}"
    yield Finding("python", "fine", text)


def uv(subject: Subject) -> Iterator[Finding]:
    """What chooses wheels."""
    cure = "install cvs anew, uv comes with it"
    try:
        import uv as package

        path = os.fspath(package.find_uv_bin())
    except (ImportError, FileNotFoundError):
        text = "not found: no Python packages can be resolved"
        yield Finding("uv", "broken", text, cure)
        return
    yield _program("uv", path, cure)


def git(subject: Subject) -> Iterator[Finding]:
    """What fetches commits."""
    yield _program("git", "git", "install git, or put it on PATH")


def _program(name: str, path: str, cure: str) -> Finding:
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return Finding(name, "broken", f"{path} is not there", cure)
    except OSError as error:
        return Finding(name, "broken", f"{path} does not run: {error.strerror}", cure)
    except subprocess.TimeoutExpired:
        return Finding(name, "broken", f"{path} did not answer in {_TIMEOUT} s", cure)
    said = (done.stdout or done.stderr).strip().partition("\n")[0]
    if done.returncode != 0:
        return Finding(name, "broken", f"{path} does not run: {said}", cure)
    return Finding(name, "fine", f"{said} at {path}" if "/" in path else said)


#: In the order of the report.
CHECKS: tuple[Check, ...] = (
    volume,
    file_system,
    space,
    writing,
    leftovers,
    damaged,
    sealing,
    sandboxing,
    local_root,
    python,
    uv,
    git,
)
