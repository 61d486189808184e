"""Archives are held to their limits before anything of them is unpacked."""

import os
import zipfile
from pathlib import Path

import pytest
import zipmaker
from zipmaker import Member

from cvs.versions import archive
from cvs.versions.archive import Bad, opened


def names(folder: Path, data: bytes) -> list[str]:
    """What an archive has, if it is one."""
    path = folder / "x.zip"
    path.write_bytes(data)
    with opened(str(path)) as found:
        return found.namelist()


SOME = [Member(b"a", b"1" * 100), Member(b"b/", b""), Member(b"b/c", b"2" * 100)]


@pytest.mark.parametrize("zip64", [False, True], ids=["plain", "zip64"])
def test_sound_archives_are_opened(tmp_path: Path, zip64: bool) -> None:
    """With a comment, without members, and as those beyond 4 GiB end; as zipfile writes them."""
    assert names(tmp_path, zipmaker.archive(SOME, zip64=zip64)) == ["a", "b/", "b/c"]
    assert names(tmp_path, zipmaker.archive(SOME, zip64=zip64, comment=b"x" * 0xFFFF)) != []
    assert names(tmp_path, zipmaker.archive([], zip64=zip64)) == []
    with zipfile.ZipFile(tmp_path / "own.zip", "w", zipfile.ZIP_DEFLATED) as own:
        with own.open("streamed", "w", force_zip64=zip64) as member:
            member.write(os.urandom(1000))
    with opened(str(tmp_path / "own.zip")) as found:
        assert len(found.read("streamed")) == 1000


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is counted before it is read, whatever its end says of the count."""
    monkeypatch.setattr(archive, "MEMBER_LIMIT", 2)
    with pytest.raises(Bad, match="has 3 files, too many"):
        names(tmp_path, zipmaker.archive(SOME))
    with pytest.raises(Bad, match="does not have the files that it counts"):
        names(tmp_path, zipmaker.archive(SOME, count=2))
    monkeypatch.setattr(archive, "DIRECTORY_LIMIT", 100)
    with pytest.raises(Bad, match="has a directory of 150 bytes, too many"):
        names(tmp_path, zipmaker.archive([Member(b"x" * 104)]))


def test_members_that_share_bytes(tmp_path: Path) -> None:
    """Each member has bytes of its own: overlapping ones are how 10 MB become 281 TB."""
    packed = zipmaker.deflated(bytes(100_000))
    kernel = Member(b"k", bytes(100_000), packed=packed)
    for lying in (
        [kernel, *(kernel._replace(name=b"%d" % n, offset=0) for n in range(9))],
        [SOME[0]._replace(line_packed=10_000), *SOME[1:]],
        [*SOME, SOME[2]._replace(name=b"d", offset=1)],
        [*SOME, SOME[2]._replace(name=b"d", offset=1 << 30)],
        [SOME[0]._replace(line_packed=100)],
    ):
        with pytest.raises(Bad, match="has files that lie over each other"):
            names(tmp_path, zipmaker.archive(lying))
