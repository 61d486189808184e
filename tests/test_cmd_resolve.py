"""`cvs resolve` and `cvs validate`: a spec becomes a lock. `cvs update`: its pins move."""

import json
import os
from typing import Any

import pytest
from gitserver import Source
from world import CAME_AND_WENT, DEMO, World, files_of

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


# Update


@pytest.fixture
def branches(world: World) -> World:
    """A world whose core and two nodes follow branches; all of them have moved since."""
    core = Source(world.repos / "core.git")
    old = core.commit(files_of(DEMO / "core"))
    plain = Source(world.repos / "plain.git")
    first = plain.commit({b"__init__.py": b"NODE_CLASS_MAPPINGS = {}\n"})
    world.spec(
        comfy={"repo": f"{world.url}/core.git", "ref": "main", "commit": old},
        custom_nodes=[
            {"repo": f"{world.url}/demo-node.git", "ref": "main", "commit": world.material.v1},
            {"repo": f"{world.url}/plain.git", "commit": first},
        ],
    )
    world.realize()
    core.commit(files_of(DEMO / "core"), message="Later", seconds=1700000100)
    world.source("demo-node.git").ref("refs/heads/main", world.material.v2)
    plain.commit({b"__init__.py": b"NODE_CLASS_MAPPINGS = {}  # later\n"}, parents=(first,))
    return world


def commits(world: World) -> dict[str, Any]:
    """The pins of spec and lock, which must agree."""
    spec = json.loads((world.versions / "demo.json").read_text())
    lock = world.lock()
    found = {one["name"]: one["commit"] for one in [lock["core"], *lock["nodes"]]}
    pins = [spec["comfy"]["commit"], *(node["commit"] for node in spec["custom_nodes"])]
    assert pins == list(found.values())
    return found


def tip(world: World, name: str) -> str:
    return (world.repos / name / "refs" / "heads" / "main").read_text().strip()


def tips(world: World) -> dict[str, str]:
    names = {"ComfyUI": "core.git", "demo-node": "demo-node.git", "plain": "plain.git"}
    return {name: tip(world, repository) for name, repository in names.items()}


def test_update_all(branches: World) -> None:
    """Every pin moves to what its ref says now, in the spec and in the lock; nothing switches."""
    before = commits(branches)
    found = branches.ok("update", "demo", *branches.local, "--json").json

    expected = [
        {"name": name, "from": before[name], "to": commit}
        for name, commit in tips(branches).items()
    ]
    assert {"dry_run": False, "commits": expected, "packages": []} == found
    assert tips(branches) == commits(branches)
    assert branches.profile().current() == 1
    branches.realize()
    assert branches.profile().current() == 2
    assert branches.ok("update", "demo", *branches.local).out == "nothing moved\n"


def test_update_node(branches: World) -> None:
    """--node moves that pin alone; the rest of the lock stays as it is."""
    before, lock = commits(branches), branches.lock()
    done = branches.ok("update", "demo", "--node", "demo-node", *branches.local)

    assert {**before, "demo-node": branches.material.v2} == commits(branches)
    for part in ("core", "python", "models"):
        assert lock[part] == branches.lock()[part]
    arrow = f"{branches.material.v1[:12]}  →  {branches.material.v2[:12]}"
    assert f"demo-node  {arrow}\n" == done.out


def test_update_dry_run(branches: World) -> None:
    """--dry-run says what would move and writes nothing."""
    before = branches.listing(forgive=CAME_AND_WENT)
    found = branches.ok("update", "demo", "--dry-run", *branches.local, "--json").json

    assert (True, list(tips(branches).values())) == (
        found["dry_run"],
        [moved["to"] for moved in found["commits"]],
    )
    assert before == branches.listing(forgive=CAME_AND_WENT)


def test_update_keeps_what_people_wrote(branches: World) -> None:
    """Other fields of the spec stay; its form becomes that of specs."""
    path = branches.versions / "demo.json"
    before = json.loads(path.read_text())
    branches.ok("update", "demo", *branches.local)

    after = json.loads(path.read_text())
    assert json.dumps(after, sort_keys=True, indent=2) + "\n" == path.read_text()
    for source in (*before.pop("custom_nodes"), *after.pop("custom_nodes")):
        assert source.pop("commit")
    assert before.pop("comfy") != after.pop("comfy")
    assert before == after


def test_update_of_fixed_commits(world: World) -> None:
    """A ref that is a commit, and nothing but a commit, has nowhere to move."""
    commit = world.material.v1
    world.spec(
        comfy={"repo": f"{world.url}/ComfyUI.git", "ref": world.material.core},
        custom_nodes=[{"repo": f"{world.url}/demo-node.git@{commit}"}],
    )
    world.source("demo-node.git").ref("refs/heads/main", world.material.v2)

    assert world.ok("update", "demo", "--dry-run", *world.local).out == "nothing moved\n"


def test_update_of_unknown_node(branches: World) -> None:
    """A node that the spec has not is refused; those that it has are named."""
    before = branches.listing()
    done = branches.cvs("update", "demo", "--node", "demo_node", *branches.local)

    assert done.code == 2
    assert done.err == (
        f"error: {branches.versions}/demo.json has no custom node 'demo_node'\n"
        "hint: it has: demo-node, plain\n"
    )
    assert before == branches.listing()


def test_update_that_fails_writes_nothing(branches: World) -> None:
    """An update whose resolution fails leaves spec and lock as they were."""
    source = branches.source("plain.git")
    source.commit({b"requirements.txt": b"there-is-no-such-package\n"})
    before = (lock_bytes(branches), (branches.versions / "demo.json").read_bytes())
    done = branches.cvs("update", "demo", *branches.local)

    assert done.code == 2
    assert "no folder of wheels has 'there-is-no-such-package', asked for by plain" in done.err
    assert before == (lock_bytes(branches), (branches.versions / "demo.json").read_bytes())


def test_update_of_wheels(world: World) -> None:
    """Without --node wheels are chosen anew, and what moved is named."""
    node = {b"__init__.py": b"NODE_CLASS_MAPPINGS = {}\n", b"requirements.txt": b"palette\n"}
    world.new_source("loose.git", node)
    world.spec(custom_nodes=[{"repo": f"{world.url}/loose.git"}])
    make_wheel(world, "1.0")
    world.ok("resolve", "demo", *world.local)
    make_wheel(world, "1.1")
    assert "nothing to resolve" in world.ok("resolve", "demo", *world.local).out
    found = world.ok("update", "demo", *world.local, "--json").json

    assert found["packages"] == [{"name": "palette", "from": "1.0", "to": "1.1"}]


def make_wheel(world: World, version: str) -> None:
    import zipfile

    info = f"palette-{version}.dist-info"
    with zipfile.ZipFile(world.wheels / f"palette-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr("palette.py", "")
        metadata = f"Metadata-Version: 2.1\nName: palette\nVersion: {version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        wheel = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
