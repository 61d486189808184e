"""The interpreter that an environment is made for: finding one and learning what it accepts.

The store holds no interpreter. A lock says which one its wheels were chosen for; implementation,
minor version, ABI and platform must match at use.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import packaging

from cvs.store.errors import InputError
from cvs.versions.lock import Interpreter

T = TypeVar("T")

#: Longer than any interpreter takes to start, shorter than a user's patience, in seconds.
_TIMEOUT = 60

#: What a tag for glibc says of it: `manylinux_2_28_x86_64` for 2.28, and three older names.
_MANYLINUX = re.compile(r"manylinux_([0-9]+)_([0-9]+)_")
_OLDER = (("manylinux1_", (2, 5)), ("manylinux2010_", (2, 12)), ("manylinux2014_", (2, 17)))

#: Run inside the interpreter, which may be as old as Python 3.8 and may lack every package:
#: `packaging` is lent to it, before one of its own, which may order tags differently.
#: `_base_executable` leads from a virtual environment to the interpreter it was made from.
_PROBE = """
import json, os, platform, sys, sysconfig
sys.path.insert(0, sys.argv[1])
from packaging import tags
ordered = list(tags.sys_tags())
libc = " ".join(platform.libc_ver()).strip()
executable = getattr(sys, "_base_executable", None) or sys.executable
if not os.path.exists(executable):
    executable = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": platform.python_version(),
    "abi": ordered[0].abi,
    "platform": sysconfig.get_platform().replace("-", "_").replace(".", "_"),
    "libc": libc,
    "tags": [str(tag) for tag in ordered],
    "cache_tag": sys.implementation.cache_tag or "",
    "executable": os.path.abspath(executable),
}))
"""


#: Run inside the interpreter, isolated, as its virtual environments see its own site-packages.
_PROVIDED = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class Probe(msgspec.Struct, frozen=True):
    """What one interpreter says of itself."""

    implementation: str
    version: str
    abi: str
    platform: str
    libc: str
    tags: tuple[str, ...]
    """Wheel tags that it accepts, the best first, such as `cp311-cp311-manylinux_2_28_x86_64`."""
    cache_tag: str
    """What its bytecode files are called after, such as `cpython-311`."""
    executable: str
    """The interpreter itself, absolute; where a virtual environment was probed, its base."""

    @property
    def interpreter(self) -> Interpreter:
        """What a lock keeps of it."""
        return Interpreter(
            implementation=self.implementation,
            version=self.version,
            abi=self.abi,
            platform=self.platform,
            libc=self.libc,
        )

    def rank(self, file: str) -> int | None:
        """How well a wheel of this file name fits: 0 is best, None is not at all."""
        return _rank(self.tags, file)

    @property
    def glibc(self) -> tuple[int, int] | None:
        """The version of the system's glibc; None for another C library."""
        return _glibc(self.libc.removeprefix("glibc "))

    def glibc_needed(self, file: str) -> tuple[int, int] | None:
        """The oldest glibc that a wheel of this file name runs with here; None for any libc.

        Of several tags one that fits is enough.
        """
        found = [_glibc_of_tag(tag) for tag in _tags(file) if tag in _ranks(self.tags)]
        needed = [version for version in found if version is not None]
        return min(needed) if needed and len(needed) == len(found) else None


class Chosen(NamedTuple):
    """The interpreter that the user's settings name; no other is considered."""

    command: str
    """A path, or a command on PATH."""
    variable: str = "COMFY_PYTHON"
    """The setting that names it."""


def find(version: str | None, chosen: Chosen | None = None) -> str:
    """The path of an interpreter of that version, never that of a virtual environment.

    In order: the chosen one, the one that runs cvs, `python3.X` on PATH, those that uv manages.
    Nothing is downloaded.

    Args:
        version: `3.12` or `3.12.1`; None for any.

    Raises:
        InputError: there is none, or the chosen one does not run or has another version.
    """
    if chosen:
        return _chosen(version, chosen)
    for candidate in _candidates(version):
        try:
            probed = probe(candidate)
        except InputError:
            # What a search comes across may be anything, such as the shim of a version manager.
            continue
        if _fits(version, probed.version):
            return probed.executable
    raise InputError(
        f"no Python {version} found" if version else "no Python found",
        hint="set COMFY_PYTHON to the path of one, or install it with `uv python install`",
    )


def _chosen(version: str | None, chosen: Chosen) -> str:
    command, variable = chosen
    found = shutil.which(command)
    if found is None and "/" not in command:
        raise InputError(f"{variable}: there is no {command} on PATH")
    probed = probe(os.path.abspath(found or command))
    if not _fits(version, probed.version):
        raise InputError(
            f"{variable} is Python {probed.version} ({found or command}), "
            f"Python {version} is needed",
            hint=f"unset {variable}, or set python.version in the spec to lock anew",
        )
    return probed.executable


def _candidates(version: str | None) -> list[str]:
    found = [getattr(sys, "_base_executable", None) or sys.executable]
    if _fits(version, ".".join(map(str, sys.version_info[:3]))) and found[0]:
        return found
    if version:
        name = "python" + ".".join(version.split(".")[:2])
        for folder in os.get_exec_path():
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK):
                found.append(path)
        found.extend(_managed(version))
    return found


def _managed(version: str) -> list[str]:
    """The interpreter of that version that uv installed earlier, if there is one."""
    import uv

    command = [uv.find_uv_bin(), "python", "find", "--no-python-downloads", "--managed-python"]
    command += ["--no-config", "--no-project", version]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [done.stdout.strip()] if done.returncode == 0 and done.stdout.strip() else []


@functools.cache
def probe(path: str) -> Probe:
    """Asks an interpreter what it is, once in the life of this process.

    Raises:
        InputError: it does not run, or is none.
    """
    lent = os.path.dirname(os.path.dirname(os.path.abspath(packaging.__file__)))
    return _answer(path, _PROBE, [lent], Probe)


def _answer(path: str, script: str, arguments: Iterable[str], form: type[T]) -> T:
    """What a script says in an interpreter, isolated from its user and our variables.

    Raises:
        InputError: it does not run, or is none.
    """
    try:
        done = subprocess.run(
            [path, "-I", "-c", script, *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise InputError(f"there is no interpreter at {path}") from None
    except OSError as error:
        raise InputError(f"the interpreter {path} does not run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"the interpreter {path} did not answer in {_TIMEOUT} s") from None
    try:
        return msgspec.json.decode(done.stdout, type=form)
    except msgspec.DecodeError:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"{path} is not a usable Python interpreter: {said}") from None


def check(locked: Interpreter, probed: Interpreter) -> str | None:
    """Compares the interpreter of a lock with the one at hand.

    Returns:
        A warning where only the patch version differs, else None.

    Raises:
        InputError: implementation, minor version, ABI or platform differ, or a wheel needs a newer
            glibc than this system has.
    """
    for what, want, have in (
        ("implementation", locked.implementation, probed.implementation),
        ("version", _minor(locked.version), _minor(probed.version)),
        ("ABI", locked.abi, probed.abi),
        ("platform", locked.platform, probed.platform),
    ):
        if want != have:
            raise InputError(
                f"the lock is for {_describe(locked)}, "
                f"this interpreter is {_describe(probed)}: another {what}",
                hint="set COMFY_PYTHON to a fitting interpreter, or lock again",
            )
    _check_glibc(locked, probed)
    if locked.version != probed.version:
        return f"the lock was made with Python {locked.version}, this is {probed.version}"
    return None


def check_provided(path: str, provided: Sequence[str]) -> None:
    """Asks an interpreter whether it has, by itself, what an image is said to provide.

    Neither PYTHONPATH nor packages of the user count: no environment sees them.

    Args:
        path: the interpreter.
        provided: requirements, `torch>=2.7`. With none nobody is asked.

    Raises:
        InputError: it lacks one, or has a version out of its range.
    """
    if not provided:
        return
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        wanted = [Requirement(text) for text in provided]
    except InvalidRequirement as error:
        raise InputError(f"what the image provides: {str(error).splitlines()[0]}") from None
    names = [canonicalize_name(one.name) for one in wanted]
    found = _answer(path, _PROVIDED, names, dict[str, str | None])
    for text, name, one in zip(provided, names, wanted, strict=True):
        have = found.get(name)
        if have is None or not one.specifier.contains(have, prereleases=True):
            raise InputError(
                f"the spec says that the image provides {text}; "
                f"{path} has {f'{name} {have}' if have else f'no {name}'}",
                hint="use the image that the spec is for, or take it out of python.provided",
            )


def _check_glibc(locked: Interpreter, probed: Interpreter) -> None:
    needed, here = _glibc(locked.glibc_needed), _glibc(probed.libc.removeprefix("glibc "))
    if needed is None or (here is not None and here >= needed):
        return
    what = f"the wheel {locked.glibc_needed_by}" if locked.glibc_needed_by else "the lock"
    raise InputError(
        f"{what} needs glibc {locked.glibc_needed}, "
        f"this system has {probed.libc or 'another C library'}",
        hint="use a newer system (image), or lock again on this one",
    )


def _glibc(text: str) -> tuple[int, int] | None:
    """`2.28` as numbers; None for anything else."""
    found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", text)
    return (int(found[1]), int(found[2])) if found else None


def _glibc_of_tag(tag: str) -> tuple[int, int] | None:
    platform = tag.rpartition("-")[2]
    if found := _MANYLINUX.match(platform):
        return int(found[1]), int(found[2])
    return next((version for start, version in _OLDER if platform.startswith(start)), None)


def _describe(interpreter: Interpreter) -> str:
    name = interpreter.implementation
    return f"{name} {interpreter.version} ({interpreter.abi}, {interpreter.platform})"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _fits(wanted: str | None, version: str) -> bool:
    if wanted is None:
        return True
    parts = wanted.split(".")
    return version.split(".")[: len(parts)] == parts


@functools.lru_cache(maxsize=8)
def _ranks(tags: tuple[str, ...]) -> dict[str, int]:
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def _rank(tags: tuple[str, ...], file: str) -> int | None:
    ranks = _ranks(tags)
    return min((ranks[tag] for tag in _tags(file) if tag in ranks), default=None)


def _tags(file: str) -> list[str]:
    """The tags in the file name of a wheel; none in any other."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    try:
        return [str(tag) for tag in parse_wheel_filename(file)[3]]
    except InvalidWheelFilename:
        return []
