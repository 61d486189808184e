"""What may name a repository or a ref, what may not, and that no secret gets out."""

import os
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cvs.store.errors import InputError
from cvs.versions.repository import Repository, check_ref, is_commit, parse, split_ref

WHERE = "versions/x.json: comfy.repo"


@pytest.mark.parametrize(
    ("text", "url", "name", "canonical"),
    [
        (
            "https://github.com/comfyanonymous/ComfyUI",
            "https://github.com/comfyanonymous/ComfyUI",
            "ComfyUI",
            "https://github.com/comfyanonymous/ComfyUI",
        ),
        (
            "HTTPS://GitHub.com:443/a/B.git/",
            "https://github.com/a/B.git",
            "B",
            "https://github.com/a/B",
        ),
        ("https://host:8443/x", "https://host:8443/x", "x", "https://host:8443/x"),
        ("ssh://git@Host:22/a/b.git", "ssh://git@host/a/b.git", "b", "ssh://git@host/a/b"),
        ("ssh://host:2222/a/b", "ssh://host:2222/a/b", "b", "ssh://host:2222/a/b"),
        ("git@GitHub.com:a/b.git", "git@github.com:a/b.git", "b", "git@github.com:a/b"),
        ("git@host:/srv/b", "git@host:/srv/b", "b", "git@host:/srv/b"),
        ("https://host/a/b/.git", "https://host/a/b/.git", "b", "https://host/a/b"),
    ],
)
def test_accepted(text: str, url: str, name: str, canonical: str) -> None:
    """Each form is brought to one spelling; the public URL is the one that is fetched."""
    found = parse(text, WHERE)
    assert (found.url, found.public, found.name, found.canonical) == (url, url, name, canonical)
    assert not found.is_local
    assert not found.is_loopback
    assert found == parse(found.url, WHERE)


def test_user_of_https() -> None:
    """A user name may be a token: it is kept apart and shown nowhere."""
    found = parse("https://t0k%2Fen@host/a/b", WHERE)
    assert found.user == "t0k%2Fen"
    assert found.url == found.public == "https://host/a/b"
    assert found.canonical == parse("https://host/a/b.git", WHERE).canonical
    assert "t0k" not in f"{found!r} {found} {found.shown}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/srv/node", "/srv/node"),
        ("/srv/a/../node/", "/srv/node"),
        ("./node", "/specs/node"),
        ("../node.git", "/node.git"),
        ("owner/node", "/specs/owner/node"),
        ("~/node", "/home/me/node"),
        ("file:///srv/my%20node", "/srv/my node"),
        ("file://localhost/srv/node", "/srv/node"),
        ("/srv/@scope/my node", "/srv/@scope/my node"),
    ],
)
def test_local(text: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are absolute afterwards, and only taken where that was asked for."""
    monkeypatch.setenv("HOME", "/home/me")
    found = parse(text, WHERE, allow_local=True, base="/specs")
    assert (found.url, found.public, found.is_local) == (path, "", True)
    assert found.shown == path
    with pytest.raises(InputError, match="is a path of this machine"):
        parse(text, WHERE)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9:8080", "localhost", "localhost:1", "[::1]", "[::1]:80"]
)
def test_loopback(host: str) -> None:
    """http:// is for servers of this machine, where that was asked for."""
    text = f"http://{host}/a/b.git"
    found = parse(text, WHERE, allow_local=True)
    assert found.is_loopback
    assert not found.is_local
    assert found.public == found.url
    with pytest.raises(InputError, match="http:// is not fetched from"):
        parse(text, WHERE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("ext::sh -c touch% x", "runs a helper program"),
        ("fd::17", "runs a helper program"),
        ("https::https://host/x", "https is not|helper program|not fetched"),
        ("ext://x/y", "ext:// is not fetched from"),
        ("git://host/x", "git:// is not fetched from"),
        ("ftp://host/x", "ftp:// is not fetched from"),
        ("http://host/x", "http:// is not fetched from"),
        ("http://127.0.0.1.example.org/x", "http:// is not fetched from"),
        ("http://127.1/x", "http:// is not fetched from"),
        ("http://2130706433/x", "http:// is not fetched from"),
        ("http://[::ffff:127.0.0.1]/x", "http:// is not fetched from"),
        ("--upload-pack=touch x", "is an option"),
        ("-x", "is an option"),
        ("https://host/a\nb", "holds characters"),
        ("https://host/a\x00b", "holds characters"),
        ("https://host/a\u202eb", "holds characters"),
        ("https://host/" + "x" * 3000, "holds characters"),
        ("https://host/a%0ab", "has a path that no repository has"),
        ("https://host/a b", "has a path that no repository has"),
        ("https://host/a?x=y", "has a path that no repository has"),
        ("https://host/a#x", "has a path that no repository has"),
        ("https://host/a\\b", "has a path that no repository has"),
        ("https://host/a/../b", "has a path that no repository has"),
        ("https://host//a", "has a path that no repository has|a"),
        ("https://host/a@main", "has a path that no repository has"),
        ("https://host", "has a path that no repository has"),
        ("https://host/.git", "does not name a repository"),
        ("https:///x", "has no host"),
        ("https://-oProxyCommand=x/y", "has no host"),
        ("ssh://-oProxyCommand=x/y", "has no host"),
        ("ssh://git@-oProxyCommand=x/y", "has no host"),
        ("ssh://-x@host/y", "has a user that cannot be one"),
        ("https://ho st/x", "has no host"),
        ("https://host:port/x", "has no host"),
        ("https://host:99999/x", "has no host"),
        ("https://[::1/x", "has no host"),
        ("https://[fe80::1%eth0]/x", "has no host"),
        ("https://a%0aprotocol=x@host/y", "has a user that cannot be one"),
        ("git@-oProxyCommand=x:y", "has no host"),
        ("git@host:-x", "begins with '-'"),
        ("git@host:a@main", "cannot carry a ref"),
        ("git@host:", "has a path that no repository has"),
        ("host:path", "is not a repository"),
        ("file://other/x", "is not a file:// URL of this machine"),
        ("file:///a%0ab", "holds characters"),
        ("file:///a%ff", "holds characters"),
        ("file://", "is not a file:// URL"),
        ("/", "does not name a repository"),
        ("\ud800", "holds characters"),
    ],
)
def test_refused(text: str, message: str) -> None:
    """One sentence that begins with the place, without a final period."""
    if text == "https://host//a":
        assert parse(text, WHERE).url == "https://host/a"
        return
    with pytest.raises(InputError, match=message) as raised:
        parse(text, WHERE, allow_local=True)
    assert raised.value.message.startswith(f"{WHERE}: ")
    assert not raised.value.message.endswith(".")
    assert raised.value.message.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "https://me:{}@host/a/b",
        "https://me:{}@host/a/b@main",
        "https://{}:x-oauth-basic@host/a/b",
        "https://me:{}/x@host/a/b",
        "https://me:{}?x@host/a",
        "ssh://me:{}@host/a",
        "http://me:{}@host/a",
        "http://{}@host/a",
        "ftp://me:{}@host/a",
        "me:{}@host/a",
        "https://{}@host/a b",
        "https://{}@ho st/a",
    ],
)
def test_no_secret_in_messages(text: str) -> None:
    """A password is refused, and the message about it does not repeat it."""
    with pytest.raises(InputError) as raised:
        parse(text.format("s3cret"), WHERE)
    assert "s3cret" not in raised.value.message
    assert "s3cret" not in str(raised.value.hint)


def test_hints() -> None:
    """A cure is named where there is one."""
    with pytest.raises(InputError) as raised:
        parse("comfyanonymous/ComfyUI", WHERE)
    assert raised.value.hint == "did you mean https://github.com/comfyanonymous/ComfyUI?"
    with pytest.raises(InputError) as raised:
        parse("https://me:pw@host/a", WHERE)
    assert raised.value.hint == "let git know it: a credential helper or ~/.netrc"


@pytest.mark.parametrize(
    ("text", "repo", "ref"),
    [
        ("https://github.com/a/b", "https://github.com/a/b", None),
        ("https://github.com/a/b@master", "https://github.com/a/b", "master"),
        ("https://github.com/a/b@feature/x@y", "https://github.com/a/b", "feature/x@y"),
        ("https://me@github.com/a/b", "https://me@github.com/a/b", None),
        ("https://me@github.com/a/b@v1", "https://me@github.com/a/b", "v1"),
        ("https://me@github.com", "https://me@github.com", None),
        ("ssh://git@host/a/b@v1", "ssh://git@host/a/b", "v1"),
        ("git@host:a/b", "git@host:a/b", None),
        ("git@host:a/b@v1", "git@host:a/b@v1", None),
        ("/srv/node@v1", "/srv/node", "v1"),
        ("/srv/@scope/node", "/srv/@scope/node", None),
        ("./node@v1", "./node", "v1"),
        ("file:///srv/node@v1", "file:///srv/node", "v1"),
        ("https://host/a@", "https://host/a", ""),
        ("@x", "@x", None),
        ("", "", None),
    ],
)
def test_split_ref(text: str, repo: str, ref: str | None) -> None:
    """Only what follows the repository is a ref."""
    assert split_ref(text) == (repo, ref)


@pytest.mark.parametrize(
    "ref",
    ["main", "v1.0", "feature/x", "refs/heads/main", "HEAD", "a" * 40, "deadbee", "ünïcode", "a@b"],
)
def test_refs(ref: str) -> None:
    """What git could have for a ref is one."""
    assert check_ref(ref, WHERE) == ref


@pytest.mark.parametrize(
    "ref",
    [
        *("", "-x", "--upload-pack=x", "a..b", "a@{1}", "@", "a^", "a~1", "a:b", "a?", "a*", "a["),
        *("a\\b", "a b", "a\nb", "a\x7fb", "/a", "a/", "a//b", ".a", "a/.b", "a.", "a.lock"),
        *("a.lock/b", "x" * 2000, "\u200b"),
    ],
)
def test_refused_refs(ref: str) -> None:
    """The rules of `git check-ref-format`, and no options."""
    with pytest.raises(InputError, match="cannot be the name of a branch, tag or commit"):
        check_ref(ref, WHERE)


def test_is_commit() -> None:
    """SHA-1 and SHA-256, in full and in lower case."""
    assert is_commit("a" * 40)
    assert is_commit("0" * 64)
    assert not is_commit("a" * 39)
    assert not is_commit("A" * 40)
    assert not is_commit("a" * 41)
    assert not is_commit("a" * 40 + "\n")


_pieces = st.sampled_from(
    [
        *("https://", "http://", "ssh://", "file://", "ext::", "git@", "host", "127.0.0.1"),
        *("[::1]", "localhost", ":", "/", "@", "a", "b.git", "..", "~", "-", " ", "\n", "%0a"),
        *("?", "#", "s3cret", "\\", "\x00", "é", "::", "//", ".git", ":80", ".", "[", "]"),
    ]
)
_texts = st.one_of(st.text(max_size=60), st.lists(_pieces, max_size=10).map("".join))


@given(_texts, st.booleans())
@example("https://[::1%\x00]/", True)
@example("http://[::ffff:7f00:1]/x", True)
@example("file:///%", True)
@example("~\x00/x", True)
@example("\ud800/x", True)
def test_parse_anything(text: str, allow_local: bool) -> None:
    """Whatever is written, the answer is a repository that is safe to use, or an InputError."""
    repo, ref = split_ref(text)
    assert text in (repo, f"{repo}@{ref}")
    for given_text in (text, repo):
        try:
            found = parse(given_text, WHERE, allow_local=allow_local)
        except InputError as error:
            assert error.message.startswith(WHERE)
            assert error.message.isprintable()
            continue
        assert_safe(found, allow_local)


def assert_safe(found: Repository, allow_local: bool) -> None:
    """What everything else relies on."""
    assert found.url.isprintable()
    assert not found.url.startswith("-")
    assert "::" not in found.url or found.is_local or "[" in found.url
    assert found.name not in ("", ".", "..")
    assert "/" not in found.name
    if found.is_local:
        assert allow_local
        assert os.path.isabs(found.url)
        assert found.public == ""
        return
    assert found.public == found.url
    if found.is_ssh:
        assert not found.user
        return
    scheme, _, rest = found.public.partition("://")
    assert scheme == "https" or (scheme == "http" and allow_local and found.is_loopback)
    assert "@" not in rest
    assert parse(found.url, WHERE, allow_local=allow_local).canonical == found.canonical


@given(st.text(alphabet=string.ascii_letters + string.digits + "._~%+-", min_size=1, max_size=20))
def test_user_never_public(user: str) -> None:
    """The user of an https:// URL is in nothing that is shown or stored."""
    try:
        found = parse(f"https://{user}@example.org/owner/name", WHERE)
    except InputError as error:
        assert f"{user}@" not in error.message
        return
    assert found.user == user
    assert found.public == found.url == "https://example.org/owner/name"
    assert repr(found) == "Repository('https://example.org/owner/name')"


@given(st.text(max_size=40))
def test_check_ref_anything(ref: str) -> None:
    """A ref that passes is one word that no command takes for something else."""
    try:
        check_ref(ref, WHERE)
    except InputError:
        return
    assert ref.isprintable()
    assert " " not in ref
    assert ":" not in ref
    assert not ref.startswith(("-", "/", "."))
