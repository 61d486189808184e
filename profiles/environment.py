"""The environment of a wheel set: a virtual environment of links on a local disk.

Disposable: made from the store alone, without uv and without a network, and made again when it
is gone. Its name covers what it was made from, so that it is never changed, only dropped.

    pyvenv.cfg
    bin/python → the interpreter        bin/<script> → the wheel's entry
    lib/python3.X/site-packages/…       real folders, links to files and to whole folders

Wheels that the volume keeps as packs are unpacked beside the environments, in `wheels/`.

A whole folder is one link instead of hundreds, and made as much quicker. Seen through such a
link `..` leads into the entry, where other wheels are not: libraries that look for others beside
them (`$ORIGIN/../../nvidia/…`) would not find them. So only folders that one wheel has alone are
linked whole: of a wheel whose libraries look for nothing outside of it all, of another one those
in which nothing can be a library or program.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from typing import NamedTuple, TypeGuard

from cvs.profiles import native, pip_shim
from cvs.store import damage, fs, manifest, refs, tree, unpacked
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, InputError, IntegrityError, StoreError
from cvs.store.progress import SILENT, Progress
from cvs.store.scratch import Scratch, put, sweep
from cvs.versions import interpreter
from cvs.versions.interpreter import Probe
from cvs.versions.lock import Interpreter

#: The version of the layout above.
LAYOUT = 3

#: Where wheels are unpacked, beside the environments.
_WHEELS = "wheels"

#: The file that is written last: an environment with it is whole. Says what it was made from: the
#: wheel set, and on a line each the wheels that were unpacked for it.
MARKER = ".cvs"

#: Top-level folders and files that wheels ship by mistake and nobody imports; where two differ,
#: the first of them stays. Elsewhere two files in one place are an error.
CLUTTER = frozenset(
    {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmark", "benchmarks"}
)

#: How the names of what is being made begin.
_NEW = ".new-"


class Environment(NamedTuple):
    """An environment that is ready."""

    path: str
    python: str
    """Its interpreter."""


class _Origin(NamedTuple):
    """Where a path of an environment comes from."""

    node: tree.File | tree.Link
    path: str
    """Its path in the tree."""
    root: str
    """The absolute path of the tree."""
    wheel: str
    """The name of the tree, for messages."""


def ensure(
    store: Store,
    wheel_set: EntryId,
    locked: Interpreter,
    python: str,
    local_root: str,
    progress: Progress = SILENT,
    *,
    provided: Sequence[str] = (),
    overlaps: Sequence[str] = (),
) -> Environment:
    """The environment of a wheel set, made if it is not there.

    Two processes may do this at once: one of them wins and both have it.

    Args:
        locked: the interpreter that the set was chosen for.
        python: the interpreter that will run; never that of a virtual environment.
        local_root: a folder on a disk of this host.
        provided: requirements that the interpreter meets by itself. With any, the environment sees
            the interpreter's own packages behind those of the set.
        overlaps: as `plan`.

    Raises:
        InputError: the interpreter does not fit or lacks what it should provide, or two wheels
            have different files in one place.
        IntegrityError: an entry is missing or damaged.
    """
    probe = interpreter.probe(python)
    interpreter.check(locked, probe.interpreter)
    interpreter.check_provided(probe.executable, provided)
    parent = os.path.join(local_root, "environments")
    key = refs.key(
        *(str(LAYOUT), wheel_set, probe.executable, probe.version, store.volume.root),
        *(["provided"] if provided else []),
        *(["overlaps", *overlaps] if overlaps else []),
    )
    made = Environment(
        os.path.join(parent, key[:32]), os.path.join(parent, key[:32], "bin", "python")
    )
    unpacked.clean(os.path.join(parent, _WHEELS))
    if is_whole(made.path):
        return made
    documents = members(store, wheel_set)
    try:
        fs.makedirs(parent)
        sweep(parent, _NEW)
        trees = unpacked.ensure(store, documents, os.path.join(parent, _WHEELS), progress)
        roots = {
            entry: trees.get(entry) or os.path.join(store.path(entry), document.name)
            for entry, document in documents.items()
        }
        minor = ".".join(probe.version.split(".")[:2])
        files = plan(documents, roots, minor, overlaps=overlaps)
        alone = frozenset(
            document.name
            for entry, document in documents.items()
            if native.stands_alone(store.volume, entry, document, roots[entry])
        )
        with Scratch(parent, _NEW) as scratch:
            _build(
                scratch.folder,
                files,
                alone,
                probe,
                [wheel_set, *sorted(trees)],
                system=bool(provided),
            )
            put(scratch.folder, made.path, lambda: is_whole(made.path), _NEW)
    except OSError as error:
        raise StoreError(f"no environment can be made in {parent}: {error.strerror}") from None
    return made


def is_whole(path: str) -> bool:
    """Whether an environment is there, and what was unpacked for it.

    The quick way out of a realize with nothing to do looks at the same markers.
    """
    try:
        with open(os.path.join(path, MARKER), encoding="ascii") as file:
            wheels = file.read().split("\n")[1:-1]
    except (OSError, UnicodeDecodeError):
        return False
    folder = os.path.join(os.path.dirname(path), _WHEELS)
    return all(unpacked.is_made(folder, EntryId(wheel)) for wheel in wheels)


def members(store: Store, wheel_set: EntryId) -> dict[EntryId, manifest.TreeManifest]:
    """The wheels of a set and their manifests.

    Raises:
        IntegrityError: as `ensure`.
    """
    try:
        whole = store.manifest(wheel_set)
        assert isinstance(whole, manifest.SetManifest)
        documents = {entry: store.manifest(entry) for entry in whole.members}
    except EntryMissing as error:
        raise IntegrityError(error.message, hint="`cvs realize` fetches what is missing") from None
    except IntegrityError as error:
        raise IntegrityError(error.message, hint=error.hint) from None
    except OSError as error:
        raise StoreError(f"the store cannot be read: {error.strerror}") from None
    damage.refuse(store.volume, [wheel_set, *documents])
    return {entry: document for entry, document in documents.items() if _is_tree(document)}


def plan(
    documents: Mapping[EntryId, manifest.TreeManifest],
    roots: Mapping[EntryId, str],
    minor: str,
    *,
    overlaps: Sequence[str] = (),
) -> dict[str, _Origin]:
    """What an environment consists of: path in it → file of a wheel.

    Args:
        documents: the manifests of its wheels.
        roots: the absolute paths of their trees.
        overlaps: patterns of paths, `bin/*` or `site-packages/cv2/*`, where `*` stands for any
            text: there the wheel that is first by name has its file and the others do not. The
            bytecode of a module goes with it.

    Raises:
        InputError: as `ensure`.
    """
    packages = f"lib/python{minor}/site-packages"
    reserved = {"bin/python", "bin/python3", f"bin/python{minor}", "pyvenv.cfg", MARKER}
    found: dict[str, _Origin] = {}
    lost: set[tuple[str, str]] = set()
    wheels = sorted((document.name, entry) for entry, document in documents.items())
    for name, entry in wheels:
        root, document = roots[entry], documents[entry]
        for node in document.nodes:
            if isinstance(node, tree.Folder):
                continue
            raw = node.path if "%" not in node.path else os.fsdecode(tree.unquote(node.path))
            inside = raw.removeprefix("site-packages/")
            path = raw if len(inside) == len(raw) else f"{packages}/{inside}"
            origin = _Origin(node, raw, root, name)
            other = found.setdefault(path, origin)
            if other is origin or _alike(other.node, node) or _is_clutter(inside):
                continue
            short = path if path == raw else f"site-packages/{inside}"
            if not _may_overlap(short, overlaps):
                module = _module(path)
                raise _clash(module or path, other.wheel, name, _module(short) or short)
            lost.add((path, name))
    for path in sorted(reserved.intersection(found)):
        raise InputError(f"{found[path].wheel} has the file {path}, which every environment has")
    _check_folders(found)
    for path, origin in found.items() if lost else ():
        module = _module(path)
        if (module, origin.wheel) in lost:
            # Python would run this bytecode in place of the module that stays.
            raise _clash(module, found[module].wheel, origin.wheel)
    return found


def links(found: Mapping[str, _Origin], alone: frozenset[str], minor: str) -> dict[str, str]:
    """The links of an environment: path in it → absolute target, a file or a whole folder.

    Args:
        alone: the wheels whose libraries look for nothing outside of them.
    """
    real = _real_folders(found, alone, minor)
    outermost: dict[str, str] = {}
    made: dict[str, str] = {}
    for path, origin in found.items():
        folder = _parent(path)
        top = outermost.get(folder)
        if top is None:
            top, above = "", folder
            while above not in real:
                top, above = above, _parent(above)
            outermost[folder] = top
        if not top:
            made[path] = f"{origin.root}/{origin.path}"
        elif top not in made:
            made[top] = f"{origin.root}/{origin.path[: len(top) - len(path)]}"
    return made


def _real_folders(found: Mapping[str, _Origin], alone: frozenset[str], minor: str) -> set[str]:
    """The folders that are no links: shared by wheels, or around what may look for others."""
    real = {"", "bin", "lib", f"lib/python{minor}", f"lib/python{minor}/site-packages"}
    owners: dict[str, str] = {}
    for path, origin in found.items():
        folder, harmless = _parent(path), origin.wheel in alone or native.is_harmless(path)
        while folder not in real:
            if harmless and owners.get(folder) == origin.wheel:
                break
            if owners.setdefault(folder, origin.wheel) != origin.wheel or not harmless:
                real.add(folder)
            folder = _parent(folder)
    return real


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _is_tree(document: manifest.Manifest) -> TypeGuard[manifest.TreeManifest]:
    return isinstance(document, manifest.TreeManifest)


def _alike(one: tree.File | tree.Link, other: tree.File | tree.Link) -> bool:
    """Whether it makes no difference which of two nodes lies in a place."""
    if isinstance(one, tree.File) and isinstance(other, tree.File):
        return (one.digest, one.executable) == (other.digest, other.executable)
    return (
        isinstance(one, tree.Link) and isinstance(other, tree.Link) and one.target == other.target
    )


def _is_clutter(inside: str) -> bool:
    top, slash, _ = inside.partition("/")
    return top.lower() in CLUTTER if slash else not top.endswith((".py", ".pth", ".so"))


def _may_overlap(path: str, overlaps: Sequence[str]) -> bool:
    """Whether a file, or the module that it is the bytecode of, lies where wheels may differ."""
    paths = (path, _module(path))
    return any(fnmatchcase(one, pattern) for one in paths for pattern in overlaps)


def _module(path: str) -> str:
    """The module that a file is the bytecode of; "" for any other file."""
    folder, _, name = path.rpartition("/")
    stem = name.removesuffix(".pyc").rpartition(".")[0]
    if not name.endswith(".pyc") or not stem or not folder.endswith("/__pycache__"):
        return ""
    return f"{_parent(folder)}/{stem}.py"


def _clash(path: str, first: str, second: str, short: str = "") -> InputError:
    # Of the builds of OpenCV the headless one runs everywhere, the other needs libGL.
    left_out = second if "headless" in first else first
    package = left_out.rsplit("-", 2)[0]
    return InputError(
        f"the wheels {first} and {second} have different files in one place: {path}",
        hint=f"only one of them can be there; without {package}, in the spec: "
        f'"python": {{"overrides": ["{package}; python_version < \'3\'"]}}'
        + (f'; or both with the file of {first}: "overlaps": ["{escape(short)}"]' if short else ""),
    )


def _check_folders(found: Mapping[str, _Origin]) -> None:
    """Refuses a path that is a file of one wheel and a folder of another."""
    seen: set[str] = {""}
    for path, origin in found.items():
        folder = _parent(path)
        while folder not in seen:
            if folder in found:
                raise _clash(folder, found[folder].wheel, origin.wheel)
            seen.add(folder)
            folder = _parent(folder)


def _build(
    root: str,
    files: Mapping[str, _Origin],
    alone: frozenset[str],
    probe: Probe,
    made_from: Sequence[EntryId],
    *,
    system: bool,
) -> None:
    # All files are synced: after a loss of power there is no marker on what is not whole. Links are
    # kept by the marker's own sync.
    minor = ".".join(probe.version.split(".")[:2])
    fs.write_synced(
        os.path.join(root, "pyvenv.cfg"),
        f"home = {os.path.dirname(probe.executable)}\n"
        f"include-system-site-packages = {str(system).lower()}\n"
        f"version = {probe.version}\n".encode(),
    )
    wanted = links(files, alone, minor)
    folders = {"bin", f"lib/python{minor}/site-packages"}
    folders.update(map(_parent, wanted))
    _make_folders(root, folders)
    fs.symlink(probe.executable, os.path.join(root, "bin", "python"))
    for name in ("python3", f"python{minor}"):
        fs.symlink("python", os.path.join(root, "bin", name))
    for path, target in wanted.items():
        fs.symlink(target, f"{root}/{path}")
    if not os.path.lexists(f"{root}/lib/python{minor}/site-packages/pip"):
        _add_pip(root, minor)
    text = "".join(f"{entry}\n" for entry in made_from)
    fs.write_synced(os.path.join(root, MARKER), text.encode())


def _add_pip(root: str, minor: str) -> None:
    """Gives the environment a pip that answers and changes nothing (`pip_shim`)."""
    package = f"{root}/lib/python{minor}/site-packages/pip"
    fs.mkdir(package)
    fs.write_synced(f"{package}/__init__.py", b"")
    with open(pip_shim.__file__, "rb") as file:
        fs.write_synced(f"{package}/__main__.py", file.read())
    script = b'#!/bin/sh\nexec "$(dirname -- "$0")/python" -m pip "$@"\n'
    for name in ("pip", "pip3"):
        with contextlib.suppress(FileExistsError):
            fs.write_synced(f"{root}/bin/{name}", script, 0o755)


def _make_folders(root: str, folders: Iterable[str]) -> None:
    made = {""}

    def make(folder: str) -> None:
        if folder not in made:
            make(_parent(folder))
            fs.mkdir(f"{root}/{folder}")
            made.add(folder)

    for folder in folders:
        make(folder)
