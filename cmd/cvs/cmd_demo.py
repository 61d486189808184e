"""`cvs demo`: the whole way on a small example, offline, each step told and done in earnest.

Every step is the command that a user would type, run as a process of its own.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from typing import Any

from cvs import demo_material as material
from cvs.cli import Parser, Session
from cvs.store import document, fs
from cvs.store.errors import InputError, RunError

EXAMPLES = "  cvs demo\n  cvs demo --dir /tmp/look-at-this\n"


def parser() -> Parser:
    """The options."""
    found = Parser(
        "demo",
        "A small ComfyUI-shaped core, a custom node, a wheel and a model, made from files that "
        "cvs ships, go through create, validate, realize, run-handler, a changed node, rollback "
        "and delete. No connection is made. What it leaves can be looked at.",
        EXAMPLES,
    )
    found.add_argument("--dir", metavar="DIR", help="an empty or new folder to work in")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    started = time.monotonic()
    folder = _folder(session.options.dir)
    demo = _Demo(session, folder)
    demo.run()
    seconds = time.monotonic() - started
    result = {
        "dir": folder,
        "seconds": round(seconds, 2),
        "steps": demo.steps,
        "outputs": demo.outputs,
    }
    text = (
        f"\nAll of it took {seconds:.1f} s and made no connection. Look at it:\n"
        f"  {folder}/ComfyUI/            the version in use, a link to its profile\n"
        f"  {folder}/volume/store/       the entries\n"
        f"  {folder}/volume/profiles/    its generations\n"
        f"  {folder}/results/            the images\n"
    )
    session.result(result, text)
    return 0


def _folder(given: str | None) -> str:
    if given is None:
        return os.path.realpath(tempfile.mkdtemp(prefix="cvs-demo-"))
    folder = os.path.realpath(os.path.expanduser(given))
    if os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise InputError(f"--dir: {given} is not an empty folder")
    fs.makedirs(folder)
    return folder


class _Demo:
    def __init__(self, session: Session, folder: str) -> None:
        self._session, self._folder = session, folder
        self.steps: list[str] = []
        self.outputs: list[str] = []
        self._environment = {
            **os.environ,
            "COMFY_CACHE_ROOT": f"{folder}/volume",
            "COMFY_HOME": f"{folder}/ComfyUI",
            "CVS_VERSIONS_DIR": f"{folder}/versions",
            "CVS_LOCAL_ROOT": f"{folder}/local",
            "COMFY_OFFLINE": "true",
        }
        self._environment.pop("MODELS_DIR", None)
        self._spec = f"{folder}/versions/demo.json"

    def run(self) -> None:
        folder, shipped = self._folder, material.examples()
        self._tell("real git repositories, a wheel and a model, made from what cvs ships")
        core, node = f"{folder}/sources/ComfyUI", f"{folder}/sources/demo-node"
        material.copy(shipped / "core", core)
        material.commit(core, "A small core")
        material.copy(shipped / "node" / "v1", node)
        material.commit(node, "Write a line", tag="v1")
        material.copy(shipped / "node" / "v2", node)
        material.commit(node, "Draw another frame", tag="v2")
        material.wheel(f"{folder}/wheels")
        checksum = material.model(f"{folder}/sources/demo.safetensors")
        models = [
            {
                "source": f"{folder}/sources/demo.safetensors",
                "target_path": "checkpoints/demo.safetensors",
                "checksum": f"sha256:{checksum}",
            }
        ]
        workflow = f"{folder}/workflow.json"
        fs.write_file(workflow, (shipped / "workflow.json").read_bytes())
        local = ["--allow-local", "--wheels-dir", f"{folder}/wheels"]

        self._tell("a spec: which core, which nodes, which models; refs become commits")
        nodes = json.dumps([{"repo": node, "ref": "v1"}])
        given = ["--repo", core, "--nodes", nodes, "--models", json.dumps(models)]
        self._cvs("create", "demo", *given, *local)
        self._tell("resolved into a lock: every commit, wheel and model, exactly")
        self._cvs("validate", "demo", *local)
        self._tell("stored, each part under its hash, and switched to")
        self._cvs("realize", "demo", *local)
        self._cvs("realize", "demo")
        self._tell("a workflow runs on it")
        first = self._result(workflow, "first")

        self._tell("the node moves to v2: that part alone is resolved and stored again")
        spec = document.load(self._spec)
        spec["custom_nodes"] = [{"repo": node, "ref": "v2"}]
        fs.unlink(self._spec)
        fs.write_file(self._spec, document.pretty(spec))
        self._cvs("realize", "demo", *local)
        second = self._result(workflow, "second")
        if first == second:
            raise RunError("the demo's two versions of the node gave the same image")

        self._tell("the update was no good? back in one flip, nothing is fetched or built")
        self._cvs("rollback", "demo")
        if self._result(workflow, "third") != first:
            raise RunError("the demo's image after the rollback is not the first one again")
        self._cvs("history", "demo")

        self._tell("a second version shares every entry; deleting it takes nothing away")
        self._cvs("clone", "demo", "copy")
        self._environment["COMFY_HOME"] = f"{folder}/ComfyUI-copy"
        self._cvs("realize", "copy", *local)
        self._cvs("delete", "copy", "--remove-spec", "--purge-state")
        self._environment["COMFY_HOME"] = f"{folder}/ComfyUI"
        self._cvs("store", "ls")
        self._cvs("store", "verify")

    def _result(self, workflow: str, name: str) -> bytes:
        folder = f"{self._folder}/results/{name}"
        self._cvs("run-handler", "demo", "--workflow", workflow, "--out-dir", folder)
        paths = [os.path.join(folder, file) for file in sorted(os.listdir(folder))]
        self.outputs += paths
        with open(paths[0], "rb") as image:
            return image.read()

    def _tell(self, text: str) -> None:
        self._session.say(f"\n# {text}")

    def _cvs(self, *arguments: str) -> None:
        """Runs one command of cvs and shows it.

        Raises:
            RunError: it failed.
        """
        shown = shlex.join(arguments).replace(self._folder, "$DEMO")
        self.steps.append(f"cvs {shown}")
        self._session.say(f"$ cvs {shown}")
        done: subprocess.CompletedProcess[Any] = subprocess.run(
            [sys.executable, "-m", "cvs", *arguments],
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        for line in done.stdout.splitlines():
            self._session.say(f"  {line}".replace(self._folder, "$DEMO"))
        if done.returncode != 0:
            raise RunError(
                f"`cvs {shown}` ended with {done.returncode}:\n{done.stdout.strip()}\n"
                f"the demo's folder is {self._folder}"
            )
