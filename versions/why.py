"""Who needs a Python package: the chains from what a version is made of to a wheel. Pure.

A lock has of each wheel the names that asked for it; a chain is walked from the wheel upwards.
"""

import collections
import heapq
from collections.abc import Mapping
from typing import Literal

import msgspec
from packaging.utils import canonicalize_name

from cvs.versions.lock import Lock, Wheel

Kind = Literal["core", "node", "python_packages", "package"]

#: The requirer of what the spec itself lists.
_PACKAGES = "python_packages"

#: Chains that are told at most: a few dozen packages that all ask for one another have more than
#: anybody could read.
LIMIT = 1000

#: How much is kept of chains that are not whole yet, in links: in circles most of them lead
#: nowhere.
_KEPT = 2_000_000
#: What one costs besides its links.
_COST = 10


class Link(msgspec.Struct, frozen=True):
    """One member of a chain."""

    kind: Kind
    name: str
    version: str | None = None
    """Of a package."""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a wheel is in a lock."""

    wheel: Wheel
    chains: tuple[tuple[Link, ...], ...]
    """Each from the core, a node or `python_packages` to the package, which is the last; the
    shortest first. None where nothing of these asks for it, directly or not."""
    complete: bool
    """Whether these are all chains."""


def packages(lock: Lock) -> dict[str, Wheel]:
    """The wheels of a lock by their canonical names."""
    return {canonicalize_name(one.name): one for one in reversed(lock.python.wheels)}


def why(lock: Lock, package: str) -> Reason | None:
    """Why a package is in a lock; None if it is not.

    Args:
        package: its name, canonical or not.
    """
    known = packages(lock)
    name = canonicalize_name(package)
    if name not in known:
        return None
    chains, complete = _chains(known, _roots(lock), name)
    return Reason(wheel=known[name], chains=chains, complete=complete)


def _roots(lock: Lock) -> dict[str, Kind]:
    """What a version is made of, by the names that requirers have."""
    roots: dict[str, Kind] = {_PACKAGES: "python_packages"}
    roots |= {node.name: "node" for node in lock.nodes}
    return roots | {lock.core.name: "core"}


def _chains(
    known: Mapping[str, Wheel], roots: Mapping[str, Kind], package: str
) -> tuple[tuple[tuple[Link, ...], ...], bool]:
    """The chains to a package, the shortest first, and whether these are all."""
    distances = _distances(known, roots)
    links = {name: Link("package", name, known[name].version) for name in distances}
    found: list[tuple[Link, ...]] = []
    # Looked at next is what can become the shortest chain; of equal ones what is one already.
    waiting: list[tuple[int, bool, tuple[str, ...]]] = []
    if package in distances:
        waiting.append((distances[package], True, (package,)))
    kept = 0
    while waiting and len(found) < LIMIT and kept < _KEPT:
        _, unfinished, path = heapq.heappop(waiting)
        if not unfinished:
            root = Link(roots[path[0]], path[0])
            found.append((root, *(links[name] for name in path[1:])))
            continue
        for requirer in dict.fromkeys(known[path[0]].required_by):
            name = canonicalize_name(requirer)
            kept += len(path) + _COST
            if requirer in roots:
                heapq.heappush(waiting, (len(path), False, (requirer, *path)))
            elif name in distances and name not in path:
                heapq.heappush(waiting, (len(path) + distances[name], True, (name, *path)))
    found.sort(key=lambda chain: (len(chain), [link.name for link in chain]))
    return tuple(found), not waiting


def _distances(known: Mapping[str, Wheel], roots: Mapping[str, Kind]) -> dict[str, int]:
    """How far each package is from the nearest root, in links; without those none reaches."""
    asked: dict[str, list[str]] = {}
    found: dict[str, int] = {}
    for name, wheel in known.items():
        for requirer in wheel.required_by:
            if requirer in roots:
                found[name] = 1
            else:
                asked.setdefault(canonicalize_name(requirer), []).append(name)
    waiting = collections.deque(found)
    while waiting:
        name = waiting.popleft()
        for further in asked.get(name, ()):
            if further not in found:
                found[further] = found[name] + 1
                waiting.append(further)
    return found
