"""`install.py` of a custom node: run once, in a copy; the tree that it leaves is what runs.

Only for nodes whose spec says `"run_install": true`, and in a sandbox: it writes into its copy
alone, and has no network. Around the copy lies what looks like ComfyUI, on this host's own disk:

    ComfyUI/main.py, …              copies of the core's top-level *.py, as in a view
    ComfyUI/comfy/, …               → the core's entry
    ComfyUI/models/  input/  …      empty folders, which go with the run
    ComfyUI/custom_nodes/<name>/    the copy, where it runs
    home/  tmp/                     HOME and TMPDIR

What it wrote is listed in the lock. That the same inputs give the same tree is up to the script:
a result is noted with the refs, so that it is made once on a volume, and where a lock has one that
is not there any more the next run has to give the same.
"""

import datetime
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
from blake3 import blake3

from cvs.profiles import environment, pip_shim, process, state
from cvs.store import damage, difference, fs, manifest, refs, sandbox, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import CvsError, InputError, IntegrityError, RunError, one_line
from cvs.store.ingest import chunks
from cvs.store.progress import Progress
from cvs.versions.lock import Commit, Installed, Lock, Python
from cvs.versions.spec import Source, Spec, digest

SCRIPT = "install.py"

#: The kind of the refs from inputs to a result.
_KIND = "install"

#: Seconds after which a script is given up.
PATIENCE = 1800.0

#: Lines of a log that are shown, and paths that are named in one message.
_SHOWN, _NAMED = 12, 4
#: Characters of such a line.
_WIDTH = 500

_RAISED = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)(?:: .*)?")

_PYCACHE = "__pycache__"

#: Folders of ComfyUI that a script finds empty, as those of a version never are the script's.
_EMPTY = ("models", *state.LINKED)

#: Of a file in which the place of the copy is looked for, at most so many bytes.
_SEARCHED = 64 << 20

_HINT = (
    "an install.py has no network and writes into its node's own folder alone: packages belong in "
    "python_packages of the spec, what it would download in models; without run_install it is "
    "not run"
)


class Setting(NamedTuple):
    """Where and with what scripts run."""

    store: Store
    python: str
    """The interpreter, never that of a virtual environment."""
    local_root: str
    progress: Progress


class _Place(NamedTuple):
    """What was laid out for one run."""

    folder: str
    """The scratch folder: all that may be written."""
    comfy: str
    node: str


def key(python: Python) -> str:
    """Digest of the wheels and the interpreter of a lock, for which a result holds."""
    wheels = sorted([one.file, one.sha256] for one in python.wheels)
    one = python.interpreter
    return digest([one.implementation, one.abi, one.platform, wheels, python.provided])


def is_done(store: Store, source: Source, commit: Commit, python: Python) -> bool:
    """Whether what an install.py makes is known, fits and is stored."""
    installed = commit.installed
    return bool(
        source.run_install
        and installed
        and installed.python == key(python)
        and store.has(installed.entry)
    )


def is_due(store: Store, source: Source, commit: Commit, python: Python) -> bool:
    """Whether a realize will run a node's install.py, as far as that can be told: a tree that is
    not stored yet may have none, and another version may have run it before."""
    if not source.run_install or is_done(store, source, commit, python):
        return False
    try:
        return _has_script(store, commit) and _noted(store, commit, python) is None
    except CvsError:
        return True


def complete(setting: Setting, spec: Spec, lock: Lock, wheel_set: EntryId) -> Lock:
    """Makes sure that what every wanted install.py makes is stored, and notes it in the lock.

    Args:
        wheel_set: the entry of the lock's wheels; they and the trees of its commits are stored.

    Raises:
        RunError: a script failed, took too long or left what cannot be stored, or there is no
            sandbox here.
        IntegrityError: it made another tree than the lock has; or an entry is damaged.
        EntryMissing: a tree is gone again.
    """
    nodes = tuple(
        _completed(setting, spec, lock, wheel_set, source, node)
        for source, node in zip(spec.nodes, lock.nodes, strict=True)
    )
    return lock if nodes == lock.nodes else msgspec.structs.replace(lock, nodes=nodes)


def _completed(
    setting: Setting, spec: Spec, lock: Lock, wheel_set: EntryId, source: Source, node: Commit
) -> Commit:
    store = setting.store
    if not source.run_install:
        return msgspec.structs.replace(node, installed=msgspec.UNSET)
    if is_done(store, source, node, lock.python):
        return node
    if not _has_script(store, node):
        setting.progress.warn(f"{source.where}: run_install is set, and there is no {SCRIPT}")
        return msgspec.structs.replace(node, installed=msgspec.UNSET)
    wanted = None
    if node.installed and node.installed.python == key(lock.python):
        wanted = node.installed.entry
    entry = _noted(store, node, lock.python)
    if entry is None or wanted not in (None, entry):
        entry = _run(setting, spec, lock, wheel_set, source, node)
        refs.put(store.volume, _KIND, _ref(node, lock.python), entry)
    if wanted not in (None, entry):
        raise IntegrityError(
            f"{source.where}: {SCRIPT} of {node.name} made the entry {entry[:16]}, the lock has "
            f"{wanted[:16]}",
            hint="it does not make the same of the same: "
            f"`cvs update {lock.version_id} --node {node.name}` takes what it made now",
        )
    return msgspec.structs.replace(node, installed=_installed(store, node, entry, lock.python))


def _noted(store: Store, node: Commit, python: Python) -> EntryId | None:
    """What the script made before on this volume, if that is stored."""
    entry = refs.get(store.volume, _KIND, _ref(node, python))
    return entry if entry is not None and store.has(entry) else None


def _ref(node: Commit, python: Python) -> str:
    return refs.key("install 1", node.entry, key(python))


def _has_script(store: Store, node: Commit) -> bool:
    document = _tree(store, node.entry)
    return any(isinstance(one, tree.File) and one.path == SCRIPT for one in document.nodes)


def _tree(store: Store, entry: EntryId) -> manifest.TreeManifest:
    document = store.manifest(entry)
    if not isinstance(document, manifest.TreeManifest):
        raise IntegrityError(f"entry {entry[:16]} is not a tree", hint=damage.cure(entry))
    return document


def _installed(store: Store, node: Commit, entry: EntryId, python: Python) -> Installed:
    before, after = _tree(store, node.entry), _tree(store, entry)
    return Installed(
        entry=entry,
        size=after.size,
        python=key(python),
        wrote=_outermost(before, after),
        removed=_outermost(after, before, only_gone=True),
    )


def _outermost(
    before: manifest.TreeManifest, after: manifest.TreeManifest, *, only_gone: bool = False
) -> tuple[str, ...]:
    """The paths of `after` that `before` has otherwise or not at all, ascending; of a folder that
    is new its own path, for all that is in it.

    Args:
        only_gone: leave out what `before` has otherwise.
    """
    known = {node.path for node in before.nodes}
    found: list[str] = []
    folders: set[str] = set()
    for change in difference.of_nodes(before.nodes, after.nodes):
        if change.after is None or (only_gone and change.path in known):
            continue
        is_folder = isinstance(change.after, tree.Folder)
        if is_folder:
            folders.add(change.path)
        if folders.isdisjoint(_parents(change.path)):
            found.append(f"{change.path}/" if is_folder else change.path)
    return tuple(found)


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _run(
    setting: Setting, spec: Spec, lock: Lock, wheel_set: EntryId, source: Source, node: Commit
) -> EntryId:
    """Runs a script and stores what it leaves."""
    store, what = setting.store, f"{source.where}: {SCRIPT} of {node.name}"
    sandbox.check(what)
    made = environment.ensure(
        store,
        wheel_set,
        lock.python.interpreter,
        setting.python,
        setting.local_root,
        setting.progress,
        provided=lock.python.provided,
        overlaps=spec.python.overlaps,
    )
    with (
        process.scratch(setting.local_root) as held,
        setting.progress.task(f"running {SCRIPT} of {node.name}", 1, "items") as task,
    ):
        place = _lay_out(store, os.path.realpath(held.folder), lock.core, node)
        before = _around(place)
        try:
            done = sandbox.run(
                [made.python, SCRIPT],
                what,
                folder=place.node,
                variables=_variables(place, made.python, node),
                writable=[place.folder],
                seconds=PATIENCE,
            )
        finally:
            _open_up(place)
        if done.code != 0:
            raise _failure(what, done, place)
        _tell(setting.progress, what, done, _lost(before, _around(place)))
        entry = _take(store, what, place, node)
        nodes = [_tree(store, one).nodes for one in (node.entry, entry)]
        _check_places(setting.progress, what, place, difference.of_nodes(*nodes))
        task.advance(1)
    return entry


def _lay_out(store: Store, folder: str, core: Commit, node: Commit) -> _Place:
    comfy = os.path.join(folder, "ComfyUI")
    place = _Place(folder, comfy, os.path.join(comfy, "custom_nodes", node.name))
    for path in (os.path.join(folder, "home"), os.path.join(folder, "tmp"), comfy):
        fs.mkdir(path)
    damage.refuse(store.volume, [core.entry, node.entry])
    _lay_out_core(os.path.join(store.path(core.entry), core.name), comfy)
    _copy(store, node, place.node)
    return place


def _lay_out_core(base: str, comfy: str) -> None:
    for name in (*_EMPTY, "custom_nodes"):
        fs.mkdir(os.path.join(comfy, name))
    with os.scandir(base) as items:
        for item in sorted(items, key=lambda one: one.name):
            if item.name in _EMPTY or item.name == "custom_nodes":
                continue
            target = os.path.join(comfy, item.name)
            if item.name.endswith(".py") and item.is_file(follow_symlinks=False):
                # ComfyUI takes its base path from where its modules really lie.
                with open(item.path, "rb") as file:
                    fs.write_file(target, file.read())
            else:
                fs.symlink(item.path, target)


def _copy(store: Store, node: Commit, target: str) -> None:
    """Copies a node's tree as its manifest says, every byte compared."""
    document = _tree(store, node.entry)
    source = os.fsencode(os.path.join(store.path(node.entry), document.name)) + b"/"
    root = os.fsencode(target) + b"/"
    fs.mkdir(target)
    # Ascending by path: a folder comes before what is in it.
    for one in document.nodes:
        path = tree.unquote(one.path)
        if isinstance(one, tree.Folder):
            fs.mkdir(root + path)
        elif isinstance(one, tree.Link):
            fs.symlink(os.fsdecode(tree.unquote(one.target)), root + path)
        else:
            hasher = blake3()
            descriptor = fs.create(root + path, 0o755 if one.executable else 0o644)
            try:
                for chunk in chunks(source + path):
                    hasher.update(chunk)
                    fs.write(descriptor, chunk)
            finally:
                fs.close(descriptor)
            if hasher.hexdigest() != one.digest:
                raise IntegrityError(
                    f"entry {node.entry[:16]} is damaged: {one.path} has other bytes",
                    hint=damage.cure(node.entry),
                )


def _variables(place: _Place, python: str, node: Commit) -> dict[str, str]:
    """What a script gets: of this process's variables PATH alone, since others hold secrets."""
    scripts = os.path.dirname(python)
    date = datetime.datetime.fromisoformat(node.date)
    return {
        "PATH": scripts + os.pathsep + os.environ.get("PATH", os.defpath),
        "VIRTUAL_ENV": os.path.dirname(scripts),
        "HOME": os.path.join(place.folder, "home"),
        "TMPDIR": os.path.join(place.folder, "tmp"),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "COMFYUI_PATH": place.comfy,
        # So that what it makes depends on nothing else.
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": str(int(date.timestamp())),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        # The processor alone: devices cannot be written.
        "CUDA_VISIBLE_DEVICES": "",
    }


def _failure(what: str, done: sandbox.Done, place: _Place) -> RunError:
    said = done.said.replace(f"{place.folder}/", "")
    lines = [line.rstrip()[:_WIDTH] for line in said.splitlines() if line.strip()]
    raised = next((line for line in reversed(lines) if _RAISED.fullmatch(line)), None)
    if done.code is None:
        end = f"did not end within {PATIENCE:.0f} s"
    elif done.code > 128:
        end = f"was ended by signal {done.code - 128}"
    else:
        end = f"ended with {done.code}"
    if pip_shim.REFUSED in lines:
        raised = pip_shim.REFUSED
    return RunError(
        "\n".join([f"{what} {end}" + (f": {raised}" if raised else ""), *lines[-_SHOWN:]]),
        hint=_HINT,
    )


def _tell(progress: Progress, what: str, done: sandbox.Done, lost: list[str]) -> None:
    """Warns of what a script wanted and did not get, though it says that all is well."""
    if pip_shim.REFUSED in done.said:
        progress.warn(
            f"{what} asked pip to install something, which was refused: packages belong in "
            "python_packages of the spec"
        )
    if lost:
        progress.warn(f"{what} wrote outside of its folder, which is not kept: {_some(lost)}")


def _some(paths: list[str]) -> str:
    named = ", ".join(one_line(path) for path in paths[:_NAMED])
    more = len(paths) - _NAMED
    return f"{named} and {more} more" if more > 0 else named


def _around(place: _Place) -> dict[str, tuple[int, ...]]:
    """What lies around the copy, as a view would have it: path → what changes with it."""
    found: dict[str, tuple[int, ...]] = {}
    for item in _walk(place.comfy, leave_out=place.node):
        is_folder = item.is_dir(follow_symlinks=False)
        status = item.stat(follow_symlinks=False)
        known = () if is_folder else (status.st_ino, status.st_size, status.st_mtime_ns)
        found[os.path.relpath(item.path, place.comfy)] = known
    return found


def _walk(root: str, leave_out: str = "") -> Iterator["os.DirEntry[str]"]:
    """All that lies below a folder, and a folder before what is in it; not what lies deeper than
    any tree may have it, nor what its folder does not show."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as items:
                found = [item for item in items if item.path != leave_out]
        except OSError:
            # Gone meanwhile: whoever goes through it may remove it.
            continue
        for item in found:
            yield item
            if item.is_dir(follow_symlinks=False) and len(item.path) - len(root) < tree.PATH_LIMIT:
                waiting.append(item.path)


def _open_up(place: _Place) -> None:
    """Takes folders back that a script closed, its own user's too."""
    fs.chmod(place.folder, 0o755)
    for item in _walk(place.folder):
        if item.is_dir(follow_symlinks=False):
            if item.stat(follow_symlinks=False).st_mode & 0o700 != 0o700:
                fs.chmod(item.path, 0o755)


def _lost(before: Mapping[str, tuple[int, ...]], after: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What was made or changed around the copy; empty folders are nothing that is missed."""
    return sorted(path for path, known in after.items() if known and before.get(path) != known)


def _take(store: Store, what: str, place: _Place, node: Commit) -> EntryId:
    """Stores the tree that a script left."""
    try:
        if os.path.realpath(place.node) != place.node or not os.path.isdir(place.node):
            raise InputError("its folder is gone")
        _drop_bytecode(store, place, node)
        return store.add(place.node, name=node.name, sha256=False)
    except InputError as error:
        # Also a TreeError.
        said = error.message.replace(place.node + "/", "")
        raise RunError(f"{what} left what cannot be stored: {said}", hint=error.hint) from None


def _drop_bytecode(store: Store, place: _Place, node: Commit) -> None:
    """Removes the folders of bytecode that came: they differ from run to run."""
    kept = {tree.unquote(one.path) for one in _tree(store, node.entry).nodes}
    for item in _walk(place.node):
        inside = os.fsencode(os.path.relpath(item.path, place.node))
        if item.name == _PYCACHE and item.is_dir(follow_symlinks=False) and inside not in kept:
            fs.remove_tree(item.path)


def _check_places(
    progress: Progress, what: str, place: _Place, changes: Iterable[difference.Change]
) -> None:
    """Warns of files that name the copy: the node will lie elsewhere."""
    needle = os.fsencode(place.folder)
    found = []
    for change in changes:
        if isinstance(change.after, tree.File) and change.after.size <= _SEARCHED:
            path = os.path.join(os.fsencode(place.node), tree.unquote(change.path))
            with open(path, "rb") as file:
                if needle in file.read():
                    found.append(change.path)
    if found:
        progress.warn(f"{what} wrote the path that it ran in, which is gone, into {_some(found)}")
