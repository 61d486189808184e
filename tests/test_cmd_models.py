"""`cvs models`: ls, add, fetch, adopt and where."""

import functools
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modelmaker
import pytest
from blake3 import blake3
from world import World

from cvs.cmd_models import ACTIONS
from cvs.store.digest import EntryId

pytest_plugins = ["world_fixtures"]

WEIGHTS = modelmaker.safetensors(b"12345678" * 200, {"format": "pt", "author": "me"}, "BF16")
OTHER = modelmaker.safetensors(b"87654321" * 300, dtype="F32")
PICKLE = modelmaker.torch_zip() + b"\0" * 2000


@pytest.fixture
def folder(world: World) -> Path:
    """A models folder on the volume, as people have them."""
    made = world.cache / "models"
    for name, data in {
        "checkpoints/put_checkpoints_here": b"",
        "checkpoints/a.safetensors": WEIGHTS,
        "checkpoints/a.yaml": b"a: 1\n" * 500,
        "checkpoints/old.ckpt": PICKLE,
        "loras/again.safetensors": WEIGHTS,
        "loras/deep/other.sft": OTHER,
        "loras/preview.png": b"\x89PNG" * 1000,
        ".cache/x.safetensors": OTHER,
    }.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (made / "loras" / "link.safetensors").symlink_to("again.safetensors")
    return made


@pytest.fixture
def web(world: World) -> Iterator[str]:
    """The address of a server of the world's folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    handler = functools.partial(Quiet, directory=str(world.folder / "web"))
    (world.folder / "web").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def hash_of(data: bytes) -> str:
    """The id of a file."""
    return blake3(data).hexdigest()


def readable(folder: Path) -> dict[str, bytes]:
    """What each path below a folder reads as."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# adopt


def test_adopt(world: World, folder: Path) -> None:
    """Models become links to entries, each kept once; every path reads as before."""
    before = readable(folder)
    done = world.ok("models", "adopt", str(folder), "--json", "--quiet").json

    assert readable(folder) == before
    links = [str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_symlink()]
    assert links == [
        "checkpoints/a.safetensors",
        "checkpoints/old.ckpt",
        "loras/again.safetensors",
        "loras/deep/other.sft",
        "loras/link.safetensors",
    ]
    assert os.readlink(folder / "loras" / "deep" / "other.sft").startswith("../../../store/")
    assert (done["won"], done["links"], done["ignored"]) == (len(WEIGHTS), 1, 3)
    states = {one["paths"][0]: one["state"] for one in done["files"]}
    # Of two that are the same it is whichever comes first.
    twins = {states.pop("checkpoints/a.safetensors"), states.pop("loras/again.safetensors")}
    assert twins == {"adopted", "duplicate"}
    assert states == {"checkpoints/old.ckpt": "adopted", "loras/deep/other.sft": "adopted"}
    assert {*world.store.ids()} == {hash_of(data) for data in (WEIGHTS, PICKLE, OTHER)}
    assert [root.kind for root in world.store.roots()] == ["pin"] * 3
    world.assert_sound()


def test_adopt_tells(world: World, folder: Path) -> None:
    """What was won, which files are the same, and once more: nothing is left to do."""
    done = world.ok("models", "adopt", str(folder), "--quiet")
    size = len(WEIGHTS)
    told = done.out.splitlines()
    twins = sorted(told.pop(2).strip().split(" is the same as "))
    assert twins == ["checkpoints/a.safetensors", "loras/again.safetensors"]
    assert told == [
        "3 files adopted, 6.5 kB",
        f"1 files there already, {size / 1000:.1f} kB: {size / 1000:.1f} kB won",
        "1 links stay as they are",
        "3 other files are no models",
    ]
    again = world.ok("models", "adopt", str(folder), "--quiet")
    assert again.out.splitlines()[:2] == ["there is nothing to adopt", "5 links stay as they are"]


def test_adopt_dry_run(world: World, folder: Path) -> None:
    """Tells the same, and changes nothing."""
    world.ok("store", "ls")
    (world.cache / "store").mkdir()
    before = world.listing()
    done = world.ok("models", "adopt", str(folder), "--dry-run", "--quiet")
    assert done.out.splitlines()[:3] == [
        "3 files would be adopted, 6.5 kB",
        "1 files there already, 1.7 kB: 1.7 kB would be won",
        "  loras/again.safetensors is the same as checkpoints/a.safetensors",
    ]
    assert world.listing() == before


def test_adopt_what_the_store_has(world: World, folder: Path) -> None:
    """A model that an entry has is a duplicate, in a dry run as well."""
    (world.folder / "x.safetensors").write_bytes(OTHER)
    world.ok("store", "add", "x.safetensors")
    for options in (["--dry-run"], []):
        done = world.ok("models", "adopt", str(folder / "loras" / "deep"), *options, "--quiet")
        assert "  other.sft is the same as an entry of the store" in done.out


def test_adopt_leaves_what_is_no_model(world: World, folder: Path) -> None:
    """One that is cut, or a page in its place, stays, and it is said why."""
    (folder / "checkpoints" / "a.safetensors").write_bytes(WEIGHTS[:-1])
    (folder / "checkpoints" / "old.ckpt").write_bytes(b"<html>" + b" " * 2000)
    done = world.ok("models", "adopt", str(folder), "--quiet").out
    assert "  checkpoints/a.safetensors: a.safetensors is cut: it has" in done
    assert "  checkpoints/old.ckpt: old.ckpt is a web page and no model" in done
    assert not (folder / "checkpoints" / "a.safetensors").is_symlink()


def test_adopt_all(world: World, folder: Path) -> None:
    """With --all other files as well, but no placeholders, notes and hidden ones."""
    world.ok("models", "adopt", str(folder), "--all", "--quiet")
    assert (folder / "loras" / "preview.png").is_symlink()
    assert not (folder / "checkpoints" / "a.yaml").is_symlink()
    assert not (folder / ".cache" / "x.safetensors").is_symlink()


def test_adopt_any_name(world: World, folder: Path) -> None:
    """A name that is no text, or that a terminal would obey, is quoted as in manifests."""
    for name in (b"\xff.safetensors", b"\x1b[2J.safetensors"):
        Path(os.fsdecode(os.fsencode(folder) + b"/loras/deep/" + name)).write_bytes(OTHER)
    done = world.ok("models", "adopt", str(folder / "loras" / "deep"), "--quiet")
    assert done.out.count(" is the same as ") == 2
    assert "%1B[2J.safetensors" in done.out
    assert "%FF.safetensors" in done.out
    world.ok("models", "ls", "--json")
    assert len(world.ok("models", "ls", "--long").out.splitlines()) > 5


def test_adopt_the_view(realized: World) -> None:
    """The models of a realized version are links already; it is said where loose ones lie."""
    done = realized.cvs("models", "adopt", str(realized.home / "models"))
    assert done.code == 2
    assert "hint: the loose models of all versions lie in MODELS_DIR" in done.err


def test_adopt_many(world: World, folder: Path) -> None:
    """Several files are digested at once, and each is taken in once."""
    for number in range(60):
        (folder / "loras" / f"{number}.safetensors").write_bytes(
            modelmaker.safetensors(b"%02d" % (number % 50) * 600)
        )
    done = world.ok("models", "adopt", str(folder / "loras"), "--json", "--quiet").json
    states = [one["state"] for one in done["files"]]
    assert (states.count("adopted"), states.count("duplicate")) == (52, 10)
    world.assert_sound()


def test_adopt_for_a_version(realized: World) -> None:
    """What was adopted is what a spec with the same checksum takes; nothing is fetched."""
    path = realized.cache / "models" / "loras" / "a.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(WEIGHTS)
    realized.ok("models", "adopt", str(path.parent), "--quiet")
    (item,) = realized.ok("models", "ls", "a.safetensors", "--json").json
    model = {
        "source": "https://host.invalid/a.safetensors",
        "target_path": "loras/a.safetensors",
        "checksum": item["sha256"],
    }
    realized.spec(models=[model])
    realized.realize()
    assert (realized.home / "models" / "loras" / "a.safetensors").read_bytes() == WEIGHTS


def test_adopt_elsewhere(world: World, folder: Path, memory: Path) -> None:
    """Another file system is refused without --copy, before anything is done."""
    other = memory / "other"
    other.mkdir()
    if other.stat().st_dev == world.folder.stat().st_dev:
        pytest.skip("there is one file system alone")
    (other / "a.safetensors").write_bytes(WEIGHTS)
    done = world.cvs("models", "adopt", str(other), "--quiet")
    assert done.code == 2
    assert "lies on another file system than the store" in done.err
    assert "hint: --copy does so" in done.err
    world.ok("models", "adopt", str(other), "--copy", "--quiet")
    assert os.readlink(other / "a.safetensors").startswith(f"{world.cache}/store/")


# ls and where


def test_ls(realized: World) -> None:
    """Formats are those of the headers; versions those of locks and generations."""
    folder = realized.cache / "models"
    folder.mkdir(exist_ok=True)
    for name, data in {"a.safetensors": WEIGHTS, "b.ckpt": PICKLE, "c.gguf": None}.items():
        (folder / name).write_bytes(data or modelmaker.gguf(size=2000))
        realized.ok("store", "add", str(folder / name))
    listed = realized.ok("models", "ls").out.splitlines()
    assert listed[0].split() == ["HASH", "SIZE", "FORMAT", "DTYPE", "USED", "BY", "NAME"]
    assert listed[-1].startswith("4 models, ")
    rows = {line.split()[-1]: line.split()[3:-1] for line in listed[1:-1]}
    assert rows["a.safetensors"] == ["safetensors", "BF16", "unused"]
    assert rows["b.ckpt"] == ["pickle", "unused"]
    assert rows["c.gguf"] == ["gguf", "unused"]
    assert rows["checkpoints/demo.safetensors"][-1] == "demo"

    unused = realized.ok("models", "ls", "--unused", "--json").json
    assert [one["name"] for one in unused] == ["a.safetensors", "b.ckpt", "c.gguf"]
    (used,) = realized.ok("models", "ls", "--version", "demo", "--json").json
    assert used["paths"] == ["checkpoints/demo.safetensors"]
    assert [(use["kind"], use["name"]) for use in used["uses"]] == [
        ("lock", "demo"),
        ("generation", "demo@1"),
    ]


def test_ls_long(world: World, folder: Path) -> None:
    """With --long the metadata is shown, and --json has all of it."""
    world.ok("models", "adopt", str(folder), "--quiet")
    text = world.ok("models", "ls", "a.safetensors", "--long").out
    assert "  format    safetensors, 1 tensors, BF16\n" in text
    assert "  metadata  author: me\n  metadata  format: pt\n" in text
    (found,) = world.ok("models", "ls", hash_of(WEIGHTS)[:10], "--json").json
    assert found["metadata"] == {"format": "pt", "author": "me"}
    assert found["dtypes"] == {"BF16": 1600}
    assert (found["pinned"], found["versions"]) == (True, [])


def test_ls_of_what_is_broken(world: World) -> None:
    """An entry that is no whole model, as old ones may be, is listed as broken."""
    (world.folder / "a.safetensors").write_bytes(WEIGHTS[:-1])
    world.ok("store", "add", "a.safetensors")
    assert "  broken " in world.ok("models", "ls").out
    (found,) = world.ok("models", "ls", "--json").json
    assert found["format"] == "broken"
    assert "is cut" in found["fault"]


def test_ls_metadata_steers_no_terminal(world: World) -> None:
    """What a model's maker wrote is shown without what a terminal obeys."""
    data = modelmaker.safetensors(b"1", {"a\x1b[2J": "b\x1b[31m\nused by lies"})
    (world.folder / "a.safetensors").write_bytes(data)
    world.ok("store", "add", "a.safetensors")
    out = world.ok("models", "ls", "--long").out
    assert "\x1b" not in out
    assert "\nused by lies" not in out


def test_ls_of_nothing(world: World) -> None:
    """A store without models, and a pattern that none fits."""
    assert world.ok("models", "ls").out == "the store has no models\n"
    assert world.ok("models", "ls", "x").out == "there are no such models\n"


def test_where(realized: World) -> None:
    """By place, name, hash, checksum, link, and a loose file's bytes."""
    entry = realized.lock()["models"][0]["entry"]
    sha256 = realized.material.sha256
    lines = [
        f"{entry[:16]}  checkpoints/demo.safetensors",
        "  demo  lock          models/checkpoints/demo.safetensors",
        "  demo  generation 1  models/checkpoints/demo.safetensors",
    ]
    for given in (
        "checkpoints/demo.safetensors",
        "demo.safetensors",
        entry,
        entry[:8],
        sha256,
        str(realized.home / "models" / "checkpoints" / "demo.safetensors"),
        str(realized.model),
        "demo.*",
    ):
        assert realized.ok("models", "where", given).out.splitlines() == lines


def test_where_of_what_was_adopted(world: World, folder: Path) -> None:
    """A place in the models folder is one that leads into the store."""
    world.ok("models", "adopt", str(folder), "--quiet")
    done = world.ok("models", "where", "loras/again.safetensors")
    assert done.out.splitlines()[1] == "  (adopted)  adopted"


def test_where_of_a_lock_alone(realized: World) -> None:
    """A version that names a model and was never realized uses it as well."""
    realized.spec("second", custom_nodes=[])
    realized.ok("resolve", "second", *realized.local)
    done = realized.ok("models", "where", "demo.safetensors", "--json").json
    assert {use["version"] for use in done[0]["uses"]} == {"demo", "second"}


# add and fetch


def test_add_local(world: World) -> None:
    """The hash, and the line for a spec, which names the entry."""
    (world.folder / "x.safetensors").write_bytes(WEIGHTS)
    done = world.ok("models", "add", "x.safetensors", "--quiet")
    first, second = done.out.splitlines()
    assert first == f"{hash_of(WEIGHTS)}  x.safetensors"
    spec = json.loads(second)
    assert spec["source"] == f"cvs:{hash_of(WEIGHTS)}"
    assert spec["target_path"] == "x.safetensors"
    assert spec["checksum"].startswith("sha256:")
    assert list(world.store.roots()) == []


def test_add_pinned(world: World) -> None:
    """A pin keeps it."""
    (world.folder / "x.safetensors").write_bytes(WEIGHTS)
    world.ok("models", "add", "x.safetensors", "--pin", "--quiet")
    assert [root.name for root in world.store.roots()] == [hash_of(WEIGHTS)]


def test_add_from_the_web(world: World, web: str) -> None:
    """It is fetched, checked, and named as its source names it, or otherwise."""
    (world.folder / "web" / "x.safetensors").write_bytes(WEIGHTS)
    (done,) = world.ok(
        "models", "add", f"{web}/x.safetensors", "--json", "--quiet", COMFY_OFFLINE=None
    ).json
    assert (done["id"], done["name"]) == (hash_of(WEIGHTS), "x.safetensors")
    assert done["spec"]["source"] == f"{web}/x.safetensors"
    assert world.store.has(EntryId(hash_of(WEIGHTS)))


def test_add_another_checksum(world: World, web: str) -> None:
    """What has not the checksum that was asked for is refused."""
    (world.folder / "web" / "x.safetensors").write_bytes(WEIGHTS)
    for source in (f"{web}/x.safetensors", "web/x.safetensors"):
        done = world.cvs(
            *("models", "add", source, "--sha256", "0" * 64, "--quiet"), COMFY_OFFLINE=None
        )
        assert done.code == 2
        assert "0" * 64 in done.err


def test_fetch(world: World, web: str) -> None:
    """The models of a lock are stored without a realize; the lock learns what they are."""
    (world.folder / "web" / "x.safetensors").write_bytes(WEIGHTS)
    (world.folder / "web" / "y.safetensors").write_bytes(OTHER)
    models: list[dict[str, Any]] = [
        {"source": f"{web}/{name}.safetensors", "target_subdir": "loras"} for name in "xy"
    ]
    world.spec(models=models, custom_nodes=[])
    world.ok("resolve", "demo", *world.local, COMFY_OFFLINE=None)
    assert [one["entry"] for one in world.lock()["models"]] == [None, None]

    done = world.ok("models", "fetch", "demo", "y.safetensors", "--quiet", COMFY_OFFLINE=None)
    assert done.out.split()[-2:] == ["fetched", "loras/y.safetensors"]
    assert [one["entry"] for one in world.lock()["models"]] == [None, hash_of(OTHER)]
    lock = str(world.cache / "resolved" / "demo.lock.json")
    world.ok("models", "fetch", "--lock", lock, "--quiet", COMFY_OFFLINE=None)
    assert world.lock()["models"][0]["entry"] == hash_of(WEIGHTS)

    # Another time, and on a machine without a connection, all is there.
    done = world.ok("models", "fetch", "demo", "--offline", "--quiet")
    assert done.out.count("was there") == 2
    assert not (world.cache / "profiles" / "demo").exists()


def test_fetch_from_this_machine(world: World) -> None:
    """A local file is found through the spec."""
    world.ok("resolve", "demo", *world.local)
    world.ok("models", "fetch", "demo", "--quiet")
    assert world.lock()["models"][0]["sha256"] == world.material.sha256


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["models"], "the following arguments are required: ACTION"),
        (["models", "rm"], "`cvs models` has no action 'rm'"),
        (["models", "lss"], "did you mean 'ls'?"),
        (["models", "add"], "required: SOURCE"),
        (["models", "add", "nowhere/x.safetensors"], "nowhere/x.safetensors is not there"),
        (["models", "add", "ftp://host/x.safetensors"], "ftp"),
        (["models", "add", "https://"], "source"),
        (["models", "add", "a", "b", "--name", "c"], "--name and --sha256 are for one source"),
        (["models", "add", "a", "b", "--sha256", "0" * 64], "are for one source"),
        (["models", "add", "model.bin", "--sha256", "12"], "is not sha256:"),
        (["models", "add", "model.bin", "--name", "../x"], "climbs out"),
        (["models", "add", "sources", "--sha256", "0" * 64], "is a folder"),
        (["models", "add", "page.safetensors"], "is a web page and no model"),
        (["models", "add", "https://host.invalid/x.safetensors"], "no connection may be made"),
        (["models", "fetch"], "a version or --lock is needed"),
        (["models", "fetch", "nobody"], "there is no lock"),
        (["models", "fetch", "demo"], "there is no lock"),
        (["models", "fetch", "../x"], "x"),
        (["models", "fetch", "--lock", "nowhere"], "nowhere"),
        (["models", "fetch", "--lock", "page.safetensors"], "page.safetensors"),
        (["models", "fetch", "--lock", "list.json", "y"], "list.json has no model 'y'"),
        (["models", "fetch", "--lock", "a", "--lock-file", "b"], "--lock stands for a version"),
        (["models", "adopt"], "required: DIR"),
        (["models", "adopt", "nowhere"], "nowhere is not a folder"),
        (["models", "adopt", "model.bin"], "model.bin is not a folder"),
        (["models", "adopt", "cache/store"], "is a folder of cvs itself"),
        (["models", "adopt", "cache/tmp"], "is a folder of cvs itself"),
        (["models", "where"], "required: FILE"),
        (["models", "where", "nobody"], "the store has no model 'nobody'"),
        (["models", "where", "sources"], "sources is a folder"),
        (["models", "ls", "--kind", "x"], "unrecognized arguments"),
    ],
)
def test_bad_input(world: World, arguments: list[str], text: str) -> None:
    """One sentence, exit code 2, and nothing is made."""
    (world.folder / "model.bin").write_bytes(b"model")
    (world.folder / "page.safetensors").write_bytes(b"<!doctype html>")
    (world.folder / "list.json").write_text('[{"source": "model.bin"}]')
    (world.cache / "store").mkdir(parents=True)
    (world.cache / "tmp").mkdir()
    done = world.cvs(*arguments, "--quiet")
    assert done.code == 2, done
    assert done.err.startswith("error: ")
    assert text in done.err
    assert "Traceback" not in done.err
    assert list(world.store.ids()) == []


@pytest.mark.parametrize("action", ACTIONS)
def test_help(world: World, action: str) -> None:
    """Every action has its options and examples."""
    done = world.ok("models", action, "--help")
    assert done.out.startswith(f"usage: cvs models {action} ")
    assert f"examples:\n  cvs models {action}" in done.out
    assert f"  {action:<8} {ACTIONS[action]}" in world.ok("models", "--help").out
