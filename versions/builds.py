"""Wheels that have to be built: once per source and interpreter, then entries like all others.

A source is an archive that an index or a URL has, or a commit of a git repository. What was built
is stored at once, and noted in `refs/build-facts/` under its source; the lock has the source, its
digest and all that the build used, so that another volume can build it once more.
"""

import functools
import os
import shutil
import stat
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.version import Version

from cvs.store import refs, temporary
from cvs.store.entries import Store
from cvs.store.errors import InputError, OfflineError, SourceError
from cvs.store.stage import Stage
from cvs.versions import building, download, facts, git, locked_file, python, wheel
from cvs.versions import repository as repositories
from cvs.versions.access import Access
from cvs.versions.building import Choose, Workshop
from cvs.versions.interpreter import Probe
from cvs.versions.lock import Built, Python, Wheel
from cvs.versions.locked_file import LockedFile, measure
from cvs.versions.repository import Repository
from cvs.versions.requirements import Project, Requirement, clean
from cvs.versions.spec import PythonSettings, digest

#: Build tools that ask git which version this is, or which files belong to it.
_ASK_GIT = (
    *("dunamai", "hatch-vcs", "pbr", "poetry-dynamic-versioning", "setuptools-git"),
    *("setuptools-scm", "setuptools_scm", "uv-dynamic-versioning", "vcs-versioning"),
    *("versioneer", "versioningit"),
)

#: The files of a project that name what it is built with.
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


class Made(NamedTuple):
    """A wheel that was built and is stored."""

    wheel: Wheel
    metadata: bytes
    """Its METADATA: what it is called and what it needs."""


class Builder:
    """Builds wheels from their sources; keeps nothing."""

    def __init__(self, settings: PythonSettings, probe: Probe, access: Access) -> None:
        self.settings = settings
        self.probe = probe
        self.access = access
        self.lenders = settings.indexes

    def again(self, one: Wheel, folder: str) -> str:
        """Builds a wheel of a lock once more, with all that it was built with.

        Args:
            folder: an empty folder on local disk.

        Returns:
            The path of the wheel, which is the lock's.

        Raises:
            SourceError: its source is not to be had, or what it gives here is another wheel.
            OfflineError: a connection would be needed.
        """
        built = one.built
        assert built is not None
        what = f"{one.name} {one.version}"
        if built.commit:
            if not built.url:
                raise SourceError(
                    f"{what} was built from a repository of the machine that locked it",
                    hint="give a folder that has the wheel with --wheels-dir, or lock again",
                )
            repository = repositories.parse(
                built.url, f"the lock: {one.name}", allow_local=self.access.allow_local
            )
        else:
            repository = None
        path, _ = self.build(built, what, folder, repository)
        found, _ = measure(path)
        if os.path.basename(path) != one.file or found != one.sha256:
            raise SourceError(
                f"{what} was built from its source as it is locked, and is not the wheel of the "
                f"lock: its compiler here is {building.compiler(one.file) or 'none'}, "
                f"there it was {built.compiler or 'none'}",
                hint="give a folder that has the wheel with --wheels-dir, or take this one: "
                f"cvs update --package {one.name}",
            )
        return path

    def build(
        self,
        built: Built,
        what: str,
        folder: str,
        repository: Repository | None,
        choose: Choose | None = None,
    ) -> tuple[str, Built]:
        """Builds the wheel of a source.

        Args:
            built: where the source is, and what it is built with.
            folder: an empty folder on local disk.
            repository: of a commit; None for an archive.
            choose: chooses what it is built with, in place of what `built` says.

        Returns:
            The path of the wheel, and what it was built from.

        Raises:
            As `Workshop.wheel`.
        """
        workshop = Workshop(
            folder,
            what,
            self.probe,
            choose=choose,
            fetch=self._fetch,
            progress=self.access.progress,
            stop=self.access.stop,
        )
        with self.access.progress.task(f"build {what}"):
            if repository is None:
                project, date = self._archive(built, workshop), built.date
            else:
                project, date = self._commit(repository, built, workshop)
            project = os.path.join(project, built.subdirectory)
            path, requires = workshop.wheel(project, built.requires, date)
        made = msgspec.structs.replace(
            built,
            date=date,
            requires=tuple(requires),
            compiler=building.compiler(os.path.basename(path)),
        )
        return path, made

    def choose(
        self, what: str, exclude_newer: str | None, requirements: Sequence[str]
    ) -> tuple[Wheel, ...]:
        """Wheels for a build: from the same indexes, of the same time, and none that is built."""
        settings = PythonSettings(
            index_url=self.settings.index_url,
            extra_index_urls=self.settings.extra_index_urls,
            find_links=self.settings.find_links,
            torch_backend=self.settings.torch_backend,
            no_build=True,
        )
        requirer = f"the build of {what}"
        return python.resolve(
            [Requirement(text, requirer, requirer) for text in requirements],
            settings=settings,
            probe=self.probe,
            exclude_newer=exclude_newer,
            wheels_dir=self.access.wheels_dir,
            offline=self.access.offline,
            progress=self.access.progress,
        ).wheels

    def _fetch(self, wheels: Sequence[Wheel], folder: str) -> list[str]:
        return [self._put(locked_file.of_wheel(one), folder) for one in wheels]

    def _archive(self, built: Built, workshop: Workshop) -> str:
        """The source archive of a build, unpacked."""
        file = LockedFile(built.file, built.sha256, built.url)
        path = self._put(file, workshop.folder)
        target = os.path.join(workshop.room, "source")
        os.mkdir(target)
        return building.unpack(path, target)

    def _put(self, file: LockedFile, folder: str) -> str:
        """A file in a folder, checked."""
        near = locked_file.nearby(file.name, self.settings, self.access.wheels_dir)
        if not near and file.url and self.access.offline:
            raise OfflineError(
                f"{file.name} is needed for a build and no connection may be made",
                hint="give a folder that has it with --wheels-dir",
            )
        target = os.path.join(folder, file.name)
        with (
            self.access.progress.task(f"fetch {file.name}", file.size) as task,
            locked_file.obtained(
                file,
                near,
                lenders=self.lenders,
                scratch=folder,
                task=task,
                stop=self.access.stop,
            ) as path,
        ):
            shutil.copyfile(path, target)
        return target

    def _commit(self, repository: Repository, built: Built, workshop: Workshop) -> tuple[str, str]:
        """The tree of a commit as a folder that can be written, with its history if that is asked
        for, and its date."""
        target = os.path.join(workshop.room, "source")
        with Stage(workshop.folder, synced=False) as stage:
            _, learned = git.stage_commit(
                stage,
                repository,
                built.commit,
                repository.name,
                where=repository.shown,
                offline=self.access.offline,
                allow_local=self.access.allow_local,
                progress=self.access.progress,
            )
            os.rename(os.path.join(stage.folder, repository.name), target)
        _make_writable(target)
        if _asks_git(os.path.join(target, built.subdirectory)):
            git.add_history(repository, built.commit, target)
        return target, learned.date


class Builds:
    """What one resolution builds, and what was built before.

    Args:
        exclude_newer: for what builds use; as in `python.resolve`.
        previous: its commits stay for requirements that are the same.
    """

    def __init__(
        self,
        store: Store,
        builder: Builder,
        exclude_newer: str | None,
        previous: Python | None,
    ) -> None:
        self.store = store
        self.builder = builder
        self.exclude_newer = exclude_newer
        self._pinned = {
            one.built.request: one.built
            for one in (() if previous is None else previous.wheels)
            if one.built is not None and one.built.request
        }

    def sdist(
        self, name: str, version: str, file: LockedFile, *, uploaded: str | None, index: str
    ) -> Made:
        """The wheel of a source archive that an index or a folder has.

        Raises:
            SourceError: it cannot be fetched or built, or is another package.
        """
        built = Built(url=file.url, date=uploaded or "", file=file.name, sha256=file.sha256)
        made = self._made(built, f"{name} {version}", None)
        if made.wheel.name != name or Version(made.wheel.version) != Version(version):
            raise SourceError(
                f"{file.name} builds {made.wheel.name} {made.wheel.version} "
                f"instead of {name} {version}"
            )
        return Made(msgspec.structs.replace(made.wheel, index=index), made.metadata)

    def project(self, requirement: Requirement) -> Made:
        """The wheel of a repository or source archive that a requirement names.

        Raises:
            InputError: it cannot be named so, or is another package.
            SourceError: it cannot be fetched or built.
            OfflineError: a connection would be needed.
        """
        project = requirement.project
        assert project is not None
        request = digest([clean(project.url), project.ref, project.subdirectory])
        try:
            if project.is_git:
                made = self._of_repository(project, request, requirement.where)
            else:
                made = self._of_archive(project, request)
        except (InputError, SourceError) as error:
            name = project.called
            hint = (
                f'"python": {{"overrides": ["{name}; python_version < \'3\'"]}} in the spec leaves '
                f'it out, ["{name}==VERSION"] takes it from the index'
            )
            said = error.message
            if requirement.where not in said:
                said = f"{requirement.where}: {said}"
            raise type(error)(said, hint=error.hint or hint) from None
        if project.name and made.wheel.name != project.name:
            raise InputError(
                f"{requirement.where}: {clean(requirement.text)} is {made.wheel.name}, "
                f"not {project.name}"
            )
        return made

    def _of_repository(self, project: Project, request: str, where: str) -> Made:
        access = self.builder.access
        repository = repositories.parse(project.url, where, allow_local=access.allow_local)
        pinned = self._pinned.get(request)
        if pinned is not None and pinned.commit:
            commit = pinned.commit
        else:
            commit = git.resolve(
                repository, project.ref, where=where, offline=access.offline
            ).commit
        built = Built(
            url=repository.public,
            date="",
            commit=commit,
            subdirectory=project.subdirectory,
            request=request,
        )
        return self._made(built, f"{repository.name} at {commit[:12]}", repository)

    def _of_archive(self, project: Project, request: str) -> Made:
        url = download.show(project.url)
        pinned = self._pinned.get(request)
        if pinned is not None:
            built = pinned
        else:
            sha256 = self._sha256(project.url, url)
            file = unquote(urlsplit(url).path.rpartition("/")[2])
            built = Built(url=url, date="", file=file, sha256=sha256, request=request)
        built = msgspec.structs.replace(
            built, subdirectory=project.subdirectory, requires=(), compiler=""
        )
        return self._made(built, built.file, None)

    def _sha256(self, address: str, shown: str) -> str:
        if self.builder.access.offline:
            raise OfflineError(f"{shown} is not locked yet and no connection may be made")
        found, _ = download.measured(
            download.lend_credentials(address, self.builder.lenders),
            f"measuring {shown.rpartition('/')[2]}",
            self.builder.access.progress,
        )
        return found

    def _made(self, built: Built, what: str, repository: Repository | None) -> Made:
        """The wheel of a source, built if this volume does not have it."""
        probe, volume = self.builder.probe, self.store.volume
        source = repository.canonical if repository is not None else ""
        key = refs.key(
            *("build 1", source, built.commit, built.sha256, built.subdirectory),
            *(probe.implementation, probe.abi, probe.platform),
        )
        known = facts.get(volume, facts.BUILDS, key, Wheel)
        if known is not None and known.built is not None:
            entry = wheel.stored(self.store, known.sha256, probe.abi)
            if entry is not None:
                own = msgspec.structs.replace(known.built, url=built.url, request=built.request)
                known = msgspec.structs.replace(known, built=own)
                return Made(known, wheel.metadata(self.store, entry))
        choose = functools.partial(self.builder.choose, what, self.exclude_newer)
        with temporary.folder() as held:
            path, built = self.builder.build(built, what, held.folder, repository, choose)
            file = os.path.basename(path)
            name, version = building.package_of(file, what)
            sha256, size = measure(path)
            made = Wheel(
                name=name,
                version=version,
                file=file,
                sha256=sha256,
                size=size,
                url="",
                uploaded=built.date or None,
                built=built,
            )
            entry = wheel.add_wheel(self.store, path, sha256=sha256, probe=probe)
        facts.put(volume, facts.BUILDS, key, made)
        return Made(made, wheel.metadata(self.store, entry))


def _make_writable(root: str) -> None:
    """Gives a tree the modes of a checkout."""
    for folder, _, files in os.walk(root):
        os.chmod(folder, 0o755)
        for name in files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                os.chmod(path, 0o755 if mode & 0o100 else 0o644)


def _asks_git(project: str) -> bool:
    """Whether a project's files name a tool that asks git."""
    for name in _PROJECT_FILES:
        try:
            with open(os.path.join(project, name), "rb") as file:
                text = file.read(1 << 20).decode("utf-8", "replace").lower()
        except OSError:
            continue
        if any(tool in text for tool in _ASK_GIT):
            return True
    return False
