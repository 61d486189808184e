"""How long an environment takes to appear, next to uv's warm cache, and its first start.

    python bench/environment.py [--rounds N] [--dir FOLDER]
    python bench/environment.py --wheels FOLDER [--rounds N] [--dir FOLDER]

Twenty packages with what they need are resolved and fetched once, from the package index. Then
the ways run interleaved; medians are printed. uv installs by hard links from its cache without a
network, with and without compiling; the first start imports ten of the packages, and compiles
them where nobody did. `linked one by one` is cvs without links to whole folders. The same wheels as
packs are compared with one tar.zst of the whole environment.

With --wheels the whole way is measured instead, from wheels on disk to an environment: of what
ComfyUI and some nodes ask for without torch, in the first version and in a second one with one
package changed; next to uv with a cold cache, which compiles too. pip downloads the wheels into
FOLDER, where they stay. Processor time is printed as well, since a machine is seldom alone.
"""

import argparse
import functools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import uv

from cvs.profiles import environment, native
from cvs.store import fs, pack
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.manifest import SetManifest
from cvs.store.stage import Stage, Staged
from cvs.store.volume import Volume
from cvs.versions import interpreter, python, requirements, wheels
from cvs.versions.lock import Python
from cvs.versions.spec import PythonSettings

PACKAGES = [
    *("aiohttp", "alembic", "attrs", "einops", "huggingface-hub", "jinja2", "networkx", "numpy"),
    *("pillow", "psutil", "pydantic", "pyyaml", "requests", "rich", "safetensors", "scipy"),
    *("setuptools", "sqlalchemy", "sympy", "tqdm"),
]
IMPORTS = (
    "aiohttp, alembic, jinja2, networkx, numpy, PIL.Image, pydantic, requests, sqlalchemy, yaml"
)

#: As ComfyUI and widespread nodes ask for; torch would dwarf all else.
COMFYUI = [
    *("GitPython", "Pillow", "SQLAlchemy", "aiohttp", "alembic", "attrs", "av", "einops"),
    *("fastapi", "huggingface-hub", "imageio", "jinja2", "kornia-rs", "matplotlib", "networkx"),
    *("numba", "numpy", "opencv-python-headless", "pandas", "psutil", "pydantic"),
    *("pydantic-settings", "pyyaml", "requests", "rich", "safetensors", "scikit-image", "scipy"),
    *("sentencepiece", "setuptools", "soundfile", "sympy", "tokenizers", "tqdm", "transformers"),
    *("uvicorn", "yarl"),
]
#: What the second version has otherwise than the first.
CHANGED = ("tqdm>=4.67", "tqdm<4.67")

CVS, LINKED, THERE = "cvs: environment", "cvs: linked one by one", "cvs: it is there already"
UV, UV_COMPILED = "uv: hard links", "uv: hard links, compiled"
PACKED, TAR = "cvs: environment, of packs", "tar: one tar.zst"


class Case:
    """A wheel set in a store, and the same wheels in uv's cache."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.python = interpreter.find(None)
        volume = Volume(os.path.join(folder, "cache"))
        volume.prepare()
        self.store = Store(volume)
        self.locked: Python = python.resolve(
            requirements.packages(PACKAGES).wanted,
            settings=PythonSettings(),
            probe=interpreter.probe(self.python),
            exclude_newer=None,
        )
        started = time.perf_counter()
        self.set: EntryId = wheels.fetch(self.store, self.locked, settings=PythonSettings())
        print(
            f"{len(self.locked.wheels)} wheels fetched, unpacked, compiled and synced in "
            f"{time.perf_counter() - started:.1f} s; "
            f"{len(self.files())} files, "
            f"{fs.filesystem_of(folder)}"
        )
        self.pins = os.path.join(folder, "pins.txt")
        with open(self.pins, "w", encoding="utf-8") as file:
            file.writelines(f"{one.name}=={one.version}\n" for one in self.locked.wheels)
        self.uv(os.path.join(folder, "warm"), offline=False)
        self.packed = self._packed()
        whole = self.uv(os.path.join(folder, "whole"), "--compile-bytecode")
        self.archive = os.path.join(folder, "whole.tar.zst")
        tree = os.path.dirname(os.path.dirname(whole))
        subprocess.run(["tar", "--zstd", "-cf", self.archive, "-C", tree, "."], check=True)
        shutil.rmtree(tree)

    def files(self) -> list[str]:
        """The paths of all files of the wheels."""
        documents = environment.members(self.store, self.set)
        return list(environment.plan(documents, dict.fromkeys(documents, ""), self.minor))

    def _packed(self) -> Store:
        """The same wheels on a volume that packs them."""
        volume = Volume(os.path.join(self.folder, "packed"), wheels="pack")
        volume.prepare()
        store = Store(volume)
        started = time.perf_counter()
        for entry in environment.members(self.store, self.set):
            with Stage(self.folder, synced=False) as place, store.stage() as stage:
                shutil.copytree(self.store.path(entry), place.folder, True, dirs_exist_ok=True)
                staged = Staged(entry, self.store.manifest(entry), place)
                store.publish(pack.stage(staged, stage))
        with store.stage() as stage:
            document = self.store.manifest(self.set)
            assert isinstance(document, SetManifest)
            store.publish(stage.set(document.members))
        print(f"packed in {time.perf_counter() - started:.1f} s")
        return store

    @property
    def minor(self) -> str:
        """`3.11`"""
        return ".".join(self.locked.interpreter.version.split(".")[:2])

    def cvs(self, place: str) -> str:
        """Makes an environment below `place`; returns its interpreter."""
        made = environment.ensure(self.store, self.set, self.locked.interpreter, self.python, place)
        return made.python

    def cvs_packed(self, place: str) -> str:
        """The same from packs."""
        locked = self.locked.interpreter
        return environment.ensure(self.packed, self.set, locked, self.python, place).python

    def tar(self, place: str) -> str:
        """Unpacks the archive of an environment."""
        os.mkdir(place)
        subprocess.run(["tar", "--zstd", "-xf", self.archive, "-C", place], check=True)
        return os.path.join(place, "bin", "python")

    def cvs_linked(self, place: str) -> str:
        """The same with a link for every file."""
        with (
            mock.patch.object(native, "is_harmless", lambda path: False),
            mock.patch.object(native, "stands_alone", lambda *_: False),
        ):
            return self.cvs(place)

    def uv(self, place: str, *options: str, offline: bool = True, mode: str = "hardlink") -> str:
        """What uv does with a warm cache, by default on the same file system."""
        environ = {**os.environ, "UV_CACHE_DIR": os.path.join(self.folder, "uv")}
        run = [uv.find_uv_bin(), "--quiet", "--no-config", *(["--offline"] if offline else [])]
        subprocess.run([*run, "venv", "--python", self.python, place], env=environ, check=True)
        install = ["pip", "install", "--python", place, "--link-mode", mode, "--no-deps"]
        subprocess.run([*run, *install, "-r", self.pins, *options], env=environ, check=True)
        return os.path.join(place, "bin", "python")


class Whole:
    """The whole way from a folder of wheels to an environment, always from nothing."""

    def __init__(self, wheels_dir: str) -> None:
        self.wheels_dir = wheels_dir
        self.python = interpreter.find(None)
        for wanted in CHANGED:
            if not os.path.exists(os.path.join(wheels_dir, f".{wanted}")):
                command = [sys.executable, "-m", "pip", "download", "--only-binary", ":all:"]
                command += ["-qq", "--dest", wheels_dir, wanted, *COMFYUI]
                subprocess.run(command, check=True)
                with open(os.path.join(wheels_dir, f".{wanted}"), "w", encoding="ascii"):
                    pass
        self.first, self.second = map(self._locked, CHANGED)
        print(f"{len(self.first.wheels)} wheels")

    def _locked(self, constraint: str) -> Python:
        links = (self.wheels_dir,)
        return python.resolve(
            requirements.packages(COMFYUI).wanted,
            settings=PythonSettings(find_links=links, constraints=(constraint,)),
            probe=interpreter.probe(self.python),
            exclude_newer=None,
            offline=True,
        )

    def cvs(self, folder: str, locked: Python, form: str) -> None:
        """Stores what a volume lacks of a lock and makes the environment."""
        volume = Volume(os.path.join(folder, "cache"), wheels=form)
        volume.prepare()
        store = Store(volume)
        settings = PythonSettings(find_links=(self.wheels_dir,))
        entry = wheels.fetch(store, locked, settings=settings)
        local = os.path.join(folder, "local")
        environment.ensure(store, entry, locked.interpreter, self.python, local)

    def uv(self, folder: str) -> None:
        """What uv does with an empty cache."""
        pins = os.path.join(folder, "pins.txt")
        with open(pins, "w", encoding="utf-8") as file:
            file.writelines(f"{one.name}=={one.version}\n" for one in self.first.wheels)
        environ = {**os.environ, "UV_CACHE_DIR": os.path.join(folder, "uv")}
        run = [uv.find_uv_bin(), "--quiet", "--no-config", "--offline"]
        place = os.path.join(folder, "place")
        subprocess.run([*run, "venv", "--python", self.python, place], env=environ, check=True)
        install = ["pip", "install", "--python", place, "--no-deps", "--compile-bytecode"]
        install += ["--no-index", "--find-links", self.wheels_dir, "-r", pins]
        subprocess.run([*run, *install], env=environ, check=True)

    def measure(self, rounds: int, parent: str) -> None:
        """Runs everything interleaved and prints medians as ratios to uv."""
        seconds: dict[str, list[float]] = {}
        processor: dict[str, list[float]] = {}

        def timed(name: str, way: Callable[[], None]) -> None:
            begun, busy = time.perf_counter(), _processor_time()
            way()
            seconds.setdefault(name, []).append(time.perf_counter() - begun)
            processor.setdefault(name, []).append(_processor_time() - busy)

        for _ in range(rounds):
            with tempfile.TemporaryDirectory(dir=parent) as folder:
                timed("uv: cold, compiled", functools.partial(self.uv, folder))
            for form in ("tree", "pack"):
                with tempfile.TemporaryDirectory(dir=parent) as folder:
                    name = f"cvs: first version, {form}s"
                    timed(name, functools.partial(self.cvs, folder, self.first, form))
                    name = f"cvs: one package changed, {form}s"
                    timed(name, functools.partial(self.cvs, folder, self.second, form))
        base, busy = (
            statistics.median(next(iter(found.values()))) for found in (seconds, processor)
        )
        print(f"{'':34} {'median':>8} {'ratio':>6} {'processor':>10} {'ratio':>6}")
        for name in seconds:
            whole, own = statistics.median(seconds[name]), statistics.median(processor[name])
            print(f"{name:34} {whole:7.1f}s {whole / base:6.2f} {own:9.1f}s {own / busy:6.2f}")


def _processor_time() -> float:
    """Seconds of processor time of this process and its children."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dir", default=None, help="where to write; decides the file system")
    parser.add_argument("--wheels", metavar="FOLDER", help="measure the whole way, from here")
    options = parser.parse_args()
    if options.wheels:
        with tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=options.dir) as folder:
            Whole(os.path.abspath(options.wheels)).measure(options.rounds, folder)
        return
    with tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=options.dir) as folder:
        case = Case(folder)
        ways: dict[str, Callable[[str], str]] = {
            CVS: case.cvs,
            LINKED: case.cvs_linked,
            UV: case.uv,
            UV_COMPILED: lambda place: case.uv(place, "--compile-bytecode"),
            PACKED: case.cvs_packed,
            TAR: case.tar,
        }
        made: dict[str, list[float]] = {name: [] for name in [*ways, THERE]}
        start: dict[str, list[float]] = {name: [] for name in [*ways, THERE]}
        for _ in range(options.rounds):
            for name, way in ways.items():
                place = os.path.join(folder, "place")
                begun = time.perf_counter()
                runs = way(place)
                ready = time.perf_counter()
                subprocess.run([runs, "-c", f"import {IMPORTS}"], env={}, check=True)
                made[name].append(ready - begun)
                start[name].append(time.perf_counter() - ready)
                if name == CVS:
                    begun = time.perf_counter()
                    way(place)
                    ready = time.perf_counter()
                    subprocess.run([runs, "-c", f"import {IMPORTS}"], env={}, check=True)
                    made[THERE].append(ready - begun)
                    start[THERE].append(time.perf_counter() - ready)
                shutil.rmtree(place)
    print(f"{'':28} {'made':>10} {'min':>10} {'first start':>12}")
    for name, found in sorted(made.items(), key=lambda item: statistics.median(item[1])):
        print(
            f"{name:28} {statistics.median(found) * 1000:8.1f}ms {min(found) * 1000:8.1f}ms "
            f"{statistics.median(start[name]) * 1000:10.1f}ms"
        )


if __name__ == "__main__":
    main()
