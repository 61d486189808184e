"""`cvs why`: who needs a package of a lock, in words and as JSON."""

import json
from typing import Any

import locks
import msgspec
import pytest
import wheelmaker
from world import World

from cvs.versions import lock as documents

pytest_plugins = ["world_fixtures"]


@pytest.fixture
def painted(world: World) -> World:
    """A world whose lock has a package that is needed in three ways, from a folder of wheels."""
    folder = str(world.wheels)
    wheelmaker.make(folder, "Brush_Kit", "2.0")
    wheelmaker.make(folder, "easel", "1.5", requires=["brush-kit", "cvs-demo-palette"])
    world.spec(python_packages=["easel", "brush-kit"])
    world.ok("resolve", "demo", *world.local)
    return world


def change_lock(world: World, **fields: Any) -> None:
    """Changes fields of the first wheel of a lock, as a merge by hand may."""
    path = world.cache / "resolved" / "demo.lock.json"
    lock = json.loads(path.read_text())
    lock["python"]["wheels"][0] |= fields
    path.write_text(json.dumps(lock))


def test_chains(painted: World) -> None:
    """Every chain is a line, with versions; before them what the lock says of the wheel."""
    before = painted.listing()
    lines = painted.ok("why", "demo", "brush.kit").out.splitlines()

    assert lines[0] == "brush-kit 2.0"
    assert lines[1] == "file    Brush_Kit-2.0-py3-none-any.whl"
    assert "url     a folder of wheels" in lines
    assert lines[lines.index("") + 1 :] == [
        "python_packages → brush-kit 2.0",
        "python_packages → easel 1.5 → brush-kit 2.0",
    ]
    assert painted.ok("why", "demo", "cvs-demo-palette").out.splitlines()[-2:] == [
        "node demo-node → cvs-demo-palette 1.0",
        "python_packages → easel 1.5 → cvs-demo-palette 1.0",
    ]
    assert before == painted.listing()


def test_json(painted: World) -> None:
    """--json has the wheel as the lock has it, and the chains link by link."""
    found = painted.ok("why", "demo", "EASEL", "--json").json

    (wheel,) = [one for one in painted.lock()["python"]["wheels"] if one["name"] == "easel"]
    expected = {
        "package": "easel",
        "wheel": wheel,
        "chains": [
            [
                {"kind": "python_packages", "name": "python_packages", "version": None},
                {"kind": "package", "name": "easel", "version": "1.5"},
            ]
        ],
        "complete": True,
    }
    assert expected == found


def test_where_a_wheel_comes_from(painted: World) -> None:
    """One that an index gave is shown with its URL."""
    change_lock(painted, url="https://example.org/brush.whl", required_by=["ComfyUI"])
    out = painted.ok("why", "demo", "brush-kit").out

    assert "url     https://example.org/brush.whl\n" in out
    assert out.endswith("\n\ncore ComfyUI → brush-kit 2.0\n")


@pytest.mark.parametrize(
    ("required_by", "said"),
    [
        ([], ""),
        (["brush-kit", "a-node-that-is-gone"], "it is named by: brush-kit, a-node-that-is-gone\n"),
    ],
)
def test_what_nobody_needs(painted: World, required_by: list[str], said: str) -> None:
    """A wheel that no root reaches is said to be one; that is no error."""
    change_lock(painted, required_by=required_by)
    out = painted.ok("why", "demo", "brush-kit").out

    assert out.endswith(f"\nneither the core nor a node nor python_packages needs it\n{said}")
    assert painted.ok("why", "demo", "brush-kit", "--json").json["chains"] == []


def test_a_chain_that_is_too_long(world: World) -> None:
    """What is needed through thousands of packages is not called needless."""
    names = [f"p{number}" for number in range(3000)]
    chain = zip(names, [*names[1:], "ComfyUI"], strict=True)
    wheels = tuple(locks.wheel(name, required_by=(by,)) for name, by in chain)
    lock = locks.lock()
    lock = msgspec.structs.replace(lock, python=msgspec.structs.replace(lock.python, wheels=wheels))
    (world.folder / "x.lock").write_bytes(documents.encode(lock))
    out = world.ok("why", "demo", "p0", "--lock-file", "x.lock").out

    assert out.endswith("\n\nit is needed through more packages than can be told\n")


def test_unknown_package(painted: World) -> None:
    """A package that is not in the lock is refused; the hint has near names, or who lists all."""
    for given, hint in (("esel", "near names are: easel"), ("x", "`cvs show` lists what it has")):
        done = painted.cvs("why", "demo", given)

        assert (done.code, done.out) == (2, "")
        assert done.err == f"error: the lock of demo has no package {given!r}\nhint: {hint}\n"


def test_without_a_lock(world: World) -> None:
    """Before anything is resolved there is nothing to look into; nothing is made."""
    before = world.listing()
    done = world.cvs("why", "demo", "numpy")

    file = f"{world.cache}/resolved/demo.lock.json"
    expected = f"error: there is no lock {file}\nhint: `cvs resolve` makes one\n"
    assert (done.code, done.err) == (2, expected)
    assert before == world.listing()


def test_another_lock_file(painted: World) -> None:
    """--lock-file names the lock, wherever it lies."""
    path = painted.cache / "resolved" / "demo.lock.json"
    path.rename(painted.folder / "demo.lock")

    out = painted.ok("why", "demo", "easel", "--lock-file", "demo.lock").out
    assert out.endswith("python_packages → easel 1.5\n")
