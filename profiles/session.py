"""A session: something runs in a version, under a lease for all that it needs.

Checked before anything starts: that the generation's entries are there, that its view and
environment are whole. A dangling model link would be listed by ComfyUI and fail late.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping

import msgspec

from cvs.profiles import environment, process, realize, state, view
from cvs.profiles.generations import Profile
from cvs.store import leases
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.progress import Progress
from cvs.store.record import Record
from cvs.versions import interpreter, resolve
from cvs.versions.lock import Interpreter


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What is running and where."""

    version: str
    generation: int
    record: Record
    view: str
    python: str
    """The interpreter in the version's environment."""
    variables: dict[str, str]
    """Environment variables for what is started."""
    core: EntryId


@contextlib.contextmanager
def open_session(
    store: Store,
    profile: Profile,
    *,
    generation: int | None = None,
    base: Mapping[str, str],
    extra: Mapping[str, str],
    models_dir: str,
    local_root: str,
    comfy_python: str | None,
    progress: Progress,
) -> Iterator[Session]:
    """Holds a generation in use for the time of a `with` block.

    Args:
        generation: by default the current one.
        base, extra: environment variables, the caller's and the spec's.

    Raises:
        InputError: the version is not realized here, or no interpreter fits.
        StoreError: entries of it are gone.
    """
    number = profile.current() if generation is None else generation
    if number is None:
        raise InputError(
            f"{profile.version} is not realized here", hint=f"cvs realize {profile.version}"
        )
    record = profile.record(number)
    with leases.Lease.of_generation(store.volume, profile.record_path(number)) as lease:
        lease.keep_alive()
        realize.check_entries(store, record)
        folder = view.ensure(store, profile, number)
        state.prepare(store.volume, profile.version, models_dir)
        locked = msgspec.convert(record.interpreter, Interpreter)
        found = interpreter.find(resolve.minor(locked), comfy_python)
        warning = interpreter.check(locked, interpreter.probe(found).interpreter)
        if warning:
            progress.warn(warning)
        made = environment.ensure(store, record.wheel_set, locked, found, local_root)
        core = next(place.target for place in record.links if not place.path)
        yield Session(
            version=profile.version,
            generation=number,
            record=record,
            view=folder,
            python=made.python,
            variables=process.environment(
                base, python=made.python, home=folder, models_dir=models_dir, extra=extra
            ),
            core=EntryId(core.partition("/")[0]),
        )


def database(session: Session, local_root: str) -> str:
    """The database of a version's UI: on this host's own disk, one per core.

    SQLite has no place on a network volume, and an older core refuses the database that a newer
    one has touched.
    """
    name = f"{session.version}-{session.core[:16]}.db"
    return os.path.join(local_root, "databases", name)
