"""`cvs run-ui` and `cvs exec`: what they start sees the version's nodes and models, and ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect
from world import DEMO, OLD, PATIENCE, TROUBLE, World, files_of, free_port, start_line, until

from cvs.profiles.client import Client
from cvs.store import seal

pytest_plugins = ["world_fixtures"]

#: What a core says of itself that its folder decides.
ASKED = ("CheckpointLoaderSimple", "DemoCaption", "Raises")


class Running:
    """A `cvs run-ui` that is up."""

    def __init__(self, process: "subprocess.Popen[str]", line: str) -> None:
        self.process = process
        self.line = line

    def end(self, number: int) -> tuple[int, str]:
        """Sends a signal to cvs alone; its exit code and what it said last."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err


@contextmanager
def run_ui(world: World, *options: str, port: int | None = None) -> Iterator[Running]:
    chosen = ["--port", str(port or free_port()), "--host", "127.0.0.1"]
    process = world.start("run-ui", "demo", *chosen, *options)
    try:
        assert process.stdout is not None
        if "--json" in options:
            lines = []
            while not lines or lines[-1].rstrip("\n") != "}":
                lines.append(process.stdout.readline())
                assert lines[-1], process.communicate()[1]
            line = "".join(lines)
        else:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
        yield Running(process, line)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Start and end


def test_start_line(realized: World) -> None:
    """It says where it is ready once it answers there, with the page and the API."""
    port = free_port()
    with run_ui(realized, port=port) as running:
        url = f"http://127.0.0.1:{port}"
        assert running.line == f"demo, generation 1, is ready at {url} (sealed: {seal.state()})\n"
        assert Client(url).answers()
        assert len(realized.leases()) == 2, "a lease and its heartbeat"
        record = json.loads((realized.cache / "leases" / realized.leases()[1]).read_text())
        assert record["version"] == "demo"


def test_start_json(realized: World) -> None:
    """--json gives the same as a document."""
    port = free_port()
    with run_ui(realized, "--json", port=port) as running:
        found = json.loads(running.line)
        pid = found.pop("pid")
        assert alive(pid)
        expected = {
            "url": f"http://127.0.0.1:{port}",
            "version": "demo",
            "generation": 1,
            "seal": seal.state(),
            "failed_nodes": [],
        }
        assert expected == found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_cvs(realized: World, number: signal.Signals) -> None:
    """A signal ends ComfyUI cleanly and then cvs: no child, lease or scratch file is left."""
    with run_ui(realized, "--json") as running:
        started = json.loads(running.line)
        code, err = running.end(number)

    assert code == {signal.SIGINT: 0, signal.SIGTERM: 143}[number]
    assert "Traceback" not in err
    assert err.rstrip().endswith("Stopped server"), "ComfyUI ended by itself"
    assert not alive(started["pid"])
    assert realized.leases() == []
    assert os.listdir(realized.local_root / "run") == []
    assert not Client(started["url"]).answers()


def test_signal_while_a_page_is_open(realized: World) -> None:
    """A browser's websocket does not hold the end up."""
    with run_ui(realized, "--json") as running:
        url = json.loads(running.line)["url"]
        with connect(url.replace("http", "ws") + "/ws", proxy=None):
            code, err = running.end(signal.SIGINT)

    assert code == 0
    assert err.rstrip().endswith("Stopped server")


def test_signal_before_it_is_ready(realized: World) -> None:
    """A Ctrl-C during the start ends the child too."""
    realized.add_pack(
        "slow", "import time, pathlib\npathlib.Path('user/here').touch()\ntime.sleep(600)\n"
    )
    process = realized.start("run-ui", "demo", "--port", str(free_port()), "--host", "127.0.0.1")
    try:
        until(lambda: (realized.state() / "user" / "here").exists() or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.endswith("interrupted: nothing is broken, run it again to go on\n")
    assert realized.leases() == []
    assert os.listdir(realized.local_root / "run") == []


def test_killed_cvs_takes_comfyui_along(realized: World) -> None:
    """When cvs itself is killed, its ComfyUI does not live on."""
    with run_ui(realized, "--json") as running:
        pid = json.loads(running.line)["pid"]
        running.process.kill()
        running.process.wait(PATIENCE)
        until(lambda: not alive(pid))


def test_comfyui_that_ends_by_itself(realized: World) -> None:
    """A ComfyUI that is killed is an error with the end of its log, exit 1."""
    with run_ui(realized, "--json") as running:
        os.kill(json.loads(running.line)["pid"], signal.SIGKILL)
        _, err = running.process.communicate(timeout=PATIENCE)

    assert running.process.returncode == 1
    assert "error: ComfyUI was killed by signal 9; its log ends:\n" in err
    assert realized.leases() == []


# What it refuses


def test_port_taken(realized: World) -> None:
    """A port that is taken is one sentence, before anything starts."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = realized.listing()
        done = realized.cvs("run-ui", "demo", "--host", "127.0.0.1", "--port", str(port))

    assert done == (
        2,
        "",
        f"error: port {port} on 127.0.0.1 cannot be used: Address already in use\n"
        "hint: --port names another one\n",
    )
    assert before == realized.listing()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid is not an address: "),
        (["--port", "0"], "--port: 0 is not a port"),
        (["--port", "65536"], "--port: 65536 is not a port"),
        (["--port", "x"], "argument --port: invalid int value: 'x'"),
        (["--generation", "7"], "demo has no generation 7"),
        (["--generation", "0"], "demo has no generation 0"),
    ],
)
def test_bad_options(realized: World, options: list[str], message: str) -> None:
    """Each is one sentence and exit 2, and leaves nothing."""
    before = realized.listing(forgive=("cache/leases",))
    start = ["run-ui", "demo", "--host", "127.0.0.1", "--port", str(free_port())]
    done = realized.cvs(*start, *options)

    assert done[:2] == (2, "")
    assert done.err.startswith(f"error: {message}")
    assert before == realized.listing(forgive=("cache/leases",))


def test_not_realized(world: World) -> None:
    """A version that is not realized says so and how."""
    done = world.cvs("run-ui", "demo", "--port", str(free_port()))

    assert done == (2, "", "error: demo is not realized here\nhint: cvs realize demo\n")


def test_start_that_fails(realized: World) -> None:
    """A core that does not take an option is an error with its own words, exit 1."""
    done = realized.process(
        "run-ui", "demo", "--port", str(free_port()), "--extra-args", "--", "--no-such-flag"
    )

    assert done[:2] == (1, "")
    assert "error: ComfyUI ended with code 2; its log ends:\n" in done.err
    assert "unrecognized arguments: --no-such-flag" in done.err.rpartition("error: ComfyUI")[2]
    assert realized.leases() == []


# What reaches ComfyUI


def test_extra_args(realized: World) -> None:
    """What follows `--extra-args --` goes to main.py as it is, and has the last word."""
    beside = realized.folder / "beside"
    options = ["--extra-args", "--", "--output-directory", str(beside), "--cpu"]
    with run_ui(realized, "--json", *options) as running:
        argv = Client(json.loads(running.line)["url"]).get("/system_stats")["system"]["argv"]

    assert argv[-3:] == options[2:]
    assert argv[0] == "main.py"


def test_environment_of_the_spec(realized: World) -> None:
    """The spec's env, COMFY_HOME and MODELS_DIR reach ComfyUI; what would unlock it does not."""
    realized.spec(env={"PAINT": "red", "LEVEL": 3, "COMFY_OFFLINE": "1"})
    realized.add_pack(
        "told",
        "import os, json\n"
        "names = ('PAINT', 'LEVEL', 'COMFY_HOME', 'MODELS_DIR', 'PYTHONPATH', 'VIRTUAL_ENV')\n"
        "json.dump({n: os.environ.get(n) for n in names}, open('user/env.json', 'w'))\n"
        "NODE_CLASS_MAPPINGS = {}\n",
    )
    realized.environment |= {"PYTHONPATH": "/nowhere", "VIRTUAL_ENV": "/nowhere"}
    with run_ui(realized):
        found = json.loads((realized.state() / "user" / "env.json").read_text())

    made = os.listdir(realized.local_root / "environments")
    expected = {
        "PAINT": "red",
        "LEVEL": "3",
        "COMFY_HOME": f"{realized.cache}/profiles/demo/1",
        "MODELS_DIR": f"{realized.cache}/models",
        "PYTHONPATH": None,
        "VIRTUAL_ENV": f"{realized.local_root}/environments/{made[0]}",
    }
    assert expected == found


def test_failed_import_is_named(realized: World) -> None:
    """A node that cannot be imported leaves a server, and is named."""
    realized.add_pack("broken", "import no_such_module\n")
    with run_ui(realized, "--json") as running:
        assert json.loads(running.line)["failed_nodes"] == ["broken"]
        _, err = running.end(signal.SIGINT)

    warning = {"event": "warning", "text": "nodes that could not be imported: broken"}
    assert json.dumps(warning) in err.splitlines()


def test_nothing_is_written_into_the_store(realized: World) -> None:
    """A run leaves every entry, record and view as it was, and no bytecode anywhere."""
    before = realized.listing(forgive=("cache/tmp", "cache/leases"))
    with run_ui(realized) as running:
        running.end(signal.SIGINT)
    after = realized.listing(forgive=("cache/tmp", "cache/leases"))

    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {
        path for path in changed if path.startswith("cache/") and "/state/" not in path
    } == set()
    assert not [path for path in after if path.startswith("cache/profiles") and ".pyc" in path]


def test_two_at_once(realized: World) -> None:
    """Two pods may run one version; the end of one does not disturb the other."""
    with run_ui(realized, "--json") as one, run_ui(realized, "--json") as two:
        assert one.end(signal.SIGINT)[0] == 0
        assert Client(json.loads(two.line)["url"]).answers()
        assert two.end(signal.SIGINT)[0] == 0
    assert realized.leases() == []


def test_other_generation(realized: World) -> None:
    """--generation runs one that is not current."""
    realized.spec(custom_nodes=[])
    realized.realize()
    with run_ui(realized, "--json", "--generation", "1") as running:
        started = json.loads(running.line)
        assert "DemoCaption" in Client(started["url"]).get("/object_info")

    assert started["generation"] == 1
    assert realized.profile().current() == 2


# The same nodes and models, however it is started


def seen(client: Client) -> dict[str, Any]:
    """Which of the asked nodes are there, and the choices of checkpoints and `clip` models."""
    known = client.get("/object_info")
    loader = known["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    return {
        "nodes": [name for name in ASKED if name in known],
        "checkpoints": loader,
        "loras": client.get("/models/loras"),
    }


EVERYTHING = {
    "nodes": list(ASKED),
    "checkpoints": ["demo.safetensors", "loose.safetensors"],
    "loras": ["state.safetensors"],
}


def old_core(world: World) -> None:
    commit = world.new_source("old.git", files_of(DEMO / "core", OLD))
    world.spec(comfy={"repo": f"{world.url}/old.git", "commit": commit})


def drop_things(world: World, version: str = "demo") -> None:
    """A loose model, one in a folder of its own, and a node, dropped at run time."""
    for name in ("checkpoints/loose.safetensors", "loras/state.safetensors"):
        path = world.cache / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    world.add_pack("trouble", TROUBLE, version)


@contextmanager
def main_py(world: World, how: str) -> Iterator[Client]:
    """ComfyUI started by hand, as people are used to: in its folder, by `python main.py`."""
    port = free_port()
    options = ["--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"]
    if how == "exec":
        process = world.start("exec", "demo", "--", "python", "main.py", *options)
    else:
        found = json.loads(world.realize("demo", "--json").out)
        environment = {**world.environment, "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            [found["python"], "main.py", *options],
            cwd=world.home if how == "home" else found["view"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    client = Client(f"http://127.0.0.1:{port}")
    try:
        until(lambda: client.answers() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        yield client
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("how", ["run-ui", "exec", "home", "view"])
@pytest.mark.parametrize("core", ["new", "2024"])
def test_same_nodes_and_models(world: World, core: str, how: str) -> None:
    """run-ui, exec, and `python main.py` in COMFY_HOME or the view see the same: what is locked,
    and what was dropped into MODELS_DIR and state/; with a core of today and one of 2024."""
    if core == "2024":
        old_core(world)
    world.realize()
    drop_things(world)
    if how == "run-ui":
        with run_ui(world, "--json") as running:
            assert seen(Client(json.loads(running.line)["url"])) == EVERYTHING
    else:
        with main_py(world, how) as client:
            assert seen(client) == EVERYTHING
    assert (world.state() / "user").is_dir()


def test_dropped_things_survive_a_switch(realized: World) -> None:
    """What was dropped is there in the next generation and after a rollback."""
    drop_things(realized)
    realized.spec(custom_nodes=[realized.node(realized.material.v2)])
    realized.realize()
    with run_ui(realized, "--json") as running:
        assert seen(Client(json.loads(running.line)["url"])) == EVERYTHING
    realized.ok("rollback", "demo")
    with run_ui(realized, "--json") as running:
        assert seen(Client(json.loads(running.line)["url"])) == EVERYTHING


def test_models_dir_of_the_run(realized: World) -> None:
    """--models-dir and MODELS_DIR of the run decide which loose models are seen."""
    loose = realized.folder / "loose"
    (loose / "loras").mkdir(parents=True)
    (loose / "loras" / "mine.safetensors").write_bytes(b"x")
    with run_ui(realized, "--json", "--models-dir", str(loose)) as running:
        client = Client(json.loads(running.line)["url"])
        assert client.get("/models/loras") == ["mine.safetensors"]
        assert client.get("/models/checkpoints") == ["demo.safetensors"]


# Exec


def test_exec_code(realized: World) -> None:
    """The exit code is that of what ran, 128 + n for a signal; the lease is dropped."""
    for script, code in (("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)):
        done = realized.process("exec", "demo", "--", "python", "-c", script)
        assert (code, "", f"{start_line()}\n") == done
        done = realized.process("exec", "demo", "--quiet", "--", "python", "-c", script)
        assert (code, "", "") == done
    assert realized.leases() == []


def test_exec_of_a_newer_record(realized: World) -> None:
    """What a newer cvs says of the interpreter is not guessed at."""
    path = realized.cache / "profiles" / "demo" / "1.json"
    data = json.loads(path.read_text())
    data["interpreter"]["sanitizer"] = "none"
    path.unlink()
    path.write_text(json.dumps(data))
    done = realized.cvs("exec", "demo", "--", "true")

    assert (done.code, done.out) == (2, "")
    assert "generation 1 of demo: interpreter: " in done.err
    assert "sanitizer" in done.err
    assert "update cvs" in done.err


def test_exec_environment(realized: World) -> None:
    """It runs in the view, with the environment's Python, packages, scripts, and the spec's env."""
    realized.spec(env={"PAINT": "red"})
    script = (
        "import os, sys, json, cvs_demo_palette as palette\n"
        "print(json.dumps([os.getcwd(), sys.prefix, os.environ['PAINT'], palette.__file__]))"
    )
    done = realized.process("exec", "demo", "--", "python", "-c", script)

    prefix = str(next((realized.local_root / "environments").iterdir()))
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    expected = [
        f"{realized.cache}/profiles/demo/1",
        prefix,
        "red",
        f"{prefix}/lib/{minor}/site-packages/cvs_demo_palette.py",
    ]
    assert expected == json.loads(done.out)
    assert "#22c55e leaf" in realized.process("exec", "demo", "--", "cvs-demo-palette").out


def test_exec_of_nothing(realized: World) -> None:
    """No command, one that is not there, and one that cannot be run are sentences."""
    cases: dict[tuple[str, ...], str] = {
        (): "error: no command was given\nhint: cvs exec ID -- python main.py\n",
        (
            "--",
            "no-such-command",
        ): f"{start_line()}\nerror: there is no command 'no-such-command'\n",
        ("--", "/"): f"{start_line()}\nerror: / cannot be run: Permission denied\n",
    }
    for command, message in cases.items():
        assert (2, "", message) == realized.cvs("exec", "demo", *command)
    assert realized.leases() == []


def test_exec_signals(realized: World) -> None:
    """SIGTERM to cvs reaches the command; SIGINT is the terminal's to give to both."""
    script = (
        "import signal, sys, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "pathlib.Path('user/here').touch()\n"
        "signal.pause()\n"
    )
    here = realized.state() / "user" / "here"
    with realized.start("exec", "demo", "--", "python", "-c", script) as process:
        until(here.exists)
        process.terminate()
        process.communicate(timeout=PATIENCE)

    assert process.returncode == 5
    assert realized.leases() == []


def test_lost_entry(realized: World) -> None:
    """A generation whose entry is gone is refused before anything starts."""
    import shutil

    entry = realized.lock()["nodes"][0]["entry"]
    shutil.rmtree(realized.cache / "store" / entry)
    for command in (["exec", "demo", "--", "true"], ["run-ui", "demo", "--port", str(free_port())]):
        message = f"error: 1 entries of demo are gone, the first is {entry[:16]}\n"
        assert realized.cvs(*command) == (2, "", f"{message}hint: cvs realize demo\n")
    realized.realize()
    assert realized.process("exec", "demo", "--", "true").code == 0


def test_lost_local_disk(realized: World) -> None:
    """Another pod, or one whose disk is new, makes the environment and the view by itself."""
    import shutil

    shutil.rmtree(realized.local_root)
    shutil.rmtree(realized.cache / "profiles" / "demo" / "1")

    assert (
        realized.process("exec", "demo", "--", "python", "-c", "import cvs_demo_palette").code == 0
    )
    assert Path(realized.home, "main.py").is_file()
