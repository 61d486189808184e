"""Models as files list them: a lock, one of the tool that cvs replaces, a spec, or a plain list."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cvs.store import document
from cvs.store.errors import InputError
from cvs.versions import lock as locks
from cvs.versions import spec as specs
from cvs.versions.lock import Lock, Model
from cvs.versions.spec import Model as Wanted
from cvs.versions.spec import Spec

#: The fields of a model in lists. What else the old tool's locks say of one is of no use.
_FIELDS = frozenset(
    {
        *("source", "sources", "name", "target_subdir", "target_path", "path"),
        *("checksum", "sha256"),
    }
)

#: What a spec has beside its models.
_AROUND = {
    "schema_version": specs.SCHEMA,
    "version_id": "list",
    "comfy": {"repo": "https://github.com/comfyanonymous/ComfyUI"},
}


class Listed(NamedTuple):
    """A model that a file lists."""

    wanted: Wanted
    locked: Model | None
    """What a lock knows of it."""


def read(file: str) -> list[Listed]:
    """The models that a file lists, as JSON or YAML.

    Raises:
        InputError: it is none of the forms; names file and field.
    """
    data = document.load(file)
    if isinstance(data, dict) and "parts" in data:
        return of_lock(locks.decode(document.read_bytes(file), file), file)
    is_old = isinstance(data, dict) and "comfy" in data and data.get("schema_version") != 2
    items = data.get("models") if isinstance(data, dict) else data
    if not isinstance(items, list):
        raise InputError(f"{file}: a list is needed, or an object with a list 'models'")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise InputError(f"{file}: models[{index}]: an object is needed")
    if is_old:
        items = [{name: item[name] for name in _FIELDS & item.keys()} for item in items]
    return [Listed(wanted, None) for wanted in parse(items, file)]


def parse(items: Sequence[Mapping[str, Any]], file: str) -> tuple[Wanted, ...]:
    """Checks models as a spec has them; `file` begins every message.

    Raises:
        InputError: names the field.
    """
    return specs.parse({**_AROUND, "models": items}, file).models


def of_lock(lock: Lock, file: str) -> list[Listed]:
    """The models of a lock. One that came from a local file is known by its hash alone."""
    items = [
        {
            "source": model.source or f"cvs:{model.entry or ''}",
            "sources": model.mirrors,
            "name": model.name,
            "target_path": model.path,
            **({"sha256": model.sha256} if model.sha256 else {}),
        }
        for model in lock.models
    ]
    return [
        Listed(wanted, model) for wanted, model in zip(parse(items, file), lock.models, strict=True)
    ]


def of_version(spec: Spec, lock: Lock) -> list[Listed]:
    """The models of a version whose spec is at hand, which may name local files.

    Raises:
        InputError: the lock does not fit the spec.
    """
    from cvs.versions import resolve

    found = []
    for wanted in spec.models:
        locked = resolve.locked_model(wanted, lock.models)
        if locked is None:
            raise InputError(
                f"{wanted.where}: the lock of {lock.version_id} does not know {wanted.path}",
                hint="`cvs resolve` locks what changed in the spec",
            )
        found.append(Listed(wanted, locked))
    return found


def named(listed: list[Listed], names: list[str], where: str) -> list[Listed]:
    """Those of some names or places below models/; all where no name is given.

    Raises:
        InputError: there is none of that name.
    """
    chosen: list[Listed] = []
    for name in names:
        these = [one for one in listed if name in (one.wanted.path, one.wanted.name)]
        if not these:
            import difflib

            known = [one.wanted.path for one in listed]
            near = difflib.get_close_matches(name, known, 3) or known[:3]
            hint = f"it has {', '.join(near)}" if near else None
            raise InputError(f"{where} has no model {name!r}", hint=hint)
        chosen += [one for one in these if one not in chosen]
    return chosen if names else listed


def place(models_dir: str, wanted: Wanted) -> str:
    """Where a model lies in a models folder."""
    return os.path.join(models_dir, wanted.path)
