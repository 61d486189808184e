"""COMFY_HOME: one link, which never takes the place of what people keep there."""

import errno
import os
from pathlib import Path

import locks
import pytest
from faults import fail_at

from cvs.profiles import home, state
from cvs.profiles.generations import Profile
from cvs.store import fs
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.volume import Volume

HINT = "--replace moves it aside and keeps it, --target DIR names another place"


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def profile(store: Store) -> Profile:
    """A version with a generation."""
    locks.generation(store, locks.stored(store))
    return Profile(store.volume, "x")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where COMFY_HOME is to be."""
    return tmp_path / "home" / "ComfyUI"


def point(place: Path, profile: Profile, *, replace: bool = False) -> str | None:
    """Points COMFY_HOME at a version."""
    return home.point(str(place), profile, replace=replace)


def assert_points(place: Path, profile: Profile) -> None:
    """The link leads to the current generation, and nothing lies beside it."""
    assert place.is_symlink()
    assert os.path.samefile(place, profile.view(profile.current() or 0))
    assert (place / "main.py").read_bytes() == locks.CORE["main.py"]
    assert home.version_at(str(place), profile.volume.profiles) == profile.version


# Pointing.


def test_a_link_is_made(profile: Profile, place: Path) -> None:
    """Where nothing is, there is a link, and the folder that it lies in."""
    assert point(place, profile) is None
    assert_points(place, profile)

    assert os.listdir(place.parent) == ["ComfyUI"]


def test_pointing_again_changes_nothing(profile: Profile, place: Path) -> None:
    """The same link stays, to the inode."""
    point(place, profile)
    before = os.lstat(place)

    assert point(place, profile) is None
    assert os.lstat(place).st_ino == before.st_ino


def test_the_link_follows_every_switch(store: Store, profile: Profile, place: Path) -> None:
    """It leads to `current`, so it is right after each switch."""
    point(place, profile)
    locks.generation(store, locks.stored(store, models={"vae/m": b"1"}))

    assert_points(place, profile)
    assert (place / "models" / "vae" / "m").read_bytes() == b"1"


def test_another_version(store: Store, profile: Profile, place: Path) -> None:
    """A link of cvs is re-pointed in one rename."""
    point(place, profile)
    locks.generation(store, locks.stored(store, version="y"))
    other = Profile(store.volume, "y")

    assert point(place, other) is None
    assert_points(place, other)


def test_a_link_elsewhere_is_absolute(profile: Profile, place: Path) -> None:
    """On another file system there is nothing that it could be relative to."""
    point(place, profile)

    assert os.readlink(place) == profile.current_link


def test_a_link_on_the_volume_is_relative(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the cache root, on the file system that is mounted: it moves along."""
    mount = os.path.dirname(profile.volume.root)
    monkeypatch.setattr(state, "mount_point", lambda _: mount)
    place = Path(mount, "builds", "comfy-x")
    point(place, profile)
    assert os.readlink(place) == "../cache/profiles/x/current"
    assert_points(place, profile)
    moved = Path(mount, "elsewhere")
    moved.mkdir()
    for name in ("cache", "builds"):
        os.rename(Path(mount, name), moved / name)

    assert_points(moved / "builds" / "comfy-x", Profile(Volume(str(moved / "cache")), "x"))


def test_a_link_inside_the_cache_root_is_relative(profile: Profile) -> None:
    """What lies in the cache root moves with it, on any disk."""
    place = Path(profile.volume.root, "ComfyUI")
    point(place, profile)

    assert os.readlink(place) == "profiles/x/current"
    assert_points(place, profile)


def test_folders_above_it_may_be_links(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative link is relative to where it really lies."""
    mount = os.path.dirname(profile.volume.root)
    monkeypatch.setattr(state, "mount_point", lambda _: mount)
    Path(mount, "deep", "er").mkdir(parents=True)
    Path(mount, "short").symlink_to("deep/er")
    place = Path(mount, "short", "ComfyUI")
    point(place, profile)

    assert os.readlink(place) == "../../cache/profiles/x/current"
    assert_points(place, profile)


def test_a_dangling_link_of_ours(profile: Profile, place: Path) -> None:
    """A link that was made for a volume of another place is replaced."""
    place.parent.mkdir()
    for target in ("/gone/cache/profiles/x/current", "../gone/profiles/y/current"):
        place.unlink(missing_ok=True)
        place.symlink_to(target)

        assert point(place, profile) is None
        assert_points(place, profile)


def test_an_empty_folder(profile: Profile, place: Path) -> None:
    """A folder with nothing in it is nothing to keep."""
    place.mkdir(parents=True)

    assert point(place, profile) is None
    assert_points(place, profile)


# What is there already.


def occupy(place: Path, kind: str) -> None:
    """Puts something of the user's own at COMFY_HOME."""
    place.parent.mkdir(exist_ok=True)
    if kind == "folder":
        for name in ("output", "models", "custom_nodes/x"):
            (place / name).mkdir(parents=True)
        (place / "output" / "picture.png").write_bytes(b"picture")
    elif kind == "small folder":
        place.mkdir()
        (place / "x").write_text("")
    elif kind == "file":
        place.write_text("text")
    elif kind == "empty link":
        (place.parent / "empty").mkdir()
        place.symlink_to("empty")
    else:
        place.symlink_to({"link": "..", "dangling link": "nowhere"}[kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("folder", "a real folder with output, models, custom_nodes in it, not a link of cvs"),
        ("small folder", "a real folder, not a link of cvs"),
        ("file", "a real file, not a link of cvs"),
        ("link", "a link to .., not one of cvs"),
        ("dangling link", "a link to nowhere, not one of cvs"),
        ("empty link", "a link to empty, not one of cvs"),
    ],
)
def test_what_is_real_is_refused(profile: Profile, place: Path, kind: str, message: str) -> None:
    """What cvs did not make is left alone, and the cure is named."""
    occupy(place, kind)
    before = os.lstat(place)
    with pytest.raises(InputError) as caught:
        point(place, profile)

    assert caught.value.message == f"COMFY_HOME {place} is {message}"
    assert caught.value.hint == HINT
    assert os.lstat(place) == before


@pytest.mark.parametrize(
    "kind", ["folder", "small folder", "file", "link", "dangling link", "empty link"]
)
def test_replacing_moves_it_aside(profile: Profile, place: Path, kind: str) -> None:
    """With --replace it is moved beside and kept as it is, to the inode."""
    occupy(place, kind)
    before = os.lstat(place)
    moved = point(place, profile, replace=True)

    assert moved is not None
    assert moved.startswith(f"{place}.before-cvs-")
    assert os.path.samestat(os.lstat(moved), before)
    if kind == "folder":
        assert Path(moved, "output", "picture.png").read_bytes() == b"picture"
    assert_points(place, profile)
    assert point(place, profile, replace=True) is None


def test_replacing_nothing(profile: Profile, place: Path) -> None:
    """With --replace and nothing there, nothing is moved; nor is an empty folder kept."""
    assert point(place, profile, replace=True) is None
    place.unlink()
    place.mkdir()
    assert point(place, profile, replace=True) is None

    assert os.listdir(place.parent) == ["ComfyUI"]


@pytest.mark.parametrize("replace", [False, True])
def test_the_volume_is_never_replaced(profile: Profile, replace: bool) -> None:
    """A place that holds the volume, or is the volume's own, is refused whatever is asked."""
    root = profile.volume.root
    for place, message in (
        (root, f"is where the volume {root} lies"),
        (os.path.dirname(root), f"is where the volume {root} lies"),
        (f"{root}/profiles/x/current", "is a place of the volume's own"),
        (f"{root}/store/ComfyUI", "is a place of the volume's own"),
        (f"{root}/tmp", "is a place of the volume's own"),
    ):
        with pytest.raises(InputError) as caught:
            home.check(place, profile.volume, replace=replace)

        assert caught.value.message == f"COMFY_HOME {place} {message}"
    assert profile.current() == 1


def test_a_place_that_cannot_be(profile: Profile, tmp_path: Path) -> None:
    """Below a file there is no place for a link."""
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "deep" / "ComfyUI"
    with pytest.raises(InputError) as caught:
        point(place, profile)

    assert caught.value.message == f"COMFY_HOME {place} cannot be made in {tmp_path / 'file'}"


@pytest.mark.parametrize("kind", ["folder", "ours"])
def test_pointing_may_fail(store: Store, profile: Profile, place: Path, kind: str) -> None:
    """Whichever change fails, what people keep is there, here or aside, and no scrap is left."""
    if kind == "folder":
        occupy(place, "folder")
    else:
        point(place, profile)
        locks.generation(store, locks.stored(store, version="y"))
    wanted = Profile(store.volume, "y" if kind == "ours" else "x")
    number, failed = 1, True
    while failed:
        try:
            with fail_at(number):
                point(place, wanted, replace=True)
            failed = False
        except OSError:
            number += 1
        beside = [path for path in place.parent.iterdir() if path != place]
        if failed:
            assert all(".before-cvs-" in path.name for path in beside)
        beside = [path for path in beside if ".before-cvs-" in path.name]
        if kind == "ours":
            assert (place / "main.py").exists()
        else:
            kept = place if not beside else beside[0]
            assert (kept / "output" / "picture.png").read_bytes() == b"picture"

    assert number > 2
    assert_points(place, wanted)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "stalled"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["rename", "symlink"])
def test_what_was_moved_aside_comes_back(
    profile: Profile,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: BaseException,
) -> None:
    """Where the link cannot be made, what was at COMFY_HOME is there again: no message would say
    where it went, also when the move was done and its answer lost."""
    occupy(place, "folder")
    real = getattr(fs, call)
    errors = [error]

    def once(*arguments: str) -> None:
        real(*arguments)
        if errors:
            raise errors.pop()

    monkeypatch.setattr(fs, call, once)
    with pytest.raises(type(error)):
        point(place, profile, replace=True)

    assert (place / "output" / "picture.png").read_bytes() == b"picture"
    assert os.listdir(place.parent) == [place.name]


def test_moving_aside_twice_at_once(profile: Profile, place: Path) -> None:
    """Each has a name of its own, however quickly one follows the other."""
    moved = []
    for _ in range(3):
        occupy(place, "folder")
        moved.append(point(place, profile, replace=True))
        place.unlink()

    assert len(set(moved)) == 3
    assert all((Path(str(name)) / "output" / "picture.png").is_file() for name in moved)


def test_what_a_killed_one_left_goes(profile: Profile, place: Path) -> None:
    """Also where the link was made already and is as it should be."""
    point(place, profile)
    (place.parent / (".cvs-" + "0" * 32)).mkdir()
    point(place, profile)

    assert os.listdir(place.parent) == [place.name]


# Which version is there.


def test_the_version_that_a_link_leads_to(profile: Profile, place: Path, tmp_path: Path) -> None:
    """Only a link into this volume's profiles names a version."""
    profiles = profile.volume.profiles
    assert home.version_at(str(place), profiles) is None
    place.mkdir(parents=True)
    assert home.version_at(str(place), profiles) is None
    place.rmdir()
    for target, version in (
        (f"{profiles}/x/current", "x"),
        (f"{profiles}/gone/current", "gone"),
        (f"{profiles}/x/1", None),
        (f"{profiles}/x", None),
        (f"{tmp_path}/profiles/x/current", None),
        ("..", None),
    ):
        place.unlink(missing_ok=True)
        place.symlink_to(target)

        assert home.version_at(str(place), profiles) == version
