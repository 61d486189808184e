"""The small core of `versions/examples/demo`, started and talked to by tests."""

import json
import shutil
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

from real.server import Server, plain_environment

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "versions" / "examples" / "demo"
CORE = DEMO / "core"
OLD = ROOT / "tests" / "standin_2024"
Graph = dict[str, dict[str, Any]]


def environment_of_core() -> dict[str, str]:
    """What a core is started with: it must leave no bytecode in the repository."""
    return plain_environment() | {"PYTHONDONTWRITEBYTECODE": "1"}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


class Core(Server):
    """A running core, and short ways to talk to it."""

    def __init__(self, folder: Path, base: Path | None, *flags: str, cwd: Path | None = None):
        command = [sys.executable, str(folder / "main.py"), "--disable-auto-launch", *flags]
        if base is not None:
            (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
            (base / "user").mkdir(exist_ok=True)
            command += ["--base-directory", str(base)]
        environment = environment_of_core() | {"PYTHONPATH": str(DEMO / "package")}
        folder = cwd or folder
        log = (base or folder).with_suffix(".log")
        super().__init__(command, folder, log, environment)

    def __enter__(self) -> "Core":
        self.wait_until_ready(30)
        return self

    def http(self, path: str, data: Any = None, **headers: str) -> tuple[int, bytes]:
        body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def json(self, path: str, data: Any = None) -> Any:
        return json.loads(self.http(path, data)[1])

    def run(self, graph: Graph, **more: Any) -> dict[str, Any]:
        """Run a graph to its end; its entry in the history."""
        answer = self.json("/prompt", {"prompt": graph, **more})
        assert answer["node_errors"] == {}, answer
        end = time.monotonic() + 30
        while time.monotonic() < end:
            history = self.json(f"/history/{answer['prompt_id']}")
            if history:
                return dict(history[answer["prompt_id"]])
            time.sleep(0.01)
        raise TimeoutError(self.log_text())

    def problems(self, graph: Graph) -> dict[str, list[str]]:
        """The kinds of problem of every node of a graph that is refused."""
        status, body = self.http("/prompt", {"prompt": graph})
        assert status == 400
        errors = json.loads(body)["node_errors"]
        return {key: [one["type"] for one in value["errors"]] for key, value in errors.items()}

    def picture(self, entry: dict[str, Any], node_id: str) -> Any:
        image = entry["outputs"][node_id]["images"][0]
        query = urllib.parse.urlencode(image)
        status, body = self.http(f"/view?{query}")
        assert status == 200
        return load("comfy/png.py").decode(body)


def load(path: str) -> ModuleType:
    """A module of the core that needs none of the others."""
    name = "demo_core_" + Path(path).stem
    module = ModuleType(name)
    sys.modules[name] = module  # dataclasses look their module up
    source = CORE / path  # compiled here: an import would leave bytecode in the core
    exec(compile(source.read_text(), str(source), "exec"), module.__dict__)
    return module


def checkpoint(data: bytes = bytes(16), cut: int = 0) -> bytes:
    """A safetensors file, its last `cut` bytes missing."""
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"w": entry, "__metadata__": {"made": "here"}}).encode()
    whole = struct.pack("<Q", len(header)) + header + data
    return whole[: len(whole) - cut]


def sampled(name: str, steps: int = 2, seed: int = 1) -> Graph:
    """The usual graph from a text to an image."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=name),
        "2": node("CLIPTextEncode", text="a cat", clip=["1", 1]),
        "3": node("CLIPTextEncode", text="", clip=["1", 1]),
        "4": node("EmptyLatentImage", width=64, height=32, batch_size=1),
        "5": node(
            "KSampler",
            model=["1", 0],
            seed=seed,
            steps=steps,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            positive=["2", 0],
            negative=["3", 0],
            latent_image=["4", 0],
            denoise=1.0,
        ),
        "6": node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="sampled"),
    }


def once(folder: Path, *flags: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A start that ends by itself."""
    return subprocess.run(
        [sys.executable, str(folder / "main.py"), "--quick-test-for-ci", *flags],
        cwd=cwd or folder,
        env=environment_of_core(),
        capture_output=True,
        text=True,
        timeout=30,
    )


def copy_core(folder: Path) -> Path:
    """The core in a folder that may be written into."""
    return Path(shutil.copytree(CORE, folder, ignore=shutil.ignore_patterns("__pycache__")))
