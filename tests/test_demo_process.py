"""The small core as a process: its start and end, its folders, and the versions of the demo."""

import contextlib
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from demo_core import (
    CORE,
    DEMO,
    OLD,
    Core,
    checkpoint,
    copy_core,
    environment_of_core,
    once,
    sampled,
)
from real.server import free_port, plain_environment
from websockets.sync.client import connect


def test_unknown_flag() -> None:
    """As argparse has it."""
    done = once(CORE, "--no-such-flag")

    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-flag" in done.stderr


def test_default_places(tmp_path: Path) -> None:
    """Without flags everything lies in the core's own folder, the database too."""
    folder = copy_core(tmp_path / "core")

    assert once(folder).returncode == 0
    assert (folder / "user" / "comfyui.db").exists()
    assert not (folder / "temp").exists()


def test_database(tmp_path: Path) -> None:
    """The default database does not follow --base-directory; :memory: makes no file."""
    folder, base = copy_core(tmp_path / "core"), tmp_path / "base"
    (base / "custom_nodes").mkdir(parents=True)

    failed = once(folder, "--base-directory", str(base))
    assert failed.returncode == 0
    assert "Failed to initialize database" in failed.stderr
    assert "Failed" in once(folder, "--database-url", "postgres://x").stderr
    silent = once(folder, "--base-directory", str(base), "--database-url", "sqlite:///:memory:")
    assert "Failed" not in silent.stderr
    assert not list(base.rglob("*.db"))
    url = f"sqlite:///{base}/user/comfyui.db"
    assert "Failed" not in once(folder, "--base-directory", str(base), "--database-url", url).stderr
    with contextlib.closing(sqlite3.connect(base / "user" / "comfyui.db")) as connection:
        connection.execute("select * from sqlite_master")


def test_base_directory_needs_custom_nodes(tmp_path: Path) -> None:
    """It is listed before anything is made."""
    done = once(CORE, "--base-directory", str(tmp_path))

    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr
    assert (tmp_path / "input").is_dir()


def test_temp_and_signals(tmp_path: Path) -> None:
    """SIGINT ends it cleanly and removes temp, SIGTERM leaves it; a start empties it."""
    temp = tmp_path / "own" / "temp"
    for number in (signal.SIGINT, signal.SIGTERM):
        temp.mkdir(parents=True, exist_ok=True)
        (temp / "old").touch()
        with Core(CORE, tmp_path / "base", "--temp-directory", str(tmp_path / "own")) as running:
            assert list(temp.iterdir()) == []
            with connect(running.url.replace("http", "ws") + "/ws", proxy=None):
                ending = running.end(number)
        assert ending.exit_code == (0 if number == signal.SIGINT else -15)
        assert temp.exists() == (number == signal.SIGTERM)
        log = running.log_text()
        assert log.rstrip().endswith("Stopped server") == (number == signal.SIGINT)
        assert "Traceback" not in log


def test_interrupt_ignored_by_parent(tmp_path: Path) -> None:
    """Started with SIGINT ignored, as a shell's background job is, it ignores SIGINT too."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, str(CORE / "main.py"), "--port", str(port)),
            *("--base-directory", str(base_of(tmp_path)), "--database-url", "sqlite:///:memory:"),
        ],
        stderr=subprocess.PIPE,
        env=environment_of_core(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    with process:
        assert process.stderr is not None
        while b"To see the GUI" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()


def base_of(tmp_path: Path) -> Path:
    (tmp_path / "base" / "custom_nodes").mkdir(parents=True, exist_ok=True)
    return tmp_path / "base"


def test_port_taken(tmp_path: Path) -> None:
    """A second server on a port ends with an error that says so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [
                *(sys.executable, str(CORE / "main.py"), "--port", str(taken.getsockname()[1])),
                *("--base-directory", str(base_of(tmp_path))),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            env=environment_of_core(),
        )
    assert done.returncode == 1
    assert "address already in use" in done.stderr
    assert "Traceback" in done.stderr


def test_log_streams(tmp_path: Path) -> None:
    """All goes to stderr; with --log-stdout only errors do."""
    base = str(base_of(tmp_path))
    quiet = once(CORE, "--base-directory", base, "--database-url", "nonsense")
    assert quiet.stdout == ""
    loud = once(CORE, "--base-directory", base, "--database-url", "nonsense", "--log-stdout")
    assert "ComfyUI version: 0.3.64" in loud.stdout
    assert loud.stderr.startswith("Failed to initialize database")


# Folders and custom nodes -----------------------------------------------------------------------


def write_pack(folder: Path, name: str, **files: str) -> None:
    """A custom node that has no nodes but says that it was loaded, and from where."""
    (folder / name).mkdir(parents=True)
    text = "import logging\nlogging.warning(f'loaded {__file__} as {__name__}')\n"
    (folder / name / "__init__.py").write_text(text + "NODE_CLASS_MAPPINGS = {}\n")
    for file, content in files.items():
        (folder / name / f"{file}.py").write_text(content)


def test_custom_nodes(tmp_path: Path) -> None:
    """Folders and files are loaded, what is disabled is not, failures are told."""
    nodes = tmp_path / "base" / "custom_nodes"
    write_pack(nodes, "one.x", prestartup_script="import logging\nlogging.warning('early')\n")
    write_pack(nodes, "two.disabled")
    write_pack(nodes, "__pycache__")
    write_pack(tmp_path / "store", "three", prestartup_script="1 / 0")
    (nodes / "three").symlink_to(tmp_path / "store" / "three")
    (nodes / "single.py").write_text("X = 1\n")
    (nodes / "text.txt").touch()
    (nodes / "empty").mkdir()

    log = once(CORE, "--base-directory", str(nodes.parent)).stderr

    loaded = [line for line in log.splitlines() if line.startswith("loaded ")]
    name = str(nodes / "one.x").replace(".", "_x_")
    assert sorted(loaded) == [
        f"loaded {nodes}/one.x/__init__.py as {name}",
        f"loaded {nodes}/three/__init__.py as {nodes}/three",
    ]
    assert log.index("early") < log.index("ComfyUI version")
    assert f"Failed to execute startup-script: {nodes}/three/prestartup_script.py" in log
    assert f" seconds (PRESTARTUP FAILED): {nodes}/three" in log
    assert f"Skip {nodes}/single.py module for custom nodes due to the lack of" in log
    assert f"Cannot import {nodes}/empty module for custom nodes: " in log
    assert log.count("(IMPORT FAILED)") == 2


def test_whitelist(tmp_path: Path) -> None:
    """--disable-all-custom-nodes spares what is on the list."""
    base = tmp_path / "base"
    write_pack(base / "custom_nodes", "one")
    write_pack(base / "custom_nodes", "two")
    flags = ["--base-directory", str(base), "--disable-all-custom-nodes"]

    log = once(CORE, *flags, "--whitelist-custom-nodes", "two").stderr
    assert "Skipping one due to disable_all_custom_nodes" in log
    assert [line for line in log.splitlines() if line.startswith("loaded")] != []
    log = once(CORE, *flags).stderr
    assert "Skipping loading of custom nodes" in log
    assert "loaded" not in log


def test_linked_and_copied_main(tmp_path: Path) -> None:
    """A linked main.py looks where the link leads; with copies it stays in the view."""
    store = copy_core(tmp_path / "store")
    write_pack(store / "custom_nodes", "in_store")
    linked, copied = tmp_path / "linked", tmp_path / "copied"
    for view in (linked, copied):
        write_pack(view / "custom_nodes", "in_view")
        (view / "user").mkdir()
        for path in store.iterdir():
            if path.name in ("custom_nodes", "models", "user"):
                continue
            if view == copied and path.suffix == ".py":
                shutil.copy(path, view)
            else:
                (view / path.name).symlink_to(path)

    assert "in_store" in once(linked).stderr
    log = once(copied).stderr
    assert "in_view" in log
    assert "in_store" not in log
    assert (copied / "user" / "comfyui.db").exists()


EXTRA = """\
# more places
a:
    base_path: {base}   # where
    is_default: true
    checkpoints: more/
    clip: texts
    loras: |
        loras_a

        loras_b
    custom_nodes: 'nodes'
"""


def test_extra_model_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beside main.py and those that flags name add folders, relative to themselves."""
    folder = copy_core(tmp_path / "core")
    (folder / "models" / "checkpoints" / "m.safetensors").write_bytes(checkpoint())
    (folder / "extra_model_paths.yaml").write_text(EXTRA.format(base="../beside"))
    more = tmp_path / "beside" / "more"
    (more / "deep").mkdir(parents=True)
    (more / "m.safetensors").write_bytes(checkpoint(b"first of all"))
    (more / "deep" / "n.ckpt").touch()
    (more / "text.txt").touch()
    (tmp_path / "beside" / "loras_b").mkdir()
    (tmp_path / "beside" / "loras_b" / "l.pt").touch()
    write_pack(tmp_path / "beside" / "nodes", "extra")
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps({"b": {"base_path": "$BASE/x", "vae": "v"}, "c": None}))
    monkeypatch.setenv("BASE", str(tmp_path / "by variable"))
    with Core(folder, None, "--extra-model-paths-config", str(other), cwd=tmp_path) as running:
        assert running.json("/models/checkpoints") == ["deep/n.ckpt", "m.safetensors"]
        assert running.json("/models/loras") == ["l.pt"]
        metadata = running.run(sampled("m.safetensors"))
        whole = running.picture(metadata, "7").samples
        log = running.log_text()
    beside = tmp_path / "beside"
    assert f"Adding extra search path clip {beside}/texts" in log
    assert f"Adding extra search path loras {beside}/loras_b" in log
    assert f"Adding extra search path vae {tmp_path}/by variable/x/v" in log
    assert f"loaded {beside}/nodes/extra/__init__.py" in log
    with Core(copy_core(tmp_path / "plain"), None, cwd=tmp_path) as running:
        models = tmp_path / "plain" / "models" / "checkpoints"
        (models / "m.safetensors").write_bytes(checkpoint())
        assert running.picture(running.run(sampled("m.safetensors")), "7").samples != whole


def test_web_directory_links(tmp_path: Path) -> None:
    """A linked pack's scripts are served; a link that leaves its folder is not followed."""
    store = tmp_path / "store" / "pack"
    shutil.copytree(DEMO / "node" / "v1", store)
    (tmp_path / "outside.js").write_text("secret")
    (store / "web" / "link.js").symlink_to(tmp_path / "outside.js")
    (tmp_path / "base" / "custom_nodes").mkdir(parents=True)
    (tmp_path / "base" / "custom_nodes" / "pack").symlink_to(store)
    with Core(CORE, tmp_path / "base") as running:
        assert "/extensions/pack/demo_caption.js" in running.json("/extensions")
        status, body = running.http("/extensions/pack/demo_caption.js")
        assert (status, b"registerExtension" in body) == (200, True)
        assert running.http("/extensions/pack/link.js")[0] == 404
        assert running.http("/extensions/pack/")[0] == 403


# What the demo shows ----------------------------------------------------------------------------


def test_demo_versions_differ(tmp_path: Path) -> None:
    """Both versions of the node run the demo's graph, each with its own frame."""
    graph = json.loads((DEMO / "workflow.json").read_text())
    corners = {}
    for name in ("v1", "v2"):
        base = tmp_path / name
        shutil.copytree(DEMO / "node" / name, base / "custom_nodes" / "demo")
        with Core(CORE, base) as running:
            entry = running.run(graph)
            picture = running.picture(entry, "4")
        corners[name] = picture.samples[:3].hex()
        assert picture.text["prompt"] == json.dumps(graph)
        assert entry["outputs"]["3"]["text"] == [f"hello {name}"]
        middle = (picture.width // 2 + picture.width * (picture.height // 2)) * 3
        assert picture.samples[middle : middle + 3] == bytes(255 - part for part in (29, 35, 39))

    assert corners == {"v1": "22c55e", "v2": "f97316"}


def test_palette_script() -> None:
    """The wheel's console script shows the colours."""
    done = subprocess.run(
        [sys.executable, str(DEMO / "package" / "cvs_demo_palette.py")],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env=plain_environment() | {"PYTHONIOENCODING": "utf-8"},
    )
    assert "#22c55e leaf" in done.stdout


# A core of 2024 ---------------------------------------------------------------------------------


def test_core_of_2024(tmp_path: Path) -> None:
    """Fewer flags, no database, text encoders are `clip`, relative paths start where it runs."""
    folder = copy_core(tmp_path / "core")
    shutil.copytree(OLD, folder, dirs_exist_ok=True)
    extra = folder / "extra_model_paths.yaml"

    for flag in ("--base-directory", "--database-url", "--user-directory", "--cache-none"):
        assert once(folder, flag, "x").returncode == 2
    extra.write_text("a:\n  base_path: rel\n  checkpoints: c\n")
    (tmp_path / "rel" / "c").mkdir(parents=True)
    (tmp_path / "rel" / "c" / "m.safetensors").write_bytes(checkpoint())
    with Core(folder, None, cwd=tmp_path) as running:
        assert running.json("/models/checkpoints") == ["m.safetensors"]
        kinds = running.json("/models")
        assert "clip" in kinds
        assert "text_encoders" not in kinds
        graph = json.loads((DEMO / "workflow_builtin.json").read_text())
        assert running.run(graph)["status"]["completed"]
    assert not list(folder.rglob("*.db"))
    extra.write_text("a:\n  base_path: rel\n  is_default: true\n  checkpoints: c\n")
    done = once(folder)
    assert done.returncode == 1
    assert "AttributeError: 'bool' object has no attribute 'split'" in done.stderr
