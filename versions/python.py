"""Choosing wheels: requirements in, a lock's wheel set out. The resolver is uv.

Nothing newer than a given date is considered, and each package comes from the first index that
has it. Index URLs may hold credentials: they reach uv through its environment, which other users
cannot read, and stand neither in the lock nor in a message.

uv builds nothing. Where a package has no wheel that fits, its source archives are considered as
well, at first as if they needed nothing; the one that is chosen is built (`cvs.versions.builds`),
and uv is asked again with what its wheel says, until nothing changes. So code runs of those
versions alone that are taken, and it never sees uv's environment. A requirement that names a
repository or an archive is built first, and uv sees a stand-in of its wheel with the same metadata.
"""

import contextlib
import json
import os
import re
import subprocess
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from cvs.store import temporary
from cvs.store.errors import CvsError, InputError, OfflineError, SourceError
from cvs.store.progress import SILENT, Progress
from cvs.versions import conflict, download, requirements, uv_process
from cvs.versions.interpreter import Probe
from cvs.versions.lock import Interpreter, Python, Wheel
from cvs.versions.locked_file import LockedFile, measure
from cvs.versions.requirements import Project, Requirement
from cvs.versions.spec import PythonSettings

#: How often uv is asked again at most because something was built: each time another version of a
#: package was chosen, or another package.
_ROUNDS = 50

#: Why what has no wheel is refused.
_NOTHING_BUILT = "and nothing is built here"

#: How deep packages that are built may ask for repositories.
_DEPTH = 8

if TYPE_CHECKING:
    from cvs.versions.builds import Builds, Made

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_NOT_FOUND = re.compile(r"(?:Because|because|and) (\S+) was not found in the")
_NO_WHEELS = re.compile(
    r"([A-Za-z0-9][\w.-]*?)(?:[<>=!~]=?[^\s=]\S*)? ha(?:s|ve) no (?:usable )?wheels"
)
_NO_SOURCE = re.compile(
    r"([A-Za-z0-9][\w.-]*?)(?:[<>=!~]=?[^\s=]\S*)? ha(?:s|ve) no (?:usable )?source"
)
_TWO_URLS = re.compile(r"conflicting URLs for package `([^`]+)`")
_UNDATED = re.compile(r"`(\S+)` is missing an upload date")
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
    builds: "Builds | None" = None,
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
        builds: builds what has no wheel; None, or `settings.no_build`, to refuse that.

    Raises:
        InputError: requirements contradict each other, or one cannot be read.
        SourceError: an index does not answer, does not know a package, or has no wheel that fits
            and none can be built.
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
            if settings.no_build:
                builds = None
            run = _Run(held.folder, wanted, settings, probe, exclude_newer, links, offline, builds)
            packages = run.pylock(previous, progress)
            notes = run.notes(packages)
            wheels = tuple(
                run.wheel(package, notes.get(_name(package), _Note()), progress)
                for package in sorted(packages, key=lambda package: str(package["name"]))
            )
    return Python(
        interpreter=_interpreter(probe, wheels),
        exclude_newer=exclude_newer,
        wheels=wheels,
        ignored=tuple(dict.fromkeys(ignored)),
        provided=settings.provided,
    )


class _Needs(NamedTuple):
    """What the METADATA of a wheel says that a resolver needs."""

    requires: list[str]
    extras: list[str]
    python: str

    @classmethod
    def of(cls, metadata: bytes) -> "_Needs":
        """Reads METADATA."""
        from packaging.metadata import parse_email

        raw, _ = parse_email(metadata)
        return cls(
            raw.get("requires_dist", []),
            raw.get("provides_extra", []),
            raw.get("requires_python", ""),
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
        builds: "Builds | None",
    ) -> None:
        self.folder = folder
        self.wanted = wanted
        self.settings = settings
        self.probe = probe
        self.exclude_newer = exclude_newer
        self.links = links
        self.offline = offline
        self.builds = builds
        self.lenders = settings.indexes
        self.undated: set[str] = set()
        #: Packages whose source archives are considered: what was built of them, by version.
        self.from_source: dict[str, dict[str, Made]] = {}
        #: What stands in for wheels that were built first, by path.
        self.stand_ins: dict[str, Made] = {}
        self._texts: dict[Requirement, str] = {}
        self._replaced = {_first_name(text) for text in (*settings.overrides, *settings.provided)}
        grouped: dict[str, list[str]] = {}
        for requirement in wanted:
            text = self._text(requirement, 0)
            if text:
                grouped.setdefault(requirement.requirer, []).append(text)
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
        what = "resolving Python packages"
        with progress.task(what, len(self.wanted), "items") as task:
            packages = self._settled(path)
            task.advance(len(self.wanted))
        return packages

    def _settled(self, path: str) -> list[dict[str, Any]]:
        """Asks uv until nothing that it chose has to be built any more."""
        for _ in range(_ROUNDS):
            self._compile()
            with open(path, "rb") as read:
                packages: list[dict[str, Any]] = tomllib.load(read).get("packages", [])
            unbuilt = [one for one in packages if self._is_unbuilt(one)]
            if not unbuilt:
                return packages
            notes = self.notes(packages)
            for one in unbuilt:
                made = self._built(one, notes.get(_name(one), _Note()))
                self.from_source[_name(one)][str(one["version"])] = made
        names = ", ".join(sorted(self.from_source))
        raise SourceError(
            f"no versions of {names} that have to be built fit what else is asked for",
            hint="python.constraints chooses one",
        )

    def _compile(self) -> None:
        """Has uv write pylock.toml; where packages have no wheel, with their source archives."""
        options = ["--format", "pylock.toml", "--output-file", "pylock.toml"]
        refused = ""
        hopeless: set[str] = set()
        while True:
            done = self._uv(options)
            if not done.returncode:
                return
            undated = _undated(done.stderr) - self.undated
            if undated:
                # An index without dates (PyTorch's) would have nothing at all before any date.
                # Each round can show packages that only the newly allowed ones ask for.
                self.undated |= undated
                continue
            said = _plain(done.stderr)
            if self.builds is None:
                raise self._explain(said)
            without = set(map(canonicalize_name, _NO_SOURCE.findall(" ".join(said.split()))))
            without &= {name for name, made in self.from_source.items() if not made}
            for name in without:
                # It has neither; another one may be what is in the way.
                del self.from_source[name]
            hopeless |= without
            refused = refused if without else said
            for found in _NO_WHEELS.findall(" ".join(refused.split())):
                name = canonicalize_name(found)
                if name not in hopeless and name not in self.from_source:
                    self.from_source[name] = {}
                    break
            else:
                raise self._explain(refused)

    def _is_unbuilt(self, package: Mapping[str, Any]) -> bool:
        """Whether a package of pylock.toml is a source archive that was not built yet."""
        known = self.from_source.get(_name(package))
        return known is not None and str(package["version"]) not in known

    def _built(self, package: Mapping[str, Any], note: "_Note") -> "Made":
        """Builds the source archive that was chosen."""
        assert self.builds is not None
        offered = package["sdist"]
        address = _address(offered)
        local = _local(address)
        sha256 = offered.get("hashes", {}).get("sha256")
        if local is not None:
            sha256, _ = measure(local)
        elif sha256 is None:
            lent = download.lend_credentials(address, self.lenders)
            sha256, _ = download.measured(lent, str(package["name"]), SILENT)
        file = LockedFile(
            offered.get("name") or unquote(address.rpartition("/")[2]),
            sha256,
            "" if local is not None else _CREDENTIALS.sub("", address).partition("#")[0],
            offered.get("size"),
        )
        try:
            return self.builds.sdist(
                _name(package),
                str(package["version"]),
                file,
                uploaded=_uploaded(offered),
                index="" if local is not None else note.origin,
            )
        except SourceError as error:
            asking = ", ".join(note.required_by or self._asking(_name(package)))
            who = f" (asked for by {asking})" if asking else ""
            raise SourceError(f"{error.message}{who}", hint=error.hint) from None

    def wheel(self, package: Mapping[str, Any], note: "_Note", progress: Progress) -> Wheel:
        """What the lock has of a package of pylock.toml."""
        made = self.from_source.get(_name(package), {}).get(str(package.get("version")))
        if made is None and "archive" in package:
            # uv may write it relative to the file that it writes.
            path = _local(_address(package["archive"])) or ""
            made = self.stand_ins.get(os.path.realpath(os.path.join(self.folder, path)))
        if made is not None:
            return msgspec.structs.replace(made.wheel, required_by=note.required_by)
        return _wheel(package, self.probe, note, self.lenders, progress)

    def _text(self, requirement: Requirement, depth: int) -> str:
        """A requirement as uv reads it: what must be built is, and its wheel stands there; "" for
        one whose marker does not hold."""
        project = requirement.project
        if project is None:
            return requirement.text
        if requirement not in self._texts:
            self._texts[requirement] = self._project_text(requirement, project, depth)
        return self._texts[requirement]

    def _project_text(self, requirement: Requirement, project: Project, depth: int) -> str:
        after = f" ; {project.marker}" if project.marker else ""
        if project.called in self._replaced:
            return f"{project.called}{project.extras}{after}"
        if not conflict.holds(project.marker, self.probe):
            return ""
        shown = _plain(requirement.text)
        if self.builds is None:
            raise InputError(
                f"{requirement.where}: {shown} would have to be built, {_NOTHING_BUILT}",
                hint="without python.no_build and --no-build it is",
            )
        if depth > _DEPTH:
            raise SourceError(f"{requirement.where}: {shown} asks for repositories without end")
        made = self.builds.project(requirement)
        path = self._stand_in(made, depth)
        return f"{made.wheel.name}{project.extras} @ {Path(path).as_uri()}{after}"

    def _stand_in(self, made: "Made", depth: int) -> str:
        """A wheel of nothing but the metadata of one that was built."""
        for path, other in self.stand_ins.items():
            if other.wheel.sha256 == made.wheel.sha256:
                return path
        name, version = made.wheel.name.replace("-", "_"), made.wheel.version
        folder = os.path.join(os.path.realpath(self.folder), f"built-{len(self.stand_ins)}")
        os.mkdir(folder)
        path = os.path.join(folder, f"{name}-{version}-py3-none-any.whl")
        self.stand_ins[path] = made
        needs = _Needs.of(made.metadata)
        lines = [f"Metadata-Version: 2.1\nName: {made.wheel.name}\nVersion: {version}\n"]
        lines += [f"Requires-Dist: {self._needed(made, text, depth)}\n" for text in needs.requires]
        lines += [f"Provides-Extra: {extra}\n" for extra in needs.extras]
        lines += [f"Requires-Python: {needs.python}\n"] if needs.python else []
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{info}/METADATA", "".join(lines))
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return path

    def _needed(self, made: "Made", text: str, depth: int) -> str:
        """What a built package asks for, as uv reads it: repositories among it are built too."""
        where = f"{made.wheel.name} {made.wheel.version}"
        try:
            found = requirements.packages([text], requirer=where).wanted[0]
        except InputError:
            # uv says what is wrong with it.
            return text
        if found.project is None:
            return text
        return self._text(found, depth + 1) or f"{found.project.name}; python_version < '0'"

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
        command = ["pip", "compile", *self.inputs, *options]
        command += ["--python", self.probe.executable, "--no-python-downloads"]
        command += ["--config-file", self._configuration(), "--only-binary", ":all:"]
        for name in sorted(self.from_source):
            command += ["--no-binary", name]
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
        more: dict[str, str] = {}
        if self.settings.index_url:
            more["UV_DEFAULT_INDEX"] = self.settings.index_url
        if self.settings.extra_index_urls:
            more["UV_INDEX"] = " ".join(self.settings.extra_index_urls)
        return uv_process.run(command, folder=self.folder, more=more)

    def _configuration(self) -> str:
        """The only configuration that uv reads: what packages need that it must not build."""
        tables = []
        for name, versions in sorted(self.from_source.items()):
            tables.append({"name": name, "requires-dist": []})
            for version, made in versions.items():
                needs = _Needs.of(made.metadata)
                table = {
                    "name": name,
                    "version": version,
                    "requires-dist": [self._needed(made, text, 0) for text in needs.requires],
                    "provides-extra": needs.extras,
                }
                tables.append(table | ({"requires-python": needs.python} if needs.python else {}))
        # What JSON writes of a text or a list of texts, TOML reads.
        lines = [
            "\n".join(
                ["[[dependency-metadata]]", *(f"{key} = {json.dumps(one[key])}" for key in one)]
            )
            for one in tables
        ]
        path = os.path.join(self.folder, "uv.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return path

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
                return self._no_wheel(unbuilt[1], hint, flat)
            return InputError(self._contradiction(flat, _why(said)), hint=hint)
        if twice := _TWO_URLS.search(flat):
            return InputError(self._twice(twice[1]))
        address = _FETCH.search(flat)
        if address and not address[1].startswith("file:"):
            place = download.show(address[1])
            if not any(address[1] in one.text for one in self.wanted):
                place = f"the package index at {urlsplit(place).netloc}"
            return SourceError(f"{place} {_trouble(flat)}")
        return SourceError(f"uv cannot resolve the Python packages: {_why(said)}")

    def _no_wheel(self, name: str, hint: str | None, flat: str) -> SourceError:
        """What is said of a package without a wheel that fits, and that cannot be built."""
        what = f"no wheel for {self.probe.abi} on {self.probe.platform}"
        why = "give a wheel in a folder of find_links"
        if self.builds is None:
            why = f"it would have to be built, {_NOTHING_BUILT}: {why}"
        else:
            what += " and no source archive"
        if hint is None and self.exclude_newer:
            # Often the first releases were sources alone.
            why += f"; nothing newer than {self.exclude_newer} counts: see python.exclude_newer"
        return SourceError(f"{name} has {what}, {self._who(name, flat)}", hint=hint or why)

    def _twice(self, name: str) -> str:
        """Who asks for one package from two places."""
        places = [
            f"{one.requirer} wants {_plain(one.text)}"
            for one in self.wanted
            if _first_name(self._text(one, 0)) == canonicalize_name(name)
            and "@" in self._text(one, 0)
        ]
        return f"{name} is wanted from two places: {', '.join(places)}"

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
        sha256, size = measure(local)
    elif sha256 is None:
        # Not every index publishes digests, and a lock without one pins nothing.
        lent = download.lend_credentials(address, lenders)
        sha256, size = download.measured(lent, f"measuring {file}", progress)
    return Wheel(
        name=name,
        version=str(package.get("version") or file.split("-")[1]),
        file=file,
        sha256=sha256,
        size=size,
        url="" if local is not None else _CREDENTIALS.sub("", address).partition("#")[0],
        uploaded=_uploaded(chosen),
        index="" if local is not None or "archive" in package else note.origin,
        required_by=note.required_by,
    )


def _name(package: Mapping[str, Any]) -> str:
    return canonicalize_name(str(package["name"]))


def _first_name(requirement: str) -> str:
    return canonicalize_name(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def _address(offered: Mapping[str, Any]) -> str:
    return str(offered.get("url") or offered.get("path") or "")


def _uploaded(offered: Mapping[str, Any]) -> str | None:
    moment = offered.get("upload-time")
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _local(address: str) -> str | None:
    """The path of a wheel in a local folder, None for one that is fetched."""
    if address.startswith("file:"):
        return unquote(urlsplit(address).path)
    return None if "://" in address else address


def _build(file: str) -> int:
    build = parse_wheel_filename(file)[2]
    return build[0] if build else 0


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
    needs = [(_glibc_needed(probe, wheel), wheel.file) for wheel in wheels]
    version, file = max(needs, default=((0, 0), ""))
    if version == (0, 0):
        return probe.interpreter
    return msgspec.structs.replace(
        probe.interpreter,
        glibc_needed=f"{version[0]}.{version[1]}",
        glibc_needed_by=file,
    )


def _glibc_needed(probe: Probe, wheel: Wheel) -> tuple[int, int]:
    """The oldest glibc that a wheel runs with: one that was built here, that of this system."""
    if wheel.built is not None and wheel.built.compiler:
        return probe.glibc or (0, 0)
    return probe.glibc_needed(wheel.file) or (0, 0)


def _undated(said: str) -> set[str]:
    """The packages that uv left out because their files have no date."""
    found: set[str] = set()
    for file in _UNDATED.findall(said):
        with contextlib.suppress(InvalidWheelFilename, InvalidSdistFilename):
            read = parse_wheel_filename if file.endswith(".whl") else parse_sdist_filename
            found.add(read(file)[0])
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
