"""`cvs lock` and its actions: what differs between locks, in words and as JSON."""

import os
from pathlib import Path

import locks
import msgspec
import pytest
import wheelmaker
from world import World

from cvs.cmd_lock import ACTIONS
from cvs.versions import lock as documents
from cvs.versions.lock import Lock

pytest_plugins = ["world_fixtures"]

replace = msgspec.structs.replace


def write(world: World, lock: Lock, version: str = "x") -> Path:
    """Puts a lock where that of a version lies."""
    path = world.cache / "resolved" / f"{version}.lock.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(documents.encode(lock))
    return path


def told(world: World, *arguments: str) -> list[str]:
    """What is told below the two lines that say what is compared."""
    return world.ok("lock", "diff", *arguments).out.splitlines()[2:]


def test_help_lists_the_actions(world: World) -> None:
    """`cvs lock --help` names every action; the options of one are asked for with its name."""
    done = world.ok("lock", "--help")

    for name, text in ACTIONS.items():
        assert f"  {name:<8} {text}\n" in done.out
    assert done == world.ok("lock", "-h") == world.ok("help", "lock")


@pytest.mark.parametrize("name", ACTIONS)
def test_help_of_an_action(world: World, name: str) -> None:
    """Every action has its own options and examples; nothing is made."""
    done = world.ok("lock", name, "--help")

    assert done.out.startswith(f"usage: cvs lock {name} ")
    assert f"examples:\n  cvs lock {name}" in done.out
    assert done == world.ok("help", "lock", name)
    assert not world.cache.exists()


def test_unknown_action(world: World) -> None:
    """An action that is not there is refused with a near one."""
    done = world.cvs("lock", "dif", "demo")

    assert done == (
        2,
        "",
        "error: `cvs lock` has no action 'dif', did you mean 'diff'?\n"
        "hint: `cvs lock --help` lists them\n",
    )


# Two locks


BEFORE = locks.lock(
    nodes=(
        locks.commit("gone"),
        locks.commit("moved", ref="main", lfs=("a.bin",)),
        locks.commit("same"),
    ),
    python=replace(
        locks.lock().python,
        exclude_newer="2024-01-01",
        wheels=(
            locks.wheel("numpy"),
            locks.wheel("pillow"),
            locks.wheel("old"),
            locks.wheel("torch", required_by=("ComfyUI", "gone")),
        ),
    ),
    models=(
        locks.model("vae/a", entry=locks.entry(5), sha256="5" * 64),
        locks.model("vae/b"),
    ),
)
AFTER = replace(
    BEFORE,
    core=replace(BEFORE.core, repo="https://example.org/fork"),
    nodes=(
        locks.commit("new", ref="v1"),
        replace(BEFORE.nodes[1], commit="d" * 40, ref="dev", lfs=(), entry=locks.entry(7)),
        BEFORE.nodes[2],
    ),
    python=replace(
        BEFORE.python,
        interpreter=replace(locks.CPYTHON, version="3.11.9", libc=""),
        exclude_newer="2025-01-01",
        wheels=(
            locks.wheel("numpy", version="2.0", file="numpy-2.0-py3-none-any.whl"),
            locks.wheel("pillow", sha256="7" * 64, size=35),
            locks.wheel("torch", required_by=("ComfyUI", "new")),
            locks.wheel("young"),
        ),
    ),
    models=(
        locks.model("vae/a", size=2_000_000, entry=locks.entry(6), sha256="6" * 64),
        locks.model("loras/b"),
    ),
)


def test_every_kind_of_change(world: World) -> None:
    """Grouped and aligned: what came, what went, and of what is another the fields; of fields
    that follow from one another the first."""
    write(world, AFTER)
    old = write(world, BEFORE, "y")
    done = world.ok("lock", "diff", "x", "y")

    assert done.out.splitlines() == [
        f"-  {old}",
        f"+  {world.cache}/resolved/x.lock.json",
        "core",
        "  ~  ComfyUI      repo https://example.org/ComfyUI → https://example.org/fork",
        "nodes",
        "  -  gone         cccccccccccc  https://example.org/gone",
        "  ~  moved        ref main → dev",
        "                  commit cccccccccccc → dddddddddddd",
        "  +  new          cccccccccccc  v1  https://example.org/new",
        "Python",
        "  ~  interpreter  3.11.7 → 3.11.9",
        "                  libc glibc 2.36 → -",
        "  ~  python       exclude_newer 2024-01-01 → 2025-01-01",
        "packages",
        "  ~  numpy        1.0 → 2.0",
        "  -  old          1.0",
        "  ~  pillow       other bytes, sha256 222222222222 → 777777777777",
        "                  size 34 B → 35 B",
        "  ~  torch        required_by: +new, -gone",
        "  +  young        1.0",
        "models",
        "  ~  loras/b      moved from vae/b",
        "  ~  vae/a        size 56 B → 2.0 MB",
        "                  other bytes, sha256 555555555555 → 666666666666",
        "2 added, 2 removed, 9 changed",
    ]


def test_json(world: World) -> None:
    """--json says what was compared, and of each change both sides whole and their fields."""
    write(world, AFTER)
    path = write(world, BEFORE, "y")
    found = world.ok("lock", "diff", "x", str(path), "--json").json

    assert list(found) == [
        *("equal", "before", "after", "asked_otherwise"),
        *("core", "nodes", "interpreter", "python", "packages", "models"),
    ]
    assert found["equal"] is False
    assert found["before"] == {"kind": "lock", "version": "x", "file": str(path)}
    assert found["after"]["file"] == f"{world.cache}/resolved/x.lock.json"
    whole = msgspec.json.decode(msgspec.json.encode(BEFORE.python.wheels[2]))
    whole.pop("entry", None)
    assert found["packages"][1] == {
        "name": "old",
        "what": "removed",
        "fields": [],
        "before": whole,
        "after": None,
    }
    assert found["core"]["fields"] == ["repo"]
    assert [one["what"] for one in found["nodes"]] == ["removed", "changed", "added"]


def test_nothing_differs(world: World) -> None:
    """Equal locks are told to be equal; so are those that only ask otherwise, and that is told."""
    write(world, AFTER)
    asking = replace(AFTER, parts=replace(AFTER.parts, nodes="0" * 64, models="0" * 64))
    write(world, asking, "y")

    assert told(world, "x", "x") == ["nothing differs"]
    assert told(world, "x", "y") == [
        "nothing differs",
        "the spec asked otherwise then: nodes, models",
    ]
    assert world.ok("lock", "diff", "x", "y", "--json").json["equal"] is True


def test_a_lock_beside_its_spec(world: World) -> None:
    """A lock has any name and place: one with a suffix, or with a / in it."""
    path = write(world, AFTER)
    for given in ("old.lock", "old.json", "./old"):
        os.link(path, world.folder / given)

        assert told(world, "x", given) == ["nothing differs"]
        assert told(world, "x", "x", "--lock-file", given) == ["nothing differs"]


@pytest.mark.parametrize(
    ("old", "error"),
    [
        ("nope", "there is no lock {world.cache}/resolved/nope.lock.json"),
        ("./nope", "{world.folder}/nope does not exist"),
        ("versions/demo.json", "{world.versions}/demo.json is not a lock of cvs"),
        ("./wheels", "{world.folder}/wheels cannot be read: is a directory"),
        ("..", "the version: '..' cannot be the name of a version"),
    ],
)
def test_what_is_no_lock(world: World, old: str, error: str) -> None:
    """What is named to compare with and is no lock is told with its path."""
    write(world, AFTER)
    done = world.cvs("lock", "diff", "x", old)

    assert (done.code, done.out) == (2, "")
    assert (
        done.err.splitlines()[0].lower().startswith(f"error: {error.format(world=world)}".lower())
    )


def test_without_a_lock(world: World) -> None:
    """A version that is not resolved has nothing to compare; nothing is made."""
    before = world.listing()
    done = world.cvs("lock", "diff", "demo")

    assert done.code == 2
    assert done.err.startswith(f"error: there is no lock {world.cache}/resolved/demo.lock.json\n")
    assert before == world.listing()


# The current generation


def test_what_is_realized(world: World) -> None:
    """Without OLD the lock is compared with the current generation, and that is said."""
    world.realize()
    before = world.listing()
    done = world.ok("lock", "diff", "demo")

    assert done.out.splitlines() == [
        "-  generation 1, which is current: its lock is not kept, its entries are",
        f"+  {world.cache}/resolved/demo.lock.json",
        "nothing differs",
    ]
    assert before == world.listing()
    found = world.ok("lock", "diff", "demo", "--json").json
    assert found["before"] == {"kind": "generation", "version": "demo", "generation": 1}


def test_what_was_resolved_since(world: World) -> None:
    """Entries are compared: what came, what went, what has another; and what was asked for."""
    world.realize()
    entries = {link.path: link.target[:12] for link in world.profile().record(1).links}
    wheelmaker.make(str(world.wheels), "brush", "1.0")
    world.spec(
        custom_nodes=[world.node(world.material.v2)],
        python_packages=["brush"],
        models=[],
    )
    world.ok("resolve", "demo", *world.local)

    after = world.lock()["nodes"][0]["entry"][:12]
    old = entries["custom_nodes/demo-node"]
    model = entries["models/checkpoints/demo.safetensors"]
    assert told(world, "demo") == [
        "nodes",
        f"  ~  demo-node                     other bytes, entry {old} → {after}",
        "packages",
        "  +  brush                         1.0",
        "models",
        f"  -  checkpoints/demo.safetensors  {model}",
        "1 added, 1 removed, 1 changed",
        "the spec asked otherwise then: nodes, python, models",
    ]
    world.realize()
    assert told(world, "demo") == ["nothing differs"]


def test_another_lock_of_the_same(world: World) -> None:
    """A lock with other bytes that gives the same entries does not differ."""
    world.realize()
    world.spec(python={"constraints": ["cvs-demo-palette<2"]})
    world.ok("resolve", "demo", *world.local)

    assert told(world, "demo") == [
        "nothing differs",
        "the spec asked otherwise then: python",
    ]


def test_models_that_are_skipped(realized: World) -> None:
    """A spec that skips models has none in its generations, and the lock's do not differ."""
    realized.spec(options={"skip_models": True}, python={"constraints": ["cvs-demo-palette<2"]})
    realized.realize()
    realized.spec(options={"skip_models": True})
    realized.ok("resolve", "demo", *realized.local)

    assert told(realized, "demo")[0] == "nothing differs"


def test_a_wheel_that_is_not_stored(realized: World) -> None:
    """A package of the lock that the store has not, yet the generation has in another build."""
    path = realized.cache / "resolved" / "demo.lock.json"
    lock = documents.decode(path.read_bytes(), "x")
    wheels = (replace(lock.python.wheels[0], sha256="0" * 64, entry=None),)
    path.write_bytes(documents.encode(replace(lock, python=replace(lock.python, wheels=wheels))))
    (change,) = realized.ok("lock", "diff", "demo", "--json").json["packages"]

    assert (change["name"], change["fields"]) == ("cvs-demo-palette", ["entry"])
    assert change["after"]["entry"] is None


def test_not_realized(world: World) -> None:
    """Without a generation there is nothing to compare with; the hint says what can be named."""
    world.ok("resolve", "demo", *world.local)
    done = world.cvs("lock", "diff", "demo")

    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: demo is not realized here, so there is nothing to compare its lock with\n"
        "hint: name another lock: a version, or the path of a lock\n"
    )
