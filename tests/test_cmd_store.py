"""`cvs store ls|show|verify`, and `cvs demo`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from world import World

from cvs.store.digest import EntryId

pytest_plugins = ["world_fixtures"]


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
