"""Which two requirers contradict each other, told from their own requirements. Pure.

A resolver explains a conflict by the packages on the way; a user wants to know whom to ask. Two
ranges contradict each other when no version lies in both; since ranges change only at the
versions they name, trying those and their neighbours decides it.
"""

import contextlib
import itertools
from collections.abc import Sequence

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from cvs.versions.interpreter import Probe
from cvs.versions.requirements import Requirement
from cvs.versions.spec import PythonSettings


def find(wanted: Sequence[Requirement], settings: PythonSettings, probe: Probe) -> str | None:
    """A sentence on the first package that two requirers cannot agree on; None if none is found.

    Packages with an override are left out, since it replaces what everyone asks for, and so are
    those that the image provides.
    """
    environment = {key: str(value) for key, value in default_environment().items()}
    environment |= _target(probe)
    overridden = _names((*settings.overrides, *settings.provided))
    asked: dict[str, dict[str, SpecifierSet]] = {}
    pairs = [(one.requirer, one.text) for one in wanted]
    pairs += [("python.constraints", text) for text in settings.constraints]
    for requirer, text in pairs:
        for name, specifiers in _ranges([text], environment):
            if name not in overridden:
                ranges = asked.setdefault(name, {})
                ranges[requirer] = ranges.get(requirer, SpecifierSet()) & specifiers
    for name, ranges in sorted(asked.items()):
        for requirer, own in sorted(ranges.items()):
            if not _possible(own):
                return f"{requirer!r} contradicts itself on {name}: it wants {name}{own}"
        for (first, left), (second, right) in itertools.combinations(sorted(ranges.items()), 2):
            if not _possible(left & right):
                return (
                    f"{first!r} and {second!r} contradict each other on {name}: "
                    f"{first} wants {name}{left}, {second} wants {name}{right}"
                )
    return None


def _names(texts: Sequence[str]) -> set[str]:
    """The packages of requirements, whether or not their markers hold here."""
    found: set[str] = set()
    for text in texts:
        with contextlib.suppress(InvalidRequirement):
            found.add(canonicalize_name(Parsed(text).name))
    return found


def _ranges(texts: Sequence[str], environment: dict[str, str]) -> list[tuple[str, SpecifierSet]]:
    found: list[tuple[str, SpecifierSet]] = []
    for text in texts:
        try:
            parsed = Parsed(text)
        except InvalidRequirement:
            continue
        if parsed.marker is None or parsed.marker.evaluate({**environment, "extra": ""}):
            found.append((canonicalize_name(parsed.name), parsed.specifier))
    return found


def _target(probe: Probe) -> dict[str, str]:
    """What markers see of the interpreter that is resolved for."""
    return {
        "python_version": ".".join(probe.version.split(".")[:2]),
        "python_full_version": probe.version,
        "implementation_name": probe.implementation,
        "implementation_version": probe.version,
    }


def _possible(specifiers: SpecifierSet) -> bool:
    candidates = {Version("0"), Version("999999999")}
    for specifier in specifiers:
        try:
            version = Version(specifier.version.removesuffix(".*"))
        except InvalidVersion:
            # `===` may name what is no version; such a range decides nothing here.
            return True
        base = version.base_version
        parts = [int(part) for part in base.rpartition("!")[2].split(".")]
        epoch = f"{version.epoch}!" if version.epoch else ""
        candidates |= {version, Version(base), Version(base + ".0.0.1"), Version(base + ".post1")}
        candidates.add(Version(base + "rc1"))
        for place in range(len(parts)):
            for step in (-1, 1):
                if parts[place] + step >= 0:
                    near = [*parts[:place], parts[place] + step, *([0] if step > 0 else [9999999])]
                    candidates.add(Version(epoch + ".".join(map(str, near))))
    return any(specifiers.contains(candidate, prereleases=True) for candidate in candidates)
