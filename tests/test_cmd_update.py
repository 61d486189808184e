"""`cvs update`: pins move, in the spec and in the lock."""

import json
from typing import Any
from unittest import mock

import pytest
import wheelmaker
from gitserver import Source
from world import DEMO, World, files_of

from cvs import project
from cvs.store.errors import InputError

pytest_plugins = ["world_fixtures"]


def lock_bytes(world: World) -> bytes:
    return (world.cache / "resolved" / "demo.lock.json").read_bytes()


def spec_bytes(world: World) -> bytes:
    return (world.versions / "demo.json").read_bytes()


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
    assert list(found) == ["dry_run", "commits", "packages", "diff"]
    assert (False, expected, []) == (found["dry_run"], found["commits"], found["packages"])
    moved = [found["diff"]["core"], *found["diff"]["nodes"]]
    assert expected == [
        {"name": one["name"], "from": one["before"]["commit"], "to": one["after"]["commit"]}
        for one in moved
    ]
    assert tips(branches) == commits(branches)
    assert branches.profile().current() == 1
    branches.realize()
    assert branches.profile().current() == 2
    assert branches.ok("update", "demo", *branches.local).out == "nothing moved\n"


def test_entries_of_wheels_stay_known(realized: World) -> None:
    """What wheels became is in the lock once they are stored, and a lock that is made anew keeps
    it: so `update` changes nothing where nothing moved."""
    before = lock_bytes(realized)
    (wheel,) = realized.lock()["python"]["wheels"]
    assert wheel["entry"] in realized.store.ids()
    done = realized.ok("update", "demo", *realized.local)
    assert lock_bytes(realized) == before, done


def test_update_node(branches: World) -> None:
    """--node moves that pin alone; the rest of the lock stays as it is."""
    before, lock = commits(branches), branches.lock()
    done = branches.ok("update", "demo", "--node", "demo-node", *branches.local)

    assert {**before, "demo-node": branches.material.v2} == commits(branches)
    for part in ("core", "python", "models"):
        assert lock[part] == branches.lock()[part]
    arrow = f"{branches.material.v1[:12]} → {branches.material.v2[:12]}"
    assert done.out == (f"nodes\n  ~  demo-node  commit {arrow}\n0 added, 0 removed, 1 changed\n")


def test_update_dry_run(branches: World) -> None:
    """--dry-run shows what the update in earnest shows, and writes neither spec nor lock."""
    before = (spec_bytes(branches), lock_bytes(branches))
    tried = branches.ok("update", "demo", "--dry-run", *branches.local)
    found = branches.ok("update", "demo", "--dry-run", *branches.local, "--json").json

    assert before == (spec_bytes(branches), lock_bytes(branches))
    done = branches.ok("update", "demo", *branches.local)
    assert tried.out == f"{done.out}neither spec nor lock was written\n"
    assert (True, list(tips(branches).values())) == (
        found["dry_run"],
        [moved["to"] for moved in found["commits"]],
    )
    assert branches.ok("update", "demo", "--dry-run", *branches.local).out == "nothing moved\n"


def test_update_is_shown_before_it_is_written(branches: World) -> None:
    """What changes stands there also where writing it fails; with --json the error alone does."""
    before = (spec_bytes(branches), lock_bytes(branches))
    with mock.patch.object(project, "write_spec", side_effect=InputError("no")):
        done = branches.cvs("update", "demo", *branches.local)
        as_json = branches.cvs("update", "demo", *branches.local, "--json")

    assert (done.code, done.err) == (2, "error: no\n")
    assert done.out.endswith("0 added, 0 removed, 4 changed\n")
    assert as_json.json == {"error": "no", "hint": None, "exit_code": 2}
    assert before == (spec_bytes(branches), lock_bytes(branches))


def test_update_of_what_was_never_resolved(world: World) -> None:
    """Without a lock all of it is new."""
    found = world.ok("update", "demo", *world.local, "--json").json["diff"]

    changes = [found["core"], *found["nodes"], *found["packages"], *found["models"]]
    assert [one["what"] for one in changes] == ["added"] * 4
    assert world.lock()["core"] == {
        **found["core"]["after"],
        "request": world.lock()["core"]["request"],
    }


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
    world.ok("resolve", "demo", *world.local)
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


# Packages


def wheels(world: World, version: str, *names: str, **requires: list[str]) -> None:
    """Makes wheels of a version; those with requirements are given by name."""
    for name in names:
        wheelmaker.make(str(world.wheels), name, version)
    for name, needed in requires.items():
        wheelmaker.make(str(world.wheels), name, version, requires=needed)


def versions(world: World) -> dict[str, str]:
    return {one["name"]: one["version"] for one in world.lock()["python"]["wheels"]}


@pytest.fixture
def packaged(world: World) -> World:
    """A world whose node follows a branch that has moved, with three packages that have too."""
    repo = f"{world.url}/demo-node.git"
    world.spec(
        custom_nodes=[{"repo": repo, "ref": "main", "commit": world.material.v1}],
        python_packages=["brush", "canvas", "easel"],
    )
    wheels(world, "1.0", "brush", "canvas", "easel")
    world.ok("resolve", "demo", *world.local)
    wheels(world, "1.1", "brush", "canvas", "easel")
    world.source("demo-node.git").ref("refs/heads/main", world.material.v2)
    return world


OLD = {"brush": "1.0", "canvas": "1.0", "cvs-demo-palette": "1.0", "easel": "1.0"}


def test_update_of_wheels(packaged: World) -> None:
    """Without --node and --package all wheels are chosen anew, and what moved is named."""
    assert "nothing to resolve" in packaged.ok("resolve", "demo", *packaged.local).out
    found = packaged.ok("update", "demo", *packaged.local, "--json").json

    names = ["brush", "canvas", "easel"]
    assert found["packages"] == [{"name": name, "from": "1.0", "to": "1.1"} for name in names]


def test_update_package(packaged: World) -> None:
    """--package moves the named packages alone: no other one, no commit, and not the spec."""
    before, lock = spec_bytes(packaged), packaged.lock()
    done = packaged.ok(
        "update", "demo", "--package", "brush", "--package", "Easel", *packaged.local
    )

    assert done.out.splitlines() == [
        "packages",
        "  ~  brush  1.0 → 1.1",
        "  ~  easel  1.0 → 1.1",
        "0 added, 0 removed, 2 changed",
    ]
    assert versions(packaged) == {**OLD, "brush": "1.1", "easel": "1.1"}
    assert before == spec_bytes(packaged)
    for part in ("core", "nodes", "models", "parts"):
        assert lock[part] == packaged.lock()[part]


def test_update_package_and_node(packaged: World) -> None:
    """With --node beside it that commit moves too."""
    options = ["--package", "canvas", "--node", "demo-node"]
    found = packaged.ok("update", "demo", *options, *packaged.local, "--json").json

    assert [one["name"] for one in found["commits"]] == ["demo-node"]
    assert found["packages"] == [{"name": "canvas", "from": "1.0", "to": "1.1"}]
    assert versions(packaged) == {**OLD, "canvas": "1.1"}
    assert packaged.lock()["nodes"][0]["commit"] == packaged.material.v2


def test_update_node_keeps_packages(packaged: World) -> None:
    """With --node alone the packages stay."""
    packaged.ok("update", "demo", "--node", "demo-node", *packaged.local)

    assert versions(packaged) == OLD


def test_update_package_takes_others_along(packaged: World) -> None:
    """What the newest version of a package needs comes or moves with it, and is shown."""
    wheels(packaged, "2.0", brush=["canvas>=1.1", "varnish"])
    wheels(packaged, "3.0", "varnish")
    done = packaged.ok("update", "demo", "--package", "brush", *packaged.local)

    assert done.out.splitlines() == [
        "packages",
        "  ~  brush    1.0 → 2.0",
        "  ~  canvas   1.0 → 1.1",
        "              required_by: +brush",
        "  +  varnish  3.0",
        "1 added, 0 removed, 2 changed",
    ]
    assert versions(packaged)["easel"] == "1.0"


def test_update_package_dry_run(packaged: World) -> None:
    """--dry-run resolves the wheels as well."""
    before = (spec_bytes(packaged), lock_bytes(packaged))
    options = ["--package", "brush", *packaged.local, "--json"]
    tried = packaged.ok("update", "demo", "--dry-run", *options).json

    assert tried["packages"] == [{"name": "brush", "from": "1.0", "to": "1.1"}]
    assert before == (spec_bytes(packaged), lock_bytes(packaged))
    done = packaged.ok("update", "demo", *options).json
    assert {**done, "dry_run": True} == tried


def test_update_package_that_cannot_move(packaged: World) -> None:
    """A package that stays is told with the date that may be why."""
    done = packaged.ok("update", "demo", "--package", "cvs-demo-palette", *packaged.local)

    assert done.out == "nothing moved\n"
    assert done.err.splitlines()[-1] == (
        "note: cvs-demo-palette stays at 1.0: nothing newer fits, and nothing newer than "
        "2023-11-14T22:13:20Z counts: see python.exclude_newer"
    )


def test_update_of_unknown_package(packaged: World) -> None:
    """A package that the lock has not is refused, with near names; nothing is done."""
    before = packaged.listing()
    done = packaged.cvs("update", "demo", "--package", "canva", *packaged.local)

    assert done == (
        2,
        "",
        "error: the lock of demo has no package 'canva'\nhint: near names are: canvas\n",
    )
    assert before == packaged.listing()


def test_update_package_without_a_lock(world: World) -> None:
    """What is not locked yet cannot be moved."""
    done = world.cvs("update", "demo", "--package", "brush", *world.local)

    assert done.code == 2
    assert done.err.startswith(f"error: there is no lock {world.cache}/resolved/demo.lock.json\n")
