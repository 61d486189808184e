"""`cvs store repair`, and that nothing damaged is served: with real servers, end to end."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from indexserver import IndexServer
from world import CAME_AND_WENT, Done, World

from cvs.store import damage, manifest, repair
from cvs.store.digest import EntryId

pytest_plugins = ["world_fixtures"]

KINDS = ("core", "node", "wheel", "set", "model")


@pytest.fixture
def online(served: World) -> Iterator[World]:
    """A world whose `demo` came over HTTP: from a git server, a package index, a file server."""
    assert served.server is not None
    with IndexServer() as index:
        for path in shutil.copytree(served.wheels, served.folder / "index").iterdir():
            index.add(str(path), None)
        served.server.objects["model"] = served.model.read_bytes()
        model = {
            "source": f"{served.url}/lfs/model",
            "target_path": "checkpoints/demo.safetensors",
        }
        served.spec(python={"index_url": index.url}, models=[model])
        served.ok("realize", "demo", "--allow-local")
        # What is on this machine as well serves nobody from now on.
        shutil.rmtree(served.wheels)
        served.model.unlink()
        yield served


def entry_of(world: World, kind: str) -> EntryId:
    """One of the entries of `demo`."""
    lock = world.lock()
    if kind == "core":
        return EntryId(lock["core"]["entry"])
    if kind == "node":
        return EntryId(lock["nodes"][0]["entry"])
    if kind == "model":
        return EntryId(lock["models"][0]["entry"])
    record = world.profile().record(1)
    if kind == "set":
        return record.wheel_set
    documents = {entry: world.store.manifest(entry) for entry in record.entries}
    return next(entry for entry, one in documents.items() if one.origin.endswith(".whl"))


def harm(world: World, kind: str) -> tuple[EntryId, str]:
    """Changes a byte of an entry of `demo`; returns it and the path of the file."""
    entry = entry_of(world, kind)
    folder = Path(world.store.path(entry))
    files = {
        "core": "ComfyUI/main.py",
        "node": "demo-node/__init__.py",
        "model": "content.safetensors",
        "set": manifest.NAME,
    }
    path = folder / files.get(kind, "")
    if kind == "wheel":
        (path, *_) = folder.glob("*/site-packages/**/*.py")
    data = bytearray(path.read_bytes())
    data[-60] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)
    return entry, str(path.relative_to(folder))


def sources(world: World) -> dict[str, str]:
    """What an entry's source is called."""
    lock = world.lock()
    return {
        "core": f"{world.url}/ComfyUI.git at {lock['core']['commit'][:12]}",
        "node": f"{world.url}/demo-node.git at {lock['nodes'][0]['commit'][:12]}",
        "wheel": lock["python"]["wheels"][0]["url"],
        "model": f"{world.url}/lfs/model",
        "set": "a generation of demo",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_from_its_source(online: World, kind: str) -> None:
    """Whatever kind of entry is damaged is found, marked, and fetched again from where it came
    from; afterwards all is well and nothing else was touched."""
    entry, path = harm(online, kind)
    before = online.listing()
    found = online.cvs("store", "verify")
    assert found.code == 1
    assert found.out.splitlines()[0].startswith(f"{entry[:16]}/{path} ")
    assert found.err == f"hint: cvs store repair {entry[:16]}\n"

    done = online.ok("store", "repair", "--allow-local")
    assert f"{entry[:16]}/{path} is restored\n" in done.out
    assert done.out.endswith("1 entries, all well\n")
    assert online.ok("store", "verify").out == "5 entries, all well\n"
    online.assert_sound()
    after = online.listing()
    place = f"cache/store/{entry}/{path}"
    parts = place.split("/")
    parents = {"/".join(parts[:number]) for number in range(1, len(parts) + 1)}
    changed = {at for at in before.keys() | after.keys() if before.get(at) != after.get(at)}
    changed -= {at for at in changed if at.startswith(("cache/damaged", "cache/reserve"))}
    assert place in changed
    assert changed <= {*parents, *CAME_AND_WENT}
    assert online.ok("realize", "demo", "--allow-local").out.endswith("nothing to do\n")


@pytest.mark.parametrize("kind", KINDS)
def test_dry_run(online: World, kind: str) -> None:
    """A dry run says what is damaged and who is asked for it; it asks nobody and changes
    nothing."""
    entry, path = harm(online, kind)
    before, asked = online.listing(), online.requests()
    done = online.ok("store", "repair", entry, "--dry-run", "--allow-local", "--json")

    (one,) = done.json["damaged"]
    assert one["id"] == entry
    assert [item["path"] for item in one["damaged"]] == [path]
    # The advice of a manifest is no loss, and of a set nothing else was changed.
    assert one["steps"] == [{"path": path, "needs_source": kind != "set"}]
    assert sources(online)[kind] in one["sources"]
    text = online.ok("store", "repair", entry[:8], "--dry-run", "--allow-local").out
    assert f"{entry[:16]}/{path} " in text
    assert text.endswith("1 of 1 entries are damaged; nothing was changed\n")
    assert online.listing() == before
    assert online.requests() == asked


def test_offline_and_not_allowed(online: World) -> None:
    """Without a connection, or without leave to ask this machine, each source says so; the entry
    stays damaged and marked."""
    entry, path = harm(online, "node")
    online.cvs("store", "verify")
    asked = online.requests()
    for options, why in (
        (["--allow-local", "--offline"], "no connection may be made"),
        ([], "http:// is not fetched from"),
    ):
        done = online.cvs("store", "repair", *options, "--json")
        assert done.code == 1
        (one,) = done.json["repaired"]
        assert (one["id"], one["whole"], one["restored"]) == (entry, False, [])
        assert one["lost"][0]["path"] == path
        assert sources(online)["node"] + ": " in one["lost"][0]["why"]
        assert why in one["lost"][0]["why"]
        text = online.cvs("store", "repair", *options)
        assert text.out.endswith("1 of 1 entries are still damaged\n")
        assert text.err == "hint: --from PATH names another volume, or a copy, that has it\n"
    assert online.requests() == asked
    assert damage.marked(online.volume) == {entry}


@pytest.mark.parametrize("kind", KINDS)
def test_from_another_volume(realized: World, kind: str) -> None:
    """Another volume serves for every kind of entry, without a connection, a spec or a lock."""
    shutil.copytree(realized.cache, realized.folder / "other", symlinks=True)
    entry, path = harm(realized, kind)
    (realized.versions / "demo.json").unlink()
    done = realized.ok("store", "repair", entry[:8], "--from", "other")

    assert f"{entry[:16]}/{path} is restored\n" in done.out
    realized.assert_sound()


def test_from_this_machine(realized: World) -> None:
    """What came from folders of this machine is found again through spec and options."""
    for kind in KINDS:
        harm(realized, kind)
    done = realized.cvs("store", "repair", "--all")
    assert done.code == 1
    assert "3 of 5 entries are still damaged" in done.out
    assert done.out.count("is a path of this machine") == 2
    assert "1 wheels are not stored and no connection may be made: cvs_demo_palette" in done.out
    assert realized.ok("store", "repair", *realized.local).out.endswith("3 entries, all well\n")
    realized.assert_sound()


def test_what_was_done_before_an_error_is_told(
    realized: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume that is full at the second entry does not take the news of the first with it."""
    harmed = sorted([harm(realized, "core"), harm(realized, "node")])
    real, calls = repair.repair, iter((True, False))

    def full(*arguments: Any) -> Any:
        if next(calls):
            return real(*arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), realized.cache)

    monkeypatch.setattr(repair, "repair", full)
    names = [entry for entry, _ in harmed]
    done = realized.cvs("store", "repair", "--allow-local", *names)

    assert done.code == 2
    (first, path) = harmed[0]
    assert f"{first[:16]}/{path} is restored" in done.err.splitlines()
    assert "error: no space is left" in done.err


def test_from_a_copy(realized: World) -> None:
    """A file or folder of the user's serves, as for what `cvs store add` took."""
    (realized.folder / "mine").mkdir()
    (realized.folder / "mine" / "notes").write_text("what I know\n")
    entry = EntryId(realized.ok("store", "add", "mine").out.split()[0])
    path = Path(realized.store.path(entry), "mine", "notes")
    path.chmod(0o644)
    path.write_text("what I knew\n")
    path.chmod(0o444)
    assert realized.cvs("store", "repair", entry).code == 1
    done = realized.ok("store", "repair", "--from", "mine")
    assert f"{entry[:16]}/mine/notes is restored\n" in done.out
    damage.mark(realized.volume, entry)
    again = realized.cvs("store", "add", "mine")
    hint = f"hint: cvs store repair {entry[:16]} --from {realized.folder}/mine\n"
    assert (again.code, again.err.splitlines(keepends=True)[-1]) == (2, hint)
    missing = realized.cvs("store", "repair", "--from", "nothing")
    assert (missing.code, missing.err) == (2, f"error: {realized.folder}/nothing is not there\n")


def test_an_entry_that_is_gone(realized: World) -> None:
    """A marked entry that is gone comes back whole; one that nobody marked is no entry."""
    entry = entry_of(realized, "node")
    shutil.rmtree(realized.store.path(entry))
    done = realized.cvs("store", "repair", entry, *realized.local)
    assert (done.code, done.err) == (2, f"error: no entry of the store begins with {entry}\n")
    damage.mark(realized.volume, entry)
    planned = realized.ok("store", "repair", "--dry-run", *realized.local)
    assert f"{entry[:16]}/. is missing\n" in planned.out
    done = realized.ok("store", "repair", entry[:8], *realized.local)
    assert f"{entry[:16]}/. is restored\n" in done.out
    realized.assert_sound()


def test_nothing_to_repair(realized: World, world: World) -> None:
    """Without a mark there is nothing to do; what is whole loses its mark; a store that is not
    there is not made."""
    text = "no entry is marked as damaged; `cvs store verify` looks\n"
    assert realized.ok("store", "repair").out == text
    assert realized.ok("store", "repair", "--all").out == "5 entries, all well\n"
    entry = entry_of(realized, "core")
    damage.mark(realized.volume, entry)
    assert realized.ok("store", "repair").out == "1 entries, all well\n"
    assert damage.marked(realized.volume) == set()
    both = realized.cvs("store", "repair", "--all", entry)
    assert (both.code, both.err) == (2, "error: --all is for all entries, and some are named\n")
    nowhere = str(realized.folder / "nowhere")
    assert realized.ok("store", "repair", COMFY_CACHE_ROOT=nowhere).out == text
    assert not os.path.lexists(nowhere)


def test_what_was_there_is_kept(realized: World) -> None:
    """The text says where what was damaged lies now, and doctor tells of it."""
    entry, path = harm(realized, "node")
    broken = Path(realized.store.path(entry), path).read_bytes()
    done = realized.ok("store", "repair", entry, *realized.local, "--json")
    (one,) = done.json["repaired"]

    assert one["whole"]
    assert (realized.cache / one["kept_aside"] / path).read_bytes() == broken
    assert "1 damaged entries lie aside" in realized.ok("doctor").out


def test_many_files(realized: World) -> None:
    """Of many files the first are listed, and how many there are more."""
    entry = entry_of(realized, "core")
    shutil.rmtree(Path(realized.store.path(entry), "ComfyUI"))
    done = realized.ok("store", "repair", entry, *realized.local)

    lines = done.out.splitlines()
    assert len(lines) == 22 + ("kept in" in done.out)
    assert lines[20].startswith("and ")


def test_a_lock_or_spec_that_cannot_be_read(realized: World) -> None:
    """A lock or spec that is damaged itself is named in a warning, and no obstacle."""
    entry, _ = harm(realized, "node")
    (realized.cache / "resolved" / "other.lock.json").write_text("{")
    (realized.versions / "demo.json").write_text("{")
    shutil.copytree(realized.repos, realized.folder / "elsewhere")
    done = realized.cvs("store", "repair", entry, *realized.local)

    assert done.code == 1
    assert done.err.count("warning: what it names is not known: ") == 2
    assert "it came from a folder of this machine that only the spec of demo names" in done.out


# Never served


SERVES: dict[str, list[str]] = {
    "realize": ["realize", "demo"],
    "realize with an option": ["realize", "demo", "--offline"],
    "run-ui": ["run-ui", "demo"],
    "run-handler": ["run-handler", "demo", "--workflow", "none.json"],
    "exec": ["exec", "demo", "--", "true"],
    "shell": ["shell", "demo", "--", "-c", "true"],
    "rollback": ["rollback", "demo", "1"],
}


def serve(world: World, name: str) -> Done:
    """Runs a command that would serve the entries of `demo`."""
    if name == "run-handler":
        world.workflow({"1": {"class_type": "X", "inputs": {}}}, "none.json")
    arguments = SERVES[name]
    if arguments[0] == "realize" and len(arguments) > 2:
        arguments = [*arguments, *world.local]
    return world.cvs(*arguments)


@pytest.fixture
def quick(realized: World) -> World:
    """A realized world in which a realize ends before it looks at anything."""
    realized.spec(options={"offline": True})
    realized.spec(
        comfy={"repo": f"{realized.url}/ComfyUI.git", "commit": realized.material.core},
    )
    from cvs import fresh

    record = realized.profile().record(1)
    (made,) = (realized.local_root / "environments").iterdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(realized.folder)
        fresh.remember(
            "demo", realized.environment, number=1, made=str(made), entries=record.entries
        )
    assert realized.ok("realize", "demo").out.endswith("nothing to do\n")
    return realized


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SERVES)
def test_what_is_marked_is_not_served(quick: World, name: str, kind: str) -> None:
    """No command serves a version with an entry that was found damaged: exit 2, and the cure."""
    entry, _ = harm(quick, kind)
    assert quick.cvs("store", "verify", entry).code == 1
    before = quick.listing(forgive=CAME_AND_WENT)
    done = serve(quick, name)

    assert done.code == 2
    assert f"hint: cvs store repair {entry[:16]}\n" in done.err
    if kind != "set":
        assert f"error: entry {entry[:16]} is damaged\n" in done.err
    assert quick.leases() == []
    changed = quick.listing(forgive=CAME_AND_WENT)
    assert {path for path in changed if path.startswith("cache/profiles")} == {
        path for path in before if path.startswith("cache/profiles")
    }


@pytest.mark.parametrize("gone", ["environment", "view"])
def test_what_is_marked_is_not_built_from(quick: World, gone: str) -> None:
    """Neither an environment nor a view is made of a damaged entry."""
    entry, _ = harm(quick, "wheel" if gone == "environment" else "core")
    quick.cvs("store", "verify", entry)
    folder = quick.local_root / "environments" if gone == "environment" else None
    shutil.rmtree(folder or quick.profile().view(1))
    for name in ("exec", "realize with an option"):
        done = serve(quick, name)
        assert done.code == 2
        assert f"error: entry {entry[:16]} is damaged\n" in done.err
    assert not (folder and folder.exists() and any(folder.iterdir()))


CUTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "model cut": (
        "model",
        lambda entry: os.truncate(entry / "content.safetensors", 100),
        "content.safetensors has 100 bytes instead of 16510",
    ),
    "model gone": (
        "model",
        lambda entry: (entry / "content.safetensors").unlink(),
        "content.safetensors is missing",
    ),
    "node's folder gone": (
        "node",
        lambda entry: shutil.rmtree(entry / "demo-node"),
        "demo-node is missing",
    ),
    "core's file gone": (
        "core",
        lambda entry: (entry / "ComfyUI" / "main.py").unlink(),
        "ComfyUI/main.py is missing",
    ),
}


@pytest.mark.parametrize("name", ["realize with an option", "exec", "run-ui"])
@pytest.mark.parametrize("cut", CUTS)
def test_what_is_seen_at_a_glance_is_not_served(quick: World, name: str, cut: str) -> None:
    """What is plainly missing or cut is seen before anything runs, named, marked, and repaired."""
    kind, change, what = CUTS[cut]
    entry = entry_of(quick, kind)
    change(Path(quick.store.path(entry)))
    done = serve(quick, name)

    assert done.code == 2
    assert f"error: entry {entry[:16]} is damaged: {what}\n" in done.err
    assert f"hint: cvs store repair {entry[:16]}\n" in done.err
    assert damage.marked(quick.volume) == {entry}
    assert quick.cvs("realize", "demo").code == 2
    quick.ok("store", "repair", *quick.local)
    assert quick.ok("exec", "demo", "--", "true").code == 0
    quick.assert_sound()


def test_a_dry_run_of_realize_tells_of_damage(realized: World) -> None:
    """The plan of a realize says of what is damaged that it is."""
    entry, _ = harm(realized, "node")
    realized.cvs("store", "verify", entry)
    done = realized.ok("realize", "demo", "--dry-run", *realized.local)

    (line,) = [line for line in done.out.splitlines() if line.startswith("node ")]
    assert line.endswith("  damaged")


def test_another_version_is_served(realized: World) -> None:
    """A damaged entry is no matter for a version that does not need it."""
    realized.spec("other", custom_nodes=[])
    realized.realize("other", "--target", str(realized.folder / "other-home"))
    entry, _ = harm(realized, "node")
    realized.cvs("store", "verify", entry)

    assert realized.cvs("exec", "demo", "--", "true").code == 2
    assert realized.ok("exec", "other", "--", "true").code == 0


def test_a_damaged_entry_that_is_removed(realized: World) -> None:
    """Who removes a damaged entry by hand gets a whole one by the next realize, and no mark."""
    entry, _ = harm(realized, "node")
    realized.cvs("store", "verify", entry)
    shutil.rmtree(realized.store.path(entry))
    assert realized.cvs("realize", "demo", *realized.local).code == 0
    assert damage.marked(realized.volume) == set()
    realized.assert_sound()
