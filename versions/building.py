"""Building: a wheel from the source of a project, in isolation, by the rules of PEP 517.

What a build runs is code that nobody has read. It gets an environment with the wheels that the
project asks for and no other, and runs in a sandbox (`cvs.store.sandbox`): it can write nowhere but
in a folder of its own, has no network, and of this process's variables those alone that say where
the tools are.

The same inputs are to give the same wheel: time, hash seed and the paths in debugging information
are fixed, and the archive is written anew, sorted and without times.
"""

import calendar
import collections
import csv
import functools
import io
import os
import re
import shutil
import stat
import subprocess
import tarfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from cvs.store import sandbox
from cvs.store.errors import RunError, SourceError, one_line, shown
from cvs.store.progress import Progress
from cvs.versions import archive as archives
from cvs.versions import parallel, uv_process
from cvs.versions.archive import Bad
from cvs.versions.interpreter import Probe
from cvs.versions.lock import Wheel

#: Chooses wheels for the requirements of a build.
Choose = Callable[[Sequence[str]], Sequence[Wheel]]
#: Puts wheels under their own names into a folder.
Fetch = Callable[[Sequence[Wheel], str], Sequence[str]]

#: Variables of this process that a build sees.
_PASSED = (
    *("PATH", "LANG", "LD_LIBRARY_PATH", "CC", "CXX"),
    *("CUDA_HOME", "MAX_JOBS", "TORCH_CUDA_ARCH_LIST"),
)

#: Seconds after which a build is given up; the kernels of attention libraries take an hour.
TIME_LIMIT = 3 * 3600.0

#: The time that builds without a date are told, and that of every member: zip has no earlier one.
_EPOCH = 315619200
_MEMBER_TIME = (1980, 1, 2, 0, 0, 0)

#: A source archive may unpack to this many times its size and this much more.
_RATIO, _SPARE = 200, 64 << 20

#: Lines of a build's log that a message has, and characters of each.
_SHOWN_LINES, _SHOWN_CHARACTERS = 12, 300
#: Lines that are kept to look for them.
_KEPT_LINES = 200

_MISSING = re.compile(r"(?:ModuleNotFoundError|ImportError): No module named '([A-Za-z0-9_]+)")
_NO_COMPILER = re.compile(r"(?:command|unable to execute) '?(\S*(?:gcc|cc|g\+\+|c\+\+|clang))'?")

#: A member's mode in a wheel: whether it can be executed is all that counts.
_PLAIN, _EXECUTABLE = stat.S_IFREG | 0o644, stat.S_IFREG | 0o755


def unpack(path: str, folder: str) -> str:
    """Unpacks a source archive into an empty folder and returns the folder of the project.

    Raises:
        SourceError: it is none, or would write elsewhere, or unpacks to too much.
    """
    name = os.path.basename(path)
    limit = os.path.getsize(path) * _RATIO + _SPARE
    try:
        if path.endswith(".zip"):
            with archives.opened(path) as archive:
                _check_amount((one.file_size for one in archive.infolist()), limit)
                for member in archive.infolist():
                    _check_name(member.filename)
                archive.extractall(folder)
        else:
            with tarfile.open(path) as packed:
                # One after the other: what is too much is not read to its end.
                _check_amount((one.size for one in packed), limit)
                packed.extractall(folder, filter="data")
    except Bad as error:
        raise SourceError(f"the source archive {name} {error}") from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        said = str(error)[:_SHOWN_CHARACTERS].rstrip(".")
        raise SourceError(f"the source archive {name} cannot be unpacked: {said}") from None
    found = os.listdir(folder)
    inner = os.path.join(folder, found[0]) if len(found) == 1 else folder
    return inner if os.path.isdir(inner) else folder


def _check_amount(sizes: Iterable[int], limit: int) -> None:
    count = total = 0
    for size in sizes:
        count, total = count + 1, total + size
        if count > archives.MEMBER_LIMIT:
            raise Bad("has too many files")
    if total > limit:
        raise Bad(f"would unpack to {total} bytes, too many")


def _check_name(name: str) -> None:
    if name.startswith("/") or ".." in name.split("/"):
        raise Bad(f"has a file that would lie outside, {shown(name)}")


class Workshop:
    """Where one wheel is built: an environment, and a room that the build may write in.

    The build cannot write into the environment: its interpreter is run outside of the sandbox too,
    when more is installed.

    Args:
        folder: an empty folder on local disk; all is gone with it.
        what: what is built, for messages: `nvdiffrast at 1d7b4f2a9c31`.
        probe: the interpreter that the wheel is for.
        choose: chooses what it is built with; None where that is known.
        fetch: puts that into a folder.
    """

    def __init__(
        self,
        folder: str,
        what: str,
        probe: Probe,
        *,
        choose: Choose | None,
        fetch: Fetch,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        self.folder = os.path.realpath(folder)
        self.what = what
        self.probe = probe
        self._choose = choose
        self._fetch = fetch
        self._progress = progress
        self._stop = stop
        self._log: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._installed: set[str] = set()
        self.room = os.path.join(self.folder, "room")
        """Where the source goes."""
        self._out = os.path.join(self.room, "out")
        for path in (self.room, self._out):
            os.mkdir(path)
        for name in ("room/home", "room/tmp", "wheels"):
            os.mkdir(os.path.join(self.folder, name))
        self._environment = os.path.join(self.folder, "environment")
        self._python = os.path.join(self._environment, "bin", "python")

    def wheel(
        self, project: str, requires: Sequence[Wheel], date: str
    ) -> tuple[str, Sequence[Wheel]]:
        """Builds the wheel of a project.

        Args:
            project: its folder, in the room.
            requires: the wheels that it is built with, where nothing chooses them.
            date: what the build is told of the time, `YYYY-MM-DDTHH:MM:SSZ`; "" for nothing.

        Returns:
            The path of the wheel, and what it was built with.

        Raises:
            SourceError: it cannot be built; the end of its log was noted.
        """
        import build
        from pyproject_hooks import BuildBackendWarning

        # What a back end warns of concerns those who keep the project.
        warnings.filterwarnings("ignore", category=BuildBackendWarning)

        self._make_environment()
        variables = self._variables(date)
        try:
            sandbox.check(f"the build of {self.what}")
        except RunError as error:
            # Nothing ran: what is missing is a wheel.
            raise SourceError(error.message, hint=error.hint) from None
        run = functools.partial(self._run, variables)
        try:
            builder = build.ProjectBuilder(project, self._python, run)
            if self._choose is None:
                self._add(requires)
            else:
                asked = builder.build_system_requires
                requires = self._install(self._choose, asked)
                further = asked | builder.get_requires_for_build("wheel")
                if further != asked:
                    requires = self._install(self._choose, further)
            path = builder.build("wheel", self._out)
        except (build.BuildException, build.BuildSystemTableValidationError) as error:
            raise SourceError(f"{self.what} cannot be built: {_first_line(error)}") from None
        except build.BuildBackendException as error:
            raise self._failed(error) from None
        return self._checked(path), requires

    def _make_environment(self) -> None:
        command = ["venv", "--quiet", "--no-project", "--no-config", "--no-python-downloads"]
        command += ["--python", self.probe.executable, self._environment]
        done = uv_process.run(command, folder=self.folder)
        if done.returncode:
            raise SourceError(
                f"{self.what} cannot be built: no environment can be made for it: "
                f"{_first_line(done.stderr)}"
            )

    def _install(self, choose: Choose, requirements: Iterable[str]) -> Sequence[Wheel]:
        wanted = sorted(requirements)
        chosen = choose(wanted) if wanted else ()
        self._add(chosen)
        return chosen

    def _add(self, wheels: Sequence[Wheel]) -> None:
        """Installs wheels, without asking anybody."""
        lacking = [one for one in wheels if one.file not in self._installed]
        if not lacking:
            return
        paths = self._fetch(lacking, os.path.join(self.folder, "wheels"))
        command = ["pip", "install", "--quiet", "--offline", "--no-index", "--no-deps"]
        command += ["--no-config", "--no-cache", "--link-mode", "copy"]
        command += ["--python", self._python, *paths]
        done = uv_process.run(command, folder=self.folder)
        if done.returncode:
            raise SourceError(
                f"{self.what} cannot be built: what it is built with cannot be installed: "
                f"{_first_line(done.stderr)}"
            )
        self._installed |= {one.file for one in lacking}

    def _variables(self, date: str) -> dict[str, str]:
        found = {name: os.environ[name] for name in _PASSED if name in os.environ}
        scripts = os.path.join(self._environment, "bin")
        found["PATH"] = scripts + os.pathsep + found.get("PATH", os.defpath)
        found["VIRTUAL_ENV"] = self._environment
        found["HOME"] = os.path.join(self.room, "home")
        found["TMPDIR"] = os.path.join(self.room, "tmp")
        found |= {"PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        found |= {"SOURCE_DATE_EPOCH": str(seconds(date)), "TZ": "UTC"}
        # Debugging information names the folder of a build.
        for name in ("CFLAGS", "CXXFLAGS"):
            found[name] = f"-ffile-prefix-map={self.room}=."
        return found

    def _run(
        self,
        variables: Mapping[str, str],
        command: Sequence[str],
        cwd: str | None = None,
        extra_environ: Mapping[str, str] | None = None,
    ) -> None:
        """Runs one command of a build."""
        # A hook writes its answer into the folder that its last argument names.
        answers = [path for path in command[-1:] if os.path.isdir(path)]
        done = sandbox.run(
            command,
            f"the build of {self.what}",
            folder=cwd or self.room,
            variables={**variables, **(extra_environ or {})},
            writable=[self.room, *answers],
            seconds=TIME_LIMIT,
            stop=self._stop,
        )
        parallel.check(self._stop)
        self._log += done.said.splitlines()
        if done.code is None:
            self._log.append(f"it took more than {TIME_LIMIT / 3600:g} hours")
        if done.code != 0:
            raise subprocess.CalledProcessError(done.code or -1, list(command))

    def _failed(self, error: Exception) -> SourceError:
        parallel.check(self._stop)
        lines = [line for line in self._log if line.strip()][-_SHOWN_LINES:]
        for line in lines:
            self._progress.note(one_line(f"build of {self.what}: {line[:_SHOWN_CHARACTERS]}"))
        log = "\n".join(self._log)
        hint = None
        if missing := next(iter(_MISSING.findall(log)), None):
            hint = (
                f"it needs {missing} to be built and does not ask for it: "
                "give a wheel of it in python.find_links"
            )
        elif compiler := next(iter(_NO_COMPILER.findall(log)), None):
            hint = f"install a compiler ({compiler}), or give a wheel of it in python.find_links"
        said = lines[-1].strip()[:_SHOWN_CHARACTERS] if lines else _first_line(error)
        return SourceError(f"{self.what} cannot be built: {said}", hint=hint)

    def _checked(self, path: str) -> str:
        """The built wheel in its one form, in a folder of its own."""
        file = os.path.basename(path)
        if os.path.dirname(path) != self._out or not stat.S_ISREG(os.lstat(path).st_mode):
            raise SourceError(f"{self.what} builds {shown(file)}, which is not a file of its own")
        if self.probe.rank(file) is None:
            raise SourceError(
                f"{self.what} builds {shown(file)}, which does not fit {self.probe.abi} on "
                f"{self.probe.platform}"
            )
        target = os.path.join(self.folder, "done")
        os.mkdir(target)
        target = os.path.join(target, file)
        try:
            normalize(path, target)
        except Bad as error:
            raise SourceError(f"{self.what} builds {file}, which {error}") from None
        except (zipfile.BadZipFile, OSError, csv.Error, UnicodeError) as error:
            raise SourceError(f"{self.what} builds {file}, which is damaged: {error}") from None
        return target


def normalize(path: str, target: str) -> None:
    """Writes a wheel anew: sorted, without times, uncompressed, since compressors differ.

    Raises:
        Bad: it is no sound archive.
    """
    with archives.opened(path) as source, zipfile.ZipFile(target, "w") as output:
        for member in sorted(source.infolist(), key=lambda one: one.filename):
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            mode = member.external_attr >> 16
            if kind in (0, stat.S_IFREG):
                mode = _EXECUTABLE if mode & 0o111 else _PLAIN
            made = zipfile.ZipInfo(member.filename, _MEMBER_TIME)
            made.create_system = 3
            made.external_attr = mode << 16
            if re.fullmatch(r"[^/]+\.dist-info/RECORD", member.filename):
                output.writestr(made, _sorted_record(source.read(member)))
                continue
            made.file_size = member.file_size
            with source.open(member) as reader, output.open(made, "w") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)


def _sorted_record(data: bytes) -> bytes:
    rows = sorted(row for row in csv.reader(io.StringIO(data.decode(), newline="")) if row)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def package_of(file: str, what: str) -> tuple[str, str]:
    """The canonical name and the version in the file name of a wheel that was built."""
    try:
        name, version, _, _ = parse_wheel_filename(file)
    except InvalidWheelFilename:
        raise SourceError(
            f"{what} builds {shown(file)}, which is not the name of a wheel"
        ) from None
    return canonicalize_name(name), str(version)


def compiler(file: str) -> str:
    """What the C compiler says of itself, for a wheel with compiled code; "" for any other."""
    if file.endswith("-any.whl"):
        return ""
    command = shutil.which(os.environ.get("CC", "cc"))
    if command is None:
        return ""
    try:
        done = subprocess.run(
            [command, "--version"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return _first_line(done.stdout)


def seconds(date: str) -> int:
    """A moment in seconds since 1970; zip knows no time before 1980."""
    if not date:
        return _EPOCH
    return max(_EPOCH, calendar.timegm(time.strptime(date, "%Y-%m-%dT%H:%M:%SZ")))


def _first_line(said: object) -> str:
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return (
        lines[0].removeprefix("error: ")[:_SHOWN_CHARACTERS].rstrip(".") if lines else "no reason"
    )
