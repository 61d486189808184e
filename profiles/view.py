"""The view: ComfyUI's own folder, made of links into the store.

Links, but for two things. The core's top-level `*.py` are copies: Python takes sys.path[0] and
ComfyUI its base path from the real path of main.py, and a linked one would look for nodes and
models inside the store. Folders that the lock adds something to are real folders of links.

    main.py, …                   copies
    comfy/, app/, …              → ../../../store/<core>/ComfyUI/…
    custom_nodes/<name>          → ../../../../store/<node>/<name>, or a private copy in state/
    models/checkpoints/x.…       → ../../../../../store/<model>/content.…
    input output temp user       → ../../../state/<version>/…
    web                          → ../../../state/<version>/web, or a private copy of the core's
    extra_model_paths.yaml       adds state/<version>/custom_nodes and the loose models
"""

import ast
import contextlib
import json
import os
import re
from collections.abc import Iterator

from cvs.profiles import state
from cvs.profiles.generations import Profile
from cvs.store import damage, fs
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError
from cvs.store.manifest import TreeManifest
from cvs.store.record import Place, Record
from cvs.store.scratch import Scratch
from cvs.store.tree import Folder, unquote

EXTRA_PATHS = "extra_model_paths.yaml"

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})

#: Top-level names that a view makes itself, whatever the core has there.
_OWN = frozenset({"custom_nodes", "models", EXTRA_PATHS, state.WEB, *state.LINKED})


@contextlib.contextmanager
def building(store: Store, record: Record) -> Iterator[str]:
    """Builds the view of a record in tmp/, complete and synced: its path, for `place`.

    Raises:
        InputError: a node or model has the name of one that the core brings along.
        EntryMissing, IntegrityError: an entry of the record is not usable.
    """
    damage.refuse(store.volume, record.entries)
    with Scratch(store.volume.tmp) as scratch:
        build(store, record, scratch.folder)
        fs.sync_tree(scratch.folder, store.volume.syncs_at_once)
        yield scratch.folder


def place(staged: str, path: str) -> None:
    """Renames a built view to its name; one that another host put there is as good."""
    try:
        fs.rename(staged, path)
    except OSError:
        if not os.path.isdir(path):
            raise


def ensure(store: Store, profile: Profile, number: int) -> str:
    """The view of a generation, built where it is missing. Raises what `building` raises."""
    path = profile.view(number)
    if not os.path.isdir(path):
        with building(store, profile.record(number)) as staged:
            place(staged, path)
    return path


def build(store: Store, record: Record, staged: str) -> None:
    """Builds the view of a record in a folder, for a place three folders below the volume.

    Raises:
        InputError, EntryMissing, IntegrityError: as `building`.
    """
    core = next(place for place in record.links if not place.path)
    base = os.path.join(store.volume.store, core.target)
    children = _children(store, core)
    top = children[""]
    for name in sorted(top):
        if name in _OWN:
            continue
        if name.endswith(".py") and name not in children:
            with open(os.path.join(base, name), "rb") as file:
                fs.write_file(os.path.join(staged, name), file.read())
        else:
            _link(staged, name, f"store/{core.target}/{name}")
    for folder in ("custom_nodes", "models"):
        added = {
            place.path: _source(record.version, place)
            for place in record.links
            if place.path.startswith(folder + "/")
        }
        _merge(staged, folder, f"store/{core.target}", children, added)
    # Nodes of old habits copy their scripts into web/, which newer cores do not have.
    web = f"{state.PRIVATE}/{state.private_web(core)}" if children.get(state.WEB) else state.WEB
    for name, target in (*((name, name) for name in state.LINKED), (state.WEB, web)):
        fs.symlink(f"../../../state/{record.version}/{target}", os.path.join(staged, name))
    folders = {name: [name] for name in children.get("models", ()) if f"models/{name}" in children}
    folders |= _folders_of_core(base)
    # A name that no line of a text can say is left to ComfyUI's own way of looking.
    folders = {
        name: paths
        for name, paths in folders.items()
        if all(text.isprintable() and text == text.strip() for text in (name, *paths))
    }
    text = extra_paths(record.version, folders, _knows_is_default(base))
    fs.write_file(os.path.join(staged, EXTRA_PATHS), text.encode())


def _children(store: Store, core: Place) -> dict[str, set[str]]:
    """The names in every folder of the core's tree, by the folder's path."""
    entry = EntryId(core.target.partition("/")[0])
    document = store.manifest(entry)
    if not isinstance(document, TreeManifest):
        raise IntegrityError(f"entry {entry[:16]} is not the tree of a core")
    children: dict[str, set[str]] = {"": set()}
    for node in document.nodes:
        path = os.fsdecode(unquote(node.path))
        parent, _, name = path.rpartition("/")
        children.setdefault(parent, set()).add(name)
        if isinstance(node, Folder):
            children.setdefault(path, set())
    return children


def _merge(
    staged: str, path: str, core: str, children: dict[str, set[str]], added: dict[str, str]
) -> None:
    """Makes a real folder that shows the core's children and what the lock adds below it."""
    fs.mkdir(os.path.join(staged, path))
    below = {place.removeprefix(path + "/"): target for place, target in added.items()}
    names = {relative.partition("/")[0] for relative in below}
    for name in sorted(children.get(path, set()) | names):
        here = f"{path}/{name}"
        inside = {place: target for place, target in added.items() if place.startswith(here + "/")}
        if here in added:
            if name in children.get(path, ()):
                raise InputError(f"{here} is part of ComfyUI itself, nothing can be put there")
            _link(staged, here, added[here])
        elif inside:
            _merge(staged, here, core, children, inside)
        else:
            _link(staged, here, f"{core}/{here}")


def _link(staged: str, path: str, target: str) -> None:
    """Links a path of the view to a path of the volume, as seen from profiles/<version>/<n>/."""
    up = "../" * (3 + path.count("/"))
    fs.symlink(up + target, os.path.join(staged, path))


def _source(version: str, place: Place) -> str:
    """Where on the volume a path of the view lies."""
    if place.private:
        return f"state/{version}/{state.PRIVATE}/{state.private_name(place)}"
    return f"store/{place.target}"


def extra_paths(version: str, folders: dict[str, list[str]], knows_is_default: bool) -> str:
    """The text of extra_model_paths.yaml.

    Paths are relative to the view: to this file for cores since 2025, to the working directory
    for older ones, and cvs starts both in the view.

    Args:
        folders: model folder names of the core, each with its folders below models/.
        knows_is_default: whether the core's reader understands that key; older ones crash on it.
    """
    lines = [
        "# Written by cvs: nodes added at run time and loose models, beside what is locked.",
        "cvs_state:",
        f"  base_path: ../../../state/{version}",
    ]
    if knows_is_default:
        # ComfyUI-Manager installs into the first custom_nodes folder.
        lines.append("  is_default: true")
    lines += ["  custom_nodes: custom_nodes", "cvs_models:"]
    lines.append(f"  base_path: ../../../state/{version}/{state.MODELS}")
    for name, paths in sorted(folders.items()):
        if len(paths) == 1:
            lines.append(f"  {_scalar(name)}: {_scalar(paths[0])}")
        else:
            lines += [f"  {_scalar(name)}: |", *(f"    {path}" for path in paths)]
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """A text as YAML takes it for one: `yes`, `2024` and `a: b` need quotes."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _folders_of_core(base: str) -> dict[str, list[str]]:
    """The model folders that a core declares in folder_paths.py, read without running it."""
    try:
        with open(os.path.join(base, "folder_paths.py"), "rb") as file:
            module = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[str, list[str]] = {}
    for node in ast.walk(module):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Subscript):
            continue
        target = node.targets[0]
        if (
            isinstance(target.value, ast.Name)
            and target.value.id == "folder_names_and_paths"
            and isinstance(target.slice, ast.Constant)
            and isinstance(target.slice.value, str)
        ):
            paths = [path for call in ast.walk(node.value) if (path := _below_models(call))]
            if paths:
                found[target.slice.value] = paths
    return found


def _below_models(node: ast.AST) -> str | None:
    """The path that `os.path.join(models_dir, "a", "b")` names below models/."""
    if not isinstance(node, ast.Call) or len(node.args) < 2:
        return None
    first, *rest = node.args
    if not isinstance(first, ast.Name) or first.id != "models_dir":
        return None
    parts = [arg.value for arg in rest if isinstance(arg, ast.Constant)]
    if len(parts) != len(rest) or not all(isinstance(part, str) for part in parts):
        return None
    return "/".join(map(str, parts))


def _knows_is_default(base: str) -> bool:
    """Whether the core reads `is_default` (since September 2024)."""
    for name in ("utils/extra_config.py", "main.py"):
        try:
            with open(os.path.join(base, name), "rb") as file:
                if b'"is_default"' in file.read():
                    return True
        except OSError:
            continue
    return False
