"""COMFY_HOME: one symlink to a version's `current`, where people look for `main.py`."""

import contextlib
import datetime
import itertools
import os

from cvs.profiles import state
from cvs.profiles.generations import Profile
from cvs.store import fs, scratch
from cvs.store.errors import InputError
from cvs.store.volume import FOLDERS, Volume

_ELSEWHERE = "--target DIR names another place"

#: What of a real ComfyUI folder people would miss.
PRECIOUS = ("output", "user", "input", "models", "custom_nodes")


def target(home: str, profile: Profile) -> str:
    """What the link at `home` must say."""
    return state.link_target(profile.current_link, os.path.dirname(home), profile.volume)


def check(home: str, volume: Volume, *, replace: bool) -> None:
    """Refuses a COMFY_HOME that the link may not take the place of.

    Raises:
        InputError: a real folder or file is there and `replace` is not given; or the volume itself
            is there, or the place is one of its own.
    """
    root, place = os.path.realpath(volume.root), _real_place(home)
    if place == root or root.startswith(place + "/"):
        raise InputError(
            f"COMFY_HOME {home} is where the volume {volume.root} lies", hint=_ELSEWHERE
        )
    if any(place == own or place.startswith(own + "/") for own in _own_folders(root)):
        raise InputError(f"COMFY_HOME {home} is a place of the volume's own", hint=_ELSEWHERE)
    parent = os.path.dirname(home)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent) or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"COMFY_HOME {home} cannot be made in {parent}", hint=_ELSEWHERE)
    if _is_ours(home) or not os.path.lexists(home) or replace:
        return
    if os.path.islink(home):
        raise InputError(
            f"COMFY_HOME {home} is a link to {os.readlink(home)}, not one of cvs",
            hint=f"--replace moves it aside and keeps it, {_ELSEWHERE}",
        )
    if os.path.isdir(home) and not os.listdir(home):
        return
    kept = [name for name in PRECIOUS if os.path.isdir(os.path.join(home, name))]
    inside = f" with {', '.join(kept)} in it" if kept else ""
    raise InputError(
        f"COMFY_HOME {home} is a real {'folder' if os.path.isdir(home) else 'file'}{inside}, "
        "not a link of cvs",
        hint=f"--replace moves it aside and keeps it, {_ELSEWHERE}",
    )


def point(home: str, profile: Profile, *, replace: bool) -> str | None:
    """Points COMFY_HOME at the version; returns where a real folder was moved, if one was.

    Raises:
        InputError: as `check`.
    """
    check(home, profile.volume, replace=replace)
    wanted = target(home, profile)
    fs.makedirs(os.path.dirname(home))
    # What a process left that was killed when its link was made: nothing else may be left to do.
    scratch.sweep(os.path.dirname(home), scratch.BESIDE)
    moved = None
    if _is_ours(home):
        if os.readlink(home) == wanted:
            return None
    elif os.path.isdir(home) and not os.path.islink(home) and not os.listdir(home):
        fs.rmdir(home)
    elif os.path.lexists(home):
        moved = _aside(home)
    try:
        if moved is not None:
            fs.rename(home, moved)
        scratch.replace_symlink(wanted, home)
    except BaseException:
        if moved is not None and os.path.lexists(moved) and not os.path.lexists(home):
            # Nobody would be told where it went.
            with contextlib.suppress(OSError):
                fs.rename(moved, home)
        raise
    fs.sync_folder(os.path.dirname(home))
    return moved


def _aside(home: str) -> str:
    """A name for what is moved out of the way, which nothing has."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    first = f"{home}.before-cvs-{stamp}"
    names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def _real_place(home: str) -> str:
    """Where a link at `home` really lies: the folders above it may be links themselves."""
    parent, name = os.path.split(os.path.abspath(home))
    return os.path.join(os.path.realpath(parent), name)


def _own_folders(root: str) -> list[str]:
    """The folders of a volume that nothing else has a place in."""
    shared = ("models", "state")
    return [os.path.join(root, name) for name in FOLDERS if name not in shared]


def _is_ours(home: str) -> bool:
    """Whether a link at `home` was made by cvs, for this volume or one that was moved since."""
    if not os.path.islink(home):
        return False
    parts = os.readlink(home).split("/")
    return len(parts) >= 3 and parts[-3] == "profiles" and parts[-1] == "current"


def version_at(home: str, profiles: str) -> str | None:
    """The version that a link at `home` leads to, if it leads into profiles/."""
    if not os.path.islink(home):
        return None
    path = os.path.join(os.path.dirname(_real_place(home)), os.readlink(home))
    parent, name = os.path.split(os.path.normpath(path))
    folder, version = os.path.split(parent)
    if name == "current" and os.path.realpath(folder) == os.path.realpath(profiles):
        return version
    return None
