"""The quick way out of a realize that has nothing to do.

A realize that succeeded leaves a note on this host's own disk: a digest over all that it read, the
links that it left and the entries that it needs. While the digest and the links are as they were,
the environment is whole and the entries are there, unread, there is nothing to do. The note is
advice; without it, or with any option, the whole way is gone and finds the same.

Imports nothing but `os`, the settings and blake3: this is the most frequent of all runs.
"""

from __future__ import annotations

import os

from blake3 import blake3

from cvs.settings import Settings

# Not from typing, and collections.abc for the checker alone: both cost more than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def nothing_to_do(arguments: list[str], environment: Mapping[str, str]) -> str | None:
    """The line to print if a realize with these arguments has nothing to do, else None."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        return None
    settings = Settings(environment)
    try:
        with open(_note(settings, arguments[0]), encoding="utf-8") as file:
            lines = file.read().split("\n")
        version, number, made, entries, *links = lines
        if version != _fingerprint(settings, arguments[0]) or not _is_whole(made):
            return None
        for link in links:
            path, _, target = link.partition("\t")
            if os.readlink(path) != target:
                return None
        if not os.path.exists(f"{os.path.dirname(links[0].partition('	')[0])}/{number}/main.py"):
            return None
        needed = entries.split(" ")
        if not _damaged(settings).isdisjoint(needed):
            return None
        store = f"{settings.cache_root}/store"
        for entry in needed:
            os.stat(f"{store}/{entry}/manifest.json")
    except (OSError, ValueError, IndexError):
        return None
    return message(os.path.basename(arguments[0]).removesuffix(".json"), int(number))


def message(version: str, number: int) -> str:
    """What is said when there is nothing to do."""
    return f"{version}: generation {number} is current, nothing to do"


def remember(
    version: str,
    environment: Mapping[str, str],
    *,
    number: int,
    made: str,
    entries: Iterable[str],
) -> None:
    """Leaves the note after a realize of `version` without options.

    Args:
        number: the generation that is current now.
        made: the folder of its environment.
        entries: its closure.
    """
    from cvs.store import scratch

    settings = Settings(environment)
    name = os.path.basename(version).removesuffix(".json")
    profile = f"{settings.cache_root}/profiles/{name}"
    paths = [
        f"{profile}/current",
        settings.comfy_home(name),
        f"{settings.cache_root}/state/{name}/models",
    ]
    try:
        links = [f"{path}\t{os.readlink(path)}" for path in paths]
        lines = [_fingerprint(settings, version), str(number), made, " ".join(entries), *links]
        scratch.replace_file(_note(settings, version), "\n".join(lines).encode())
    except OSError:
        # Another realize is under way, or the disk is full: the next one takes the whole way.
        return


def _is_whole(made: str) -> bool:
    """What `environment.is_whole` says of an environment, without its imports.

    Raises:
        OSError: a marker is not there.
    """
    wheels = _read(f"{made}/.cvs").split(b"\n")[1:-1]
    if not wheels:
        return True
    started = _read("/proc/sys/kernel/random/boot_id")
    folder = os.fsencode(os.path.dirname(made)) + b"/wheels/"
    return all(_read(folder + wheel + b"/.cvs") == started for wheel in wheels)


def _read(path: str | bytes) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _damaged(settings: Settings) -> set[str]:
    try:
        return set(os.listdir(f"{settings.cache_root}/damaged"))
    except FileNotFoundError:
        return set()


def _note(settings: Settings, version: str) -> str:
    place = blake3(f"{settings.cache_root}\0{settings.spec_file(version)}".encode())
    return f"{settings.local_root}/realized/{place.hexdigest()[:32]}"


def _fingerprint(settings: Settings, version: str) -> str:
    """A digest over the spec, the lock and every setting that a realize depends on."""
    from cvs.main import VERSION

    name = os.path.basename(version).removesuffix(".json")
    digest = blake3()
    for path in (
        settings.spec_file(version),
        f"{settings.cache_root}/resolved/{name}.lock.json",
        f"{settings.cache_root}/format",
    ):
        with open(path, "rb") as file:
            data = file.read()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    for text in (
        VERSION,
        settings.comfy_home(name),
        settings.models_dir,
        *(settings.python or ()),
    ):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
