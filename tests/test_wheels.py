"""Fetching the wheels of a lock: from where, how checked, what is said when one is missing."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import locks as example
import msgspec
import pytest
import wheelmaker
from indexserver import IndexServer

from cvs.store import manifest, pack
from cvs.store.entries import Store
from cvs.store.errors import CvsError, InputError, OfflineError, SourceError
from cvs.store.progress import Progress, Task, Unit
from cvs.store.verify import verify
from cvs.store.volume import Volume
from cvs.versions import interpreter, parallel, retry, wheel, wheels
from cvs.versions import lock as locks
from cvs.versions.access import Access
from cvs.versions.lock import Python, Wheel
from cvs.versions.spec import PythonSettings

PROBE = interpreter.probe(interpreter.find(None))
SETTINGS = PythonSettings()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    monkeypatch.setattr(retry, "pause", lambda seconds, stop: None)
    with IndexServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "wheels")


def _wheel(path: str, url: str = "") -> Wheel:
    file = os.path.basename(path)
    name, version = file.split("-")[:2]
    return Wheel(
        name=name,
        version=version,
        file=file,
        sha256=wheelmaker.sha256(path),
        size=os.path.getsize(path),
        url=url,
        uploaded=None,
    )


def _lock(*members: Wheel) -> Python:
    return Python(interpreter=PROBE.interpreter, exclude_newer=None, wheels=members)


def test_wheels_are_fetched_once_and_become_a_set(
    store: Store, index: IndexServer, folder: str
) -> None:
    paths = [wheelmaker.make(folder, name, "1") for name in ("a", "b", "c")]
    locked = _lock(*(_wheel(path, index.add(path)) for path in paths))
    assert wheels.missing(store, locked) == list(locked.wheels)

    entry = wheels.fetch(store, locked, settings=SETTINGS)
    again = wheels.fetch(store, locked, settings=SETTINGS, access=Access(offline=True))

    assert (again, wheels.missing(store, locked)) == (entry, [])
    assert len(index.paths) == 3
    whole = store.manifest(entry)
    assert isinstance(whole, manifest.SetManifest)
    names = {store.content(member).rpartition("/")[2] for member in whole.members}
    assert names == {f"{name}-1-{PROBE.abi}" for name in ("a", "b", "c")}
    assert os.listdir(store.volume.tmp) == []


#: Brings the wheels of a lock into a new volume: root, form, workers, lock, folder of wheels.
_ELSEWHERE = """
import sys
from cvs.store.entries import Store
from cvs.store.volume import Volume
from cvs.versions import lock, wheels
from cvs.versions.spec import PythonSettings
root, form, workers, file, folder = sys.argv[1:]
wheels.PARALLEL = int(workers)
volume = Volume(root, wheels=form)
volume.prepare()
settings = PythonSettings(find_links=(folder,))
print(wheels.fetch(Store(volume), lock.read(file).python, settings=settings))
"""


def test_a_wheel_is_the_same_entry_wherever_it_is_made(tmp_path: Path) -> None:
    """What the compiler and marshal make of a source depends on more than the source: in fresh
    processes, from two folders, with two hash seeds and locales, by one worker and by several, as
    trees and as packs, each wheel has one id; and each pack the same bytes."""
    source = "".join(
        f"def f{n}(x, y={n}.5):\n"
        f"    '''{n}'''\n"
        f"    return x in {{'a{n}', 'b', None, ..., {n}, b'c', ('d', 'e{n}')}} and x.self.path\n"
        for n in range(60)
    )
    here, there = tmp_path / "here", tmp_path / "another place"
    for name in ("a", "b", "c"):
        modules = {f"{name}/m{n}.py": source.replace("path", f"p{n}") for n in range(4)}
        modules |= {f"{name}/__init__.py": "", f"{name}/bad.py": "("}
        wheelmaker.make(str(here), name, "1", modules, scripts={f"tool-{name}": f"{name}:main"})
    shutil.copytree(here, there)
    lock = tmp_path / "lock.json"
    members = [_wheel(str(path)) for path in sorted(here.iterdir())]
    lock.write_bytes(locks.encode(example.lock(python=_lock(*members))))
    ids: set[str] = set()
    entries: set[frozenset[str]] = set()
    packs: dict[str, set[bytes]] = {}
    for form in ("tree", "pack"):
        for folder, seed, workers, more in (
            (here, "1", "1", {}),
            (there, "2", "2", {"LANG": "de_DE.UTF-8", "PYTHONOPTIMIZE": "2"}),
        ):
            root = folder / f"{form} made by {workers}"
            done = subprocess.run(
                [sys.executable, "-c", _ELSEWHERE, root, form, workers, lock, folder],
                env={**os.environ, "PYTHONHASHSEED": seed, **more},
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
            )
            ids.add(done.stdout)
            made = Store(Volume(str(root)))
            entries.add(frozenset(made.ids()))
            for entry in made.ids():
                assert list(verify(made, entry)) == []
            for path in root.glob(f"store/*/{pack.NAME}"):
                packs.setdefault(path.parent.name, set()).add(path.read_bytes())

    assert (len(ids), len(entries)) == (1, 1)
    assert [len(pack) for pack in packs.values()] == [1] * len(members)


def test_only_what_is_missing_is_fetched(store: Store, index: IndexServer, folder: str) -> None:
    """A set shares its members with others, and a lost entry alone comes again."""
    one, other = (wheelmaker.make(folder, name, "1") for name in ("a", "b"))
    first = _lock(_wheel(one, index.add(one)))
    both = _lock(*first.wheels, _wheel(other, index.add(other)))
    wheels.fetch(store, first, settings=SETTINGS)
    entry = wheels.fetch(store, both, settings=SETTINGS)
    assert index.paths == ["/files/a-1-py3-none-any.whl", "/files/b-1-py3-none-any.whl"]
    lost = wheel.stored(store, both.wheels[0].sha256, PROBE.abi)
    assert lost is not None
    shutil.rmtree(store.path(lost))

    assert wheels.missing(store, both) == [both.wheels[0]]
    assert wheels.fetch(store, both, settings=SETTINGS) == entry
    assert index.paths[2:] == ["/files/a-1-py3-none-any.whl"]


def test_no_wheels_are_an_empty_set(store: Store) -> None:
    whole = store.manifest(wheels.fetch(store, _lock(), settings=SETTINGS))

    assert isinstance(whole, manifest.SetManifest)
    assert whole.members == ()


def test_local_folders_come_before_the_address(
    store: Store, index: IndexServer, folder: str, tmp_path: Path
) -> None:
    """By file name and digest: a file that only has the name is passed over."""
    path = wheelmaker.make(folder, "a", "1")
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / os.path.basename(path)).write_bytes(b"another")
    locked = _lock(_wheel(path, index.add(path)))

    wheels.fetch(
        store,
        locked,
        settings=PythonSettings(find_links=(f"file://{folder}",)),
        access=Access(wheels_dir=str(wrong), offline=True),
    )

    assert index.paths == []


def test_offline_every_missing_wheel_is_named(
    store: Store, index: IndexServer, folder: str, tmp_path: Path
) -> None:
    paths = [wheelmaker.make(folder, name, "1") for name in ("a", "b", "c")]
    locked = _lock(*(_wheel(path, index.add(path)) for path in paths))
    some = tmp_path / "some"
    some.mkdir()
    shutil.copy(paths[1], some)

    with pytest.raises(OfflineError) as caught:
        wheels.fetch(
            store, locked, settings=SETTINGS, access=Access(wheels_dir=str(some), offline=True)
        )

    assert caught.value.message == (
        "2 wheels are not stored and no connection may be made: "
        "a-1-py3-none-any.whl, c-1-py3-none-any.whl"
    )
    assert (index.paths, list(store.ids())) == ([], [])


def test_a_wheel_of_a_local_folder_has_no_other_place(store: Store, folder: str) -> None:
    path = wheelmaker.make(folder, "a", "1")
    locked = _lock(_wheel(path))

    with pytest.raises(SourceError, match=r"in none of the folders: a-1-py3-none-any\.whl$"):
        wheels.fetch(store, locked, settings=SETTINGS)
    Path(path).write_bytes(b"changed")
    with pytest.raises(SourceError, match=r"a-1-py3-none-any\.whl has the SHA-256"):
        wheels.fetch(store, locked, settings=SETTINGS, access=Access(wheels_dir=folder))
    assert list(store.ids()) == []


def test_other_bytes_than_the_lock_says_are_refused(
    store: Store, index: IndexServer, folder: str
) -> None:
    path = wheelmaker.make(folder, "a", "1", {"a.py": "A = 1\n"})
    locked = _lock(_wheel(path, index.add(path)))
    data = bytearray(Path(path).read_bytes())
    data[-1] ^= 1
    Path(path).write_bytes(data)

    with pytest.raises(SourceError, match="is not what the lock names: it has another SHA-256"):
        wheels.fetch(store, locked, settings=SETTINGS)
    Path(path).write_bytes(b"shorter")
    with pytest.raises(SourceError, match=r"has 7 bytes instead of \d+$"):
        wheels.fetch(store, locked, settings=SETTINGS)
    assert (list(store.ids()), os.listdir(store.volume.tmp)) == ([], [])


def test_what_was_published_before_an_error_stays(
    store: Store, index: IndexServer, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "PARALLEL", 1)
    monkeypatch.setattr(wheels, "_BATCH", 1)
    good = wheelmaker.make(folder, "a", "1", {"a.py": "#" * 5000})
    bad = wheelmaker.make(folder, "b", "1", record=lambda rows: rows[1:])
    locked = _lock(*(_wheel(path, index.add(path)) for path in (good, bad)))

    with pytest.raises(SourceError, match=r"the wheel b-1-py3-none-any\.whl has the file"):
        wheels.fetch(store, locked, settings=SETTINGS)

    assert [one.name for one in wheels.missing(store, locked)] == ["b"]


def test_credentials_of_the_settings_open_their_index(
    store: Store, index: IndexServer, folder: str
) -> None:
    index.user = "me:s3cret"
    path = wheelmaker.make(folder, "a", "1")
    locked = _lock(_wheel(path, index.add(path)))

    with pytest.raises(SourceError, match=r"was refused \(answer 401\)$"):
        wheels.fetch(store, locked, settings=SETTINGS)
    url = index.url.replace("//", "//me:s3cret@")
    wheels.fetch(store, locked, settings=PythonSettings(extra_index_urls=(url,)))

    assert wheels.missing(store, locked) == []


def test_a_wheel_for_another_system_is_refused(store: Store, folder: str) -> None:
    path = wheelmaker.make(folder, "a", "1", tag="cp311-cp311-win_amd64")

    with pytest.raises(InputError, match="does not fit this interpreter on this system"):
        wheels.fetch(
            store, _lock(_wheel(path)), settings=SETTINGS, access=Access(wheels_dir=folder)
        )


def test_a_lock_for_another_interpreter_is_refused(store: Store, folder: str) -> None:
    path = wheelmaker.make(folder, "a", "1")
    locked = _lock(_wheel(path))
    strange = msgspec.structs.replace(PROBE.interpreter, abi="cp311t")

    with pytest.raises(InputError, match=r"another ABI$"):
        wheels.fetch(
            store,
            msgspec.structs.replace(locked, interpreter=strange),
            settings=SETTINGS,
            access=Access(wheels_dir=folder),
        )


def test_progress_counts_the_bytes_of_all_wheels(
    store: Store, index: IndexServer, folder: str
) -> None:
    done: list[int] = []
    totals: list[int | None] = []

    class Counting(Task):
        def advance(self, amount: int) -> None:
            done.append(amount)

    class Watching(Progress):
        def task(self, what: str, total: int | None = None, unit: Unit = "bytes") -> Task:
            totals.append(total)
            return Counting()

    remote, local = wheelmaker.make(folder, "a", "1"), wheelmaker.make(folder + "2", "b", "1")
    locked = _lock(_wheel(remote, index.add(remote)), _wheel(local))

    wheels.fetch(
        store,
        locked,
        settings=SETTINGS,
        access=Access(wheels_dir=folder + "2", progress=Watching()),
    )

    assert totals == [sum(done)] == [os.path.getsize(remote) + os.path.getsize(local)]


def test_a_server_that_fails_is_an_error_of_ours(
    store: Store, index: IndexServer, folder: str
) -> None:
    path = wheelmaker.make(folder, "a", "1")
    gone = _wheel(path, f"http://{index.host}/files/gone.whl")

    with pytest.raises(CvsError, match=r"/files/gone\.whl does not exist \(answer 404\)$"):
        wheels.fetch(store, _lock(gone), settings=SETTINGS)


def test_a_stop_ends_the_work_between_two_files(store: Store, folder: str) -> None:
    """A wheel that is being unpacked when the run is to end is given up; nothing is left."""
    path = wheelmaker.make(folder, "a", "1")
    stop = threading.Event()
    stop.set()

    with pytest.raises(parallel.Stopped):
        wheels.fetch(
            store,
            _lock(_wheel(path)),
            settings=SETTINGS,
            access=Access(wheels_dir=folder, stop=stop),
        )
    assert list(store.ids()) == []
    assert os.listdir(store.volume.tmp) == []
