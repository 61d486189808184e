"""`cvs models verify`, and `scripts/verify_models.py`, which it is with the old options."""

import functools
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import locks
import modelmaker
import pytest
from world import PATIENCE, Done, World

from cvs.store import copying
from cvs.store.digest import EntryId
from cvs.store.volume import Volume
from cvs.versions import http, retry
from cvs.versions.lock import encode

pytest_plugins = ["world_fixtures"]

SCRIPT = Path(__file__).parent.parent / "scripts" / "verify_models.py"

GOOD = modelmaker.safetensors(b"good " * 300)
BAD = modelmaker.safetensors(b"bad! " * 300)


def sum_of(data: bytes) -> str:
    """The checksum as lists have it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def web(world: World) -> Iterator[str]:
    """The address of a server that has `good.safetensors`."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    (world.folder / "web").mkdir()
    (world.folder / "web" / "good.safetensors").write_bytes(GOOD)
    handler = functools.partial(Quiet, directory=str(world.folder / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write(world: World, models: Any, name: str = "list.json") -> str:
    """A list of models in a file."""
    (world.folder / name).write_text(models if isinstance(models, str) else json.dumps(models))
    return name


def verify(world: World, *arguments: str) -> Done:
    """Runs the action on `models/`, on line."""
    return world.cvs(
        *("models", "verify", "--models-dir", "models", "--quiet", *arguments), COMFY_OFFLINE=None
    )


def put(world: World, path: str, data: bytes) -> Path:
    """A file in `models/`."""
    place = world.folder / "models" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return place


MODEL = {"source": "https://host.invalid/good.safetensors", "target_path": "loras/good.safetensors"}
KNOWN = {**MODEL, "checksum": sum_of(GOOD)}

YAML = f"""\
models:
  - source: https://host.invalid/good.safetensors
    target_subdir: loras
    sha256: {sum_of(GOOD)[7:]}
"""

#: A lock as the tool before cvs wrote them: more fields than a spec has.
OLD = {
    "schema_version": 1,
    "version_id": "demo",
    "comfy": {"repo": "https://host.invalid/ComfyUI", "commit": "1" * 40},
    "custom_nodes": [{"repo": "https://host.invalid/node", "commit": "2" * 40}],
    "models": [{**KNOWN, "size": 1500, "resolved_at": "2025-01-01"}],
}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ([KNOWN], "list.json"),
        ({"models": [KNOWN]}, "list.json"),
        ({"models": [{**MODEL, "sha256": sum_of(GOOD)[7:]}]}, "list.json"),
        ({"models": [{**KNOWN, "target_path": "$MODELS_DIR/loras/good.safetensors"}]}, "l.json"),
        (YAML, "list.yaml"),
        (YAML.replace("models:\n", "").replace("  - ", "- ").replace("\n    ", "\n  "), "l.yml"),
        (OLD, "resolved.lock.json"),
        ({**OLD, "schema_version": 2, "models": [KNOWN]}, "spec.json"),
    ],
)
@pytest.mark.parametrize("option", ["--lock", "--list"])
def test_every_form(world: World, text: Any, name: str, option: str) -> None:
    """A lock or list, as JSON or YAML, as an object or the list alone; both options take it."""
    file = write(world, text, name)
    put(world, "loras/good.safetensors", GOOD)
    done = verify(world, option, file, "--verbose")
    assert (done.code, done.out) == (0, "ok  loras/good.safetensors\n1 of 1 models are well\n")

    put(world, "loras/good.safetensors", BAD)
    done = verify(world, option, file)
    assert done.code == 1
    assert done.out.startswith("DIFFERS  loras/good.safetensors  has ")
    assert sum_of(GOOD)[7:23] in done.out


def test_a_version(realized: World) -> None:
    """The models of a version, in its view and elsewhere; its lock where it has a place."""
    models = str(realized.home / "models")
    lock = str(realized.cache / "resolved" / "demo.lock.json")
    for given in (["demo"], ["--lock", lock]):
        done = realized.ok("models", "verify", *given, "--models-dir", models, "--verbose")
        assert done.out.startswith("ok  checkpoints/demo.safetensors\n")
    # It is not in the folder of loose models: a link is put there, and nothing is asked for it.
    done = realized.ok("models", "verify", "demo", "--json", "--quiet").json
    assert done["models"][0]["state"] == "fetched"
    place = realized.cache / "models" / "checkpoints" / "demo.safetensors"
    assert os.readlink(place).startswith("../../store/")
    (realized.versions / "demo.json").unlink()
    assert realized.ok("models", "verify", "demo", "--quiet").out == "1 of 1 models are well\n"


def test_a_damaged_entry_is_seen(realized: World) -> None:
    """The bytes are read, wherever a link leads."""
    entry = realized.lock()["models"][0]["entry"]
    content = realized.cache / "store" / entry / "content.safetensors"
    content.chmod(0o644)
    data = bytearray(content.read_bytes())
    data[-1] ^= 1
    content.write_bytes(data)
    done = realized.cvs("models", "verify", "demo", "--models-dir", str(realized.home / "models"))
    assert done.code == 1
    assert "DIFFERS" in done.out


def test_a_missing_model_is_fetched(world: World, web: str) -> None:
    """Into the store; a link lies in its place, and all is well."""
    model = {**KNOWN, "source": f"{web}/good.safetensors"}
    done = verify(world, "--list", write(world, [model]))
    assert (done.code, done.out) == (
        0,
        "was missing, fetched  loras/good.safetensors\n1 of 1 models are well\n",
    )
    place = world.folder / "models" / "loras" / "good.safetensors"
    assert place.read_bytes() == GOOD
    assert os.readlink(place).startswith(str(world.cache / "store"))
    assert os.listdir(place.parent) == ["good.safetensors"]
    # And a link that leads nowhere is none.
    place.unlink()
    place.symlink_to("nowhere")
    assert verify(world, "--list", "list.json").code == 0
    assert place.read_bytes() == GOOD


def test_what_differs_is_replaced_only_if_asked(world: World, web: str) -> None:
    """Until then it stays, byte for byte."""
    file = write(world, [{**KNOWN, "source": f"{web}/good.safetensors"}])
    place = put(world, "loras/good.safetensors", BAD)
    assert verify(world, "--list", file).code == 1
    assert place.read_bytes() == BAD and not place.is_symlink()
    done = verify(world, "--list", file, "--overwrite")
    assert (done.code, done.out.splitlines()[0]) == (
        0,
        "differed, replaced  loras/good.safetensors",
    )
    assert place.read_bytes() == GOOD


def test_what_cannot_be_replaced_stays(world: World, web: str) -> None:
    """If its source has other bytes too, the one that was there is kept."""
    (world.folder / "web" / "good.safetensors").write_bytes(BAD)
    place = put(world, "loras/good.safetensors", BAD)
    file = write(world, [{**KNOWN, "source": f"{web}/good.safetensors"}])
    done = verify(world, "--list", file, "--overwrite")
    assert done.code == 1
    assert done.out.startswith("FAILED  loras/good.safetensors  ")
    assert place.read_bytes() == BAD


def test_without_a_checksum(world: World) -> None:
    """What is there is well as far as anybody knows, but not if it is cut."""
    file = write(world, [MODEL])
    put(world, "loras/good.safetensors", GOOD)
    done = verify(world, "--list", file)
    assert (done.code, done.out.splitlines()[0]) == (
        0,
        "there, no checksum is known  loras/good.safetensors",
    )
    put(world, "loras/good.safetensors", GOOD[:-1])
    done = verify(world, "--list", file)
    assert done.code == 1
    assert "good.safetensors is cut" in done.out


def test_one_that_fails_does_not_end_the_others(world: World, web: str) -> None:
    """Each is told of; nothing but well is exit status 0."""
    models = [
        {"source": f"{web}/nowhere.safetensors", "target_subdir": "a"},
        {"source": f"{web}/good.safetensors", "target_subdir": "b", "checksum": sum_of(GOOD)},
        {"source": "/nowhere/here.safetensors", "target_subdir": "c"},
    ]
    done = verify(world, "--list", write(world, models), "--json")
    assert done.code == 1
    assert [one["state"] for one in done.json["models"]] == ["failed", "fetched", "failed"]
    assert not done.json["well"]
    assert (world.folder / "models" / "b" / "good.safetensors").read_bytes() == GOOD


def test_offline(world: World) -> None:
    """What would have to be fetched fails; what is there is compared all the same."""
    models = [KNOWN, {**KNOWN, "target_path": "there.safetensors"}]
    put(world, "there.safetensors", GOOD)
    done = verify(world, "--list", write(world, models), "--offline", "--json")
    assert done.code == 1
    assert [one["state"] for one in done.json["models"]] == ["failed", "ok"]
    assert "no connection may be made" in done.json["models"][0]["why"]


def test_another_cache(world: World, web: str) -> None:
    """`--cache-dir` is the volume that is used."""
    file = write(world, [{**KNOWN, "source": f"{web}/good.safetensors"}])
    done = verify(world, "--list", file, "--cache-dir", "other")
    assert done.code == 0
    other = Volume(str(world.folder / "other"))
    place = world.folder / "models" / "loras" / "good.safetensors"
    assert os.path.realpath(place).startswith(other.store)
    assert not (world.cache / "store").exists()


def test_timeout(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and says nothing is given up after some tries of so many seconds."""
    monkeypatch.setattr(http, "TIMEOUTS", http.TIMEOUTS)
    monkeypatch.setattr(retry, "pause", lambda seconds, stop: None)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/good.safetensors"
        file = write(world, [{**KNOWN, "source": address}])
        done = verify(world, "--list", file, "--timeout", "0.05")
    assert done.code == 1
    assert done.out.startswith("FAILED  loras/good.safetensors  ")
    assert "did not answer in time, 5 times in a row" in done.out


def test_a_model_that_is_a_folder(world: World) -> None:
    """It is compared file by file, as the entry that it is; another folder differs."""
    for name in ("unet", "vae"):
        put(world, f"made/{name}/a.safetensors", modelmaker.safetensors(name.encode()))
    entry = EntryId(world.ok("store", "add", "models/made").out.split()[0])
    model = locks.model("diffusers/made", source="", sha256=None, entry=entry, size=None)
    (world.folder / "x.lock.json").write_bytes(encode(locks.lock(models=(model,))))
    for word in ("was missing, fetched", "ok"):
        done = verify(world, "--lock", "x.lock.json", "--verbose")
        assert (done.code, done.out.splitlines()[0]) == (0, f"{word}  diffusers/made")
    place = world.folder / "models" / "diffusers" / "made"
    assert (place / "vae" / "a.safetensors").read_bytes() == modelmaker.safetensors(b"vae")

    stored = Path(os.path.realpath(place / "vae" / "a.safetensors"))
    stored.chmod(0o644)
    stored.write_bytes(modelmaker.safetensors(b"VAE"))
    done = verify(world, "--lock", "x.lock.json")
    assert (done.code, "vae/a.safetensors has other bytes" in done.out) == (1, True), done.out
    place.unlink()
    place.symlink_to("../made")
    assert "is a folder that no entry" in verify(world, "--lock", "x.lock.json").out


def test_a_folder_in_its_place(world: World) -> None:
    """A folder is no file, and is never removed."""
    (world.folder / "models" / "loras" / "good.safetensors").mkdir(parents=True)
    done = verify(world, "--list", write(world, [KNOWN]))
    assert done.code == 1
    assert "it is a folder" in done.out


def test_a_file_that_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the file system is told of that model."""
    put(world, "loras/good.safetensors", GOOD)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(copying, "digest", refuse)
    done = verify(world, "--list", write(world, [KNOWN]))
    assert done.code == 1
    assert "FAILED  loras/good.safetensors  Input/output error: " in done.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "one of ID, --lock and --list is needed"),
        (["demo", "--list", "list.json"], "one of ID, --lock and --list is needed"),
        (["--lock", "a", "--list", "b"], "one of ID, --lock and --list is needed"),
        (["nobody"], "there is no lock"),
        (["demo"], "there is no lock"),
        (["--lock", "nowhere.json"], "nowhere.json"),
        (["--lock", "empty.json"], "empty.json"),
        (["--lock", "text.json"], "text.json"),
        (["--lock", "number.json"], "number.json: a list is needed, or an object with a list"),
        (["--lock", "object.json"], "object.json: a list is needed, or an object with a list"),
        (["--lock", "strings.json"], "strings.json: models[0]: an object is needed"),
        (["--lock", "sourceless.json"], "sourceless.json"),
        (["--lock", "unknown.json"], "unknown.json"),
        (["--lock", "climbs.json"], "climbs out of its folder"),
        (["--lock", "sum.json"], "models[0].checksum: 'sha256:12' is not sha256:"),
        (["--lock", "twice.json"], "a second model is called"),
        (["--lock", "newer.json"], "newer.json: schema_version: 99 is not known"),
        (["--list", "list.json", "--models-dir", "list.json"], "list.json is not a folder"),
        (["--list", "list.json", "--timeout", "soon"], "--timeout: 'soon' is no number of seconds"),
        (["--list", "list.json", "--timeout", "-1"], "is no number of seconds"),
        (["--list", "list.json", "--timeout", "nan"], "is no number of seconds"),
        (["--list", "list.json", "--cache-dir", "list.json"], "list.json"),
    ],
)
def test_bad_input(world: World, arguments: list[str], text: str) -> None:
    """One sentence and exit status 2, before anything is looked at."""
    for name, data in {
        "list": [KNOWN],
        "empty": "",
        "text": "nothing of the kind",
        "number": 7,
        "object": {"a": 1},
        "strings": ["https://host.invalid/x"],
        "sourceless": [{"target_path": "x"}],
        "unknown": [{**KNOWN, "colour": "red"}],
        "climbs": [{**KNOWN, "target_path": "../x"}],
        "sum": [{**KNOWN, "checksum": "sha256:12"}],
        "twice": [KNOWN, KNOWN],
        "newer": {"schema_version": 99, "parts": {}},
    }.items():
        write(world, data, f"{name}.json")
    done = world.cvs("models", "verify", *arguments, "--quiet")
    assert done.code == 2, done
    assert done.err.startswith("error: ")
    assert text in done.err
    assert not (world.cache / "store").exists()


def script(world: World, *arguments: str, python: str = sys.executable) -> Done:
    """Runs the old script as an old job does."""
    done = subprocess.run(
        [python, str(SCRIPT), *arguments],
        cwd=world.folder,
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_old_script(world: World) -> None:
    """With all its options and exit codes."""
    file = write(world, OLD, "resolved.lock.json")
    place = put(world, "loras/good.safetensors", GOOD)
    old = [
        *("--lock", file, "--models-dir", "models", "--cache-dir", "cache"),
        *("--overwrite", "--timeout", "60", "--verbose"),
    ]
    done = script(world, *old)
    assert (done.code, done.out) == (0, "ok  loras/good.safetensors\n1 of 1 models are well\n")
    place.write_bytes(BAD)
    done = script(world, *old)
    assert done.code == 1
    assert "FAILED  loras/good.safetensors" in done.out
    assert script(world, "--lock", "nowhere", "--models-dir", "models").code == 2


def test_the_old_script_without_cvs(world: World) -> None:
    """Run by a Python that has no cvs it takes that of its checkout."""
    file = write(world, [KNOWN])
    put(world, "loras/good.safetensors", GOOD)
    base = os.path.join(sys.base_prefix, "bin", "python3")
    done = script(world, "--lock", file, "--models-dir", "models", python=base)
    assert done.code == 0, done
