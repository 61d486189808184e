"""Tokens: to their own host alone, and never where anybody can read them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvs.store.errors import InputError
from cvs.versions import sites
from cvs.versions.sites import Sites
from cvs.versions.tokens import Token, Tokens, host_of, read_config

SECRET = "hf_canary0123456789"
HF = "https://huggingface.co"
FILE = f"{HF}/org/name/resolve/main/m.safetensors"
LOCAL = Sites("http://127.0.0.1:81", "http://localhost:82")


def tokens(*hosts: str, asked: Sites = sites.PUBLIC) -> Tokens:
    """One token for all of these hosts."""
    return Tokens([Token(host, SECRET, "HF_TOKEN") for host in hosts], asked)


def sent(found: Tokens, url: str) -> bool:
    """Whether a request for `url` has the token; it has that or nothing."""
    header = found.header(url)
    assert header in ({}, {"Authorization": f"Bearer {SECRET}"})
    return bool(header)


# Which host.


@pytest.mark.parametrize(
    "url", [FILE, "https://HUGGINGFACE.co/x", "https://huggingface.co:443/x?y", f"{HF}./x"]
)
def test_a_token_goes_to_its_host(url: str) -> None:
    """However the host is written."""
    assert sent(tokens("huggingface.co"), url)


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.huggingface.co/x",
        "https://huggingface.co.evil.org/x",
        "https://evil.org/huggingface.co",
        "https://huggingface.co@evil.org/x",
        "https://huggingface.co:8443/x",
        "http://huggingface.co/x",
        "http://huggingface.co:443/x",
        "ftp://huggingface.co/x",
    ],
)
def test_a_token_goes_to_no_other(url: str) -> None:
    """Not to a host that looks like it, not to another port, and not where it can be read."""
    assert not sent(tokens("huggingface.co"), url)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_to_this_machine_http_is_private(host: str) -> None:
    """What goes to this machine leaves it never."""
    assert sent(tokens(f"{host}:8080"), f"http://{host}:8080/x")
    assert not sent(tokens(f"{host}:8080"), f"http://{host}/x")


@given(st.text(min_size=1), st.text())
def test_any_other_host(host: str, path: str) -> None:
    """Whatever a URL looks like, the token is sent only where the host is the one."""
    url = f"https://{host}/{path}"

    assert sent(tokens("huggingface.co"), url) == (host_of(url) == "huggingface.co")


@pytest.mark.parametrize("url", ["https://a:99999/", "https://[a/", "https://", "x"])
def test_what_has_no_host(url: str) -> None:
    """A server may lead anywhere; nothing is sent there."""
    assert host_of(url) == ""
    assert not sent(tokens("huggingface.co"), url)


def test_the_first_of_two_tokens_counts() -> None:
    """The environment comes before the file."""
    both = Tokens([Token("a.org", "first", "A"), Token("a.org", "second", "B")])

    assert both.header("https://a.org/") == {"Authorization": "Bearer first"}


def test_no_token_is_shown() -> None:
    """Neither by one nor by all."""
    token = Token("a.org", SECRET, "A")

    assert repr(token) == "Token('a.org', called='A')"
    assert repr(Tokens([token])) == "Tokens(['a.org'])"


@pytest.mark.parametrize("secret", ["", "  ", "a b", "a\nb", "é", "a" * 5000, "\x7f"])
def test_what_is_no_token(secret: str) -> None:
    """It would break the request; it is refused without being repeated."""
    with pytest.raises(InputError) as caught:
        Token("a.org", secret, "HF_TOKEN")

    expected = "HF_TOKEN is not a token: it is empty or has odd characters"
    assert caught.value.message == expected


def test_white_space_around_a_token() -> None:
    """A file that ends with a line end is how many tokens are kept."""
    assert Token("a.org", f" {SECRET}\n", "A").header == {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize("host", ["", "https://a.org", "a.org/x", "u@a.org", "a b", "A.org"])
def test_what_is_no_host(host: str) -> None:
    """Hosts are as in URLs."""
    with pytest.raises(InputError, match=r"is not a host like 'example.org'"):
        Token(host, SECRET, "x")


# What is said of a refusal.

_GATED = {"x-error-code": "GatedRepo"}
_NONE = {"x-error-code": "RepoNotFound"}


@pytest.mark.parametrize(
    ("has", "url", "status", "headers", "sentence", "hint"),
    [
        (
            "",
            FILE,
            401,
            _GATED,
            "is in a gated repository, and no token",
            f"access at {HF}/org/name,",
        ),
        (
            "hf",
            FILE,
            403,
            _GATED,
            "that HF_TOKEN has no access to",
            f"access at {HF}/org/name with",
        ),
        ("", FILE, 401, _NONE, "private or does not exist", "set HF_TOKEN"),
        ("hf", FILE, 401, {}, "although HF_TOKEN was sent", f"{HF}/settings/tokens"),
        (
            "",
            f"{HF}/datasets/o/n/resolve/main/x",
            401,
            _GATED,
            "datasets/o/n",
            f"access at {HF}/datasets/o/n,",
        ),
        (
            "",
            f"{HF}/api/models/o/n/tree/main/x",
            401,
            _GATED,
            "gated",
            f"access at {HF}/o/n,",
        ),
        (
            "",
            "https://civitai.com/api/download/models/1?token=x",
            401,
            {},
            "https://civitai.com/api/download/models/1 is given to users",
            "https://civitai.com/user/account and set CIVITAI_TOKEN",
        ),
        (
            "civitai",
            "https://civitai.com/api/download/models/1",
            403,
            {},
            "although CIVITAI_TOKEN was sent (answer 403)",
            "early access",
        ),
        ("", "https://a.org/x?key=1", 403, {}, "https://a.org/x was refused", '"a.org" = "…"'),
        ("a", "https://a.org/x", 401, {}, "although file: tokens.a.org was sent", "expired"),
        (
            "hf",
            "http://huggingface.co/x",
            401,
            {},
            "refused",
            "HF_TOKEN is sent over https:// alone",
        ),
        ("", "http://127.0.0.1:81/o/n/resolve/a/b", 401, _GATED, "gated", f"{HF}/o/n"),
        ("", "http://localhost:82/api/download/models/1", 401, {}, "users", "CIVITAI_TOKEN"),
    ],
)
def test_a_refusal_says_what_is_missing(
    has: str, url: str, status: int, headers: dict[str, str], sentence: str, hint: str
) -> None:
    """Which token, where it is made and where a licence is accepted; never the token itself."""
    given = {
        "": [],
        "hf": [Token("huggingface.co", SECRET, "HF_TOKEN")],
        "civitai": [Token("civitai.com", SECRET, "CIVITAI_TOKEN")],
        "a": [Token("a.org", SECRET, "file: tokens.a.org")],
    }[has]
    found = Tokens(given, LOCAL).refusal(url, status, headers)

    assert sentence in found[0]
    assert hint in found[1]
    assert f"(answer {status})" in found[0]
    assert SECRET not in str(found)
    assert "?" not in found[0]


# The configuration file.


def config(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    """A configuration file."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_tokens_of_a_file(tmp_path: Path) -> None:
    """One a host; hosts in any case."""
    warned: list[str] = []
    text = f'[tokens]\n"A.org" = "{SECRET}"\n"b.org:8443" = "{SECRET}"\n'
    path = config(tmp_path, text)
    found = Tokens(read_config(path, warned.append))

    assert sent(found, "https://a.org/")
    assert sent(found, "https://b.org:8443/")
    assert not sent(found, "https://b.org/")
    assert warned == []


def test_no_file(tmp_path: Path) -> None:
    """Nobody must have one."""
    assert read_config(f"{tmp_path}/none.toml", pytest.fail) == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read(tmp_path: Path, mode: int) -> None:
    """It is used, and the cure is said."""
    warned: list[str] = []
    path = config(tmp_path, f'[tokens]\n"a.org" = "{SECRET}"\n', mode)

    assert len(read_config(path, warned.append)) == 1
    assert warned == [f"{path} holds tokens and others can read it: `chmod 600 {path}`"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tokens", "{} is not TOML: expected ']' at the end of a table declaration"),
        ('[token]\n"a.org" = "x"', "{}: there is no field 'token'"),
        ('[tokens]\n"a.org" = 1', "{}: tokens"),
        ('[tokens]\n"a.org" = ""', "{}: tokens.a.org is not a token"),
        ('[tokens]\n"https://a.org" = "x"', "{}: tokens.https://a.org: 'https://a.org' is not a"),
        ("\x00", "{} is not TOML"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    """What is not known is refused with its place: a token that is not sent would be missed."""
    path = config(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_config(path, pytest.fail)

    assert caught.value.message.startswith(message.format(path))


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe would be waited for."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(InputError, match="is not a file"):
            read_config(str(tmp_path / name), pytest.fail)
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_config(str(tmp_path / "latin"), pytest.fail)


# Sites.


def test_sites() -> None:
    """The public addresses, or what settings say."""
    assert sites.parse(None, None) == (HF, "https://civitai.com")
    assert sites.parse("http://127.0.0.1:80/hf/", None).huggingface == "http://127.0.0.1:80/hf"


@pytest.mark.parametrize(
    "text", ["huggingface.co", "ftp://a", "https://", "http://a:x", "https://a?b", "https://a b"]
)
def test_what_is_no_address(text: str) -> None:
    """It is refused by the variable's name."""
    with pytest.raises(InputError, match=r"^HF_ENDPOINT is not an address"):
        sites.parse(text, None)
    with pytest.raises(InputError, match=r"^CIVITAI_ENDPOINT holds a user or password$"):
        sites.parse(None, "https://u:canary@a")
