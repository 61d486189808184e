"""Locks, records and generations of no version in particular, whole but for what a test changes."""

from collections.abc import Mapping
from typing import Any

import msgspec

from cvs.profiles import state, view
from cvs.profiles.generations import Profile
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.leases import Lease
from cvs.store.record import Place, Record
from cvs.versions.interpreter import Probe
from cvs.versions.lock import SCHEMA, Commit, Interpreter, Lock, Model, Parts, Python, Wheel

CPYTHON = Interpreter(
    implementation="cpython",
    version="3.11.7",
    abi="cp311",
    platform="linux_x86_64",
    libc="glibc 2.36",
)

PROBE = Probe(
    implementation="cpython",
    version="3.11.7",
    abi="cp311",
    platform="linux_x86_64",
    libc="glibc 2.36",
    tags=("py3-none-any",),
    cache_tag="cpython-311",
    executable="/usr/bin/python3.11",
)


def entry(number: int) -> EntryId:
    """An id of no entry in particular."""
    return EntryId(f"{number:064x}")


def commit(name: str = "ComfyUI", **fields: Any) -> Commit:
    """A commit of the core or of a node."""
    whole = Commit(
        name=name,
        request="1" * 64,
        repo=f"https://example.org/{name}",
        ref=None,
        commit="c" * 40,
        date="2024-05-06T07:08:09Z",
        entry=entry(1),
        size=12,
    )
    return msgspec.structs.replace(whole, **fields)


def wheel(name: str = "numpy", **fields: Any) -> Wheel:
    """A wheel."""
    file = f"{name}-1.0-py3-none-any.whl"
    whole = Wheel(
        name=name,
        version="1.0",
        file=file,
        sha256="2" * 64,
        size=34,
        url=f"https://example.org/{file}",
        uploaded=None,
        required_by=("ComfyUI",),
    )
    return msgspec.structs.replace(whole, **fields)


def model(path: str = "checkpoints/m.safetensors", **fields: Any) -> Model:
    """A model that was fetched."""
    whole = Model(
        name=path.rpartition("/")[2],
        path=path,
        request="3" * 64,
        source="https://example.org/m.safetensors",
        size=56,
        sha256="4" * 64,
        entry=entry(4),
    )
    return msgspec.structs.replace(whole, **fields)


def lock(**fields: Any) -> Lock:
    """A lock with one of everything."""
    whole = Lock(
        schema_version=SCHEMA,
        version_id="x",
        parts=Parts(core="5" * 64, nodes="6" * 64, python="7" * 64, models="", interpreter=""),
        core=commit(),
        nodes=(commit("node"),),
        python=Python(interpreter=CPYTHON, exclude_newer=None, wheels=(wheel(),)),
        models=(model(),),
    )
    return msgspec.structs.replace(whole, **fields)


def record(**fields: Any) -> Record:
    """A record of a core, a node and a model that are nowhere."""
    whole = Record(
        version="x",
        created="2024-05-06T07:08:09Z",
        host="here",
        parts={"core": "5" * 64},
        entries=(entry(1), entry(2), entry(3), entry(9)),
        wheel_set=entry(9),
        interpreter=msgspec.to_builtins(CPYTHON),
        links=(
            Place("", f"{entry(1)}/ComfyUI"),
            Place("custom_nodes/node", f"{entry(2)}/node"),
            Place("models/checkpoints/m.safetensors", f"{entry(3)}/content.safetensors"),
        ),
        lock="8" * 64,
    )
    return msgspec.structs.replace(whole, **fields)


#: A core of a few files; None is a folder.
CORE: Mapping[str, bytes | None] = {
    "main.py": b"import folder_paths\n",
    "folder_paths.py": b"folder_names_and_paths = {}\n",
    "comfy/sd.py": b"",
    "custom_nodes/example_node.py.example": b"",
    "models/checkpoints/put_checkpoints_here": b"",
    "models/vae": None,
    "input/example.png": b"png",
    "utils/extra_config.py": b'"is_default"\n',
    "requirements.txt": b"",
}


def tree(store: Store, name: str, files: Mapping[str, bytes | None]) -> EntryId:
    """Publishes a tree of these files."""
    with store.stage() as stage:
        writer = stage.tree(name)
        for path, data in files.items():
            if data is None:
                writer.folder(path.encode())
            else:
                writer.write(path.encode(), data)
        return store.publish(writer.finish())[0]


def file(store: Store, data: bytes, name: str = "") -> EntryId:
    """Publishes a file."""
    with store.stage() as stage:
        return store.publish(stage.file([data], name=name))[0]


def stored(
    store: Store,
    core: Mapping[str, bytes | None] = CORE,
    nodes: Mapping[str, Mapping[str, bytes | None]] | None = None,
    models: Mapping[str, bytes] | None = None,
    *,
    version: str = "x",
    private: tuple[str, ...] = (),
) -> Record:
    """A record whose every entry is in the store."""
    entries = {"": tree(store, "ComfyUI", core)}
    for name, files in (nodes or {}).items():
        entries[f"custom_nodes/{name}"] = tree(store, name, files)
    for path, data in (models or {}).items():
        entries[f"models/{path}"] = file(store, data, path)
    with store.stage() as stage:
        (wheel_set,) = store.publish(stage.set([]))
    links = tuple(
        Place(path, store.content(entries[path]), path.rpartition("/")[2] in private)
        for path in sorted(entries)
    )
    return record(
        version=version,
        entries=tuple(sorted({*entries.values(), wheel_set})),
        wheel_set=wheel_set,
        links=links,
    )


def generation(store: Store, made: Record) -> int:
    """Makes a record a generation that is current, as realizing does."""
    profile = Profile(store.volume, made.version)
    state.prepare(store.volume, made.version, store.volume.models)
    state.ensure_private(store, made)
    with Lease.take(store.volume, made) as lease, view.building(store, made) as staged:
        number = profile.publish(lease)
        view.place(staged, profile.view(number))
        profile.flip(number)
    return number
