"""Where submodules come from: what `.gitmodules` says, relative to the repository it is in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvs.store.errors import SourceError
from cvs.versions import submodules
from cvs.versions.repository import Repository, parse


def at(text: str) -> Repository:
    return parse(text, "test", allow_local=True)


def test_read() -> None:
    """Path and URL of each submodule; others' settings and halves are left out."""
    listing = (
        b"submodule.a.path\nlibs/a/\0submodule.a.url\n../a\0submodule.a.branch\nmain\0"
        b"submodule.with.dots.path\nd\0submodule.with.dots.url\nhttps://host/d\0"
        b"submodule.half.path\nh\0other.b.path\nb\0other.b.url\nx\0submodule.flag\0"
        b"submodule.two\nlines.path\nx\0"
    )
    assert submodules.read(listing) == {b"libs/a": "../a", b"d": "https://host/d"}
    assert submodules.read(b"") == {}


@given(st.binary(max_size=100))
def test_read_anything(listing: bytes) -> None:
    """No listing is a defect."""
    submodules.read(listing)


@pytest.mark.parametrize(
    ("parent", "url", "found"),
    [
        ("https://host/a/b", "../c", "https://host/a/c"),
        ("https://host/a/b.git", "./c", "https://host/a/b.git/c"),
        ("https://host/a/b", "../../c/d.git/", "https://host/c/d.git"),
        ("https://host:8443/a/b", "../c", "https://host:8443/a/c"),
        ("ssh://git@host/a/b", "../c", "ssh://git@host/a/c"),
        ("git@host:a/b", "../c", "git@host:a/c"),
        ("git@host:a/b", "../../c", "git@host:c"),
        ("http://127.0.0.1:8080/a/b", "../c", "http://127.0.0.1:8080/a/c"),
        ("/srv/a/b", "../c", "/srv/a/c"),
        ("/srv/a/b", "./c", "/srv/a/b/c"),
        ("https://host/a/b", "https://other/x", "https://other/x"),
        ("https://host/a/b", "git@other:x", "git@other:x"),
        ("/srv/a/b", "https://other/x", "https://other/x"),
        ("/srv/a/b", "file:///srv/x", "/srv/x"),
    ],
)
def test_locate(parent: str, url: str, found: str) -> None:
    """Relative ones stay where the parent is; absolute ones follow the same rules as any."""
    assert submodules.locate(url, at(parent), b"s").url == found


def test_user_stays_on_the_host() -> None:
    """A relative submodule is reached as its parent was; another URL without its login."""
    parent = at("https://t0ken@host/a/b")
    assert submodules.locate("../c", parent, b"s").user == "t0ken"
    assert submodules.locate("https://other/c", parent, b"s").user == ""
    assert submodules.locate("https://host/c", parent, b"s").user == ""


@pytest.mark.parametrize(
    ("parent", "url"),
    [
        ("https://host/a/b", "../../../evil.org/x"),
        ("git@host:a/b", "../../../x"),
        ("https://host/a/b", ".."),
        ("https://host/a/b", "../../"),
        ("https://host/a/b", "/etc"),
        ("https://host/a/b", "etc"),
        ("https://host/a/b", "file:///etc"),
        ("https://host/a/b", "http://127.0.0.1/x"),
        ("http://127.0.0.1/a/b", "/etc"),
        ("http://127.0.0.1/a/b", "http://host/x"),
        ("https://host/a/b", "-x"),
        ("https://host/a/b", "ext::sh"),
        ("https://host/a/b", "../c\nd"),
        ("https://host/a/b", "../c%0ad"),
        ("https://host/a/b", ""),
    ],
)
def test_refused(parent: str, url: str) -> None:
    """What a repository may not name is the repository's fault, and says where it stands."""
    with pytest.raises(SourceError) as raised:
        submodules.locate(url, at(parent), b"libs/s")
    assert raised.value.message.startswith(f"{parent}: .gitmodules: libs/s: ")
