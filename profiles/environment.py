"""The environment of a wheel set: a virtual environment of links on a local disk.

Disposable: made from the store alone, without uv and without a network, and made again when it
is gone. Its name covers what it was made from, so that it is never changed, only dropped.

    pyvenv.cfg
    bin/python → the interpreter       bin/<script> → the wheel's entry
    lib/python3.X/site-packages/…      real folders, linked files

Every file is a link of its own in a real folder. A link to a whole package folder would be
quicker to make, but what looks for a neighbour through `..` (libraries of other wheels, first of
all) would look for it inside the store, and what removes or adds files in the environment (pip,
a stray .pyc) would do so to an entry.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeGuard

from cvs.store import fs, manifest, refs, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store, content_path
from cvs.store.errors import EntryMissing, InputError, IntegrityError, StoreError
from cvs.versions import interpreter
from cvs.versions.interpreter import Probe
from cvs.versions.lock import Interpreter

#: The version of the layout above.
LAYOUT = 1

#: The file that is written last: an environment with it is whole. Says what it was made from.
MARKER = ".cvs"

#: Top-level folders and files that wheels ship by mistake and nobody imports; where two differ,
#: the first of them stays. Elsewhere two files in one place are an error.
_CLUTTER = frozenset(
    {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmark", "benchmarks"}
)
_TEXTS = (".txt", ".md", ".rst")

#: Seconds after which a half-made environment belongs to nobody any more.
_ABANDONED = 24 * 3600


class Environment(NamedTuple):
    """An environment that is ready."""

    path: str
    python: str
    """Its interpreter."""


class _Origin(NamedTuple):
    """Where a path of an environment comes from."""

    node: tree.File | tree.Link
    target: str
    """Absolute path of the entry's file."""
    wheel: str
    """The name of its tree, for messages."""


def ensure(
    store: Store, wheel_set: EntryId, locked: Interpreter, python: str, local_root: str
) -> Environment:
    """The environment of a wheel set, made if it is not there.

    Two processes may do this at once: one of them wins and both have it.

    Args:
        locked: the interpreter that the set was chosen for.
        python: the interpreter that will run; never that of a virtual environment.
        local_root: a folder on a disk of this host.

    Raises:
        InputError: the interpreter does not fit, or two wheels have different files in one place.
        IntegrityError: an entry is missing or damaged.
    """
    probe = interpreter.probe(python)
    interpreter.check(locked, probe.interpreter)
    parent = os.path.join(local_root, "environments")
    key = refs.key(str(LAYOUT), wheel_set, probe.executable, probe.version, store.volume.root)
    made = Environment(
        os.path.join(parent, key[:32]), os.path.join(parent, key[:32], "bin", "python")
    )
    if os.path.exists(os.path.join(made.path, MARKER)):
        return made
    files = plan(store, wheel_set, ".".join(probe.version.split(".")[:2]))
    fs.makedirs(parent)
    _drop_abandoned(parent)
    staged = os.path.join(parent, f".new-{fs.unique()}")
    fs.mkdir(staged)
    try:
        _build(staged, files, probe, wheel_set)
        try:
            fs.rename(staged, made.path)
        except OSError:
            if not os.path.exists(os.path.join(made.path, MARKER)):
                raise
    finally:
        fs.remove_tree(staged)
    return made


def plan(store: Store, wheel_set: EntryId, minor: str) -> dict[str, _Origin]:
    """What an environment consists of: path in it → file in the store. Reads manifests alone.

    Raises:
        InputError, IntegrityError: as `ensure`.
    """
    try:
        whole = store.manifest(wheel_set)
        assert isinstance(whole, manifest.SetManifest)
        documents = {entry: store.manifest(entry) for entry in whole.members}
    except EntryMissing as error:
        raise IntegrityError(error.message, hint="`cvs realize` fetches what is missing") from None
    except IntegrityError as error:
        raise IntegrityError(error.message, hint="`cvs store verify` names it all") from None
    except OSError as error:
        raise StoreError(f"the store cannot be read: {error.strerror}") from None
    packages = f"lib/python{minor}/site-packages"
    reserved = {"bin/python", "bin/python3", f"bin/python{minor}", "pyvenv.cfg", MARKER}
    found: dict[str, _Origin] = {}
    wheels = [(one.name, entry, one) for entry, one in documents.items() if _is_tree(one)]
    for name, entry, document in sorted(wheels):
        root = os.path.join(store.volume.store, content_path(entry, document))
        for node in document.nodes:
            if isinstance(node, tree.Folder):
                continue
            raw = os.fsdecode(tree.unquote(node.path))
            top, slash, rest = raw.partition("/")
            path = f"{packages}/{rest}" if top == "site-packages" and slash else raw
            origin = _Origin(node, f"{root}/{raw}", name)
            other = found.setdefault(path, origin)
            if path in reserved:
                raise InputError(f"{name} has the file {path}, which every environment has")
            if other is not origin and not _alike(other.node, node) and not _is_clutter(path, rest):
                raise _clash(path, other.wheel, name)
    _check_folders(found)
    return found


def _is_tree(document: manifest.Manifest) -> TypeGuard[manifest.TreeManifest]:
    return isinstance(document, manifest.TreeManifest)


def _alike(one: tree.File | tree.Link, other: tree.File | tree.Link) -> bool:
    """Whether it makes no difference which of two nodes lies in a place."""
    if isinstance(one, tree.File) and isinstance(other, tree.File):
        return (one.digest, one.executable) == (other.digest, other.executable)
    return (
        isinstance(one, tree.Link) and isinstance(other, tree.Link) and one.target == other.target
    )


def _is_clutter(path: str, inside: str) -> bool:
    top, slash, _ = inside.partition("/")
    return (top.lower() in _CLUTTER) if slash else not path.endswith((".py", ".so", ".pth"))


def _clash(path: str, first: str, second: str) -> InputError:
    return InputError(
        f"the wheels {first} and {second} have different files in one place: {path}",
        hint="only one of them can be there: leave one out, "
        "with an override such as \"name; python_version < '3'\"",
    )


def _check_folders(found: Mapping[str, _Origin]) -> None:
    """Refuses a path that is a file of one wheel and a folder of another."""
    for path, origin in found.items():
        parent = os.path.dirname(path)
        while parent:
            if parent in found:
                raise _clash(parent, found[parent].wheel, origin.wheel)
            parent = os.path.dirname(parent)


def _build(root: str, files: Mapping[str, _Origin], probe: Probe, wheel_set: EntryId) -> None:
    minor = ".".join(probe.version.split(".")[:2])
    fs.write_file(
        os.path.join(root, "pyvenv.cfg"),
        f"home = {os.path.dirname(probe.executable)}\n"
        "include-system-site-packages = false\n"
        f"version = {probe.version}\n".encode(),
    )
    folders = {"bin", f"lib/python{minor}/site-packages"}
    folders.update(map(os.path.dirname, files))
    _make_folders(root, folders)
    fs.symlink(probe.executable, os.path.join(root, "bin", "python"))
    for name in ("python3", f"python{minor}"):
        fs.symlink("python", os.path.join(root, "bin", name))
    for path, origin in files.items():
        fs.symlink(origin.target, f"{root}/{path}")
    fs.write_file(os.path.join(root, MARKER), f"{wheel_set}\n".encode())


def _make_folders(root: str, folders: Iterable[str]) -> None:
    made = {""}

    def make(folder: str) -> None:
        if folder not in made:
            make(os.path.dirname(folder))
            fs.mkdir(f"{root}/{folder}")
            made.add(folder)

    for folder in folders:
        make(folder)


def _drop_abandoned(parent: str) -> None:
    """Removes what runs that were killed left half-made."""
    with contextlib.suppress(OSError), os.scandir(parent) as scan:
        for item in scan:
            if item.name.startswith(".new-"):
                with contextlib.suppress(OSError):
                    if time.time() - item.stat(follow_symlinks=False).st_mtime > _ABANDONED:
                        fs.remove_tree(item.path)
