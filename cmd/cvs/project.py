"""Where a command finds the spec, lock and profile of the version that it was given."""

import os

from cvs.cli import Session
from cvs.profiles.generations import Profile
from cvs.store import document, scratch
from cvs.store.errors import InputError
from cvs.versions import lock as locks
from cvs.versions import sites
from cvs.versions import spec as specs
from cvs.versions.access import Access, check_wheels_dir
from cvs.versions.connections import Connections
from cvs.versions.interpreter import Chosen
from cvs.versions.lock import Lock
from cvs.versions.sites import Sites
from cvs.versions.spec import Spec
from cvs.versions.tokens import Token, Tokens, host_of, read_config


def spec_file(session: Session) -> str:
    """The file of the spec that the command names."""
    return session.settings.spec_file(session.options.version, session.options.versions_dir)


def load_spec(session: Session) -> Spec:
    """Reads the spec that the command names.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    file = spec_file(session)
    if not os.path.exists(file):
        raise InputError(
            f"there is no version {session.options.version!r}: {file} does not exist",
            hint="`cvs list` shows the versions, `cvs create` makes one",
        )
    spec = specs.load(file)
    given = session.options.version
    if spec_file(session) != given and spec.version_id != given:
        raise InputError(f"{file}: version_id: {spec.version_id!r} is not the file's name")
    return spec


def version_id(session: Session) -> str:
    """The version's name, for commands that do without its spec.

    Raises:
        InputError: it cannot be the name of a version.
    """
    given: str = session.options.version
    if "/" in given or given.endswith(".json"):
        return load_spec(session).version_id
    specs.check_version_id(given, "the version")
    return given


def profile(session: Session) -> Profile:
    """The generations of the version that the command names."""
    volume = session.volume
    volume.check()
    return Profile(volume, version_id(session))


def environment_of(session: Session) -> dict[str, str]:
    """The spec's `env`; nothing where the spec is not at hand, as on a worker."""
    if not os.path.exists(spec_file(session)):
        session.say(f"note: no spec {spec_file(session)}, so no variables of its env")
        return {}
    return load_spec(session).env


def lock_file(session: Session, version: str) -> str:
    """The file of a version's lock."""
    given: str | None = getattr(session.options, "lock_file", None)
    if given:
        return os.path.abspath(os.path.expanduser(given))
    return os.path.join(session.volume.resolved, f"{version}.lock.json")


def load_lock(session: Session, version: str) -> Lock:
    """Reads the lock of a version.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    file = lock_file(session, version)
    found = locks.read(file)
    if found is None:
        raise InputError(f"there is no lock {file}", hint="`cvs resolve` makes one")
    return found


def locked_package(lock: Lock, given: str) -> str:
    """The canonical name of a package of a lock.

    Raises:
        InputError: the lock has none of that name; the hint has near ones.
    """
    from packaging.utils import canonicalize_name

    name = canonicalize_name(given)
    known = [canonicalize_name(one.name) for one in lock.python.wheels]
    if name in known:
        return name
    import difflib

    near = difflib.get_close_matches(name, known, 5)
    hint = f"near names are: {', '.join(near)}" if near else "`cvs show` lists what it has"
    raise InputError(f"the lock of {lock.version_id} has no package {given!r}", hint=hint)


def models_dir(session: Session) -> str:
    """MODELS_DIR, or the option in its place."""
    given = getattr(session.options, "models_dir", None)
    return os.path.abspath(os.path.expanduser(given)) if given else session.settings.models_dir


def chosen_python(session: Session) -> Chosen | None:
    """The interpreter that settings name.

    Raises:
        InputError: COMFY_USE_SYSTEM_PYTHON is neither true nor false.
    """
    session.flag("COMFY_USE_SYSTEM_PYTHON")
    found = session.settings.python
    return Chosen(*found) if found else None


def endpoints(session: Session) -> Sites:
    """Where the sites are asked.

    Raises:
        InputError: a setting is no http(s) address.
    """
    return sites.parse(
        session.settings.get("HF_ENDPOINT"), session.settings.get("CIVITAI_ENDPOINT")
    )


def tokens(session: Session, asked: Sites) -> Tokens:
    """The tokens of the environment, and those of the user's configuration file.

    Raises:
        InputError: one cannot be used, or the file cannot.
    """
    places = (
        ("HF_TOKEN", sites.HUGGINGFACE, asked.huggingface),
        ("CIVITAI_TOKEN", sites.CIVITAI, asked.civitai),
    )
    found = []
    for name, *addresses in places:
        if secret := session.settings.get(name):
            found += [Token(host_of(address), secret, name) for address in addresses]
    config = session.settings.config_file
    return Tokens([*found, *read_config(config, session.progress.warn)], asked, config)


def connections(session: Session) -> Connections:
    """The connections of a run.

    Raises:
        InputError: the option or variable is no number that they can have.
    """
    try:
        return Connections(session.settings.connections(session.options.connections))
    except ValueError as error:
        raise InputError(str(error)) from None


def access(session: Session, spec: Spec | None = None) -> Access:
    """What resolvers may use in this run."""
    options = session.options
    check_wheels_dir(options.wheels_dir)
    offline = options.offline or session.flag("COMFY_OFFLINE")
    # The tool before cvs had its cache, and with it its models, one folder deeper on a volume.
    before = os.path.join(session.volume.root, "runpod-comfy", "models")
    loose = (models_dir(session), session.volume.models, before)
    found = endpoints(session)
    return Access(
        offline=offline or (spec is not None and spec.offline),
        allow_local=options.allow_local,
        python=chosen_python(session),
        wheels_dir=options.wheels_dir and os.path.abspath(options.wheels_dir),
        no_build=options.no_build or (spec is not None and spec.python.no_build),
        model_dirs=tuple(dict.fromkeys(loose)),
        allow_pickle=spec is None or spec.allow_pickle,
        connections=connections(session),
        sites=found,
        tokens=tokens(session, found),
        progress=session.progress,
    )


def write_spec(path: str, data: object, *, replace: bool) -> None:
    """Writes a spec in one rename, in the form that specs have.

    Raises:
        InputError: the file exists and may not be replaced, or its folder cannot be written.
    """

    if os.path.lexists(path) and not replace:
        raise InputError(f"{path} exists already", hint="--force replaces it")
    scratch.replace_file(path, document.pretty(data))
