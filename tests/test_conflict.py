"""Telling which two requirers contradict each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from cvs.versions import conflict, interpreter
from cvs.versions.requirements import Requirement
from cvs.versions.spec import PythonSettings

PROBE = interpreter.probe(interpreter.find(None))

VERSIONS = st.builds(
    lambda parts, end: ".".join(map(str, parts)) + end,
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.sampled_from(["", "", "", "rc1", ".post1"]),
)
SPECIFIERS = st.builds(
    lambda operator, version: operator + version,
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    VERSIONS,
)


def _find(*wanted: tuple[str, str], **settings: tuple[str, ...]) -> str | None:
    requirements = [Requirement(text, requirer, "") for requirer, text in wanted]
    return conflict.find(requirements, PythonSettings(**settings), PROBE)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("<2", ">=2"),
        ("==1.26.4", "==2.*"),
        ("~=1.4.2", ">=1.5"),
        ("==2.13.0+cpu", "==2.13.0+cu130"),
        (">1", "<=1"),
        ("==1", "!=1"),
    ],
)
def test_ranges_without_a_common_version_are_a_contradiction(left: str, right: str) -> None:
    found = _find(("A", f"n{left}"), ("B", f"N{right}"), ("C", "n"))

    assert found == f"'A' and 'B' contradict each other on n: A wants n{left}, B wants n{right}"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("<2", ">=1.99999"),
        ("==2.13.0+cpu", "==2.13.0"),
        (">1.0", "<1.0.0.5"),
        ("==1.4.*", ">1.4.2"),
        (">=1!2", "<1!3"),
        ("===what", "==2"),
        (">=2.0rc1", "<=2.0rc1"),
    ],
)
def test_ranges_that_meet_are_none(left: str, right: str) -> None:
    assert _find(("A", f"n{left}"), ("B", f"n{right}")) is None


@given(st.lists(SPECIFIERS, max_size=4), VERSIONS)
def test_no_contradiction_is_seen_where_a_version_fits(texts: list[str], version: str) -> None:
    specifiers = SpecifierSet(",".join(texts))

    if specifiers.contains(version, prereleases=True):
        assert conflict._possible(specifiers)


def test_markers_decide_whether_a_requirement_counts() -> None:
    minor = ".".join(PROBE.version.split(".")[:2])

    assert _find(("A", f"n<2; python_version != '{minor}'"), ("B", "n>2")) is None
    assert _find(("A", f"n<2; python_version == '{minor}'"), ("B", "n>2")) is not None
    assert _find(("A", "n<2; extra == 'x'"), ("B", "n>2")) is None


def test_what_is_left_out_contradicts_nobody() -> None:
    """Neither what the image provides, nor what an override takes out by a marker."""
    asked = [("A", "n<2"), ("B", "n>2")]

    assert _find(*asked) is not None
    assert _find(*asked, provided=("N>=1",)) is None
    assert _find(*asked, overrides=("n; python_version < '3'",)) is None


SAID = (
    "Because x==2 depends on dep>=3 and x>=3 depends on dep>=4, we can conclude that x>=2 depends "
    "on dep>=3. And because you require dep<3.0.dev1 and X_y[a]>=2, your requirements are "
    "unsatisfiable."
)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (SAID, ["A (x-y[a]>=2)", "B (dep<3)"]),
        (SAID.replace("dep<3.0.dev1 and ", ""), ["A (x-y[a]>=2)"]),
        ("Because only dep==5 is available and you require one of: dep<3 dep>9", ["B (dep<3)"]),
        ("you require free and dep. And because", ["B (dep<3)", "A (free)", "C (free)"]),
        ("Because only x==1 is available, your requirements are unsatisfiable.", []),
    ],
)
def test_who_is_blamed(said: str, found: list[str]) -> None:
    """Who asks for what an explanation rests upon; without a range only where nobody has one."""
    wanted = [
        Requirement(text, requirer, "")
        for requirer, text in [
            ("A", "x-y[a]>=2; python_version > '3'"),
            ("A", "free"),
            ("A", "dep"),
            ("B", "dep<3"),
            ("B", "unrelated==1"),
            ("C", "free"),
        ]
    ]
    assert sorted(conflict.blamed(said, wanted, PythonSettings())) == sorted(found)


def test_overrides_replace_what_everyone_asks_and_constraints_ask_too() -> None:
    assert _find(("A", "n<2"), ("B", "n>2"), overrides=("n==5",)) is None
    assert _find(("A", "n<2"), constraints=("n>2",)) == (
        "'A' and 'python.constraints' contradict each other on n: "
        "A wants n<2, python.constraints wants n>2"
    )
    assert _find(("A", "n<2"), ("A", "n>2")) == "'A' contradicts itself on n: it wants n<2,>2"
