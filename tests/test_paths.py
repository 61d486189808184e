"""Paths from documents stay below their folder."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvs.store.errors import InputError, shown
from cvs.versions.paths import LONGEST, relative_path


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a/b.safetensors",
        "a b/c",
        "é/ü",
        "...",
        "a..b/..c",
        ".hidden",
        "-a",
        "100%/20 %",
        "a" * 255,
    ],
)
def test_plain_paths(text: str) -> None:
    """A plain path is given back as it is."""
    assert relative_path(text, "x") == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \t", "is empty"),
        ("/a", "is not relative"),
        ("//a", "is not relative"),
        ("~", "is not relative"),
        ("~/a", "is not relative"),
        ("~me/a", "is not relative"),
        ("C:/a", "is not relative"),
        ("c:a", "is not relative"),
        ("C:\\a", "is not relative"),
        ("..", "climbs out of its folder"),
        ("../a", "climbs out of its folder"),
        ("a/../../b", "climbs out of its folder"),
        ("a/..", "climbs out of its folder"),
        ("a\\..\\b", "is not a plain path"),
        ("..\\a", "is not a plain path"),
        ("\\\\host\\a", "is not a plain path"),
        (".", "is not a plain path"),
        ("./a", "is not a plain path"),
        ("a//b", "is not a plain path"),
        ("a/", "is not a plain path"),
        ("a\0b", "cannot be the path of a file"),
        ("a\nb", "cannot be the path of a file"),
        ("a\u202eb", "cannot be the path of a file"),
        ("\ud800", "cannot be the path of a file"),
        ("a" * 256, "cannot be the path of a file"),
        ("é" * 128, "cannot be the path of a file"),
        ("a/" * (LONGEST // 2) + "b", "cannot be the path of a file"),
        ("$HOME/a", "holds a variable or escape that has no meaning here"),
        ("a/${X}", "holds a variable or escape that has no meaning here"),
        ("a/%2e%2e/b", "holds a variable or escape that has no meaning here"),
        ("a/.%2E/b", "holds a variable or escape that has no meaning here"),
    ],
)
def test_other_paths(text: str, problem: str) -> None:
    """Whatever else it is, one sentence says what is wrong with it and where it stands."""
    with pytest.raises(InputError) as caught:
        relative_path(text, "file: field")

    assert caught.value.message == f"file: field: {shown(text)} {problem}"


@given(st.text(max_size=12) | st.text(alphabet="ab./\\~:$%2eE ", max_size=12))
def test_accepted_paths_stay_below(text: str) -> None:
    """A path that is accepted names something below its folder, in one way only."""
    try:
        relative_path(text, "x")
    except InputError:
        return

    assert os.path.normpath(os.path.join("/base", text)) == f"/base/{text}"
    assert text.encode().decode() == text
