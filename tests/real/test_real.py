"""The whole way with the real ComfyUI and real nodes, through the command line.

Runs where CVS_REAL_COMFYUI and CVS_REAL_NODES name repositories (CONTRIBUTING.md has the command).
One test, for each step stands on those before it; it prints what it saw.

CVS_REAL_WORK names a folder in which the rig is kept from run to run; by default it is made anew.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gitserver import GitServer

from . import pictures, rig, scenarios, server

CVS = str(Path(sys.executable).with_name("cvs"))

#: Seconds that any command may take: a realize downloads several hundred megabytes.
PATIENCE = 1800.0

COLOR = 0x1D2327
INVERTED = "#e2dcd8"

#: What the second commit of a node adds, and what is dropped into state/: each one class.
NODE = """
class {name}:
    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{}}}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    CATEGORY = "cvs"

    def run(self):
        return (1,)


NODE_CLASS_MAPPINGS = {{"{name}": {name}}}
"""
TOOK_IN = """

from .cvs_later import NODE_CLASS_MAPPINGS as _cvs_later

NODE_CLASS_MAPPINGS.update(_cvs_later)
"""
LOADER, MODEL, DROPPED = "CheckpointLoaderSimple", "sub/cvs-loose.safetensors", "CvsDropped"
LATER = "CvsLater"

#: Run below `unshare --net`: brings the loopback up and becomes the command.
ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    # SIOCSIFFLAGS: up and running.
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
"""

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> rig.Rig:
    """The rig. A fixture of the module is made before the environment is cleaned for a test: pip's
    settings say where a CPU torch is."""
    comfyui, nodes = os.environ.get("CVS_REAL_COMFYUI"), rig.nodes_from_environment()
    if not comfyui:
        pytest.skip("CVS_REAL_COMFYUI names no ComfyUI repository")
    if not nodes:
        pytest.skip("CVS_REAL_NODES names no node repository")
    given = os.environ.get("CVS_REAL_WORK")
    work = Path(given) if given else tmp_path_factory.mktemp("rig")
    return rig.prepare(work, comfyui, nodes, writable=rig.writable_from_environment())


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("wheels", ["tree", "pack"])
def test_real_comfyui(prepared: rig.Rig, tmp_path: Path, wheels: str) -> None:
    """Created, realized, run, changed, rolled back, offline and moved: as with the stand-in."""
    root = prepared.comfy.repo.parent
    with GitServer(root) as git:
        real = Real(prepared, tmp_path, git, wheels)
        real.create()
        real.realize()
        real.handler("online")
        before = real.stored()
        real.ui()
        real.exec()
        real.drift()
        real.change_and_roll_back()
    # The git server is gone from here on.
    real.offline("COMFY_OFFLINE=true")
    real.offline("unshare --net")
    real.untouched(before)
    real.move()


class Real:
    """A volume, the spec `real`, and `cvs` as a user has it."""

    def __init__(self, prepared: rig.Rig, folder: Path, git: GitServer, wheels: str) -> None:
        self.prepared, self.folder, self.git = prepared, folder, git
        self.cache = folder / "cache"
        self.spec = folder / "versions" / "real.json"
        self.spec.parent.mkdir()
        self.nodes = [node.repo.stem for node in prepared.nodes]
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("XDG_")
        } | {
            "HOME": str(folder / "home"),
            "COMFY_CACHE_ROOT": str(self.cache),
            "COMFY_HOME": str(folder / "ComfyUI"),
            "CVS_WHEELS": wheels,
        }
        (folder / "home").mkdir()
        self.workflow = folder / "workflow.json"
        self.objects: dict[str, Any] = {}

    # Steps ------------------------------------------------------------------------------------

    def create(self) -> None:
        """create, validate: the spec that the rig wrote, at the address of the git server."""
        document = json.loads(self.prepared.spec.read_text())
        nodes = [
            {**node, "repo": self.url(source)}
            for node, source in zip(document["custom_nodes"], self.prepared.nodes, strict=True)
        ]
        comfy = f"{self.url(self.prepared.comfy)}@main"
        given = ["--repo", comfy, "--nodes", json.dumps(nodes)]
        for package in document["python_packages"]:
            given += ["--package", package]
        self.cvs("create", "real", *given, "--allow-local")
        made = json.loads(self.spec.read_text())
        assert made["comfy"]["commit"] == self.prepared.comfy.commit
        # There is no option for these: a user adds them by hand.
        self.spec.write_text(json.dumps(made | {"python": document["python"]}, indent=2))
        with timed("validate"):
            said = json.loads(self.cvs("validate", "real", "--allow-local", "--json"))
        wheels = said["lock"]["python"]["wheels"]
        size = sum(wheel["size"] for wheel in wheels) / 1e6
        print(f"{len(wheels)} wheels of {size:.0f} MB, {len(self.git.requests)} requests to git")

    def realize(self) -> None:
        """realize, and again: that asks nobody."""
        with timed("realize"):
            done = json.loads(self.cvs("realize", "real", "--allow-local", "--json"))
        assert done["generation"] == 1 and done["new_generation"]
        asked = len(self.git.requests)
        # The first one without options leaves the note, the next goes by it.
        for turn in ("second realize", "third realize"):
            with timed(turn):
                said = self.cvs("realize", "real")
            assert said == "real: generation 1 is current, nothing to do\n"
        assert len(self.git.requests) == asked

    def handler(self, name: str, prefix: Sequence[str] = (), **environment: str) -> None:
        """run-handler: a picture of the right colour."""
        graph = scenarios.inverted("cvs/real", COLOR)
        self.workflow.write_text(json.dumps(graph))
        out = self.folder / f"out-{len(list(self.folder.glob('out-*')))}"
        arguments = ["--workflow", str(self.workflow), "--out-dir", str(out), "--json"]
        with timed(f"run-handler, {name}"):
            said = self.cvs(
                *("run-handler", "real", *arguments, "--extra-args", "--", "--cpu"),
                prefix=prefix,
                **environment,
            )
        (file,) = json.loads(said)["files"]
        picture = pictures.describe(Path(file["file"]).read_bytes())
        assert (picture["width"], picture["height"], picture["colors"]) == (64, 64, [INVERTED])
        assert picture["text"]["prompt"] == graph
        assert not any((self.cache / "leases").iterdir())

    def ui(self) -> None:
        """run-ui: the page, the classes of every node, and its end."""
        with self.started("run-ui") as (address, process):
            stats = get(f"{address}/system_stats")["system"]
            said = {key: stats[key] for key in ("comfyui_version", "pytorch_version")}
            print(*(f"{key} {value}" for key, value in said.items()), stats["python_version"])
            page = urllib.request.urlopen(address).read().decode()
            assert "<html" in page and "<script" in page
            # Some classes make a folder in input/ when they are asked what they take.
            get(f"{address}/object_info")
            self.objects = get(f"{address}/object_info")
            for node in self.nodes:
                print(f"{node}: {len(self.classes(node))} classes")
                assert self.classes(node), self.log()
            print(f"{len(self.objects)} classes in all")
            assert DROPPED not in self.objects
            assert self.end(process) == 0, self.log()
        assert "IMPORT FAILED" not in self.log()

    def exec(self) -> None:
        """exec: ComfyUI's own check of a start, and a server like that of run-ui."""
        with timed("exec python main.py --quick-test-for-ci"):
            self.cvs("exec", "real", "--", "python", "main.py", "--quick-test-for-ci", "--cpu")
        with self.started("exec") as (address, process):
            assert ordered(get(f"{address}/object_info")) == ordered(self.objects)
            assert self.end(process) == 0, self.log()

    def drift(self) -> None:
        """A loose model and a node dropped into state/ are found, and named as drift."""
        model = self.cache / "models" / "checkpoints" / MODEL
        model.parent.mkdir(parents=True)
        model.write_bytes(b"not a model, but called like one")
        dropped = self.cache / "state" / "real" / "custom_nodes" / "cvs_dropped.py"
        dropped.write_text(NODE.format(name=DROPPED))
        shown = json.loads(self.cvs("show", "real", "--json"))["drift"]
        assert shown == {"nodes": [dropped.name], "models": [f"checkpoints/{MODEL}"]}
        self.shows(added={DROPPED}, models=[MODEL])

    def change_and_roll_back(self) -> None:
        """A node's next commit has its class; a rollback takes it away."""
        source = self.prepared.nodes[0]
        commit = later(source.repo)
        document = json.loads(self.spec.read_text())
        document["custom_nodes"][0]["commit"] = commit
        self.spec.write_text(json.dumps(document, indent=2))
        with timed("realize with another commit of a node"):
            done = json.loads(self.cvs("realize", "real", "--allow-local", "--json"))
        assert done["generation"] == 2
        self.shows(added={DROPPED, LATER}, models=[MODEL])
        with timed("rollback"):
            self.cvs("rollback", "real")
        self.shows(added={DROPPED}, models=[MODEL])
        # State, spec and lock stay: realize goes forward again.
        document["custom_nodes"][0]["commit"] = source.commit
        self.spec.write_text(json.dumps(document, indent=2))

    def offline(self, how: str) -> None:
        """realize and run-handler from the store alone, the environment gone."""
        environments = self.folder / "home" / ".cache" / "cvs" / "environments"
        shutil.rmtree(environments)
        prefix: list[str] = []
        environment: dict[str, str] = {}
        if how.startswith("unshare"):
            prefix = [*how.split(" "), sys.executable, "-c", ALONE]
            if subprocess.run([*prefix, "true"], capture_output=True).returncode:
                prefix[1:1] = ["--map-root-user"]
        else:
            environment["COMFY_OFFLINE"] = "true"
        with timed(f"realize, {how}"):
            self.cvs("realize", "real", "--allow-local", prefix=prefix, **environment)
        (_,) = {path.name for path in environments.iterdir()} - {"wheels"}
        self.handler(how, prefix=prefix, **environment)

    def untouched(self, before: dict[str, str]) -> None:
        """Nothing that was stored has changed, by its bytes and by its manifests."""
        after = self.stored()
        assert {path: after.get(path) for path in before} == before
        with timed("store verify"):
            said = self.cvs("store", "verify")
        assert said.endswith("entries, all well\n")
        print(f"{len(before)} files and links of store/ and profiles/ as they were; {said}", end="")

    def move(self) -> None:
        """The volume at another place, as a RunPod volume is on a worker."""
        moved = self.folder / "mounted" / "elsewhere"
        moved.parent.mkdir()
        self.cache.rename(moved)
        self.cache = moved
        self.environment["COMFY_CACHE_ROOT"] = str(moved)
        self.handler("volume moved")
        self.shows(added={DROPPED}, models=[MODEL])

    # Means ------------------------------------------------------------------------------------

    def url(self, source: rig.Source) -> str:
        return f"{self.git.url}/{source.repo.name}"

    def cvs(self, *arguments: str, prefix: Sequence[str] = (), **environment: str) -> str:
        """Runs a command that has to succeed; what it printed."""
        done = subprocess.run(
            [*prefix, CVS, *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "could not be imported" not in done.stderr, done.stderr
        return done.stdout

    @contextmanager
    def started(self, command: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
        """A server that answers, started by run-ui or by exec; its log is in `log`."""
        port = server.free_port()
        options = ["--listen", "127.0.0.1", "--port", str(port), "--cpu"]
        arguments = {
            "run-ui": ["--host", "127.0.0.1", "--port", str(port), "--extra-args", "--", "--cpu"],
            "exec": ["--", "python", "main.py", *options],
        }[command]
        begun = time.monotonic()
        said = self.folder / "said"
        with said.open("wb") as out, (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [CVS, command, "real", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                # As in a terminal: a Ctrl-C reaches all of them.
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        try:
            address = f"http://127.0.0.1:{port}"
            ready = rf"real, generation \d+, is ready at {address} \(sealed: .+\)\n"
            while not (
                re.fullmatch(ready, said.read_text()) if command == "run-ui" else answers(address)
            ):
                assert process.poll() is None, self.log()
                assert time.monotonic() - begun < PATIENCE, self.log()
                time.sleep(0.05)
            print(f"{time.monotonic() - begun:6.1f} s  {command}, until it is ready")
            if command == "run-ui":
                print(said.read_text(), end="")
            yield address, process
        finally:
            reap(process)

    def end(self, process: "subprocess.Popen[bytes]") -> int:
        """Ctrl-C; the exit code."""
        os.killpg(process.pid, signal.SIGINT)
        return process.wait(60)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def shows(self, *, added: set[str], models: list[str]) -> None:
        """A started ComfyUI has these classes besides, and these models."""
        with self.started("run-ui") as (address, process):
            found = get(f"{address}/object_info")
            assert found.keys() - self.objects.keys() == added, self.log()
            assert self.objects.keys() <= found.keys()
            assert found[LOADER]["input"]["required"]["ckpt_name"][0] == models
            assert self.end(process) == 0

    def classes(self, node: str) -> list[str]:
        """The classes that a node brought."""
        module = f"custom_nodes.{node}"
        return [name for name, of in self.objects.items() if of["python_module"] == module]

    def stored(self) -> dict[str, str]:
        """Every file and link of store/ and profiles/ that has to stay as it is."""
        found = {}
        for top in ("store", "profiles"):
            for parent, folders, names in os.walk(self.cache / top):
                for name in (*names, *folders):
                    path = Path(parent, name)
                    relative = str(path.relative_to(self.cache))
                    if path.is_symlink():
                        found[relative] = f"→ {path.readlink()}"
                    elif path.is_file():
                        with path.open("rb") as file:
                            found[relative] = hashlib.file_digest(file, "sha256").hexdigest()
        # The one link that a switch is made of.
        del found["profiles/real/current"]
        return found


def later(repo: Path) -> str:
    """Commits one class more to a node's repository, on a branch of its own."""
    index = {"GIT_INDEX_FILE": str(repo / "test-index")}
    who = {
        f"GIT_{role}_{field}": value
        for role in ("AUTHOR", "COMMITTER")
        for field, value in (("NAME", "cvs"), ("EMAIL", "cvs@example.org"))
    }
    rig.git(repo, "read-tree", "main", env=index)
    taken = rig.git(repo, "cat-file", "blob", "main:__init__.py") + TOOK_IN
    for name, text in (("__init__.py", taken), ("cvs_later.py", NODE.format(name=LATER))):
        blob = rig.git(repo, "hash-object", "-w", "--stdin", stdin=text).strip()
        rig.git(repo, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=index)
    tree = rig.git(repo, "write-tree", env=index).strip()
    made = rig.git(repo, "commit-tree", "-p", "main", "-m", "One more", tree, env=who).strip()
    rig.git(repo, "update-ref", "refs/heads/later", made)
    return made


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints how long something took."""
    begun = time.monotonic()
    yield
    print(f"{time.monotonic() - begun:6.1f} s  {what}")


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=60) as response:
        return json.load(response)


def answers(address: str) -> bool:
    try:
        return bool(get(f"{address}/system_stats"))
    except OSError:
        return False


def ordered(value: Any) -> Any:
    """Without the order of lists: some come from sets."""
    if isinstance(value, dict):
        return {key: ordered(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((ordered(item) for item in value), key=lambda item: json.dumps(item))
    return value


def reap(process: "subprocess.Popen[bytes]") -> None:
    """Ends what a failed step left running, ComfyUI with it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
