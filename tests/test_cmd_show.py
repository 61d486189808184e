"""`cvs list`, `show`, `history` and `rollback`: what there is, and going back."""

import json
import os
import shutil
from pathlib import Path

import modelmaker
import pytest
from world import CAME_AND_WENT, TROUBLE, World

from cvs.store import leases
from cvs.store.digest import EntryId

pytest_plugins = ["world_fixtures"]


@pytest.fixture
def three(realized: World) -> World:
    """A world with three generations: node v1, node v2, no node."""
    realized.spec(custom_nodes=[realized.node(realized.material.v2)])
    realized.realize()
    realized.spec(custom_nodes=[])
    realized.realize()
    return realized


# List


def test_list(three: World) -> None:
    """Every version that has a spec or a generation, in order, with what there is of it."""
    three.spec("a-new-one")
    (three.versions / "demo.json").unlink()
    found = three.ok("list", "--json").json

    expected = [
        {
            "version": "a-new-one",
            "spec": f"{three.versions}/a-new-one.json",
            "locked": False,
            "generations": 0,
            "current": None,
        },
        {"version": "demo", "spec": None, "locked": True, "generations": 3, "current": 3},
    ]
    assert expected == found
    assert three.ok("list").out == (
        "VERSION    GENERATION  LOCK    SPEC\n"
        f"a-new-one  -           -       {three.versions}/a-new-one.json\n"
        "demo       3 of 3      locked  -\n"
    )


def test_list_passes_over_what_is_no_version(world: World) -> None:
    """Files and folders whose names no version can have are none, whatever they are called."""
    for name in (b"\xff", b"\x1b[31m", b"a b", b".x"):
        Path(world.versions, os.fsdecode(name) + ".json").write_text("{}")
        Path(world.cache, "profiles", os.fsdecode(name)).mkdir(parents=True)

    assert [one["version"] for one in world.ok("list", "--json").json] == ["demo"]
    assert len(world.ok("list").out.splitlines()) == 2


def test_list_of_nothing(world: World) -> None:
    """Without any it says so, and makes nothing."""
    (world.versions / "demo.json").unlink()
    before = world.listing()

    assert world.ok("list").out == f"no versions in {world.versions}\n"
    assert world.ok("list", "--json").json == []
    assert before == world.listing()


def test_list_of_another_folder(world: World) -> None:
    """--versions-dir is the folder of specs."""
    shutil.copytree(world.versions, world.folder / "others")
    found = world.ok("list", "--versions-dir", "others", "--json").json

    assert [f"{world.folder}/others/demo.json"] == [item["spec"] for item in found]


# Show


def test_show(realized: World) -> None:
    """What a version consists of and where it is; nothing is changed by looking."""
    before = realized.listing()
    found = realized.ok("show", "demo", "--json").json

    expected = {
        "version": "demo",
        "spec": f"{realized.versions}/demo.json",
        "lock": realized.lock(),
        "stale": [],
        "generation": 1,
        "comfy_home": str(realized.home),
        "view": f"{realized.cache}/profiles/demo/1",
        "state": f"{realized.cache}/state/demo",
        "drift": {"nodes": [], "models": []},
    }
    assert expected == {name: found[name] for name in expected}
    out = realized.ok("show", "demo").out
    assert out.startswith(f"demo: generation 1\nspec        {realized.versions}/demo.json\n")
    assert f"node   demo-node                     {realized.material.v1[:12]}" in out
    assert before == realized.listing()


def test_show_before_anything(world: World) -> None:
    """A spec alone is shown as not realized."""
    found = world.ok("show", "demo", "--json").json

    assert (found["lock"], found["generation"], found["view"]) == (None, None, None)
    assert world.ok("show", "demo").out.startswith("demo: not realized here\n")


def test_show_stale(realized: World) -> None:
    """A spec that changed since it was locked is told by its parts."""
    realized.spec(custom_nodes=[], models=[])

    assert realized.ok("show", "demo", "--json").json["stale"] == ["nodes", "models"]
    text = "changed in the spec since it was locked: nodes, models\n"
    assert text in realized.ok("show", "demo").out


def test_show_drift(realized: World) -> None:
    """A node and models that were dropped at run time are shown, before and after a switch; what
    is locked, disabled or no model is not."""
    realized.add_pack("trouble", TROUBLE)
    realized.add_pack("old.disabled", "")
    (realized.state() / "custom_nodes" / "single.py").touch()
    (realized.state() / "custom_nodes" / ".hidden").mkdir()
    loose = realized.cache / "models"
    for name in ("loras/mine.safetensors", "checkpoints/put_checkpoints_here", "vae/deep/x.pt"):
        (loose / name).parent.mkdir(parents=True, exist_ok=True)
        (loose / name).touch()
    # The locked model may lie there as well: it is no drift.
    (loose / "checkpoints" / "demo.safetensors").touch()
    expected = {
        "nodes": ["single.py", "trouble"],
        "models": ["loras/mine.safetensors", "vae/deep/x.pt"],
    }

    assert expected == realized.ok("show", "demo", "--json").json["drift"]
    realized.spec(custom_nodes=[])
    realized.realize()
    assert expected == realized.ok("show", "demo", "--json").json["drift"]
    assert realized.ok("show", "demo").out.endswith(
        "\ndrift, found at run time and not in the lock:\n"
        "  custom_nodes/single.py\n"
        "  custom_nodes/trouble\n"
        "  models/loras/mine.safetensors\n"
        "  models/vae/deep/x.pt\n"
    )


def test_show_drift_below_a_models_dir(realized: World) -> None:
    """MODELS_DIR elsewhere is looked into too."""
    loose = realized.folder / "loose"
    (loose / "loras").mkdir(parents=True)
    (loose / "loras" / "mine.safetensors").touch()
    realized.realize("demo", "--models-dir", str(loose))

    found = realized.ok("show", "demo", "--json").json["drift"]
    assert found["models"] == ["loras/mine.safetensors"]


# History


def test_history(three: World) -> None:
    """Every generation with what changed since the one before, the current one marked."""
    found = three.ok("history", "demo", "--json").json

    expected = [(1, False, "first"), (2, False, "~custom_nodes/demo-node")]
    assert expected == [(one["generation"], one["current"], one["changed"]) for one in found[:2]]
    assert (found[2]["generation"], found[2]["current"]) == (3, True)
    assert found[2]["changed"].startswith("-custom_nodes/demo-node")
    assert found[0]["entries"] == 5
    lines = three.ok("history", "demo").out.splitlines()
    assert ["", "N", "CREATED", "ENTRIES", "CHANGED", "BY"][1:] == lines[0].split()
    assert [line.startswith("*") for line in lines[1:]] == [False, False, True]


def test_history_of_a_hostile_host(realized: World) -> None:
    """What a record says of who made it is shown on its line, without what a terminal obeys."""
    path = realized.cache / "profiles/demo/1.json"
    record = json.loads(path.read_bytes()) | {"host": "a\n* 9  \x1b[31m\x9b", "created": "\b"}
    path.unlink()
    path.write_text(json.dumps(record))

    lines = realized.ok("history", "demo").out.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith(r"a\n* 9  \x1b[31m\x9b")
    assert lines[1].isprintable()


def test_history_of_one_without_spec(three: World) -> None:
    """Neither spec nor lock is needed."""
    (three.versions / "demo.json").unlink()
    os.unlink(three.cache / "resolved" / "demo.lock.json")

    assert len(three.ok("history", "demo", "--json").json) == 3


# Rollback


def test_rollback(three: World) -> None:
    """To the one before, again, and to any: one link changes and nothing else does."""
    forgive = (*CAME_AND_WENT, "cache/profiles/demo", "cache/profiles/demo/current")
    before = three.listing(forgive=forgive)
    done = three.ok("rollback", "demo")

    assert done.out == (
        "demo: generation 2 is current, 3 was; `cvs rollback demo 3` goes back to it\n"
    )
    assert "demo-node" in three.names()
    after = three.listing(forgive=forgive)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed <= {"cache/profiles/demo/current"}
    assert three.ok("rollback", "demo", "--json").json == {"version": "demo", "from": 2, "to": 1}
    three.ok("rollback", "demo", "3")
    assert three.profile().current() == 3
    assert "demo-node" not in three.names()
    three.assert_sound()


def test_rollback_to_the_current_one(three: World) -> None:
    """To the current one is no error and no change."""
    assert three.ok("rollback", "demo", "3").out == "demo: generation 3 is current, as it was\n"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("9", "error: demo has no generation 9\nhint: there are: 1, 2, 3\n"),
        ("0", "error: demo has no generation 0\nhint: there are: 1, 2, 3\n"),
    ],
)
def test_rollback_to_none(three: World, number: str, message: str) -> None:
    """A generation that is not there is refused; those that are there are named."""
    before = three.listing()
    assert (2, "", message) == three.cvs("rollback", "demo", number)
    assert before == three.listing()


def test_rollback_before_the_first(realized: World) -> None:
    """Before the first there is none."""
    done = realized.cvs("rollback", "demo")

    assert done[:2] == (2, "")
    assert done.err.startswith("error: demo has no generation before 1\n")


def test_rollback_to_what_is_gone(three: World) -> None:
    """A generation whose entry is gone is refused, and the current one stays."""
    one, two, other = (set(three.profile().record(number).entries) for number in (1, 2, 3))
    gone = one - two - other
    shutil.rmtree(three.store.path(EntryId(gone.pop())))
    done = three.cvs("rollback", "demo", "1")

    assert done.code == 2
    assert done.err.startswith("error: 1 entries of demo are gone, the first is ")
    assert three.profile().current() == 3
    assert three.leases() == []


def test_rollback_makes_a_lost_view_again(three: World) -> None:
    """The view of an old generation is made again where it is gone."""
    shutil.rmtree(three.profile().view(1))
    three.ok("rollback", "demo", "1")

    assert (three.home / "custom_nodes" / "demo-node" / "__init__.py").is_file()


def test_rollback_while_it_runs(three: World) -> None:
    """A running process keeps its generation; the switch is for the next start."""
    with leases.Lease.of_generation(three.volume, three.profile().record_path(3)):
        three.ok("rollback", "demo")
        assert len(three.leases()) == 2
    assert three.profile().current() == 2


def test_realize_after_a_rollback(three: World) -> None:
    """The spec is what counts: a realize switches forward again, without a new generation."""
    three.ok("rollback", "demo", "1")
    three.realize()

    assert (three.profile().numbers(), three.profile().current()) == ([1, 2, 3], 3)


def test_the_quick_way_sees_a_rollback(three: World) -> None:
    """A realize without options does not take the rolled-back generation for the newest."""
    three.ok("realize", "demo")
    three.ok("rollback", "demo", "1")
    done = three.ok("realize", "demo")

    assert done.out == f"demo: generation 3 is current, {three.home} leads to it\n"


# Pickles


@pytest.fixture
def pickled(world: World) -> World:
    """A world whose version has a pickle, a model that is none under such a name, and another."""
    models = []
    for name, data in {
        "a.ckpt": modelmaker.torch_zip(),
        "b.pt": modelmaker.safetensors(),
        "c.safetensors": modelmaker.safetensors(b"c"),
    }.items():
        (world.folder / "sources" / name).write_bytes(data)
        models.append({"source": str(world.folder / "sources" / name), "target_subdir": "x"})
    world.spec(models=models, custom_nodes=[])
    return world


def allow(world: World, whether: bool) -> None:
    """Sets options.allow_pickle."""
    path = world.versions / "demo.json"
    data = json.loads(path.read_text()) | {"options": {"allow_pickle": whether}}
    path.write_text(json.dumps(data))


def test_pickles_are_flagged(pickled: World) -> None:
    """By their names while they are not stored, then by their bytes."""
    pickled.ok("resolve", "demo", *pickled.local)
    shown = pickled.ok("show", "demo").out
    assert "models/x/a.ckpt is a pickle by its name, which may run any program\n" in shown
    assert "models/x/b.pt is a pickle by its name" in shown
    pickled.realize()
    assert "models/x/a.ckpt is a pickle, which may run any program" in pickled.ok(
        "show", "demo"
    ).out.split("\n")
    assert pickled.ok("show", "demo", "--json").json["pickles"] == ["x/a.ckpt"]
    assert pickled.ok("validate", "demo", *pickled.local, "--json").json["pickles"] == ["x/a.ckpt"]


def test_pickles_are_refused(pickled: World) -> None:
    """With allow_pickle false none is stored, and one that is stored is not used."""
    allow(pickled, False)
    done = pickled.cvs("realize", "demo", *pickled.local)
    assert done.code == 2
    assert "a.ckpt is a pickle, which may run any program, and options.allow_pickle is" in done.err
    assert pickled.profile().current() is None

    allow(pickled, True)
    pickled.realize()
    allow(pickled, False)
    for command in ("realize", "validate"):
        done = pickled.cvs(command, "demo", *pickled.local)
        assert done.code == 2
        assert "models/x/a.ckpt is a pickle, which may run any program, and options" in done.err
    assert "models/x/a.ckpt is a pickle, options.allow_pickle refuses it" in pickled.ok(
        "show", "demo"
    ).out.split("\n")


def test_pickles_in_a_plan(pickled: World) -> None:
    """A dry run names them before anything is fetched."""
    pickled.ok("resolve", "demo", *pickled.local)
    done = pickled.ok("realize", "demo", "--dry-run", *pickled.local)
    assert [line.split("  ")[-1].strip() for line in done.out.splitlines() if "x/" in line] == [
        "to fetch, a pickle",
        "to fetch, a pickle",
        "to fetch",
    ]
    items = pickled.ok("realize", "demo", "--dry-run", "--json", *pickled.local).json["items"]
    assert [one["name"] for one in items if one["pickle"]] == ["x/a.ckpt", "x/b.pt"]
