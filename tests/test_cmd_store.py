"""`cvs store` and its actions, and `cvs demo`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from world import World

from cvs.cmd_store import ACTIONS
from cvs.store.digest import EntryId
from cvs.store.entries import Store

pytest_plugins = ["world_fixtures"]


@pytest.fixture
def store(world: World) -> Store:
    """The store of the world, for what a test puts into it itself."""
    world.volume.prepare()
    return world.store


def test_help_lists_the_actions(world: World) -> None:
    """`cvs store --help` names every action; the options of one are asked for with its name."""
    done = world.ok("store", "--help")

    for name, text in ACTIONS.items():
        assert f"  {name:<8} {text}\n" in done.out
    assert done == world.ok("store", "-h") == world.ok("help", "store")


@pytest.mark.parametrize("name", ACTIONS)
def test_help_of_an_action(world: World, name: str) -> None:
    """Every action has its own options and examples; nothing is made."""
    done = world.ok("store", name, "--help")

    assert done.out.startswith(f"usage: cvs store {name} ")
    assert f"examples:\n  cvs store {name}" in done.out
    assert "--json" in done.out
    assert done == world.ok("help", "store", name)
    assert not world.cache.exists()


def test_options_before_the_action(world: World) -> None:
    """Options may stand before the action too."""
    assert world.ok("store", "--json", "ls").json == []


# Naming entries


def alike(store: Store, entry: EntryId) -> EntryId:
    """A second entry whose hash begins with the same twelve digits."""
    twin = EntryId(entry[:12] + ("0" if entry[12] != "0" else "1") + entry[13:])
    shutil.copytree(store.path(entry), store.path(twin))
    return twin


@pytest.mark.parametrize("action", ["show", "path", "verify"])
def test_ambiguous_prefix(
    world: World, store: Store, small: Callable[..., EntryId], action: str
) -> None:
    """Every action shows what an ambiguous prefix may mean: kind, size and name of each."""
    entry = small("node\x1b[2J")
    twin = alike(store, entry)
    os.unlink(os.path.join(store.path(twin), "manifest.json"))
    done = world.cvs("store", action, entry[:12])

    first, second = sorted([entry, twin])
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert lines[:2] == [
        f"error: {entry[:12]} is ambiguous: {first[:16]}, {second[:16]}",
        "hint: more digits name one of them:",
    ]
    assert {tuple(line.split()) for line in lines[2:]} == {
        (entry[:16], "tree", "6", "B", "node%1B[2J"),
        (twin[:16], "damaged", "?"),
    }


@pytest.mark.parametrize("action", ["ls", "show", "verify"])
def test_control_characters(
    world: World, store: Store, small: Callable[..., EntryId], action: str
) -> None:
    """No name reaches a terminal raw: text quotes it as manifests do, JSON escapes it."""
    name = "a\nb\x1b]0;x\x07\x7f\x9b%"
    entry = small(name, {"c\x1bd": b"1"})
    os.chmod(Path(store.path(entry), name, "c\x1bd"), 0o644)
    Path(store.path(entry), name, "c\x1bd").write_bytes(b"2")
    given = [] if action == "ls" else [entry]
    text = world.cvs("store", action, *given)
    document = world.cvs("store", action, *given, "--json")

    assert "a%0Ab%1B]0;x%07%7F%C2%9B%25" in text.out
    assert (text.out + document.out).replace("\n", "").isprintable()
    if action != "verify":
        assert [name] == [item["name"] for item in document.json]


def test_ls(realized: World) -> None:
    """Every entry with kind, size and name, in order; text and JSON agree."""
    found = realized.ok("store", "ls", "--json").json

    lock = realized.lock()
    assert sorted(realized.store.ids()) == [item["id"] for item in found]
    kinds = {item["id"]: (item["kind"], item["name"]) for item in found}
    assert kinds[lock["core"]["entry"]] == ("tree", "ComfyUI")
    assert kinds[lock["nodes"][0]["entry"]] == ("tree", "demo-node")
    assert kinds[lock["models"][0]["entry"]][0] == "file"
    assert sorted(kind for kind, _ in kinds.values()) == ["file", "set", "tree", "tree", "tree"]
    lines = realized.ok("store", "ls").out.splitlines()
    assert [item["id"][:16] for item in found] == [line[:16] for line in lines[1:-1]]
    assert lines[-1].startswith("5 entries, ")


def test_ls_of_nothing(world: World) -> None:
    """An empty store is told, and not made."""
    assert world.ok("store", "ls").out == "the store is empty\n"
    assert world.ok("store", "ls", "--json").json == []
    assert not world.cache.exists()


def test_ls_of_one_kind(realized: World) -> None:
    """--kind leaves out all others; nothing of a kind is told."""
    everything = realized.ok("store", "ls", "--json").json
    for kind in ("file", "tree", "set"):
        chosen = [item for item in everything if item["kind"] == kind]
        assert chosen == realized.ok("store", "ls", "--kind", kind, "--json").json
    lines = realized.ok("store", "ls", "--kind", "tree").out.splitlines()
    assert lines[-1].startswith("3 entries, ")
    none = realized.ok("store", "ls", "--kind", "damaged")
    assert none.out == "the store has no damaged entries\n"


def test_path(realized: World) -> None:
    """Where the content of each kind lies; of a set, which has none, the entry itself."""
    lock = realized.lock()
    core, model = lock["core"]["entry"], lock["models"][0]["entry"]
    (wheels,) = realized.ok("store", "ls", "--kind", "set", "--json").json
    given = [core, model[:8], wheels["id"]]

    found = realized.ok("store", "path", *given).out.splitlines()
    under = f"{realized.cache}/store"
    assert found == [
        f"{under}/{core}/ComfyUI",
        f"{under}/{model}/content.safetensors",
        f"{under}/{wheels['id']}",
    ]
    document = realized.ok("store", "path", *given, "--json").json
    expected = [
        {"id": entry, "path": path}
        for entry, path in zip((core, model, wheels["id"]), found, strict=True)
    ]
    assert expected == document


def test_path_that_a_terminal_would_obey(
    world: World, store: Store, small: Callable[..., EntryId]
) -> None:
    """A path with control characters is given exactly or not at all."""
    entry = small("a\x1bb")
    done = world.cvs("store", "path", entry)

    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: the path of {entry[:16]} has control characters in it: "
        f"{store.path(entry)}/a%1Bb\nhint: --json gives it\n"
    )
    (found,) = world.ok("store", "path", entry, "--json").json
    assert os.path.isdir(found["path"])


def test_show(realized: World) -> None:
    """An entry by a unique prefix: what its manifest says, and where it is."""
    model = realized.lock()["models"][0]
    out = realized.ok("store", "show", model["entry"][:8]).out

    for line in (
        model["entry"],
        "kind     file",
        f"path     {realized.cache}/store/{model['entry']}",
        f"sha256   {realized.material.sha256}",
    ):
        assert line in out.splitlines()
    node = realized.lock()["nodes"][0]["entry"]
    found = realized.ok("store", "show", node, model["entry"], "--json").json
    assert [node, model["entry"]] == [item["id"] for item in found]
    assert found[0]["name"] == "demo-node"


def test_verify(realized: World) -> None:
    """A store that is whole verifies, as a whole and by entry."""
    entry = realized.lock()["core"]["entry"]

    assert realized.ok("store", "verify").out == "5 entries, all well\n"
    assert realized.ok("store", "verify", entry[:8]).out == "1 entries, all well\n"
    assert realized.ok("store", "verify", "--json").json == {"entries": 5, "damaged": []}


@pytest.mark.parametrize("what", ["changed", "missing", "added"])
def test_verify_finds_damage(realized: World, what: str) -> None:
    """Damage is named with its entry and path, exit 1; the rest is well."""
    entry = realized.lock()["nodes"][0]["entry"]
    path = realized.cache / "store" / entry / "demo-node" / "__init__.py"
    if what == "changed":
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b"VERSION", b"NOISREV"))
    elif what == "missing":
        path.unlink()
    else:
        path = path.with_name("more.py")
        path.touch()
    done = realized.cvs("store", "verify", "--json")

    assert done.code == 1
    damaged = [(one["id"], one["path"].rpartition("/")[2]) for one in done.json["damaged"]]
    assert [(entry, path.name)] == damaged
    text = realized.cvs("store", "verify")
    assert (text.code, text.err) == (1, "")
    assert text.out.startswith(entry[:16])
    assert text.out.endswith("1 of 5 entries are damaged\n")
    others = [other for other in realized.store.ids() if other != entry]
    assert realized.ok("store", "verify", *others).out == "4 entries, all well\n"


def test_verify_of_a_lost_manifest(realized: World) -> None:
    """An entry without its manifest is damaged, for ls too."""
    entry = EntryId(realized.lock()["nodes"][0]["entry"])
    os.unlink(os.path.join(realized.store.path(entry), "manifest.json"))

    assert realized.cvs("store", "verify").code == 1
    kinds = {item["id"]: item["kind"] for item in realized.ok("store", "ls", "--json").json}
    assert kinds[entry] == "damaged"


def test_repaired_by_realize(realized: World) -> None:
    """A damaged entry that is removed comes back by the next realize, and verifies."""
    entry = EntryId(realized.lock()["nodes"][0]["entry"])
    shutil.rmtree(realized.store.path(entry))
    realized.realize()

    assert realized.ok("store", "verify").out == "5 entries, all well\n"


# The demo


def test_demo(tmp_path: Path) -> None:
    """The demo goes the whole way without a network, and leaves what it says."""
    folder = tmp_path / "demo"
    environment = {**os.environ, "COMFY_HOME": "/nowhere", "MODELS_DIR": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "cvs", "demo", "--dir", str(folder), "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["dir"] == str(folder)
    commands = [step.split(" ")[1] for step in found["steps"]]
    expected = ["create", "validate", "realize", "realize", "run-handler", "realize"]
    expected += ["run-handler", "rollback", "run-handler", "history", "clone", "realize"]
    assert [*expected, "delete", "store", "store"] == commands
    first, second, third = (Path(path).read_bytes() for path in found["outputs"])
    assert first == third
    assert first != second
    assert (folder / "ComfyUI" / "main.py").is_file()
    assert not os.path.lexists(folder / "ComfyUI-copy")
    assert not Path("/nowhere").exists()


def test_demo_in_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    """A folder with anything in it is left alone."""
    (tmp_path / "mine").touch()
    done = subprocess.run(
        [sys.executable, "-m", "cvs", "demo", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --dir: {tmp_path} is not an empty folder\n"
    assert os.listdir(tmp_path) == ["mine"]
