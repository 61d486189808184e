"""How long an environment takes to appear, next to uv's warm cache, and its first start.

    python bench/environment.py [--rounds N] [--dir FOLDER]

Twenty packages with what they need are resolved and fetched once, from the package index. Then
the ways run interleaved; medians are printed. uv installs by hard links from its cache without a
network, with and without compiling; the first start imports ten of the packages, and compiles
them where nobody did. `linked one by one` is cvs without links to whole folders. The same wheels as
packs are compared with one tar.zst of the whole environment.
"""

import argparse
import os
import shutil
import statistics
import subprocess
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


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dir", default=None, help="where to write; decides the file system")
    options = parser.parse_args()
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
