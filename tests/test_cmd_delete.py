"""`cvs delete`: what goes and what stays."""

import os
import shutil

import pytest
from world import CAME_AND_WENT, World

from cvs.store import leases

pytest_plugins = ["world_fixtures"]


def test_delete(realized: World) -> None:
    """Generations, lock and the COMFY_HOME link go; spec, state and entries stay."""
    output = realized.state() / "output" / "mine.png"
    output.write_bytes(b"mine")
    entries = set(realized.store.ids())
    done = realized.ok("delete", "demo")

    assert done.out == (
        f"removed {realized.cache}/profiles/demo\n"
        f"removed {realized.cache}/resolved/demo.lock.json\n"
        f"removed {realized.home}\n"
        f"kept {realized.state()} (output and user data): --purge-state removes it\n"
    )
    assert not os.path.lexists(realized.home)
    assert os.listdir(realized.cache / "profiles") == []
    assert os.listdir(realized.cache / "resolved") == []
    assert output.read_bytes() == b"mine"
    assert (realized.versions / "demo.json").is_file()
    assert entries == set(realized.store.ids())
    realized.assert_sound()


def test_delete_all_of_it(realized: World) -> None:
    """--remove-spec and --purge-state take the rest; --json names all that went."""
    found = realized.ok("delete", "demo", "--remove-spec", "--purge-state", "--json").json

    expected = {
        "version": "demo",
        "removed": [
            f"{realized.cache}/profiles/demo",
            f"{realized.cache}/resolved/demo.lock.json",
            str(realized.home),
            f"{realized.versions}/demo.json",
            str(realized.state()),
        ],
        "dry_run": False,
    }
    assert expected == found
    assert [path for path in expected["removed"] if os.path.lexists(str(path))] == []
    assert realized.ok("list").out == f"no versions in {realized.versions}\n"


def test_deleting_sweeps(realized: World) -> None:
    """What a killed delete left in tmp/ goes with the next one."""
    (realized.cache / "tmp" / ("0" * 32) / "demo").mkdir(parents=True)
    realized.ok("delete", "demo")

    realized.assert_sound()


def test_dry_run(realized: World) -> None:
    """--dry-run says what would go and removes nothing."""
    before = realized.listing(forgive=CAME_AND_WENT)
    done = realized.ok("delete", "demo", "--remove-spec", "--purge-state", "--dry-run")

    assert done.out.splitlines() == [
        f"would remove {realized.cache}/profiles/demo",
        f"would remove {realized.cache}/resolved/demo.lock.json",
        f"would remove {realized.home}",
        f"would remove {realized.versions}/demo.json",
        f"would remove {realized.state()}",
    ]
    assert before == realized.listing(forgive=CAME_AND_WENT)


def test_in_use(realized: World) -> None:
    """A version that runs is refused by name, and goes with --force."""
    with leases.Lease.of_generation(realized.volume, realized.profile().record_path(1)):
        before = realized.listing(forgive=CAME_AND_WENT)
        done = realized.cvs("delete", "demo")
        assert done == (
            2,
            "",
            "error: demo is in use by 1 running process(es)\nhint: end them first, or --force\n",
        )
        assert before == realized.listing(forgive=CAME_AND_WENT)
        realized.ok("delete", "demo", "--force")
    assert not (realized.cache / "profiles" / "demo").exists()


def test_use_of_another_version(realized: World) -> None:
    """Another version that runs is no hindrance."""
    realized.spec("twin")
    realized.realize("twin", "--target", str(realized.folder / "twin"))
    with leases.Lease.of_generation(realized.volume, realized.profile("twin").record_path(1)):
        realized.ok("delete", "demo")


def test_lease_of_a_dead_host(realized: World) -> None:
    """A lease whose heart has stopped long ago is no use, as for realize."""
    with leases.Lease.of_generation(realized.volume, realized.profile().record_path(1)) as lease:
        os.utime(lease.heartbeat, (0, 0))
        realized.ok("delete", "demo")


def test_home_of_another_version_stays(realized: World) -> None:
    """A COMFY_HOME that leads to another version, or is a real folder, stays."""
    realized.spec("twin")
    realized.realize("twin")
    realized.ok("delete", "demo")
    assert (realized.home / "main.py").is_file()
    realized.ok("delete", "twin", "--purge-state")
    assert not os.path.lexists(realized.home)
    realized.home.mkdir()
    (realized.home / "mine").touch()
    realized.realize("demo", "--target", str(realized.folder / "else"))
    realized.ok("delete", "demo")

    assert (realized.home / "mine").exists()


def test_target(realized: World) -> None:
    """--target is the link that goes."""
    other = realized.folder / "other"
    realized.realize("demo", "--target", str(other))
    realized.ok("delete", "demo", "--target", str(other))

    assert not os.path.lexists(other)


def test_state_is_found_again(realized: World) -> None:
    """A version that is realized again after a delete has its state back, as generation 1."""
    (realized.state() / "output" / "mine.png").write_bytes(b"mine")
    realized.ok("delete", "demo")
    realized.realize()

    assert (realized.home / "output" / "mine.png").read_bytes() == b"mine"
    assert realized.profile().numbers() == [1]


def test_purge_keeps_what_state_links_to(realized: World) -> None:
    """--purge-state removes links to models, never the models."""
    loose = realized.folder / "loose"
    loose.mkdir()
    (loose / "mine").touch()
    realized.realize("demo", "--models-dir", str(loose))
    realized.ok("delete", "demo", "--purge-state")

    assert (loose / "mine").exists()


@pytest.mark.parametrize("left", ["profiles/demo", "resolved/demo.lock.json"])
def test_parts_of_it(realized: World, left: str) -> None:
    """What is there of a version goes, although the rest is gone already."""
    for part in ("profiles/demo", "resolved/demo.lock.json"):
        path = realized.cache / part
        if part != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    realized.ok("delete", "demo")

    assert not (realized.cache / left).exists()


def test_twice(realized: World) -> None:
    """The second time there is nothing to delete, and that is told."""
    realized.ok("delete", "demo", "--purge-state")
    done = realized.cvs("delete", "demo", "--purge-state")

    assert done[:2] == (2, "")
    assert done.err.startswith("error: there is nothing of 'demo' to delete\n")
