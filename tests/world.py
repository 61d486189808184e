"""A world for the commands: a core, nodes, a wheel and a model, a volume, and `cvs` to run in it.

Its fixtures are in world_fixtures.py.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from gitserver import Content, GitServer, Source

from cvs.main import main
from cvs.profiles.generations import Profile
from cvs.store import seal
from cvs.store.entries import Store
from cvs.store.verify import verify
from cvs.store.volume import Volume

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "versions" / "examples" / "demo"
OLD = ROOT / "tests" / "standin_2024"

#: How long to wait for what must happen at all; nothing is ever measured with it.
PATIENCE = 60.0

#: A pack whose nodes do what a workflow must not, or wait until they are told to stop.
TROUBLE = """
import os, time
import comfy.model_management

class Base:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {"file": ("STRING", {"default": ""})}}
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "trouble"

class Raises(Base):
    def run(self, file=""):
        raise ValueError("the paint is gone")

class Dies(Base):
    def run(self, file=""):
        print("the roof falls in", flush=True)
        os._exit(7)

class Waits(Base):
    def run(self, file=""):
        open(file, "w").close()
        while True:
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.02)

class MakesNothing(Base):
    def run(self, file=""):
        return {"ui": {"text": ["nothing"]}}

NODE_CLASS_MAPPINGS = {c.__name__: c for c in (Raises, Dies, Waits, MakesNothing)}
"""


class Done(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it gave with --json."""
        return json.loads(self.out)


class Material(NamedTuple):
    """What every world begins with; made once and only copied."""

    folder: Path
    core: str
    """The core's commit."""
    v1: str
    v2: str
    """The node's commits: `main` and the tag v1 are the first, the tag v2 is the second."""
    sha256: str
    """Of the model."""


def files_of(folder: Path, over: Path | None = None) -> dict[bytes, Content]:
    """The files below a folder, and those of another one over them, for `Source.commit`."""
    found: dict[bytes, Content] = {}
    for root in (folder, *([over] if over else [])):
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found[os.fsencode(path.relative_to(root))] = path.read_bytes()
    return found


class World:
    """A volume, specs and sources in one folder, and `cvs` with an environment that names them."""

    def __init__(self, folder: Path, made: Material) -> None:
        self.folder = folder
        self.material = made
        self.cache = folder / "cache"
        self.versions = folder / "versions"
        self.home = folder / "ComfyUI"
        self.local_root = folder / "local"
        self.repos = folder / "repos"
        self.wheels = folder / "wheels"
        self.model = folder / "sources" / "demo.safetensors"
        self.versions.mkdir()
        for name in ("repos", "wheels", "sources"):
            shutil.copytree(made.folder / name, folder / name)
        self.url = str(self.repos)
        """What a repository's name is put behind."""
        self.local = ["--allow-local", "--wheels-dir", str(self.wheels)]
        self.server: GitServer | None = None
        self.environment = {
            **os.environ,
            "COMFY_CACHE_ROOT": str(self.cache),
            "COMFY_HOME": str(self.home),
            "CVS_VERSIONS_DIR": str(self.versions),
            "CVS_LOCAL_ROOT": str(self.local_root),
            # Whatever a test forgets, it asks nobody.
            "COMFY_OFFLINE": "true",
        }

    # What there is

    @property
    def volume(self) -> Volume:
        return Volume(str(self.cache))

    @property
    def store(self) -> Store:
        return Store(self.volume)

    def profile(self, version: str = "demo") -> Profile:
        return Profile(self.volume, version)

    def source(self, name: str) -> Source:
        """One of the repositories, to commit to."""
        found = Source.__new__(Source)
        found.folder = self.repos / name
        return found

    def new_source(self, name: str, files: dict[bytes, Content]) -> str:
        """A further repository with one commit, which is returned."""
        return Source(self.repos / name).commit(files)

    def state(self, version: str = "demo") -> Path:
        return self.cache / "state" / version

    def lock(self, version: str = "demo") -> Any:
        return json.loads((self.cache / "resolved" / f"{version}.lock.json").read_text())

    def requests(self) -> int:
        """How many requests the git server has had."""
        assert self.server is not None
        return len(self.server.requests)

    def leases(self) -> list[str]:
        """The names in leases/."""
        return sorted(os.listdir(self.cache / "leases"))

    # Specs

    def spec(self, version: str = "demo", **changes: Any) -> Path:
        """Writes a spec; the changes are top-level fields, None leaves one out."""
        data: dict[str, Any] = {
            "schema_version": 2,
            "version_id": version,
            "comfy": {"repo": f"{self.url}/ComfyUI.git", "commit": self.material.core},
            "custom_nodes": [self.node()],
            "models": [
                {
                    "source": str(self.model),
                    "target_path": "checkpoints/demo.safetensors",
                    "checksum": f"sha256:{self.material.sha256}",
                }
            ],
        }
        data |= changes
        path = self.versions / f"{version}.json"
        left = {name: value for name, value in data.items() if value is not None}
        path.write_text(json.dumps(left, indent=2))
        return path

    def node(self, commit: str | None = None, **fields: Any) -> dict[str, Any]:
        """The demo's node for a spec, v1 by default."""
        commit = commit or self.material.v1
        return {"repo": f"{self.url}/demo-node.git", "name": "demo-node", "commit": commit} | fields

    # Commands

    def cvs(self, *arguments: str, **environment: str | None) -> Done:
        """Runs a command in this process."""
        out, err = io.StringIO(), io.StringIO()
        handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            with (
                mock.patch.dict(os.environ, self._changed(environment), clear=True),
                contextlib.chdir(self.folder),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                try:
                    code = main(list(arguments))
                except SystemExit as error:
                    assert isinstance(error.code, int)
                    code = error.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Done(code, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str, **environment: str | None) -> Done:
        """Runs a command in this process that has to succeed."""
        done = self.cvs(*arguments, **environment)
        assert done.code == 0, done
        return done

    def realize(self, version: str = "demo", *options: str) -> Done:
        """Realizes from local repositories and the folder of wheels."""
        return self.ok("realize", version, *self.local, *options)

    def process(self, *arguments: str, **environment: str | None) -> Done:
        """Runs a command as a process of its own."""
        with self.start(*arguments, **environment) as running:
            out, err = running.communicate(timeout=PATIENCE)
        return Done(running.returncode, out, err)

    def start(self, *arguments: str, **environment: str | None) -> "subprocess.Popen[str]":
        """Starts a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "cvs", *arguments],
            cwd=self.folder,
            env=self._changed(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # As in a terminal, whatever the tests themselves were started from.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def _changed(self, environment: dict[str, str | None]) -> dict[str, str]:
        changed = self.environment | environment
        return {name: value for name, value in changed.items() if value is not None}

    # Looking

    def listing(self, *, forgive: tuple[str, ...] = ()) -> dict[str, tuple[object, ...]]:
        """Everything in the world's folder with kind, size, time and target.

        Args:
            forgive: folders whose time does not count: something came and went in them.
        """
        return listing(self.folder, forgive)

    def names(self, *, version: str = "demo") -> list[str]:
        """The nodes of a generation's view."""
        view = self.cache / "profiles" / version / "current" / "custom_nodes"
        return sorted(os.listdir(view))

    def assert_sound(self) -> None:
        """Every entry verifies; nothing is left in tmp/ and leases/."""
        for entry in self.store.ids():
            assert list(verify(self.store, entry)) == []
        assert os.listdir(self.cache / "tmp") == []
        assert self.leases() == []

    def add_pack(self, name: str, text: str, version: str = "demo") -> Path:
        """Drops a custom node where ComfyUI-Manager would."""
        folder = self.state(version) / "custom_nodes" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(text)
        return folder

    def workflow(self, graph: Any, name: str = "workflow.json") -> str:
        """Writes a workflow's file."""
        path = self.folder / name
        path.write_text(graph if isinstance(graph, str) else json.dumps(graph))
        return str(path)


def listing(folder: Path, forgive: tuple[str, ...] = ()) -> dict[str, tuple[object, ...]]:
    """Every path below a folder with kind, size, time in nanoseconds and link target."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
            relative = os.path.relpath(path, folder)
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            when = 0 if relative in forgive else status.st_mtime_ns
            found[relative] = (kind, size, when, target)
    return found


#: A realize that takes the whole way writes and drops a lease: these folders' times change.
CAME_AND_WENT = ("cache/tmp", "cache/leases")


def start_line(version: str = "demo", generation: int = 1) -> str:
    """What run-ui, run-handler, exec and shell say first, on standard error."""
    sealed = seal.state()
    warning = "" if sealed == "full" else "warning: "
    return f"{warning}{version}, generation {generation}, sealed: {sealed}"


def until(what: Callable[[], Any], why: Callable[[], str] = str) -> Any:
    """Waits until something is true and returns it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.01)
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
