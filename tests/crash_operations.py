"""The operations that test_crash.py lets go wrong: with what each begins, and what it makes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modelmaker
import sourcemaker
from crashing import Crashes, Operation, remove
from gitserver import Content
from world import World

from cvs.store import copying, damage
from cvs.store.entries import Store
from cvs.store.manifest import SetManifest
from cvs.store.volume import Volume


def _models(world: World, *more: str) -> list[dict[str, Any]]:
    first = {
        "source": str(world.model),
        "target_path": "checkpoints/demo.safetensors",
        "checksum": f"sha256:{world.material.sha256}",
    }
    others = [
        {"source": str(world.folder / "sources" / n), "target_path": f"vae/{n}"} for n in more
    ]
    return [first, *others]


def _realize(world: World, version: str = "demo", *options: str) -> list[str]:
    return ["realize", version, *world.local, *options]


def empty(crashes: Crashes) -> None:
    """A spec and no volume."""
    crashes.world.spec()


def one(crashes: Crashes) -> None:
    """`demo` at COMFY_HOME with one generation, and `second` without nodes and models beside it."""
    world = crashes.world
    world.spec()
    crashes.ok(*_realize(world))
    world.spec("second", custom_nodes=[], models=[])
    crashes.ok(*_realize(world, "second", "--target", f"{world.folder}/twin"))


def changed(crashes: Crashes) -> None:
    """Besides, another node commit and a model more in the spec of `demo`, and no environment."""
    one(crashes)
    world = crashes.world
    (world.folder / "sources" / "other").write_bytes(b"another model")
    node = world.node(world.material.v2)
    world.spec(custom_nodes=[node], models=_models(world, "other"))
    for path in (world.local_root / "environments").iterdir():
        remove(path)


def two(crashes: Crashes) -> None:
    """`demo` with two generations, the second of which is current."""
    changed(crashes)
    crashes.ok(*_realize(crashes.world))


def scripted(crashes: Crashes) -> None:
    """Besides one, a node in the spec of `demo` whose install.py is to run."""
    one(crashes)
    world = crashes.world
    files: dict[bytes, Content] = {
        b"__init__.py": b"NODE_CLASS_MAPPINGS = {}\n",
        b"install.py": b"import os; os.makedirs('made'); open('made/file', 'w').write('made')\n",
    }
    commit = world.new_source("scripted.git", files)
    node = {"repo": f"{world.url}/scripted.git", "commit": commit, "run_install": True}
    world.spec(custom_nodes=[world.node(), node])


def sourced(crashes: Crashes) -> None:
    """Besides one, a Python package in the spec of `demo` that has to be built."""
    one(crashes)
    world = crashes.world
    sourcemaker.sdist(str(world.wheels), "sourced", "1")
    world.spec(python_packages=["sourced"])


def _built(world: World) -> None:
    wheels = {wheel["name"]: wheel for wheel in world.lock()["python"]["wheels"]}
    assert wheels["sourced"]["built"]["file"] == "sourced-1.tar.gz"


def _installed(world: World) -> None:
    assert (world.home / "custom_nodes" / "scripted" / "made" / "file").read_text() == "made"
    assert world.lock()["nodes"][1]["installed"]["wrote"] == ["made/"]


def viewless(crashes: Crashes) -> None:
    """Besides, no view of the first: it lies on another volume's copy, say."""
    two(crashes)
    remove(Path(crashes.world.profile().view(1)))


def elsewhere(crashes: Crashes) -> None:
    """Besides, COMFY_HOME leads to `second`, and the spec of `demo` asks for its first commit."""
    two(crashes)
    world = crashes.world
    crashes.ok(*_realize(world, "second"))
    world.spec()


def real(crashes: Crashes) -> None:
    """Besides, a real folder at COMFY_HOME."""
    one(crashes)
    home = crashes.world.home
    home.unlink()
    (home / "output").mkdir(parents=True)
    (home / "output" / "picture").write_bytes(b"a picture")


def loose(crashes: Crashes) -> None:
    """Besides, files and folders of the user's."""
    one(crashes)
    loose = crashes.world.folder / "loose"
    for number in range(24):
        path = loose / "folder" / f"{number % 5}" / "below" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("some text\n" * number)
    (loose / "folder" / "empty").mkdir()
    for name in ("run", "go"):
        (loose / "folder" / name).write_text("#!/bin/sh\n")
        (loose / "folder" / name).chmod(0o755)
    (loose / "folder" / "link").symlink_to("0/below/5")
    (loose / "small.gguf").write_bytes(b"GGUF" + bytes(1 << 20))
    with open(loose / "large.gguf", "wb") as file:
        file.write(b"GGUF")
        file.truncate(copying.LARGE + 1)


def shared(crashes: Crashes) -> None:
    """Besides, one of the files has another name, so that its folder is not to be had as it is."""
    loose(crashes)
    other = crashes.world.folder / "other"
    other.mkdir()
    os.link(crashes.world.folder / "loose" / "folder" / "run", other / "run")


#: Models of the user's by their places: one twice, one that the store has, one that is no model.
_LOOSE = {
    "checkpoints/a.safetensors": modelmaker.safetensors(b"first " * 200),
    "loras/again.safetensors": modelmaker.safetensors(b"first " * 200),
    "loras/deep/other.gguf": modelmaker.gguf(size=2000),
    "loras/stored.ckpt": modelmaker.torch_zip() + bytes(2000),
    "loras/notes.yaml": b"a: 1",
}


def models(crashes: Crashes) -> None:
    """Besides one, models of the user's in models/."""
    one(crashes)
    for name, data in _LOOSE.items():
        path = crashes.world.cache / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    crashes.ok("store", "add", "cache/models/loras/stored.ckpt")


def _readable(world: World) -> None:
    """Every path has its bytes, be it a file or a link."""
    for name, data in _LOOSE.items():
        assert (world.cache / "models" / name).read_bytes() == data, name


def _adopted(world: World) -> None:
    links = [name for name in _LOOSE if (world.cache / "models" / name).is_symlink()]
    assert links == [name for name in _LOOSE if not name.endswith(".yaml")]
    assert len([root for root in world.store.roots() if root.kind == "pin"]) == 3


def broken(crashes: Crashes) -> None:
    """Besides, three entries that are damaged, and sound on another volume."""
    loose(crashes)
    cache, other = crashes.world.cache, crashes.world.folder / "other"
    names = ("folder", "small.gguf", "large.gguf")
    crashes.ok("store", "add", *(f"loose/{name}" for name in names))
    world = crashes.world
    (other / "store").mkdir(parents=True)
    shutil.copy(cache / "format", other / "format")
    for entry in world.store.ids():
        if world.store.manifest(entry).origin in names:
            shutil.copytree(cache / "store" / entry, other / "store" / entry, symlinks=True)
    folder, small, large = (cache / "store" / entry for entry in _broken(world))
    (folder / "folder" / "0" / "below" / "5").unlink()
    (folder / "folder" / "1" / "below" / "6").write_text("other bytes")
    (folder / "folder" / "2" / "more").write_text("more")
    (folder / "folder" / "run").chmod(0o644)
    (folder / "folder" / "link").unlink()
    (folder / "folder" / "link").mkdir()
    remove(folder / "folder" / "4")
    (small / "manifest.json").unlink()
    with open(large / "content.gguf", "r+b") as file:
        file.truncate(100)


def _broken(world: World) -> list[str]:
    """The entries that are damaged: the folder, the small and the large file."""
    other = Store(Volume(str(world.folder / "other")))
    found = {other.manifest(entry).origin: entry for entry in other.ids()}
    return [found["folder"], found["small.gguf"], found["large.gguf"]]


def _repaired(world: World) -> None:
    assert damage.marked(world.volume) == set()
    kept = [path.read_bytes() for path in (world.cache / "damaged").rglob("*") if path.is_file()]
    assert {b"other bytes", b"more"} <= set(kept)
    assert any(path.startswith(b"GGUF") and len(path) == 100 for path in kept)


def _updated(world: World) -> None:
    assert (
        'VERSION = "2"' in (world.folder / "fresh/custom_nodes/demo-node/__init__.py").read_text()
    )
    assert (world.folder / "fresh" / "models" / "vae" / "other").read_bytes() == b"another model"


def _at_home(world: World) -> None:
    assert os.path.samefile(world.home, world.cache / "profiles" / "demo" / "current")


def _moved(world: World) -> None:
    """Nothing of the user's is lost, and it lies where the name says it."""
    _at_home(world)
    assert not (world.home / "output" / "picture").exists()
    _picture(world)


def _picture(world: World) -> None:
    places = [world.home, *world.folder.glob("ComfyUI.before-cvs-*")]
    (found,) = [place for place in places if (place / "output" / "picture").exists()]
    assert (found / "output" / "picture").read_bytes() == b"a picture"


def _deleted(world: World) -> None:
    for path in ("profiles/demo", "state/demo", "resolved/demo.lock.json"):
        assert not os.path.lexists(world.cache / path)
    assert not os.path.lexists(world.versions / "demo.json")
    assert not os.path.lexists(world.home)


def _origins(world: World) -> list[str]:
    return sorted(world.store.manifest(entry).origin for entry in world.store.ids())


def _added(world: World, *names: str, gone: bool = False) -> None:
    found = _origins(world)
    assert [found.count(name) for name in names] == [1] * len(names)
    left = {"folder", "small.gguf", "large.gguf"} - (set(names) if gone else set())
    assert left == set(os.listdir(world.folder / "loose"))


def _published(world: World) -> None:
    found = _origins(world)
    assert [found.count(name) for name in ("model", "several", "both")] == [1, 1, 1]
    sets = [world.store.manifest(entry) for entry in world.store.ids()]
    assert any(isinstance(one, SetManifest) and one.origin == "both" for one in sets)


def _fetched(world: World) -> None:
    assert _origins(world).count("http://server/m.bin") == 1


def _cloned(world: World) -> None:
    assert b'"version_id": "copy"' in (world.versions / "copy.json").read_bytes()


def _kept(world: World, name: str) -> None:
    """What the user had is where it was, right beside, or in the store, all of it."""
    path = world.folder / "loose" / name
    for aside in path.parent.glob(f"{name}.moving-to-cvs-*/{name}"):
        path = aside
    if not path.exists():
        assert _origins(world).count(name) == 1
    elif path.is_file():
        assert path.read_bytes()[:4] == b"GGUF"
    elif _origins(world).count(name) == 0:
        assert sum(len(files) for _, _, files in os.walk(path)) == 27


def _add(name: str, option: str = "", world: Callable[[Crashes], None] = loose) -> Operation:
    moves = [option] if option == "--move" else []
    shares = option == "--workers"
    return Operation(
        f"add {name} {option}".strip() + (", shared" if world is shared else ""),
        world,
        lambda world: [*(["add"] if shares else ["store", "add", *moves]), f"loose/{name}"],
        ONE,
        ONE,
        lambda world: _added(world, name, gone=bool(moves)),
        "is not there" if moves else None,
        lambda world: _kept(world, name),
    )


ONE: dict[str, int | None] = {"demo": 1, "second": 1}
TWO: dict[str, int | None] = {"demo": 2, "second": 1}

OPERATIONS = (
    Operation("first", empty, _realize, {"demo": None}, {"demo": 1}, _at_home),
    Operation(
        "update",
        changed,
        lambda world: _realize(world, "demo", "--target", f"{world.folder}/fresh"),
        ONE,
        TWO,
        _updated,
    ),
    Operation("build", sourced, _realize, ONE, TWO, _built),
    Operation("install", scripted, _realize, ONE, TWO, _installed),
    Operation("switch", elsewhere, _realize, TWO, ONE, _at_home),
    Operation(
        "replace",
        real,
        lambda world: _realize(world, "demo", "--replace"),
        ONE,
        ONE,
        _moved,
        kept=_picture,
    ),
    Operation("rollback", viewless, lambda _: ["rollback", "demo", "1"], TWO, ONE),
    Operation(
        "delete",
        one,
        lambda _: ["delete", "demo", "--remove-spec", "--purge-state"],
        ONE,
        {"demo": None, "second": 1},
        _deleted,
        "there is nothing of 'demo' to delete",
    ),
    _add("small.gguf"),
    _add("large.gguf"),
    _add("folder"),
    _add("folder", "--workers"),
    _add("small.gguf", "--move"),
    _add("folder", "--move"),
    _add("folder", "--move", shared),
    Operation(
        "adopt",
        models,
        lambda _: ["models", "adopt", "cache/models"],
        ONE,
        ONE,
        _adopted,
        kept=_readable,
    ),
    Operation("fetch", one, lambda _: ["fetch"], ONE, ONE, _fetched),
    Operation("publish", one, lambda _: ["publish"], ONE, ONE, _published),
    Operation(
        "repair",
        broken,
        lambda world: ["store", "repair", "--from", "other", *_broken(world)],
        ONE,
        ONE,
        _repaired,
        damaged=_broken,
    ),
    Operation("clone", one, lambda _: ["clone", "demo", "copy", "--force"], ONE, ONE, _cloned),
)
