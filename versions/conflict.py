"""Which two requirers contradict each other, told from their own requirements. Pure.

A resolver explains a conflict by the packages on the way; a user wants to know whom to ask. Two
ranges contradict each other when no version lies in both; since ranges change only at the
versions they name, trying those and their neighbours decides it.
"""

import contextlib
import itertools
import re
from collections.abc import Sequence

from packaging.markers import Marker, default_environment
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


def holds(marker: str, probe: Probe) -> bool:
    """Whether a marker holds for an interpreter of this system; the empty one does."""
    if not marker:
        return True
    environment = {key: str(value) for key, value in default_environment().items()}
    return Marker(marker).evaluate({**environment, **_target(probe), "extra": ""})


#: What a resolver says of the requirements that it was given itself.
_GIVEN = re.compile(r"you require (.+?)(?:, |\.(?:\s|$)| your requirements|$)")
_NAME = re.compile(r"(?:^|\s)([A-Za-z0-9][A-Za-z0-9._-]*)")


def blamed(said: str, wanted: Sequence[Requirement], settings: PythonSettings) -> list[str]:
    """Who asks for the packages that a resolver's explanation rests upon, and for what.

    Args:
        said: the explanation, on one line.

    Returns:
        `A (x>=2)`, `B (dep<3, y)`, one for each requirer. Who gives no range is named only where
        nobody does.
    """
    names = {
        canonicalize_name(name.rstrip(".-_"))
        for text in _GIVEN.findall(said)
        for name in _NAME.findall(text)
    }
    pairs = [(one.requirer, one.text) for one in wanted]
    asked: dict[str, list[tuple[str, str]]] = {}
    for requirer, text in pairs:
        for name in _names([text]) & names:
            asked.setdefault(name, []).append((requirer, text.partition(";")[0].strip()))
    found: dict[str, list[str]] = {}
    for some in asked.values():
        ranged = [(requirer, text) for requirer, text in some if re.search("[<>=~@]", text)]
        for requirer, text in ranged or some:
            found.setdefault(requirer, []).append(text)
    # A constraint is told as if the packages that it meets said so themselves.
    for text in settings.constraints:
        plain = text.partition(";")[0].replace(" ", "")
        if _names([text]) and plain in said:
            found.setdefault("python.constraints", []).append(plain)
    return [f"{requirer} ({', '.join(dict.fromkeys(texts))})" for requirer, texts in found.items()]


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
