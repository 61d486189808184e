"""`cvs resolve` and `cvs validate`: a spec becomes a lock."""

import json
import os

import pytest
from world import World

pytest_plugins = ["world_fixtures"]


def lock_bytes(world: World) -> bytes:
    return (world.cache / "resolved" / "demo.lock.json").read_bytes()


# Resolve and validate


@pytest.mark.parametrize("command", ["resolve", "validate"])
def test_lock_is_saved(served: World, command: str) -> None:
    """The lock has every commit, wheel and model; its form is that of documents for people."""
    served.ok(command, "demo", *served.local)

    lock = served.lock()
    text = lock_bytes(served).decode()
    assert json.dumps(lock, sort_keys=True, indent=2, ensure_ascii=False) + "\n" == text
    expected = {
        "version_id": "demo",
        "core": (served.material.core, f"{served.url}/ComfyUI.git", "2023-11-14T22:13:20Z"),
        "nodes": [("demo-node", served.material.v1)],
        "wheels": [("cvs-demo-palette", "1.0", ["demo-node"], "")],
        "models": [("checkpoints/demo.safetensors", served.material.sha256, "")],
    }
    core = lock["core"]
    found = {
        "version_id": lock["version_id"],
        "core": (core["commit"], core["repo"], core["date"]),
        "nodes": [(node["name"], node["commit"]) for node in lock["nodes"]],
        "wheels": [
            (wheel["name"], wheel["version"], wheel["required_by"], wheel["url"])
            for wheel in lock["python"]["wheels"]
        ],
        "models": [(model["path"], model["sha256"], model["source"]) for model in lock["models"]],
    }
    assert expected == found
    assert str(served.folder) not in text
    assert served.profile().numbers() == []


@pytest.mark.parametrize("command", ["resolve", "validate"])
def test_second_run_does_nothing(served: World, command: str) -> None:
    """A lock that is fresh stays as it is; nobody is asked and nothing is written."""
    first = served.ok(command, "demo", *served.local, "--json").json
    asked, before = served.requests(), served.listing()
    second = served.ok(command, "demo", *served.local, "--json").json

    assert {**first, "changed": False} == second
    assert first["changed"]
    assert asked == served.requests()
    assert before == served.listing()


def test_resolve_text(world: World) -> None:
    """`resolve` says in one line what it did."""
    file = f"{world.cache}/resolved/demo.lock.json"

    assert f"demo: resolved, {file}\n" == world.ok("resolve", "demo", *world.local).out
    assert f"demo: nothing to resolve, {file}\n" == world.ok("resolve", "demo").out


def test_validate_text(world: World) -> None:
    """`validate` shows what was resolved."""
    out = world.ok("validate", "demo", *world.local).out

    for part in (
        f"core   ComfyUI                       {world.material.core[:12]}",
        f"node   demo-node                     {world.material.v1[:12]}",
        "wheel  cvs-demo-palette              1.0",
        f"model  checkpoints/demo.safetensors  {world.material.sha256[:12]}",
        "no package newer than 2023-11-14T22:13:20Z",
        "undated, so whatever their age: cvs-demo-palette",
        f"demo is valid; its lock is {world.cache}/resolved/demo.lock.json",
    ):
        assert part in out


def test_json_result(world: World) -> None:
    """--json gives the lock as it is in its file."""
    found = world.ok("resolve", "demo", *world.local, "--json").json

    expected = {
        "changed": True,
        "file": f"{world.cache}/resolved/demo.lock.json",
        "lock": world.lock(),
    }
    assert expected == found


def test_refs_become_commits(served: World) -> None:
    """Branches, tags and HEAD become the commits that they name now."""
    served.spec(
        comfy={"repo": f"{served.url}/ComfyUI.git", "ref": "main"},
        custom_nodes=[
            {"repo": f"{served.url}/demo-node.git@v2", "name": "tag"},
            {"repo": f"{served.url}/demo-node.git", "name": "head"},
        ],
        python={"index_url": f"{served.url}/simple/"},
    )
    served.ok("resolve", "demo", *served.local)

    lock = served.lock()
    expected = [
        ("ComfyUI", served.material.core, "main"),
        ("tag", served.material.v2, "v2"),
        ("head", served.material.v1, None),
    ]
    assert expected == [
        (one["name"], one["commit"], one["ref"]) for one in [lock["core"], *lock["nodes"]]
    ]


def test_branch_that_moved_is_not_followed(world: World) -> None:
    """A lock keeps its commit when the branch moves: only `update` moves a pin."""
    repo = f"{world.url}/demo-node.git"
    world.spec(custom_nodes=[{"repo": repo, "ref": "main"}])
    world.ok("resolve", "demo", *world.local)
    before = lock_bytes(world)
    world.source("demo-node.git").ref("refs/heads/main", world.material.v2)
    world.ok("resolve", "demo", *world.local)
    assert before == lock_bytes(world)
    world.spec(custom_nodes=[{"repo": repo, "ref": "main"}], models=[])
    world.ok("resolve", "demo", *world.local)

    assert world.material.v1 == world.lock()["nodes"][0]["commit"], "another part was resolved"


def test_resolved_offline_from_what_is_stored(served: World) -> None:
    """What is stored is resolved with --offline; the wheel comes from its folder."""
    served.ok("resolve", "demo", *served.local)
    os.unlink(served.cache / "resolved" / "demo.lock.json")
    asked = served.requests()
    served.ok("resolve", "demo", *served.local, "--offline")

    assert served.material.core == served.lock()["core"]["commit"]
    assert asked == served.requests()


def test_damaged_lock(world: World) -> None:
    """A lock that is none is an error that names the file; it is not overwritten."""
    world.ok("resolve", "demo", *world.local)
    path = world.cache / "resolved" / "demo.lock.json"
    path.write_text(path.read_text()[:-10])
    before = lock_bytes(world)
    done = world.cvs("resolve", "demo", *world.local)

    assert done.code == 2
    assert done.err.startswith(f"error: {path} is not JSON: ")
    assert before == lock_bytes(world)
