"""Resolving: a spec and what the lock already says become a lock.

What is fresh stays as it is; a changed part alone is resolved again. A pin moves only where the
spec asks for something else; `cvs update` writes what refs say now into the spec.
"""

import contextlib
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, SourceError
from cvs.versions import lock as locks
from cvs.versions import parallel
from cvs.versions.access import Access
from cvs.versions.lock import Commit, Interpreter, Lock, Model, Parts, Python
from cvs.versions.spec import Model as WantedModel
from cvs.versions.spec import Source, Spec, digest

#: Repositories asked at once; more only queue at the same host.
PARALLEL = 4


def stale(spec: Spec, lock: Lock | None) -> list[str]:
    """The parts of a spec that a lock is not fresh for; asks nobody.

    `env`, options, white space and a branch that moved never make a lock stale.
    """
    names = ["core", "nodes", "python", "models", "interpreter"]
    if lock is None:
        return names
    wanted = parts(spec)
    # What stands in the lock counts as well: one that was merged by hand may fit no spec.
    odd = {
        "core": lock.core.request != spec.core.request,
        "nodes": [(node.name, node.request) for node in lock.nodes]
        != [(node.name, node.request) for node in spec.nodes],
        "models": [(model.path, model.request) for model in lock.models]
        != [(model.path, model.request) for model in spec.models],
    }
    return [
        name
        for name in names
        if getattr(wanted, name) != getattr(lock.parts, name) or odd.get(name)
    ]


#: Settings of `python` that came later: they count where they are set, so that a lock of before
#: stays fresh for a spec without them.
_LATER = ("torch_backend", "provided")
#: Those that have no say in which wheels are chosen.
_INDIFFERENT = ("no_build", "overlaps")


def parts(spec: Spec) -> Parts:
    """One digest per part of a spec."""
    known = msgspec.structs.replace(spec.python, version=None, find_links=spec.find_links)
    settings = {
        name: value
        for name, value in msgspec.structs.asdict(known).items()
        if name not in _INDIFFERENT and (value or name not in _LATER)
    }
    return Parts(
        core=spec.core.request,
        nodes=digest(
            [
                # As a lock of before the field has it, where it is not set.
                [node.name, node.request, *(["run_install"] if node.run_install else [])]
                for node in spec.nodes
            ]
        ),
        python=digest([spec.packages, settings]),
        models=digest([[model.path, model.name, model.request] for model in spec.models]),
        interpreter=digest(spec.python.version),
    )


def resolve(
    store: Store,
    spec: Spec,
    old: Lock | None,
    access: Access,
    *,
    refresh: bool = False,
    packages: Collection[str] = (),
) -> Lock:
    """Resolves what the old lock lacks.

    The trees of the core and of every node that is new are fetched into the store: their
    requirement files decide which wheels are needed.

    Args:
        refresh: choose all wheels anew instead of keeping those that still fit.
        packages: canonical names; choose these anew and keep the others wherever they still fit.

    Raises:
        InputError: the spec asks for something that does not exist or contradicts itself.
        SourceError: a repository or index does not give it.
        OfflineError: it is not stored yet and no connection may be made.
    """
    store.volume.prepare()
    if old is not None and not stale(spec, old) and not refresh and not packages:
        return old
    sources = [spec.core, *spec.nodes]
    known = {} if old is None else {commit.name: commit for commit in old.nodes}
    # The core's name is its folder's; a node may be called the same.
    known_core = None if old is None else old.core
    # A node that is only called otherwise keeps its commit.
    pins = {} if old is None else {one.request: one.commit for one in (*old.nodes, old.core)}
    jobs = [
        functools.partial(
            _commit,
            store,
            source,
            known_core if source is spec.core else known.get(source.name),
            pins.get(source.request),
            access,
        )
        for source in sources
    ]
    core, *nodes = parallel.gather(jobs, workers=PARALLEL, stop=access.stop)
    kept = None if old is None or refresh else _without(old.python, packages)
    python = _python(store, spec, old, [core, *nodes], access, kept)
    return Lock(
        schema_version=locks.SCHEMA,
        version_id=spec.version_id,
        parts=parts(spec),
        core=core,
        nodes=tuple(nodes),
        python=python,
        models=_models(store, spec, () if old is None else old.models, access),
    )


def _commit(
    store: Store, source: Source, old: Commit | None, pin: str | None, access: Access
) -> Commit:
    if old is not None and old.request == source.request:
        return old if source.run_install else without_installed(old)
    return fetch_commit(store, source, source.commit or pin or tip(source, access), access)


def without_installed(commit: Commit) -> Commit:
    """A commit of which nothing is known but its own tree: its install.py, if wanted, runs anew."""
    return msgspec.structs.replace(commit, installed=msgspec.UNSET)


@contextlib.contextmanager
def _placed(source: Source) -> Iterator[None]:
    """Puts the place in the spec before what a repository is to blame for."""
    try:
        yield
    except (InputError, SourceError) as error:
        if source.where in error.message:
            raise
        kind = InputError if isinstance(error, InputError) else SourceError
        raise kind(f"{source.where}: {error.message}", hint=error.hint) from None


def tip(source: Source, access: Access) -> str:
    """The commit that a source's ref names now; HEAD if it has none.

    Raises:
        OfflineError: that is for the repository to say, and no connection may be made.
        InputError, SourceError: the repository does not have it.
    """
    from cvs.versions import git

    with _placed(source):
        found = git.resolve(
            source.repository(allow_local=access.allow_local),
            source.ref,
            where=source.where,
            offline=access.offline,
        )
    return found.commit


def fetch_commit(store: Store, source: Source, commit: str, access: Access) -> Commit:
    """Puts the tree of a commit into the store, if it is not there, and describes it."""
    from cvs.versions import git

    with _placed(source):
        fetched = git.fetch_commit(
            store,
            source.repository(allow_local=access.allow_local),
            commit,
            source.name,
            where=source.where,
            ref=source.ref,
            offline=access.offline,
            allow_local=access.allow_local,
            progress=access.progress,
        )
    return Commit(
        name=source.name,
        request=source.request,
        repo=fetched.repo,
        ref=source.ref,
        commit=commit,
        date=fetched.date,
        entry=fetched.entry,
        size=fetched.size,
        submodules=fetched.submodules,
        lfs=fetched.lfs,
    )


def _python(
    store: Store,
    spec: Spec,
    old: Lock | None,
    commits: Sequence[Commit],
    access: Access,
    kept: Python | None,
) -> Python:
    """The wheels of these commits; those of `kept` keep their versions wherever they still fit."""
    from cvs.versions import builds, interpreter, python, requirements

    previous = None if old is None else old.python
    now = parts(spec)
    same_settings = (
        old is not None
        and (old.parts.python, old.parts.interpreter) == (now.python, now.interpreter)
        and kept == previous
    )
    if same_settings and old is not None and list(commits) == [old.core, *old.nodes]:
        return old.python
    wanted = requirements.packages(spec.packages)
    for commit, source in zip(commits, [spec.core, *spec.nodes], strict=True):
        ensure_commit(store, source, commit, access)
        wanted = requirements.of_tree(store, commit.entry, commit.name) + wanted
    fingerprint = digest([[one.requirer, one.text] for one in wanted.wanted])
    if same_settings and previous is not None and previous.requirements == fingerprint:
        return previous
    version = spec.python.version
    if version is None and previous is not None:
        version = minor(previous.interpreter)
    probe = interpreter.probe(interpreter.find(version, access.python))
    newest = exclude_newer(spec, commits)
    builder = builds.Builder(spec.python, probe, access)
    resolved = python.resolve(
        wanted.wanted,
        settings=spec.python,
        probe=probe,
        exclude_newer=newest,
        ignored=wanted.ignored,
        previous=kept,
        wheels_dir=access.wheels_dir,
        offline=access.offline,
        progress=access.progress,
        builds=None if access.no_build else builds.Builds(store, builder, newest, kept),
    )
    return _with_entries(msgspec.structs.replace(resolved, requirements=fingerprint), previous)


def _with_entries(locked: Python, previous: Python | None) -> Python:
    """A wheel set that knows the entries of those wheels that an earlier one had."""
    if previous is None or locked.interpreter.abi != previous.interpreter.abi:
        return locked
    known = {one.sha256: one.entry for one in previous.wheels}
    wheels = tuple(
        msgspec.structs.replace(one, entry=known.get(one.sha256)) for one in locked.wheels
    )
    return msgspec.structs.replace(locked, wheels=wheels, layout=previous.layout)


def _without(locked: Python, packages: Collection[str]) -> Python:
    """A wheel set without these packages."""
    from packaging.utils import canonicalize_name

    wheels = tuple(one for one in locked.wheels if canonicalize_name(one.name) not in packages)
    return msgspec.structs.replace(locked, wheels=wheels)


def ensure_commit(store: Store, source: Source, commit: Commit, access: Access) -> None:
    """Makes sure that the tree of a locked commit is in the store.

    Raises:
        IntegrityError: the repository gives another tree for that commit than the lock has.
    """
    if store.has(commit.entry):
        return
    fetched = fetch_commit(store, source, commit.commit, access)
    if fetched.entry != commit.entry:
        raise IntegrityError(
            f"{source.where}: commit {commit.commit[:12]} gives the entry {fetched.entry[:16]}, "
            f"the lock has {commit.entry[:16]}",
            hint="a submodule or LFS file may have changed: `cvs update` takes what is there now",
        )


def minor(interpreter: Interpreter) -> str:
    """`3.11` of `3.11.7`."""
    return ".".join(interpreter.version.split(".")[:2])


def exclude_newer(spec: Spec, commits: Sequence[Commit]) -> str | None:
    """The moment after which no package counts: by default the newest commit's date.

    A commit pins its own code and not what it requires; years later today's packages no longer
    fit it, those of its own time do.
    """
    setting = spec.python.exclude_newer
    if setting == "none":
        return None
    if setting == "core":
        return commits[0].date
    return setting or max(commit.date for commit in commits)


def _models(store: Store, spec: Spec, old: Iterable[Model], access: Access) -> tuple[Model, ...]:
    from cvs.versions import locate

    known = tuple(old)

    def described(wanted: WantedModel) -> Model:
        return _unseen(wanted) if spec.skip_models else locate.describe(store, wanted, access)

    return tuple(locked_model(wanted, known) or described(wanted) for wanted in spec.models)


def locked_model(wanted: WantedModel, old: Sequence[Model]) -> Model | None:
    """What is locked of a model. One that only moved or is called otherwise keeps it."""
    same = [model for model in old if model.request == wanted.request]
    if not same:
        return None
    found = next((model for model in same if model.path == wanted.path), same[0])
    return msgspec.structs.replace(found, name=wanted.name, path=wanted.path)


def _unseen(wanted: WantedModel) -> Model:
    """A model that nobody wants for now: its sources are not looked at."""
    from cvs.versions import sources

    first, *others = (
        sources.parse(text, f"{wanted.where}.source").public for text in wanted.sources
    )
    return Model(
        name=wanted.name,
        path=wanted.path,
        request=wanted.request,
        source=first,
        size=None,
        sha256=wanted.sha256,
        entry=None,
        mirrors=tuple(one for one in others if one),
    )


def check_locked(spec: Spec, lock: Lock | None, file: str) -> Lock:
    """The lock, if it is fresh for every part of the spec (`--locked`).

    Raises:
        InputError: there is none, or a part is stale; names the parts.
    """
    old = stale(spec, lock)
    if lock is None:
        raise InputError(f"there is no lock {file}", hint="`cvs resolve` makes one")
    if old:
        raise InputError(
            f"the lock {file} does not fit {spec.file} any more: {', '.join(old)} changed",
            hint="`cvs resolve` resolves what changed, without --locked `cvs realize` does too",
        )
    return lock
