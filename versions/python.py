"""Choosing wheels: requirements in, a lock's wheel set out. The resolver is uv.

Only wheels are considered, nothing newer than a given date, and each package comes from the
first index that has it. Index URLs may hold credentials: they reach uv through its environment,
which other users cannot read, and stand neither in the lock nor in a message.
"""

import contextlib
import hashlib
import os
import re
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from cvs.store import temporary
from cvs.store.errors import CvsError, InputError, OfflineError, SourceError
from cvs.store.ingest import chunks
from cvs.store.progress import SILENT, Progress
from cvs.versions import conflict, download
from cvs.versions.interpreter import Probe
from cvs.versions.lock import Interpreter, Python, Wheel
from cvs.versions.requirements import Requirement
from cvs.versions.spec import PythonSettings

#: What of uv's own settings may pass: none of them changes which wheels are chosen.
_KEPT = frozenset(
    {
        "UV_CACHE_DIR",
        "UV_CONCURRENT_DOWNLOADS",
        "UV_HTTP_CONNECT_TIMEOUT",
        "UV_HTTP_RETRIES",
        "UV_HTTP_TIMEOUT",
        "UV_INSECURE_HOST",
        "UV_NATIVE_TLS",
        "UV_SYSTEM_CERTS",
    }
)
#: Variables of other tools that would change what uv or the interpreter does.
_DROPPED = ("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA_", "RUST_LOG")

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_NOT_FOUND = re.compile(r"(?:Because|because|and) (\S+) was not found in the")
_NO_WHEELS = re.compile(
    r"(?:all versions of (\S+) have|(\S+?)==\S+ has) no (?:usable )?wheels", re.IGNORECASE
)
_UNDATED = re.compile(r"`(\S+\.whl)` is missing an upload date")
_FETCH = re.compile(r"(https?://\S+?)(?:[)`]|\s|$)")


def resolve(
    wanted: Sequence[Requirement],
    *,
    settings: PythonSettings,
    probe: Probe,
    exclude_newer: str | None,
    ignored: Sequence[str] = (),
    previous: Python | None = None,
    wheels_dir: str | None = None,
    offline: bool = False,
    progress: Progress = SILENT,
) -> Python:
    """Chooses one wheel for every package that is needed.

    Args:
        wanted: what the core, the nodes and the user ask for.
        exclude_newer: the last moment that counts, a date or `YYYY-MM-DDTHH:MM:SSZ` in UTC; None
            for no limit. `settings.exclude_newer` is not looked at.
        ignored: lines that were not followed, for the lock.
        previous: its versions are kept wherever they still fit.
        wheels_dir: a folder whose wheels are considered like those of `settings.find_links`.
        offline: then such folders are the only source.

    Raises:
        InputError: requirements contradict each other, or one cannot be read.
        SourceError: an index does not answer, does not know a package, or has no wheel that fits.
        OfflineError: `offline` and no folder of wheels was given.
    """
    links = [*([wheels_dir] if wheels_dir else []), *settings.find_links]
    wheels: tuple[Wheel, ...] = ()
    if wanted:
        if offline and not links:
            raise OfflineError(
                "the Python packages are not locked yet and no connection may be made",
                hint="give a folder of wheels with --wheels-dir",
            )
        with temporary.folder() as held:
            run = _Run(held.folder, wanted, settings, probe, exclude_newer, links, offline)
            packages = run.pylock(previous, progress)
            notes = run.notes(packages)
            lenders = [url for url in (settings.index_url, *settings.extra_index_urls) if url]
            wheels = tuple(
                _wheel(package, probe, notes.get(_name(package), _Note()), lenders, progress)
                for package in sorted(packages, key=lambda package: str(package["name"]))
            )
    return Python(
        interpreter=_interpreter(probe, wheels),
        exclude_newer=exclude_newer,
        wheels=wheels,
        ignored=tuple(dict.fromkeys(ignored)),
        provided=settings.provided,
    )


class _Note(NamedTuple):
    """What uv says of a package beside its wheels."""

    required_by: tuple[str, ...] = ()
    origin: str = ""
    """The URL of its index, as `Wheel.index`."""


class _Run:
    """The files and settings of one resolution."""

    def __init__(
        self,
        folder: str,
        wanted: Sequence[Requirement],
        settings: PythonSettings,
        probe: Probe,
        exclude_newer: str | None,
        links: Sequence[str],
        offline: bool,
    ) -> None:
        self.folder = folder
        self.wanted = wanted
        self.settings = settings
        self.probe = probe
        self.exclude_newer = exclude_newer
        self.links = links
        self.offline = offline
        self.undated: set[str] = set()
        grouped: dict[str, list[str]] = {}
        for requirement in wanted:
            grouped.setdefault(requirement.requirer, []).append(requirement.text)
        #: A requirer's name may be anything that a folder can be called; its file's name is not.
        self.inputs = {f"{number}.in": name for number, name in enumerate(grouped)}
        for (name, lines), file in zip(grouped.items(), self.inputs, strict=True):
            self._write(file, lines, name)
        self._write("overrides.txt", settings.overrides, "python.overrides")
        # A marker that never holds takes a package out of whatever asks for it.
        names = [_first_name(text) for text in settings.provided]
        self._write("provided.txt", [f"{name}; python_version < '0'" for name in names], "provided")
        self._write("constraints.txt", settings.constraints, "python.constraints")

    def pylock(self, previous: Python | None, progress: Progress) -> list[dict[str, Any]]:
        """Resolves; the packages as uv writes them to pylock.toml."""
        path = os.path.join(self.folder, "pylock.toml")
        if previous is not None and previous.wheels:
            # uv keeps the versions of an output file that is there, wherever they still fit.
            with open(path, "w", encoding="utf-8") as file:
                file.write(_preferences(previous))
        options = ["--format", "pylock.toml", "--output-file", "pylock.toml"]
        what = "resolving Python packages"
        with progress.task(what, len(self.wanted), "items") as task:
            done = self._uv(options)
            while done.returncode and (undated := _undated(done.stderr) - self.undated):
                # An index without dates (PyTorch's) would have nothing at all before any date.
                # Each round can show packages that only the newly allowed ones ask for.
                self.undated |= undated
                done = self._uv(options)
            if done.returncode:
                raise self._explain(_plain(done.stderr))
            task.advance(len(self.wanted))
        with open(path, "rb") as read:
            packages: list[dict[str, Any]] = tomllib.load(read).get("packages", [])
        return packages

    def notes(self, packages: Sequence[Mapping[str, Any]]) -> dict[str, _Note]:
        """Who asks for each package, directly or as a dependency, and which index has it.

        pylock.toml has neither, the annotations of the older format have both. What uv would read
        again may not be in its cache: then it asks once more, and where it cannot say, the direct
        requirers are known.
        """
        with open(os.path.join(self.folder, "pins.txt"), "w", encoding="utf-8") as file:
            for package in packages:
                if "version" in package and "archive" not in package:
                    file.write(f"{package['name']}=={package['version']}\n")
        options = ["--output-file", "pins.txt", "--annotation-style", "split", "--no-header"]
        options.append("--emit-index-annotation")
        for more in [[]] if self.offline else [["--offline"], []]:
            done = self._uv([*options, *more])
            if done.returncode == 0:
                return _annotations(done.stdout, self.inputs)
        return {name: _Note(tuple(self._asking(name))) for name in map(_name, packages)}

    def _write(self, file: str, lines: Sequence[str], where: str) -> None:
        from packaging.requirements import InvalidRequirement
        from packaging.requirements import Requirement as Parsed

        for line in lines:
            try:
                Parsed(line)
            except InvalidRequirement as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"{where}: {line!r} is not a requirement: {reason}") from None
        with open(os.path.join(self.folder, file), "w", encoding="utf-8") as output:
            output.writelines(line + "\n" for line in lines)

    def _uv(self, options: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        import uv

        command = [uv.find_uv_bin(), "pip", "compile", *self.inputs, *options]
        command += ["--python", self.probe.executable, "--no-python-downloads", "--no-config"]
        command += ["--only-binary", ":all:", "--color", "never", "--no-progress"]
        if self.settings.overrides:
            command += ["--overrides", "overrides.txt"]
        if self.settings.provided:
            command += ["--overrides", "provided.txt"]
        if self.settings.constraints:
            command += ["--constraints", "constraints.txt"]
        if self.settings.torch_backend is not None:
            command += ["--torch-backend", self.settings.torch_backend]
        if self.exclude_newer is not None:
            command += ["--exclude-newer", self.exclude_newer]
            for name in sorted(self.undated):
                command += ["--exclude-newer-package", f"{name}=false"]
        for link in self.links:
            command += ["--find-links", link]
        if self.offline:
            command += ["--offline", "--no-index"]
        try:
            return subprocess.run(
                command,
                cwd=self.folder,
                env=self._environment(),
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            raise CvsError(f"uv does not run: {error.strerror}") from None

    def _environment(self) -> dict[str, str]:
        found = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT or not name.startswith(_DROPPED)
        }
        # A bare date means the end of that day where the user is; a lock means one moment.
        found["TZ"] = "UTC"
        if self.settings.index_url:
            found["UV_DEFAULT_INDEX"] = self.settings.index_url
        if self.settings.extra_index_urls:
            found["UV_INDEX"] = " ".join(self.settings.extra_index_urls)
        return found

    def _explain(self, said: str) -> CvsError:
        """Makes uv's error one of ours: a sentence that names who asks for what."""
        flat = " ".join(said.split())
        if "No solution found" in flat:
            found = conflict.find(self.wanted, self.settings, self.probe)
            if found is not None:
                return InputError(found)
            missing = _NOT_FOUND.search(flat)
            if missing:
                where = "no folder of wheels has" if self.offline else "the package index has no"
                return SourceError(
                    f"{where} {missing[1]!r}, {self._who(missing[1], flat)}",
                    hint="it may be misspelt, or on another index (python.extra_index_urls); "
                    f"\"{missing[1]}; python_version < '3'\" in python.overrides leaves it out",
                )
            hint = None
            if self.exclude_newer and "exclude-newer" in flat:
                hint = f"nothing newer than {self.exclude_newer} counts: see python.exclude_newer"
            unbuilt = _NO_WHEELS.search(flat)
            if unbuilt:
                name = unbuilt[1] or unbuilt[2]
                if hint is None and self.exclude_newer:
                    # Often the first releases were sources alone.
                    hint = (
                        f"only wheels can be locked, and nothing newer than {self.exclude_newer} "
                        "counts: see python.exclude_newer and python.find_links"
                    )
                return SourceError(
                    f"{name} has no wheel for {self.probe.abi} on {self.probe.platform}, "
                    f"{self._who(name, flat)}",
                    hint=hint or "only wheels can be locked: give one in a folder of find_links",
                )
            return InputError(self._contradiction(flat, _why(said)), hint=hint)
        address = _FETCH.search(flat)
        if address and not address[1].startswith("file:"):
            place = download.show(address[1])
            if not any(address[1] in one.text for one in self.wanted):
                place = f"the package index at {urlsplit(place).netloc}"
            return SourceError(f"{place} {_trouble(flat)}")
        return SourceError(f"uv cannot resolve the Python packages: {_why(said)}")

    def _contradiction(self, flat: str, why: str) -> str:
        """Who wants what cannot be, as the resolver explains it."""
        who = conflict.blamed(flat, self.wanted, self.settings)
        if len(who) == 1:
            return f"{who[0]} asks for what cannot be had: {why}"
        of = f" of {', '.join(who[:-1])} and {who[-1]}" if who else ""
        return f"the Python packages{of} contradict each other: {why}"

    def _who(self, package: str, flat: str) -> str:
        if asking := self._asking(package):
            return f"asked for by {', '.join(asking)}"
        who = conflict.blamed(flat, self.wanted, self.settings)
        return f"a dependency of {', '.join(who) or 'another package'}"

    def _asking(self, package: str) -> list[str]:
        """The direct requirers of a package."""
        name = canonicalize_name(package)
        found = [one.requirer for one in self.wanted if _first_name(one.text) == name]
        return list(dict.fromkeys(found))


def _wheel(
    package: Mapping[str, Any],
    probe: Probe,
    note: _Note,
    lenders: Sequence[str],
    progress: Progress,
) -> Wheel:
    """The best wheel of a package of pylock.toml."""
    name = str(package["name"])
    offered = [package["archive"]] if "archive" in package else package.get("wheels", [])
    ranked = []
    for one in offered:
        file = one.get("name") or unquote(_address(one).rpartition("/")[2])
        rank = probe.rank(file)
        if rank is not None:
            # Of wheels with one tag the higher build number counts.
            ranked.append((rank, -_build(file), file, one))
    if not ranked:
        raise SourceError(
            f"{name} {package.get('version', '')} has no wheel for {probe.abi} on {probe.platform}"
        )
    _, _, file, chosen = min(ranked, key=lambda item: item[:3])
    address = _address(chosen)
    local = _local(address)
    sha256 = chosen.get("hashes", {}).get("sha256")
    size = chosen.get("size")
    if local is not None:
        sha256, size = _measure(local)
    elif sha256 is None:
        # Not every index publishes digests, and a lock without one pins nothing.
        sha256, size = _measure_remote(download.lend_credentials(address, lenders), file, progress)
    uploaded = chosen.get("upload-time")
    return Wheel(
        name=name,
        version=str(package.get("version") or file.split("-")[1]),
        file=file,
        sha256=sha256,
        size=size,
        url="" if local is not None else _CREDENTIALS.sub("", address).partition("#")[0],
        uploaded=uploaded.strftime("%Y-%m-%dT%H:%M:%SZ") if uploaded else None,
        index="" if local is not None or "archive" in package else note.origin,
        required_by=note.required_by,
    )


def _name(package: Mapping[str, Any]) -> str:
    return canonicalize_name(str(package["name"]))


def _first_name(requirement: str) -> str:
    return canonicalize_name(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def _address(offered: Mapping[str, Any]) -> str:
    return str(offered.get("url") or offered.get("path") or "")


def _local(address: str) -> str | None:
    """The path of a wheel in a local folder, None for one that is fetched."""
    if address.startswith("file:"):
        return unquote(urlsplit(address).path)
    return None if "://" in address else address


def _build(file: str) -> int:
    build = parse_wheel_filename(file)[2]
    return build[0] if build else 0


def _measure(path: str) -> tuple[str, int]:
    """SHA-256 and size of a local file."""
    checksum, size = hashlib.sha256(), 0
    try:
        for chunk in chunks(path):
            checksum.update(chunk)
            size += len(chunk)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    return checksum.hexdigest(), size


def _measure_remote(address: str, file: str, progress: Progress) -> tuple[str, int]:
    checksum, size = hashlib.sha256(), 0
    with progress.task(f"measuring {file}") as task:
        for chunk in download.chunks(address):
            checksum.update(chunk)
            size += len(chunk)
            task.advance(len(chunk))
    return checksum.hexdigest(), size


def _preferences(previous: Python) -> str:
    lines = ['lock-version = "1.0"', 'created-by = "cvs"', ""]
    for wheel in previous.wheels:
        lines += ["[[packages]]", f'name = "{wheel.name}"', f'version = "{wheel.version}"', ""]
    return "\n".join(lines)


def _annotations(text: str, inputs: Mapping[str, str]) -> dict[str, _Note]:
    """Reads `name==version` lines with comments below them: `# via …` and `# from <index>`."""
    asking: dict[str, list[str]] = {}
    indexes: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        comment = line.strip()
        if not comment.startswith("#"):
            name = _first_name(comment)
            asking[name] = []
            continue
        source = comment.removeprefix("#").strip().removeprefix("via").strip()
        if source.startswith("-r "):
            asking[name].append(inputs.get(source[3:].strip(), source))
        elif source.startswith("from "):
            indexes[name] = _public(source[5:].strip())
        elif source and not source.startswith("-"):
            asking[name].append(source)
    return {one: _Note(tuple(asking[one]), indexes.get(one, "")) for one in asking}


def _public(url: str) -> str:
    """An index's URL as a lock may have it; "" for a local folder."""
    if not url.startswith(("https://", "http://")):
        return ""
    return _CREDENTIALS.sub("", url).partition("#")[0].partition("?")[0]


def _interpreter(probe: Probe, wheels: Sequence[Wheel]) -> Interpreter:
    """What the wheels were chosen for, and which of them asks for the newest glibc."""
    needs = [(probe.glibc_needed(wheel.file) or (0, 0), wheel.file) for wheel in wheels]
    version, file = max(needs, default=((0, 0), ""))
    if version == (0, 0):
        return probe.interpreter
    return msgspec.structs.replace(
        probe.interpreter,
        glibc_needed=f"{version[0]}.{version[1]}",
        glibc_needed_by=file,
    )


def _undated(said: str) -> set[str]:
    """The packages that uv left out because their files have no date."""
    found: set[str] = set()
    for file in _UNDATED.findall(said):
        with contextlib.suppress(InvalidWheelFilename):
            found.add(parse_wheel_filename(file)[0])
    return found


def _plain(text: str) -> str:
    return _CREDENTIALS.sub("", text)


def _why(said: str) -> str:
    """uv's explanation on one line, without its labels and hints."""
    lines = []
    for line in said.partition("\nhint:")[0].splitlines():
        plain = line.strip().removeprefix("error:").removeprefix("cause:").strip()
        if plain and not plain.startswith(("No solution found", "warning:")):
            lines.append(plain)
    # Markers stand behind names there, in braces.
    text = re.sub(r"\{[^{}]*\}", "", " ".join(lines).rstrip("."))
    text = re.sub(r"we can conclude that (your requirements are unsatisfiable)$", r"\1", text)
    return text if len(text) <= 2000 else text[:2000] + "…"


def _trouble(flat: str) -> str:
    """What went wrong with an index, as the end of a sentence."""
    status = re.search(r"HTTP status (?:client|server) error \((\d{3})", flat)
    if status:
        return f"answered {status[1]}"
    for sign, meaning in (
        ("Connection refused", "cannot be reached: connection refused"),
        ("dns error", "cannot be reached: its name is not known"),
        ("timed out", "did not answer in time"),
        ("certificate", "has a certificate that is not trusted"),
        ("client error (Connect)", "cannot be reached"),
        ("reading a body", "broke off"),
        ("reset by peer", "broke off"),
        ("expected", "gave something that is not an index page"),
        ("Expected", "gave something that is not an index page"),
    ):
        if sign in flat:
            return meaning
    return f"did not give what was asked: {_why(flat.rpartition('cause:')[2])}"
