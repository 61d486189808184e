"""Without a network: nothing is asked, what is missing is named exactly, and all else works."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from world import CAME_AND_WENT, DEMO, Done, World

from cvs.store.volume import Volume

pytest_plugins = ["world_fixtures"]

OFFLINE: dict[str, Callable[[World], Done]] = {
    "option": lambda world: world.cvs("realize", "demo", *world.local, "--offline"),
    "variable": lambda world: world.cvs("realize", "demo", *world.local, COMFY_OFFLINE="1"),
    "spec": lambda world: world.cvs("realize", "demo", *world.local),
}


def online_spec(world: World, how: str = "", **fields: Any) -> None:
    """A spec whose repositories are behind the server; the model is a file of this machine."""
    options = {"offline": True} if how == "spec" else {}
    index = {"index_url": f"{world.url}/simple/"}
    world.spec(python=index, options=options, **fields)


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process opens no connection at all."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection was opened: {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.mark.parametrize("how", OFFLINE)
@pytest.mark.usefixtures("no_connection")
def test_nothing_stored(served: World, how: str) -> None:
    """The option, the variable and the spec's option ask nobody; what is missing is named."""
    online_spec(served, how)
    done = OFFLINE[how](served)

    assert done[:2] == (2, "")
    error = done.err.splitlines()[0]
    file, commits = f"{served.versions}/demo.json", served.material
    assert error.startswith("error: 2 things are missing and no connection may be made: ")
    assert f"{file}: comfy: {served.url}/ComfyUI.git at {commits.core} " in error
    assert f"{file}: custom_nodes[0]: {served.url}/demo-node.git at {commits.v1} " in error
    assert served.requests() == 0


@pytest.mark.parametrize("how", OFFLINE)
@pytest.mark.usefixtures("no_connection")
def test_everything_stored(served: World, how: str) -> None:
    """What was realized on line once is realized again without, from the store alone."""
    online_spec(served)
    served.ok("realize", "demo", *served.local)
    asked = served.requests()
    shutil.rmtree(served.local_root)
    shutil.rmtree(served.cache / "profiles")
    shutil.rmtree(served.wheels)
    served.wheels.mkdir()
    online_spec(served, how)
    done = OFFLINE[how](served)

    assert done.code == 0, done
    assert asked == served.requests()
    assert (served.home / "main.py").is_file()


@pytest.mark.usefixtures("no_connection")
def test_one_node_missing(served: World) -> None:
    """A node that is not stored is the one that is named, with its commit."""
    online_spec(served)
    served.realize()
    asked = served.requests()
    online_spec(served, custom_nodes=[served.node(served.material.v2)])
    before = served.listing(forgive=CAME_AND_WENT)
    done = served.cvs("realize", "demo", *served.local, "--offline")

    assert done[:2] == (2, "")
    assert done.err.startswith(
        f"error: {served.versions}/demo.json: custom_nodes[0]: {served.url}/demo-node.git "
        f"at {served.material.v2} is not stored yet and no connection may be made"
    )
    assert "ComfyUI.git" not in done.err
    assert asked == served.requests()
    assert before == served.listing(forgive=CAME_AND_WENT)


@pytest.mark.usefixtures("no_connection")
def test_ref_needs_a_connection(served: World) -> None:
    """A branch that was never resolved cannot be told without asking."""
    comfy = {"repo": f"{served.url}/ComfyUI.git", "ref": "main"}
    online_spec(served, comfy=comfy)
    done = served.cvs("realize", "demo", *served.local, "--offline")

    assert done.code == 2
    assert f"which commit 'main' of {served.url}/ComfyUI.git is, only a connection" in done.err


@pytest.mark.usefixtures("no_connection")
def test_wheels_missing(world: World) -> None:
    """Wheels that are not stored are all named, with what would help."""
    world.realize()
    entry = next(e for e in world.store.ids() if "palette" in name_of(world, e))
    shutil.rmtree(world.store.path(entry))
    done = world.cvs("realize", "demo", "--allow-local", "--offline")

    assert done[:2] == (2, "")
    wheel = "cvs_demo_palette-1.0-py3-none-any.whl"
    assert wheel in done.err.splitlines()[0]
    assert "no connection may be made" in done.err.splitlines()[0]
    assert "--wheels-dir" in done.err
    assert world.ok("realize", "demo", *world.local, "--offline").code == 0


def name_of(world: World, entry: str) -> str:
    document = json.loads(Path(world.store.path(entry), "manifest.json").read_text())
    return str(document.get("name", ""))


@pytest.mark.usefixtures("no_connection")
@pytest.mark.parametrize("form", ["tree", "pack"])
@pytest.mark.parametrize("options", [[], ["--locked"]])
def test_a_volume_of_entries_alone(
    world: World, tmp_path: Path, no_connection: None, form: str, options: list[str]
) -> None:
    """Entries and a lock are a whole version: nothing else of the first volume is needed."""
    world.environment["CVS_WHEELS"] = form
    world.realize()
    other = World.__new__(World)
    other.__dict__ |= world.__dict__ | {
        "cache": tmp_path / "other" / "cache",
        "local_root": tmp_path / "other" / "local",
        "home": tmp_path / "other" / "ComfyUI",
    }
    other.environment = world.environment | {
        "COMFY_CACHE_ROOT": str(other.cache),
        "COMFY_HOME": str(other.home),
        "CVS_LOCAL_ROOT": str(other.local_root),
    }
    Volume(str(other.cache), wheels=form).prepare()
    for part in ("store", "resolved"):
        shutil.copytree(world.cache / part, other.cache / part, symlinks=True, dirs_exist_ok=True)
    for place in (world.cache, world.repos, world.wheels, world.folder / "sources"):
        place.rename(f"{place}-away")
    lock = other.lock()
    plan = other.ok("realize", "demo", "--offline", "--dry-run").out
    assert "0 of 4 parts to fetch" in plan
    entries = set(other.store.ids())

    other.ok("realize", "demo", "--offline", *options)

    assert (set(other.store.ids()), other.lock()) == (entries, lock)
    other.assert_sound()
    assert not (other.cache / "refs" / "wheel").exists(), "what a lock says makes no ref"
    ran = other.process("exec", "demo", "--", "python", "-c", "import cvs_demo_palette as p; p")
    assert ran.code == 0, ran


def test_the_entries_of_another_layout_do_not_count(realized: World) -> None:
    """A newer cvs may make other entries of wheels: those that a lock names are then no answer."""
    path = realized.cache / "resolved" / "demo.lock.json"
    lock = realized.lock()
    (wheel,) = lock["python"]["wheels"]
    assert wheel["entry"] in realized.store.ids()
    lock["python"]["layout"] += 1
    path.write_text(json.dumps(lock))
    shutil.rmtree(realized.cache / "refs" / "wheel")
    done = realized.cvs("realize", "demo", "--offline", "--locked")

    assert (done.code, done.err.splitlines()[0]) == (
        2,
        "error: 1 wheels are not stored and no connection may be made: "
        "cvs_demo_palette-1.0-py3-none-any.whl",
    )


def test_model_missing(world: World) -> None:
    """A model that is neither stored nor loose is named with its source."""
    source = "https://user:secret@example.org/big.safetensors?token=hidden&v=1"
    model = {"source": source, "target_path": "vae/big", "sha256": world.material.sha256}
    world.spec(models=[model])
    done = world.cvs("realize", "demo", *world.local)

    assert done[:2] == (2, "")
    error = done.err.splitlines()[0]
    assert f"{world.versions}/demo.json: models[0]" in error
    assert "https://example.org/big.safetensors?v=1" in error
    assert "secret" not in done.err
    assert "hidden" not in done.err
    loose = world.cache / "models" / "vae"
    loose.mkdir(parents=True, exist_ok=True)
    shutil.copy(world.model, loose / "big")
    assert world.realize().code == 0, "the same bytes lay among the loose models"


def test_everything_that_is_missing_is_named_at_once(served: World) -> None:
    """With a lock and an empty store: core, node, wheel and model are all named in one go."""
    assert served.server is not None
    data = b"a model that the server has"
    served.server.keep(data)
    sha256 = hashlib.sha256(data).hexdigest()
    source = f"{served.url}/lfs/{sha256}"
    online_spec(served, models=[{"source": source, "target_path": "vae/x", "sha256": sha256}])
    served.ok("resolve", "demo", *served.local)
    for name in ("store", "refs"):
        shutil.rmtree(served.cache / name)
    asked = served.requests()
    done = served.cvs("realize", "demo", "--allow-local", "--offline")

    assert done[:2] == (2, "")
    error = done.err.splitlines()[0]
    for part in ("/ComfyUI.git at", "/demo-node.git at", "cvs_demo_palette-1.0", source):
        assert part in error
    assert asked == served.requests()
    served.realize()
    assert (served.home / "models" / "vae" / "x").read_bytes() == data


@pytest.mark.usefixtures("no_connection")
def test_commands_that_never_ask(served: World) -> None:
    """Looking, switching and deleting open no connection, on line or not."""
    online_spec(served)
    served.realize()
    online_spec(served, custom_nodes=[], python_packages=["cvs-demo-palette"])
    served.realize()
    asked = served.requests()
    for command in (
        ["realize", "demo"],
        ["realize", "demo", "--dry-run"],
        ["resolve", "demo"],
        ["validate", "demo"],
        ["list"],
        ["show", "demo"],
        ["why", "demo", "cvs-demo-palette"],
        ["lock", "diff", "demo"],
        ["history", "demo"],
        ["rollback", "demo"],
        ["store", "verify"],
        ["store", "du"],
        ["doctor"],
        ["clone", "demo", "twin"],
        ["exec", "demo", "--", "true"],
        ["shell", "demo", "--", "-c", "true"],
        ["delete", "demo"],
    ):
        assert served.cvs(*command).code == 0, command
    assert asked == served.requests()


def test_in_an_empty_network(realized: World) -> None:
    """In a network name space with nothing but loopback: realize, an update, a run, a rollback."""
    probe = ["unshare", "-rn", "true"] if os.geteuid() else ["unshare", "-n", "true"]
    try:
        allowed = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed or not shutil.which("ip"):
        pytest.skip("an empty network name space is not permitted here")
    workflow = realized.workflow(json.loads((DEMO / "workflow.json").read_text()))
    shutil.rmtree(realized.cache)
    shutil.rmtree(realized.local_root)
    realized.environment["COMFY_OFFLINE"] = "false"
    realized.spec(options={"offline": True})
    changed = realized.folder / "changed.json"
    changed.write_text(realized.spec(custom_nodes=[]).read_text())
    realized.spec(options={"offline": True})
    cvs = f"{sys.executable} -m cvs"
    local = " ".join(realized.local)
    script = (
        "set -e\n"
        "! ip route | grep -q .\n"
        "ip link set lo up\n"
        f"{cvs} create other --repo {realized.url}/ComfyUI.git --allow-local\n"
        f"{cvs} realize demo {local}\n"
        f"{cvs} realize demo\n"
        f"{cvs} run-handler demo --workflow {workflow} --out-dir results\n"
        "mv changed.json versions/demo.json\n"
        f"{cvs} realize demo {local} --offline\n"
        f"{cvs} rollback demo\n"
        f"{cvs} store verify\n"
    )
    done = subprocess.run(
        [*probe[:-1], "sh", "-c", script],
        cwd=realized.folder,
        env=realized.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    assert lines[1:] == [
        f"generation 1 is current, {realized.home} leads to it",
        "generation 1 is current, nothing to do",
        f"generation 2 is current, {realized.home} leads to it",
        "generation 1 is current, 2 was; `cvs rollback demo 2` goes back to it",
        "",
    ]
    assert os.listdir(realized.folder / "results") == ["demo_00001_.png"]
