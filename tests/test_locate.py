"""Every kind of source behind one door; the sites and buckets have tests of their own."""

import hashlib
from pathlib import Path

import pytest

from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, SourceError
from cvs.store.progress import Progress
from cvs.store.volume import Volume
from cvs.versions import locate, models, sources
from cvs.versions.access import Access
from cvs.versions.located import Located
from cvs.versions.lock import Model
from cvs.versions.sources import HuggingFace, Local, Stored, Web
from cvs.versions.spec import Model as Wanted

DATA = bytes(range(256)) * 20
SHA256 = hashlib.sha256(DATA).hexdigest()
WHERE = "versions/x.json: models[0]"
OFFLINE = Access(offline=True)


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


class Heard(Progress):
    """Remembers notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def near(tmp_path: Path) -> str:
    """A file of this machine."""
    path = tmp_path / "m.bin"
    path.write_bytes(DATA)
    return str(path)


def wanted(*texts: str, sha256: str | None = None) -> Wanted:
    """What a spec asks for."""
    return Wanted(
        name="m.bin", source=texts[0], path="m.bin", sha256=sha256, where=WHERE, mirrors=texts[1:]
    )


def locked(source: str, *mirrors: str) -> Model:
    """What a lock has."""
    return Model(
        name="m.bin",
        path="m.bin",
        request="",
        source=source,
        size=None,
        sha256=None,
        entry=None,
        mirrors=mirrors,
    )


def test_a_local_mirror(store: Store, near: str, tmp_path: Path) -> None:
    """A file of this machine may be one of several sources; the lock names the others alone."""
    missing, url = f"{tmp_path}/none", "https://me:pass@h/m.bin?token=x"
    want = wanted(missing, near, url)
    heard = Heard()
    described = locate.describe(store, want, Access(offline=True, progress=heard))
    assert heard.notes == [
        f"{WHERE}.sources[0]: {missing}: No such file or directory; the next source is tried"
    ]

    assert (described.source, described.mirrors) == ("", ("https://h/m.bin",))
    assert described.size == len(DATA)
    assert models.ensure(store, want, described, OFFLINE).sha256 == SHA256


def test_none_of_several(store: Store, tmp_path: Path) -> None:
    """Each source's reason is told."""
    first, second = f"{tmp_path}/a", f"{tmp_path}/b"
    with pytest.raises(SourceError) as caught:
        locate.describe(store, wanted(first, second), OFFLINE)

    assert caught.value.message == (
        f"{WHERE}: no source of m.bin has it: "
        f"{WHERE}.sources[0]: {first}: No such file or directory; "
        f"{WHERE}.sources[1]: {second}: No such file or directory"
    )


def test_a_mirror_with_other_bytes(store: Store, near: str, tmp_path: Path) -> None:
    """What has another digest is passed over, and told if nothing else has it."""
    other = tmp_path / "other.bin"
    other.write_bytes(DATA[::-1])
    want = wanted(str(other), near, sha256=SHA256)
    described = locate.describe(store, want, OFFLINE)
    found = models.ensure(store, want, described, OFFLINE)

    assert found.sha256 == SHA256
    assert len(list(store.ids())) == 1
    with pytest.raises(IntegrityError, match="expected is 000"):
        models.ensure(
            store,
            wanted(near, sha256="0" * 64),
            locate.describe(store, wanted(near, sha256="0" * 64), OFFLINE),
            OFFLINE,
        )


def test_entries(store: Store, near: str) -> None:
    """A prefix names an entry that is there; the lock has all of it."""
    with store.stage() as stage:
        (file,) = store.publish(stage.file([DATA]))
    with store.stage() as stage:
        (members,) = store.publish(stage.set([]))
    found = locate.locate(store, Stored(file[:8]), OFFLINE, WHERE)

    assert found == Located(f"cvs:{file}", "", len(DATA), SHA256, file)
    with pytest.raises(InputError, match="is a set of entries and no model"):
        locate.locate(store, Stored(members), OFFLINE, WHERE)
    with pytest.raises(InputError, match="no entry of the store begins with 00000000"):
        locate.locate(store, Stored("0" * 8), OFFLINE, WHERE)
    with pytest.raises(SourceError, match="the store has no entry 00000000"):
        locate.remote(Stored("0" * 8), OFFLINE)


@pytest.mark.parametrize(
    "source", [Local("/a"), HuggingFace("models", "o/r", "main", "", True), Stored("0" * 64)]
)
def test_what_is_no_file(source: sources.Source) -> None:
    """Folders and files of this machine are not fetched in ranges."""
    with pytest.raises(SourceError):
        locate.remote(source, OFFLINE)


_HUB = "https://huggingface.co/o/r/resolve"
_PIN = f"{_HUB}/{'a' * 40}/m.bin"


def test_origins() -> None:
    """Where the lock says, with the credentials of the spec; then the mirrors, in order."""
    plain = "https://me:pass@h/m.bin?token=x"
    public = "https://h/m.bin"
    pinned = sources.parse(_PIN, WHERE)

    assert locate.origins(wanted(plain), locked(public)) == [Web(plain)]
    assert locate.origins(wanted("hf://o/r/m.bin"), locked(_PIN)) == [pinned]
    both = locked(_PIN, public)
    assert locate.origins(wanted("hf://o/r/m.bin", plain), both) == [pinned, Web(plain)]
    assert locate.origins(wanted("/a/m.bin"), locked("")) == [Local("/a/m.bin")]
    # A lock without a spec.
    assert locate.origins(wanted(_PIN, public), both) == [pinned, Web(public)]
    # A lock of before the place was known.
    assert locate.origins(wanted(plain), locked("")) == [Web(plain)]


def test_the_token_of_a_source() -> None:
    """It is that of the place that was pinned, and not that of a mirror."""
    mine = "https://me:mine@huggingface.co/o/r/resolve/main/m.bin"
    other = "https://me:other@huggingface.co/p/r/resolve/main/m.bin"
    public = sources.parse(other, WHERE).public
    first, second = locate.origins(wanted(mine, other), locked(_PIN, public))

    assert isinstance(first, HuggingFace)
    assert isinstance(second, HuggingFace)
    assert (first.repo, first.revision, first.token) == ("o/r", "a" * 40, "mine")
    assert (second.repo, second.token) == ("p/r", "other")
