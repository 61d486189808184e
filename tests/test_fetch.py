"""Fetching into the store: by several processes, over several runs, files and folders."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from remotes import Remote

from cvs.store import partial, refs
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import IntegrityError, SourceError, StoreError
from cvs.store.history import MARK
from cvs.store.manifest import FileManifest, TreeManifest
from cvs.store.progress import Progress
from cvs.store.volume import Volume
from cvs.versions import fetch, parallel, retry
from cvs.versions.access import Access
from cvs.versions.connections import Connections
from cvs.versions.fetch import Expected
from cvs.versions.remote import Reply

DATA = os.urandom(1 << 20) * 20
SHA256 = hashlib.sha256(DATA).hexdigest()
BLAKE3 = EntryId(blake3(DATA).hexdigest())
URL = "http://server/m.bin"


def expected(**known: str | int | None) -> Expected:
    return Expected("m.bin", URL, "spec: models[0]", **known)  # type: ignore[arg-type]


def anything(path: str, name: str) -> None:
    """Lets every file pass."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "pause", lambda seconds, stop: None)
    monkeypatch.setattr(fetch, "_LOOK", 0.01)


@pytest.fixture
def store(memory_volume: Volume) -> Store:
    memory_volume.prepare()
    return Store(memory_volume)


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def one(
    store: Store,
    remote: Remote,
    want: Expected | None = None,
    *,
    progress: Progress | None = None,
    check: Callable[[str, str], object] = anything,
    stop: threading.Event | None = None,
) -> EntryId:
    access = Access(
        connections=Connections(4), progress=progress or Progress(), stop=stop or threading.Event()
    )
    return fetch.file(store, remote, want or expected(), access, check)


def left(store: Store) -> list[str]:
    return os.listdir(store.volume.partial)


def broken(after: int = MARK + 3_000_000) -> Remote:
    """A server that breaks off for good."""
    remote = Remote(DATA)
    remote.breaks = [8 << 20, 8 << 20, after - (16 << 20), *[0] * 99]
    return remote


def begin(store: Store, want: Expected | None = None) -> str:
    """A run that ended early; its partial entry."""
    access = Access(connections=Connections(1))
    with pytest.raises(SourceError):
        fetch.file(store, broken(), want or expected(), access, anything)
    (name,) = left(store)
    return os.path.join(store.volume.partial, name)


def test_a_file_becomes_an_entry_that_its_digest_leads_to(store: Store) -> None:
    entry = one(store, Remote(DATA))

    document = store.manifest(entry)
    assert isinstance(document, FileManifest)
    assert (entry, document.sha256, document.origin) == (BLAKE3, SHA256, URL)
    assert refs.get(store.volume, "sha256", SHA256) == BLAKE3
    assert not store.verify(entry)
    assert not left(store)


@pytest.mark.parametrize("known", ["sha256", "entry", "git"])
def test_other_bytes_are_not_kept(store: Store, known: str) -> None:
    want = expected(**{known: "0" * (40 if known == "git" else 64)})
    with pytest.raises(IntegrityError, match=r"^spec: models\[0\]: m\.bin .*expected is 0+: noth"):
        one(store, Remote(DATA), want)

    assert not list(store.ids())
    assert not left(store)


def test_what_git_calls_it_is_compared(store: Store) -> None:
    git = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest()

    assert one(store, Remote(DATA), expected(git=git)) == BLAKE3


def test_what_is_no_model_is_not_kept(store: Store) -> None:
    def check(path: str, name: str) -> None:
        assert Path(path).read_bytes() == DATA
        raise SourceError(f"{name} is a web page")

    with pytest.raises(SourceError, match=r"^m\.bin is a web page"):
        one(store, Remote(DATA), check=check)

    assert not list(store.ids())
    assert not left(store)


def test_the_next_run_goes_on(store: Store) -> None:
    begin(store)
    remote = Remote(DATA)

    assert one(store, remote) == BLAKE3
    assert remote.given < len(DATA) - MARK
    assert not left(store)


def test_a_server_that_has_nothing_leaves_nothing(store: Store) -> None:
    remote = Remote(DATA)
    remote.most = 0
    with pytest.raises(SourceError):
        one(store, remote)

    assert not left(store)


def spoil(home: str, at: int) -> None:
    path = os.path.join(home, "entry", "content")
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes([DATA[at] ^ 1]))


@pytest.mark.parametrize("at", [5, MARK + 5])
def test_what_an_earlier_run_left_is_not_trusted(store: Store, at: int) -> None:
    """Before the last digest that was noted it is found by that, behind it by the file's own."""
    spoil(begin(store, expected(sha256=SHA256)), at)

    assert one(store, Remote(DATA), expected(sha256=SHA256)) == BLAKE3


def test_after_a_power_cut_only_what_is_proven_counts(store: Store) -> None:
    """Without a digest of the whole nothing else would tell what the disk lost."""
    home = begin(store)
    spoil(home, MARK + 5)
    log = Path(home, "log")
    log.write_bytes(log.read_bytes().replace(b"era ", b"era 0"))

    assert one(store, Remote(DATA)) == BLAKE3


def test_a_server_that_gives_other_bytes_is_asked_once_more_at_most(store: Store) -> None:
    begin(store, expected(sha256=SHA256))
    remote = Remote(b"x" * len(DATA))
    with pytest.raises(IntegrityError):
        one(store, remote, expected(sha256=SHA256))

    assert remote.given < 2 * len(DATA)
    assert not left(store)


def together(store: Store, remote: Remote, want: Expected) -> tuple[list[EntryId], Notes]:
    """Two that want the same at once; the second begins amid the first."""
    begun, notes = threading.Event(), Notes()
    real = remote.open

    def open_(start: int, end: int | None, validator: str) -> Reply:
        if begun.is_set():
            return real(start, end, validator)
        begun.set()
        while not notes.notes:
            pass
        return real(start, end, validator)

    remote.open = open_  # type: ignore[method-assign]

    def second() -> EntryId:
        assert begun.wait(30)
        return one(store, remote, want, progress=notes)

    found = parallel.gather(
        [lambda: one(store, remote, want), second], workers=2, stop=threading.Event()
    )
    return found, notes


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"entry": BLAKE3}, {}])
def test_of_two_one_fetches_and_the_other_waits(store: Store, known: dict[str, str]) -> None:
    remote = Remote(DATA)
    found, notes = together(store, remote, expected(**known))

    assert found == [BLAKE3, BLAKE3]
    assert notes.notes == ["another process is fetching m.bin: waiting for it"]
    assert remote.given <= len(DATA) + 4 * (1 << 20)


def test_without_a_name_of_the_version_both_fetch(store: Store) -> None:
    """Nothing would tell that the server has still what it had."""
    remote = Remote(DATA)
    remote.validator = ""
    found, _ = together(store, remote, expected())

    assert found == [BLAKE3, BLAKE3]
    assert remote.given == 2 * len(DATA)


def test_the_other_takes_over_where_the_first_ends(store: Store) -> None:
    held = partial.hold(store.volume, expected().key, lambda _: True)
    assert held is not None
    with held.content() as file:
        file.is_version(len(DATA), '"1"')
        file.write(DATA[: 10 << 20], 0)
        file.wrote(0, 10 << 20)
    notes, remote = Notes(), Remote(DATA)
    found: list[EntryId] = []
    thread = threading.Thread(target=lambda: found.append(one(store, remote, progress=notes)))
    thread.start()
    while not notes.notes:
        pass
    os.close(held.descriptor)
    thread.join(60)

    assert found == [BLAKE3]
    assert remote.given <= len(DATA) - (10 << 20) + (1 << 20)


def test_who_waits_can_be_stopped(store: Store) -> None:
    held = partial.hold(store.volume, expected().key, lambda _: True)
    assert held is not None
    stop = threading.Event()
    stop.set()
    with held, pytest.raises(parallel.Stopped):
        one(store, Remote(DATA), stop=stop)


FILES = {
    "config.json": b"{}",
    "unet/model.safetensors": DATA,
    "unet/config.json": b"{ }",
    "a/b/c.txt": b"",
}


def many(store: Store, remotes: dict[str, Remote], **known: str) -> EntryId:
    files = [
        (path, remotes[path], Expected(path, f"{URL}/{path}", "spec", **known))  # type: ignore[arg-type]
        for path in sorted(FILES)
    ]
    access = Access(connections=Connections(2))
    return fetch.folder(store, "pipe", files, access, anything, origin=URL, where="spec")


def remotes() -> dict[str, Remote]:
    return {path: Remote(data) for path, data in FILES.items()}


def test_a_folder_becomes_one_tree(store: Store, tmp_path: Path) -> None:
    entry = many(store, remotes())

    place = Path(store.get(entry))
    assert place.name == "pipe"
    assert {path: (place / path).read_bytes() for path in FILES} == FILES
    document = store.manifest(entry)
    assert isinstance(document, TreeManifest)
    assert (document.origin, document.size) == (URL, sum(map(len, FILES.values())))
    assert not store.verify(entry)
    assert not left(store)
    for path, data in FILES.items():
        copy = tmp_path / "pipe" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)
    assert store.add(str(tmp_path / "pipe")) == entry


def test_a_folder_is_gone_on_with(store: Store) -> None:
    first = remotes()
    first["unet/model.safetensors"].breaks = [8 << 20, *[0] * 99]
    with pytest.raises(SourceError):
        many(store, first)
    second = remotes()
    many(store, second)

    assert second["unet/model.safetensors"].given < len(DATA)
    assert sum(remote.given for remote in second.values()) < len(DATA)


def test_other_bytes_of_a_folder(store: Store) -> None:
    with pytest.raises(IntegrityError, match=r"^spec: \S+ .*expected is 0+: nothing"):
        many(store, remotes(), sha256="0" * 64)

    assert not list(store.ids())


def test_a_disk_without_room_is_said(store: Store) -> None:
    with pytest.raises(StoreError, match=r"^m\.bin needs 1000000\.0 TB more, .* free on /"):
        fetch.check_room(store, "m.bin", 10**18)
