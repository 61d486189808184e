"""Building one wheel: source archives are unpacked safely, wheels get one form."""

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import wheelmaker
from hypothesis import given
from hypothesis import strategies as st

from cvs.store.errors import SourceError
from cvs.versions import building
from cvs.versions.archive import Bad


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    with tarfile.open(path, "w:gz") as output:
        for member, data in members:
            member.size = len(data)
            output.addfile(member, io.BytesIO(data))
    return str(path)


def file(name: str, data: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, data


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"])
def test_unpack(tmp_path: Path, ending: str) -> None:
    """Every kind of archive that requirements may name; the one folder in it is the project."""
    path, made = tmp_path / f"a-1{ending}", tmp_path / "made"
    made.mkdir()
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a-1/setup.py", "x")
            archive.writestr("a-1/below/b", "y")
    else:
        kind = {".tar.gz": "gz", ".tgz": "gz", ".tar.bz2": "bz2", ".tar.xz": "xz"}[ending]
        with tarfile.open(path, f"w:{kind}") as output:  # type: ignore[call-overload]
            for name, data in (("a-1/setup.py", b"x"), ("a-1/below/b", b"y")):
                member = tarfile.TarInfo(name)
                member.size = 1
                output.addfile(member, io.BytesIO(data))

    project = building.unpack(str(path), str(made))

    assert project == str(made / "a-1")
    assert (made / "a-1/setup.py").read_bytes() == b"x"
    assert (made / "a-1/below/b").read_bytes() == b"y"


def test_unpack_without_a_folder(tmp_path: Path) -> None:
    """An archive of files alone is the project itself."""
    made = tmp_path / "made"
    made.mkdir()

    assert building.unpack(tar(tmp_path / "a.tar.gz", file("setup.py")), str(made)) == str(made)


@pytest.mark.parametrize(
    "member",
    [
        file("../outside"),
        file("a/../../outside"),
        file("a/link", b"", type=tarfile.SYMTYPE, linkname="../../outside"),
        file("a/link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        file("a/link", b"", type=tarfile.LNKTYPE, linkname="../../outside"),
        file("a/device", b"", type=tarfile.CHRTYPE),
    ],
)
def test_unpack_stays_inside(tmp_path: Path, member: tuple[tarfile.TarInfo, bytes]) -> None:
    """What would lie outside, lead there, or be a device is refused; nothing is outside."""
    made = tmp_path / "made"
    made.mkdir()
    path = tar(tmp_path / "a.tar.gz", member)

    with pytest.raises(SourceError, match=r"^the source archive a.tar.gz cannot be unpacked: "):
        building.unpack(path, str(made))
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz", "made"]


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside"])
def test_unpack_a_zip_stays_inside(tmp_path: Path, name: str) -> None:
    """The same of a zip."""
    made = tmp_path / "made"
    made.mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "x")

    with pytest.raises(SourceError, match="has a file that would lie outside"):
        building.unpack(str(tmp_path / "a.zip"), str(made))
    assert list(made.iterdir()) == []


def test_absolute_names_are_taken_below(tmp_path: Path) -> None:
    """As tar does it: the slash is dropped."""
    made = tmp_path / "made"
    made.mkdir()
    building.unpack(tar(tmp_path / "a.tar.gz", file("/a/setup.py")), str(made))

    assert (made / "a/setup.py").is_file()


def test_unpack_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that would fill the disk is refused before anything of it is written."""
    made = tmp_path / "made"
    made.mkdir()
    monkeypatch.setattr(building, "_SPARE", 1 << 10)
    bomb = tar(tmp_path / "a.tar.gz", file("a", bytes(10 << 20)))

    with pytest.raises(SourceError, match="would unpack to 10485760 bytes, too many"):
        building.unpack(bomb, str(made))
    assert list(made.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b" + bytes(20)])
def test_unpack_what_is_none(tmp_path: Path, data: bytes) -> None:
    """A file that is no archive is one sentence."""
    path = tmp_path / "a.tar.gz"
    path.write_bytes(data)

    with pytest.raises(SourceError, match=r"^the source archive a.tar.gz cannot be unpacked: "):
        building.unpack(str(path), str(tmp_path))


NAMES = st.text("ab/.", min_size=1, max_size=8).filter(
    lambda name: all(part not in ("", ".", "..") for part in name.split("/"))
)


@given(
    st.dictionaries(NAMES, st.binary(max_size=50), max_size=8),
    st.randoms(use_true_random=False),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_one_form(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, bytes],
    random: Random,
    method: int,
) -> None:
    """Order, times, compression and modes of an archive leave no trace but the executable bit."""
    folder = tmp_path_factory.mktemp("wheels")
    names = sorted(files)
    made = []
    for turn in range(2):
        path = folder / f"{turn}.whl"
        random.shuffle(names)
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                when = (1990 + random.randrange(100), 1, 2, 3, 4, 6)
                member = zipfile.ZipInfo(name, when)
                member.compress_type = method if turn else zipfile.ZIP_STORED
                executable = name.startswith("a")
                mode = random.choice([0o755, 0o700]) if executable else random.choice([0o644, 0])
                member.external_attr = (stat.S_IFREG | mode) << 16
                archive.writestr(member, files[name])
        target = folder / f"{turn}-done.whl"
        building.normalize(str(path), str(target))
        made.append(target.read_bytes())
    again = folder / "again.whl"
    building.normalize(str(target), str(again))

    assert made[0] == made[1] == again.read_bytes()
    with zipfile.ZipFile(again) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files


def test_record_is_sorted(tmp_path: Path) -> None:
    """RECORD has the order in which a build tool met the files: of one wheel there is one order."""
    made = []
    for turn, order in enumerate([lambda rows: rows, lambda rows: rows[::-1]]):
        record: Callable[[list[list[str]]], list[list[str]]] = order
        path = wheelmaker.make(
            str(tmp_path / str(turn)), "a", "1", {"b": "", "a": ""}, record=record
        )
        building.normalize(path, str(tmp_path / f"{turn}.whl"))
        made.append((tmp_path / f"{turn}.whl").read_bytes())

    assert made[0] == made[1]


def test_what_is_no_archive_has_no_form(tmp_path: Path) -> None:
    """It is refused as every archive is."""
    (tmp_path / "a.whl").write_bytes(b"nothing")

    with pytest.raises(Bad, match="is damaged"):
        building.normalize(str(tmp_path / "a.whl"), str(tmp_path / "b.whl"))


def test_the_time_of_a_build() -> None:
    """Seconds since 1970 in UTC, and never before 1980, where zip begins."""
    assert building.seconds("2026-02-03T04:05:06Z") == 1770091506
    assert building.seconds("1970-01-01T00:00:00Z") == building.seconds("") == 315619200
