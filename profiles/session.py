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
from cvs.store import fs, seal
from cvs.store.entries import Store
from cvs.store.errors import InputError, StoreError
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
    seal: seal.Seal
    """What every child puts on."""
    scratch: str
    """A folder on the local disk for files of this session; removed with it."""
    database: str
    """The database of the version's UI: on this host's own disk, one per core. SQLite has no
    place on a network volume, and an older core refuses one that a newer core has touched."""


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
    chosen: interpreter.Chosen | None,
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
    with (
        profile.lease(number) as lease,
        process.scratch(local_root) as held,
    ):
        lease.keep_alive()
        realize.check_entries(store, record)
        folder = view.ensure(store, profile, number)
        own = state.prepare(store.volume, profile.version, models_dir)
        state.ensure_private(store, record)
        locked = _interpreter(record, number)
        found = interpreter.find(resolve.minor(locked), chosen)
        warning = interpreter.check(locked, interpreter.probe(found).interpreter)
        if warning:
            progress.warn(warning)
        made = environment.ensure(
            store,
            record.wheel_set,
            locked,
            found,
            local_root,
            progress,
            provided=record.provided,
            overlaps=record.overlaps,
        )
        core = next(place.target for place in record.links if not place.path)
        databases = os.path.join(local_root, "databases")
        temporary = os.path.join(held.folder, "tmp")
        for path in (temporary, databases):
            fs.makedirs(path)
        variables = process.environment(
            base, python=made.python, home=folder, models_dir=models_dir, extra=extra
        )
        process.write_locally(variables, temporary, local_root)
        sealed = seal.make(
            [store.volume.root, os.path.dirname(made.path)],
            [own, *([models_dir] if os.path.isdir(models_dir) else [])],
        )
        try:
            yield Session(
                version=profile.version,
                generation=number,
                record=record,
                view=folder,
                python=made.python,
                variables=variables,
                seal=sealed,
                scratch=held.folder,
                database=os.path.join(databases, f"{profile.version}-{core[:16]}.db"),
            )
        finally:
            sealed.close()


def _interpreter(record: Record, number: int) -> Interpreter:
    """The interpreter that a generation was locked for.

    Raises:
        StoreError: what its record says of it is not understood.
    """
    try:
        return msgspec.convert(record.interpreter, Interpreter)
    except msgspec.ValidationError as error:
        raise StoreError(
            f"generation {number} of {record.version}: interpreter: {error}",
            hint="update cvs if a newer one wrote it, or "
            f"`cvs realize {record.version}` makes another generation",
        ) from None
