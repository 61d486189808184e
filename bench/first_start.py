"""The first start of real ComfyUI from an environment that was just made, next to a compiled venv.

    CVS_REAL_COMFYUI=REPOSITORY python bench/first_start.py [--rounds N] [--dir FOLDER]

ComfyUI is locked and stored by cvs; the same wheels are installed by uv with --compile-bytecode.
Both start the same copy of the core, on the processor, with `--quick-test-for-ci`; before each
start the page cache is dropped where that is allowed. REPOSITORY is a clone or mirror of ComfyUI;
torch for the processor comes from where pip finds it (tests/real/rig.py).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import uv
from measure import interleaved, table

from cvs.profiles import environment
from cvs.profiles.generations import Profile
from cvs.store.entries import Store
from cvs.store.record import Record
from cvs.store.volume import Volume
from cvs.versions import interpreter
from cvs.versions.lock import Interpreter

sys.path.append(str(Path(__file__).parent.parent / "tests" / "real"))

import rig

CVS, VENV, MADE = "cvs", "uv venv, compiled", "cvs, with making the environment"


class Case:
    """Real ComfyUI in a store, and the same packages in a virtual environment."""

    def __init__(self, folder: Path, comfyui: str) -> None:
        self.folder = folder
        prepared = rig.prepare(folder / "rig", comfyui)
        volume = Volume(str(folder / "cache"))
        self.variables = {
            **os.environ,
            "COMFY_CACHE_ROOT": volume.root,
            "COMFY_HOME": str(folder / "ComfyUI"),
            "CVS_LOCAL_ROOT": str(folder / "local"),
            "CVS_VERSIONS_DIR": str(prepared.spec.parent),
        }
        command = [sys.executable, "-m", "cvs", "realize", "real", "--allow-local", "--no-trial"]
        subprocess.run(command, env=self.variables, check=True)
        self.store = Store(volume)
        profile = Profile(volume, "real")
        number = profile.current()
        assert number is not None
        self.record: Record = profile.record(number)
        core = next(place.target for place in self.record.links if not place.path)
        shutil.copytree(os.path.join(volume.store, core), folder / "core", symlinks=True)
        self.venv = folder / "venv"
        self._install(volume, prepared.wheels)

    def _install(self, volume: Volume, wheels: Path) -> None:
        """Installs what the lock has."""
        lock = json.loads(Path(volume.resolved, "real.lock.json").read_text())
        pins = self.folder / "pins.txt"
        found = lock["python"]["wheels"]
        pins.write_text("".join(f"{one['name']}=={one['version']}\n" for one in found))
        tool, python = uv.find_uv_bin(), interpreter.find(None)
        subprocess.run([tool, "venv", "--quiet", "--python", python, self.venv], check=True)
        command = [tool, "pip", "install", "--no-deps", "--compile-bytecode", "--quiet"]
        command += ["--python", self.venv / "bin/python", "--find-links", wheels]
        subprocess.run([*command, "--requirement", pins], check=True)

    def environment(self) -> str:
        """The interpreter of the environment, which is made if it is not there."""
        return environment.ensure(
            self.store,
            self.record.wheel_set,
            Interpreter(**self.record.interpreter),
            interpreter.find(None),
            str(self.folder / "local"),
        ).python

    def start(self, python: str) -> None:
        """Starts ComfyUI, which imports all that it needs and ends."""
        for name in ("output", "temp", "user"):
            shutil.rmtree(self.folder / "core" / name, ignore_errors=True)
        subprocess.run(
            [python, "main.py", "--quick-test-for-ci", "--cpu"],
            cwd=self.folder / "core",
            env={**self.variables, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"},
            check=True,
            capture_output=True,
        )


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default=None, help="where to write; decides the file system")
    options = parser.parse_args()
    comfyui = os.environ.get("CVS_REAL_COMFYUI")
    if not comfyui:
        print("not measured: CVS_REAL_COMFYUI names no ComfyUI repository")
        return
    with tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=options.dir) as folder:
        case = Case(Path(folder), comfyui)
        fresh = case.environment()

        def anew() -> None:
            shutil.rmtree(os.path.dirname(os.path.dirname(fresh)))
            case.start(case.environment())

        ways: dict[str, Callable[[], object]] = {
            CVS: lambda: case.start(fresh),
            VENV: lambda: case.start(str(case.venv / "bin/python")),
            MADE: anew,
        }
        dropped = [drop_caches()]
        found = interleaved(ways, options.rounds, lambda: dropped.append(drop_caches()))
        cache = "dropped" if all(dropped) else "could not be dropped"
        table(f"first start (page cache {cache})", found, VENV)


def drop_caches() -> bool:
    """Writes everything back and forgets it; whether this user may."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
