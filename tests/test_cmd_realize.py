"""`cvs realize`: the first one, the next one, a changed one, and COMFY_HOME."""

import contextlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import bases
import pytest
import wheelmaker
from world import CAME_AND_WENT, DEMO, OLD, PATIENCE, World, files_of

from cvs import fresh
from cvs.store import damage, leases

pytest_plugins = ["world_fixtures"]


def counts(world: World) -> list[int]:
    return world.profile().numbers()


def kind_of(world: World) -> dict[str, str]:
    """What COMFY_HOME's folders of nodes and models lead to, by what is asked for."""
    home = world.home
    return {
        "main": os.path.realpath(home / "main.py"),
        "node": os.path.realpath(home / "custom_nodes" / "demo-node"),
        "model": os.path.realpath(home / "models" / "checkpoints" / "demo.safetensors"),
    }


# The first time


def test_first(world: World) -> None:
    """The first realize makes a generation, switches to it and points COMFY_HOME there."""
    done = world.realize()

    assert done == (0, f"demo: generation 1 is current, {world.home} leads to it\n", "")
    profile, cache = world.profile(), os.path.realpath(world.cache)
    assert (profile.numbers(), profile.current()) == ([1], 1)
    lock = world.lock()
    node = lock["nodes"][0]["entry"]
    expected = {
        "main": f"{cache}/profiles/demo/1/main.py",
        "node": f"{cache}/store/{node}/demo-node",
        "model": f"{cache}/store/{lock['models'][0]['entry']}/content.safetensors",
    }
    assert expected == kind_of(world)
    assert world.model.read_bytes() == Path(expected["model"]).read_bytes()
    world.assert_sound()


def test_link_is_absolute_elsewhere(world: World) -> None:
    """A COMFY_HOME outside of the volume is an absolute link to `current`."""
    world.realize()

    assert f"{world.cache}/profiles/demo/current" == os.readlink(world.home)


def test_link_is_relative_on_the_volume(world: World) -> None:
    """A COMFY_HOME on the volume is a relative link."""
    home = world.cache / "builds" / "comfy-demo"
    world.realize("demo", "--target", str(home))

    assert os.readlink(home) == "../profiles/demo/current"
    assert (home / "main.py").is_file()


def test_first_json(world: World) -> None:
    """--json gives what was done and where everything is."""
    done = world.realize("demo", "--json")

    found = done.json
    environment = found.pop("environment")
    entries = found.pop("entries")
    assert sorted(os.listdir(f"{world.cache}/store")) == entries
    expected = {
        "version": "demo",
        "generation": 1,
        "home": str(world.home),
        "view": f"{world.cache}/profiles/demo/1",
        "python": f"{environment}/bin/python",
        "new_generation": True,
        "switched": True,
        "changed": True,
        "moved_home": None,
    }
    assert expected == found
    assert os.path.dirname(environment) == f"{world.local_root}/environments"
    events = {json.loads(line)["event"] for line in done.err.splitlines()}
    assert {"start", "done"} <= events <= {"start", "done", "total"}


def test_quiet(world: World) -> None:
    """--quiet gives the result and no remarks."""
    (world.home / "output").mkdir(parents=True)
    done = world.realize("demo", "--replace", "-q")

    assert done == (0, f"demo: generation 1 is current, {world.home} leads to it\n", "")


def test_default_home(world: World) -> None:
    """Without COMFY_HOME and a volume of RunPod it is ~/comfy-<id>."""
    home = Path(world.environment["HOME"], "comfy-demo")
    world.ok("realize", "demo", *world.local, COMFY_HOME=None)

    assert (home / "main.py").is_file()


def test_spec_by_path(world: World) -> None:
    """A spec may be named by its path."""
    shutil.move(world.versions / "demo.json", world.folder / "demo.json")
    world.realize("./demo.json")

    assert counts(world) == [1]


# The second time


def test_nothing_to_do(realized: World) -> None:
    """Nothing to do changes nothing on disk, not even a time: the short way and the whole way."""
    realized.ok("realize", "demo")
    before = realized.listing()
    expected = (0, "demo: generation 1 is current, nothing to do\n", "")

    assert expected == realized.cvs("realize", "demo")
    assert expected == realized.process("realize", "demo")
    assert before == realized.listing()
    before = realized.listing(forgive=CAME_AND_WENT)
    assert expected == realized.realize()
    assert before == realized.listing(forgive=CAME_AND_WENT)


def test_nothing_to_do_json(realized: World) -> None:
    """--json says that nothing changed."""
    found = realized.realize("demo", "--json").json

    expected = (1, False, False, False)
    assert expected == tuple(
        found[name] for name in ("generation", "new_generation", "switched", "changed")
    )


@pytest.mark.parametrize(
    "lost",
    [
        "local",
        "ComfyUI",
        "cache/profiles/demo/1",
        "cache/profiles/demo/current",
        "cache/refs",
        "cache/state/demo/models",
        "cache/state/demo",
    ],
)
def test_what_was_lost_comes_back(realized: World, lost: str) -> None:
    """What is not the store's comes back by the next realize, although there is a note of it."""
    realized.ok("realize", "demo")
    path = realized.folder / lost
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)
    done = realized.cvs("realize", "demo", *([] if lost != "cache/refs" else realized.local))

    assert done.code == 0, done
    assert (realized.home / "main.py").is_file()
    assert (realized.state() / "models").is_symlink()
    assert counts(realized) == [1]
    realized.assert_sound()


def test_env_alone_changes_nothing(realized: World) -> None:
    """`env` and white space make no part of the lock stale and no generation."""
    lock = realized.lock()
    realized.spec(env={"A": "1"})
    done = realized.ok("realize", "demo")

    assert done.out == "demo: generation 1 is current, nothing to do\n"
    assert lock == realized.lock()


# Something changed


def test_changed_node(realized: World) -> None:
    """A changed node alone is resolved and stored; the rest of the lock stays, byte for byte."""
    old, entries = realized.lock(), set(realized.store.ids())
    realized.spec(custom_nodes=[realized.node(realized.material.v2)])
    done = realized.realize()

    assert done.out == f"demo: generation 2 is current, {realized.home} leads to it\n"
    new = realized.lock()
    assert (old["core"], old["python"], old["models"]) == (
        new["core"],
        new["python"],
        new["models"],
    )
    assert {new["nodes"][0]["entry"]} == set(realized.store.ids()) - entries
    assert (counts(realized), realized.profile().current()) == ([1, 2], 2)
    assert kind_of(realized)["node"].endswith(f"{new['nodes'][0]['entry']}/demo-node")
    realized.assert_sound()


def test_same_closure_again(realized: World) -> None:
    """A closure that an old generation has makes no new one: that one becomes current."""
    realized.spec(custom_nodes=[realized.node(realized.material.v2)])
    realized.realize()
    realized.spec()
    done = realized.realize("demo", "--json")

    found = done.json
    assert (found["generation"], found["new_generation"], found["switched"], found["changed"]) == (
        1,
        False,
        True,
        True,
    )
    assert (counts(realized), realized.profile().current()) == ([1, 2], 1)


def test_node_added_and_removed(realized: World) -> None:
    """A node is added and removed without a trace of it in the view."""
    commit = realized.new_source("other.git", {b"__init__.py": b"NODE_CLASS_MAPPINGS = {}\n"})
    other = {"repo": f"{realized.url}/other.git", "commit": commit}
    realized.spec(custom_nodes=[realized.node(), other])
    realized.realize()
    assert realized.names() == ["demo-node", "other", "websocket_image_save.py"]
    realized.spec(custom_nodes=[])
    realized.realize()

    assert realized.names() == ["websocket_image_save.py"]
    assert counts(realized) == [1, 2, 3]


def test_skip_models(realized: World) -> None:
    """options.skip_models leaves models out of the view and asks for none."""
    realized.spec(options={"skip_models": True})
    realized.realize()

    assert not (realized.home / "models" / "checkpoints" / "demo.safetensors").exists()
    assert (realized.home / "models" / "checkpoints" / "put_checkpoints_here").exists()


def test_skip_models_asks_nobody(realized: World) -> None:
    """With skip_models no source of a model is looked at; without it the lock is good as well."""
    gone = realized.folder / "gone"
    models = [
        {"source": str(gone), "target_path": "vae/x"},
        {"source": "https://example.invalid/y", "target_path": "vae/y"},
    ]
    realized.spec(models=models, options={"skip_models": True})
    realized.ok("realize", "demo", *realized.local, COMFY_OFFLINE="false")
    assert counts(realized) == [1, 2]
    lock = realized.lock()
    gone.write_bytes(b"x")
    realized.spec(models=models[:1])
    realized.realize()

    assert (realized.home / "models" / "vae" / "x").read_bytes() == b"x"
    assert [model["size"] for model in lock["models"]] == [None, None]


def test_python_package(realized: World) -> None:
    """A change of python_packages chooses wheels again, and keeps the rest."""
    old = realized.lock()
    realized.spec(python_packages=["cvs-demo-palette>=1.0"])
    realized.realize()

    new = realized.lock()
    assert (old["core"], old["nodes"], old["models"]) == (new["core"], new["nodes"], new["models"])
    assert old["parts"]["python"] != new["parts"]["python"]
    assert new["python"]["wheels"][0]["required_by"] != ["ComfyUI"]
    assert counts(realized) == [1], "the same wheels are the same closure"


def test_overlaps(realized: World) -> None:
    """A clash leaves the version as it is; where wheels may overlap, what is run has the first."""
    for name in ("left", "right"):
        wheelmaker.make(str(realized.wheels), name, "1", {"both.py": f"X = {name!r}\n"})
    realized.spec(python_packages=["left", "right"])
    refused = realized.cvs("realize", "demo", *realized.local)
    lock = realized.lock()
    assert (refused.code, counts(realized)) == (2, [1])
    assert refused.err.startswith("error: the wheels left-1-")
    assert '"overlaps": ["site-packages/both.py"]' in refused.err

    realized.spec(python_packages=["left", "right"], python={"overlaps": ["site-packages/both.py"]})
    realized.realize()

    assert (realized.lock(), counts(realized)) == (lock, [1, 2])
    shutil.rmtree(realized.local_root)
    (realized.versions / "demo.json").unlink()
    ran = realized.process("exec", "demo", "--", "python", "-c", "import both; print(both.X)")
    assert (ran.code, ran.out) == (0, "left\n"), "a machine with neither spec nor environment"


def test_provided(world: World) -> None:
    """What the image has is not locked; without it nothing is realized and nothing runs."""
    python = bases.make(world.folder / "image")
    world.spec(python_packages=["torch"], python={"provided": ["torch>=2.7"]})
    arguments = ("realize", "demo", *world.local)
    refused = world.cvs(*arguments, COMFY_PYTHON=python)
    assert (refused.code, counts(world)) == (2, [])
    assert refused.err.startswith(
        f"error: the spec says that the image provides torch>=2.7; {python} has no torch\n"
    )

    bases.install(bases.packages(python), "torch", "2.7.1")
    world.ok(*arguments, COMFY_PYTHON=python)

    assert world.lock()["python"]["provided"] == ["torch>=2.7"]
    assert "torch" not in [wheel["name"] for wheel in world.lock()["python"]["wheels"]]
    command = ("exec", "demo", "--", "python", "-c", "import torch; print(torch.WHERE)")
    ran = world.process(*command, COMFY_PYTHON=python)
    assert (ran.code, ran.out) == (0, "image\n")
    shutil.rmtree(bases.packages(python) / "torch-2.7.1.dist-info")
    ran = world.process(*command, COMFY_PYTHON=python)
    assert (ran.code, ran.out) == (2, "")
    assert "has no torch" in ran.err


def test_the_system_s_python(world: World) -> None:
    """COMFY_USE_SYSTEM_PYTHON has everything run on the python3 of PATH, COMFY_PYTHON or not."""
    python = bases.make(world.folder / "image")
    os.symlink(python, Path(python).parent / "python3")
    settings = {
        "COMFY_USE_SYSTEM_PYTHON": "Yes",
        "COMFY_PYTHON": "/no/python",
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
    }
    world.ok("realize", "demo", *world.local, **settings)
    ran = world.process(
        *("exec", "demo", "--", "python", "-c", "import sys; print(sys._base_executable)"),
        **settings,
    )
    assert os.path.dirname(ran.out) == os.path.dirname(python), ran

    world.spec(python={"version": "3.2"})
    refused = world.cvs("realize", "demo", *world.local, **settings)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("error: COMFY_USE_SYSTEM_PYTHON is Python 3.")
    assert "Python 3.2 is needed\n" in refused.err


# --dry-run, --locked, --lock-file


def test_dry_run_of_nothing(world: World) -> None:
    """--dry-run before anything is there makes nothing, not even the volume."""
    before = world.listing()
    done = world.realize("demo", "--dry-run")

    *rows, stale, summary = done.out.splitlines()
    assert [row.split()[0] for row in rows] == ["core", "node", "model"]
    assert all(row.endswith("to resolve and fetch") for row in rows)
    assert stale == "to resolve first: core, nodes, python, models, interpreter"
    assert summary == (
        "demo: 3 of 3 parts to fetch, 16.5 kB; generation - is current; nothing was changed"
    )
    assert before == world.listing()


def test_dry_run_of_a_lock(world: World) -> None:
    """--dry-run shows what a lock names and what of it is stored; --json has the same."""
    world.ok("resolve", "demo", *world.local)
    before = world.listing()
    text = world.realize("demo", "--dry-run").out
    found = world.realize("demo", "--dry-run", "--json").json

    lock = world.lock()
    expected = [
        ("core", "ComfyUI", lock["core"]["commit"], True),
        ("node", "demo-node", lock["nodes"][0]["commit"], True),
        ("wheel", "cvs-demo-palette", "1.0", False),
        ("model", "checkpoints/demo.safetensors", world.material.sha256, False),
    ]
    assert expected == [
        (item["kind"], item["name"], item["pin"], item["stored"]) for item in found["items"]
    ]
    size = lock["python"]["wheels"][0]["size"] + lock["models"][0]["size"]
    rest = {"version": "demo", "stale": [], "to_fetch": 2, "bytes_to_fetch": size}
    assert {**rest, "current": None, "items": found["items"]} == found
    assert "demo: 2 of 4 parts to fetch" in text
    assert before == world.listing()


def test_dry_run_of_a_change(realized: World) -> None:
    """--dry-run of a changed spec names the parts to resolve and changes nothing."""
    realized.spec(custom_nodes=[realized.node(realized.material.v2)], models=[])
    before = realized.listing()
    found = realized.realize("demo", "--dry-run", "--json").json

    assert (found["stale"], found["current"]) == (["nodes", "models"], 1)
    found_items = [(item["kind"], item["resolved"]) for item in found["items"]]
    assert found_items == [("core", True), ("node", False), ("wheel", True)]
    assert before == realized.listing()


def test_dry_run_when_all_is_there(realized: World) -> None:
    """--dry-run says that nothing is to be fetched."""
    before = realized.listing()
    text = realized.realize("demo", "--dry-run").out

    assert "demo: 0 of 4 parts to fetch, 0 B; generation 1 is current" in text
    assert before == realized.listing()


def test_locked(realized: World) -> None:
    """--locked realizes a fresh lock, and refuses a stale one by its parts, changing nothing."""
    assert realized.cvs("realize", "demo", "--locked").code == 0
    realized.spec(custom_nodes=[], python={"exclude_newer": "none"})
    before = realized.listing(forgive=CAME_AND_WENT)
    for option in ([], ["--dry-run"]):
        done = realized.cvs("realize", "demo", "--locked", *option)
        assert done[:2] == (2, "")
        assert done.err.startswith(
            f"error: the lock {realized.cache}/resolved/demo.lock.json does not fit "
            f"{realized.versions}/demo.json any more: nodes, python changed\nhint: "
        )
    assert before == realized.listing(forgive=CAME_AND_WENT)


def test_locked_without_lock(world: World) -> None:
    """--locked without a lock says so."""
    done = world.cvs("realize", "demo", "--locked")

    assert done.code == 2
    assert done.err == (
        f"error: there is no lock {world.cache}/resolved/demo.lock.json\n"
        "hint: `cvs resolve` makes one\n"
    )


def test_lock_travels(realized: World, the_other: World) -> None:
    """A lock of another machine gives the same entries there, from other folders."""
    lock = realized.folder / "demo.lock.json"
    shutil.copy(realized.cache / "resolved" / "demo.lock.json", lock)
    text = lock.read_bytes()
    assert str(realized.folder).encode() not in text
    the_other.realize("demo", "--locked", "--lock-file", str(lock))

    assert set(realized.store.ids()) == set(the_other.store.ids())
    assert text == lock.read_bytes()


@pytest.fixture
def the_other(tmp_path: Path, realized: World) -> World:
    """A second world with the same spec and nothing stored."""
    folder = tmp_path / "other"
    folder.mkdir()
    made = World(folder, realized.material)
    # The spec is the same document: what it asks for is the same.
    shutil.copy(realized.versions / "demo.json", made.versions / "demo.json")
    return made


def test_relative_lock_file(world: World) -> None:
    """--lock-file may be a plain name in the working directory."""
    world.realize("demo", "--lock-file", "here.json")

    assert json.loads((world.folder / "here.json").read_text())["version_id"] == "demo"
    assert not (world.cache / "resolved" / "demo.lock.json").exists()


def test_lock_file_on_another_file_system(world: World, memory: Path) -> None:
    """--lock-file may lie on another file system than the volume."""
    file = memory / "demo.lock.json"
    world.realize("demo", "--lock-file", str(file))

    assert json.loads(file.read_text())["version_id"] == "demo"
    assert os.listdir(memory) == ["demo.lock.json"]


# COMFY_HOME


def make_real_home(world: World) -> None:
    for name, data in {"output/a.png": b"a", "user/u.json": b"u", "main.py": b"old"}.items():
        (world.home / name).parent.mkdir(parents=True, exist_ok=True)
        (world.home / name).write_bytes(data)


def test_real_folder_is_refused(world: World) -> None:
    """A real folder at COMFY_HOME is refused before anything is done; nothing is written."""
    make_real_home(world)
    before = world.listing()
    done = world.cvs("realize", "demo", *world.local)

    assert done[:2] == (2, "")
    assert done.err == (
        f"error: COMFY_HOME {world.home} is a real folder with output, user in it, "
        "not a link of cvs\n"
        "hint: --replace moves it aside and keeps it, --target DIR names another place\n"
    )
    assert before == world.listing()


def test_real_file_is_refused(world: World) -> None:
    """So is a file."""
    world.home.write_text("mine")
    done = world.cvs("realize", "demo", *world.local)

    assert done.code == 2
    assert f"error: COMFY_HOME {world.home} is a real file, not a link of cvs\n" in done.err
    assert world.home.read_text() == "mine"


def test_replace(world: World) -> None:
    """--replace moves a real folder aside with all that is in it, and says where it is."""
    make_real_home(world)
    done = world.realize("demo", "--replace")

    moved = [path for path in world.folder.iterdir() if ".before-cvs-" in path.name]
    assert len(moved) == 1
    assert done.err == (
        f"what was at {world.home} is now {moved[0]}\n"
        f"  its output is {moved[0]}/output\n"
        f"  its user is {moved[0]}/user\n"
    )
    assert (moved[0] / "output" / "a.png").read_bytes() == b"a"
    assert (moved[0] / "user" / "u.json").read_bytes() == b"u"
    assert world.home.is_symlink()
    assert world.realize("demo", "--replace").out.endswith("nothing to do\n")


def test_replace_json(world: World) -> None:
    """--json names the place too."""
    make_real_home(world)
    found = world.realize("demo", "--replace", "--json").json

    assert os.path.isfile(f"{found['moved_home']}/output/a.png")


def test_empty_folder_is_taken(world: World) -> None:
    """An empty folder, such as a mount point's, is no loss."""
    world.home.mkdir()
    world.realize()

    assert world.home.is_symlink()


def test_link_of_others(world: World) -> None:
    """A link that leads elsewhere is not taken over; --replace moves it aside as it is."""
    (world.folder / "else").mkdir()
    (world.folder / "else" / "file").touch()
    world.home.symlink_to("else")
    done = world.cvs("realize", "demo", *world.local)

    assert done[:2] == (2, "")
    assert done.err.startswith(
        f"error: COMFY_HOME {world.home} is a link to else, not one of cvs\n"
    )
    assert os.readlink(world.home) == "else"
    moved = world.realize("demo", "--replace", "--json").json["moved_home"]
    assert (world.home / "main.py").is_file()
    assert os.readlink(moved) == "else"
    assert (world.folder / "else" / "file").exists()


def test_two_versions_take_turns(realized: World) -> None:
    """Another version may take COMFY_HOME over while nothing of the first runs."""
    realized.spec("twin")
    realized.realize("twin")
    assert os.readlink(realized.home).endswith("/profiles/twin/current")
    done = realized.realize()

    assert done.out == f"demo: generation 1 is current, {realized.home} leads to it\n"


def test_home_in_use(realized: World) -> None:
    """A COMFY_HOME that a running process of another version uses is not re-pointed."""
    realized.spec("twin")
    record = realized.profile().record_path(1)
    with leases.Lease.of_generation(realized.volume, record):
        before = realized.listing(forgive=CAME_AND_WENT)
        done = realized.cvs("realize", "twin", *realized.local)
        assert done.code == 2
        assert done.err == (
            f"error: COMFY_HOME {realized.home} leads to demo, which is in use\n"
            "hint: --target DIR names another place, --force re-points it all the same\n"
        )
        assert before == realized.listing(forgive=CAME_AND_WENT)
        realized.realize()
        realized.realize("twin", "--target", str(realized.folder / "twin-home"))
        assert os.readlink(realized.home).endswith("/profiles/demo/current")
        realized.realize("twin", "--force")
    assert os.readlink(realized.home).endswith("/profiles/twin/current")


def test_dead_lease_is_no_use(realized: World) -> None:
    """A lease whose heart has stopped long ago does not hold COMFY_HOME."""
    realized.spec("twin")
    with leases.Lease.of_generation(realized.volume, realized.profile().record_path(1)) as lease:
        os.utime(lease.heartbeat, (0, 0))
        realized.realize("twin")


# Places


def nothing_to_do(world: World) -> bool:
    """Whether a realize takes the quick way out."""
    with contextlib.chdir(world.folder):
        return fresh.nothing_to_do(["demo"], world.environment) is not None


def test_packed_wheels(world: World) -> None:
    """On a volume that keeps wheels as packs: one file each, the environment is the same, comes
    again without a connection or the wheels' folder, and damage is found, refused and repaired."""
    world.environment["CVS_WHEELS"] = "pack"
    done = world.realize("demo", "--json").json
    volume = world.volume
    (wheel,) = world.store.closure([world.profile().record(1).wheel_set]) - {
        world.profile().record(1).wheel_set
    }
    folder = world.cache / "store" / wheel
    assert sorted(os.listdir(folder)) == ["content.pack", "manifest.json"]
    assert volume.packs_wheels
    world.assert_sound()
    told = world.process(
        "exec", "demo", "--", "python", "-c", "import cvs_demo_palette as p; print(p)"
    )
    assert told.code == 0
    assert f"{world.local_root}/environments/wheels/{wheel}" in os.path.realpath(
        told.out.split("'")[-2]
    )

    shown = world.cvs("store", "show", wheel[:8])
    assert "\npacked " in shown.out
    listed = world.cvs("store", "cat", wheel[:8], "site-packages")
    assert "cvs_demo_palette.py" in listed.out
    text = world.process("store", "cat", wheel[:8], "site-packages/cvs_demo_palette.py")
    assert text.code == 0
    assert text.out.encode() == _member(world, "cvs_demo_palette.py")
    assert world.cvs("store", "path", wheel[:8]).out == f"{folder}/content.pack\n"

    world.ok("realize", "demo")
    marker = world.local_root / "environments" / "wheels" / wheel / ".cvs"
    for spoil in (lambda: marker.write_text("before the machine started anew\n"), marker.unlink):
        assert nothing_to_do(world)
        since = marker.read_text()
        spoil()
        assert not nothing_to_do(world), "what was unpacked may be lost"
        assert world.ok("realize", "demo").out == "demo: generation 1 is current, nothing to do\n"
        assert marker.read_text() == since

    shutil.rmtree(world.local_root)
    world.wheels.rename(world.folder / "away")
    assert (
        world.cvs("realize", "demo", "--allow-local", "--json").json["environment"]
        == (done["environment"])
    )

    shutil.rmtree(world.local_root)
    pack = folder / "content.pack"
    whole = pack.read_bytes()
    pack.chmod(0o644)
    pack.write_bytes(bytes(64) + whole[64:])
    refused = world.cvs("exec", "demo", "--", "python", "-c", "1")
    assert (refused.code, refused.out) == (2, "")
    assert f"entry {wheel[:16]} is damaged" in refused.err
    assert f"cvs store repair {wheel[:16]}" in refused.err
    (world.folder / "away").rename(world.wheels)
    repaired = world.cvs("store", "repair", "--wheels-dir", str(world.wheels))
    assert repaired.code == 0, repaired
    assert world.cvs("exec", "demo", "--", "python", "-c", "import cvs_demo_palette").code == 0
    world.assert_sound()

    for vanished in (pack, folder):
        pack.chmod(0o644)
        (shutil.rmtree if vanished == folder else os.unlink)(vanished)
        damage.mark(world.volume, wheel)
        repaired = world.ok("store", "repair", wheel, *world.local)
        assert "1 entries, all well" in repaired.out
        assert sorted(os.listdir(folder)) == ["content.pack", "manifest.json"]
        assert pack.read_bytes() == whole
    world.assert_sound()


def _member(world: World, name: str) -> bytes:
    """A file of the world's wheel."""
    (path,) = world.wheels.glob("cvs_demo_palette-*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def test_models_dir(world: World) -> None:
    """MODELS_DIR and --models-dir are where loose models are looked for, and linked to."""
    loose = world.folder / "loose"
    (loose / "checkpoints").mkdir(parents=True)
    shutil.move(world.model, loose / "checkpoints" / "demo.safetensors")
    world.spec(
        models=[
            {
                "source": "https://example.org/demo.safetensors",
                "target_path": "checkpoints/demo.safetensors",
                "sha256": world.material.sha256,
            }
        ]
    )
    done = world.ok("realize", "demo", *world.local, MODELS_DIR=str(loose))

    assert done.err == f"took checkpoints/demo.safetensors from {loose}\n"
    assert os.path.realpath(world.state() / "models") == os.path.realpath(loose)
    other = world.folder / "other"
    world.realize("demo", "--models-dir", str(other))
    assert os.path.realpath(world.state() / "models") == os.path.realpath(other)


def test_moved_volume(realized: World) -> None:
    """The whole volume moves to another path and everything goes on there."""
    moved = realized.folder / "elsewhere" / "volume"
    moved.parent.mkdir()
    shutil.move(realized.cache, moved)
    realized.cache = moved
    realized.environment["COMFY_CACHE_ROOT"] = str(moved)
    expected = f"demo: generation 1 is current, {realized.home} leads to it\n"

    assert expected == realized.ok("realize", "demo").out
    assert (realized.home / "main.py").is_file()
    assert (realized.home / "user").is_dir()
    realized.spec(custom_nodes=[realized.node(realized.material.v2)])
    realized.realize()
    assert counts(realized) == [1, 2]
    realized.ok("rollback", "demo")
    realized.assert_sound()


def test_old_core(world: World) -> None:
    """A core of 2024 gets an extra_model_paths.yaml that it can read."""
    commit = world.new_source("old.git", files_of(DEMO / "core", OLD))
    world.spec(comfy={"repo": f"{world.url}/old.git", "commit": commit})
    world.realize()

    text = (world.home / "extra_model_paths.yaml").read_text()
    assert "is_default" not in text
    assert "  clip: clip\n" in text


def test_two_at_once(world: World) -> None:
    """Two first realizes at once both succeed: each entry is stored once and all of it is sound."""
    command = ["realize", "demo", *world.local]
    with world.start(*command) as one, world.start(*command) as two:
        ended = [process.communicate(timeout=PATIENCE) for process in (one, two)]

    assert [(one.returncode, ended[0][1]), (two.returncode, ended[1][1])] == [(0, ""), (0, "")]
    assert world.profile().current() in world.profile().numbers()
    assert (world.home / "main.py").is_file()
    assert len(list(world.store.ids())) == 5
    world.assert_sound()
