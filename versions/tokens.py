"""Tokens: which one goes to which host, and what to say where one is missing or refused.

A token goes to its own host alone, over https or to this machine itself. No message, `repr` or
document has one.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from cvs.store import document
from cvs.store.errors import InputError, shown
from cvs.versions.sites import CIVITAI, HUGGINGFACE, PUBLIC, Sites

#: Where tokens of the two sites are made.
HUGGINGFACE_SETTINGS = "https://huggingface.co/settings/tokens"
CIVITAI_SETTINGS = "https://civitai.com/user/account"

#: The user's own settings, below $XDG_CONFIG_HOME.
CONFIG = "cvs/config.toml"

_PORTS = {"https": 443, "http": 80}
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
#: A host, or a host with its port.
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_LOOPBACK = re.compile(r"localhost|127\.[0-9]+\.[0-9]+\.[0-9]+|::1")
#: The repository in the path of a file or of a question about one, at a site like HuggingFace.
_REPOSITORY = re.compile(
    r"/(?:api/(?:models/)?)?((?:(?:datasets|spaces)/)?[^/]+(?:/[^/]+)?)/(?:resolve|tree|revision)/"
)


class Token:
    """A secret for one host, and what it is called in messages."""

    __slots__ = ("_secret", "called", "host")

    def __init__(self, host: str, secret: str, called: str) -> None:
        """Raises InputError for what cannot be a token or a host; shows the name alone.

        Args:
            host: as in a URL, with the port where it is not the usual one.
        """
        secret = secret.strip()
        if not _TOKEN.fullmatch(secret):
            raise InputError(f"{called} is not a token: it is empty or has odd characters")
        if not _HOST.fullmatch(host):
            raise InputError(f"{called}: {shown(host)} is not a host like 'example.org'")
        self.host = host
        self.called = called
        self._secret = secret

    @property
    def header(self) -> dict[str, str]:
        """What tells a server the token."""
        return {"Authorization": f"Bearer {self._secret}"}

    def __repr__(self) -> str:
        return f"Token({self.host!r}, called={self.called!r})"


class Tokens:
    """All tokens of one run."""

    __slots__ = ("_by_host", "_config", "_sites")

    def __init__(
        self, tokens: Iterable[Token] = (), sites: Sites = PUBLIC, config: str = ""
    ) -> None:
        """Of two tokens for one host the first counts.

        Args:
            config: the file that tokens may be written into, for hints.
        """
        self._by_host: dict[str, Token] = {}
        for token in tokens:
            self._by_host.setdefault(token.host, token)
        self._sites = sites
        self._config = config or f"~/.config/{CONFIG}"

    def __repr__(self) -> str:
        return f"Tokens({sorted(self._by_host)})"

    def header(self, url: str) -> dict[str, str]:
        """What a request for `url` says of who asks; nothing where no token is for its host."""
        token = self._for(url)
        return {} if token is None or not _is_private(url) else token.header

    def having(self, token: Token) -> "Tokens":
        """These and another one, which comes before them."""
        return Tokens([token, *self._by_host.values()], self._sites, self._config)

    def _for(self, url: str) -> Token | None:
        return self._by_host.get(host_of(url))

    def refusal(self, url: str, status: int, headers: Mapping[str, str]) -> tuple[str, str]:
        """What to tell of an answer 401 or 403: a sentence, and a hint.

        Args:
            url: what was asked for; the first of several redirects.
            headers: of the answer; names in lower case or in a mapping that takes any.
        """
        from cvs.versions import download

        address = download.show(url)
        refused = f"{address} was refused (answer {status})"
        token = self._for(url)
        if token is not None and not _is_private(url):
            return refused, f"{token.called} is sent over https:// alone"
        host = host_of(url)
        if host in (host_of(HUGGINGFACE), host_of(self._sites.huggingface)):
            return _huggingface(address, status, headers, token)
        if host in (host_of(CIVITAI), host_of(self._sites.civitai)):
            return _civitai(address, status, token)
        if token is not None:
            return f"{refused} although {token.called} was sent", "the token may have expired"
        hint = f'a token for {host} goes into {self._config}: [tokens] and "{host}" = "…"'
        return refused, hint


#: No token at all.
NO_TOKENS = Tokens()


def _huggingface(
    address: str, status: int, headers: Mapping[str, str], token: Token | None
) -> tuple[str, str]:
    found = _REPOSITORY.match(urlsplit(address).path)
    repository = found[1] if found else ""
    page = f"{HUGGINGFACE}/{repository}"
    code = headers.get("x-error-code", "")
    if code == "GatedRepo":
        if token is None:
            return (
                f"{address} is in a gated repository, and no token is set (answer {status})",
                f"ask for access at {page}, make a token at {HUGGINGFACE_SETTINGS} and set "
                "HF_TOKEN to it",
            )
        return (
            f"{address} is in a gated repository that {token.called} has no access to "
            f"(answer {status})",
            f"ask for access at {page} with the account of the token; a fine-grained token needs "
            "the permission to read gated repositories",
        )
    if token is None:
        return (
            f"{address} is in a repository that is private or does not exist (answer {status})",
            f"for a private one make a token at {HUGGINGFACE_SETTINGS} and set HF_TOKEN to it",
        )
    return (
        f"{address} was refused although {token.called} was sent (answer {status})",
        f"see at {HUGGINGFACE_SETTINGS} whether the token is still valid and may read {page}",
    )


def _civitai(address: str, status: int, token: Token | None) -> tuple[str, str]:
    if token is None:
        return (
            f"{address} is given to users of the site alone, and no token is set (answer {status})",
            f"make an API key at {CIVITAI_SETTINGS} and set CIVITAI_TOKEN to it",
        )
    return (
        f"{address} was refused although {token.called} was sent (answer {status})",
        f"see at {CIVITAI_SETTINGS} whether the key is valid; a model in early access has to be "
        "bought on its page first",
    )


def host_of(url: str) -> str:
    """The host of a URL in lower case, with its port where that is not the usual one; "" where
    there is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    name = (parts.hostname or "").rstrip(".")
    host = f"[{name}]" if ":" in name else name
    return host if port in (None, _PORTS.get(parts.scheme)) else f"{host}:{port}"


def _is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent to the host of a URL."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (
        parts.scheme == "http" and bool(_LOOPBACK.fullmatch(parts.hostname or ""))
    )


# The user's configuration file


class _Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: dict[str, str] = {}


def read_config(path: str, warn: Callable[[str], None]) -> list[Token]:
    """The tokens of the user's configuration file; none where there is no such file.

    Args:
        warn: is told where others may read the file.

    Raises:
        InputError: it cannot be read, is not TOML, or has something that is not known.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a file")
    import tomllib

    try:
        parsed = tomllib.loads(document.read_bytes(path).decode())
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {_decapitalized(str(error))}") from None
    config = document.convert(parsed, _Config, path)
    if config.tokens and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"{path} holds tokens and others can read it: `chmod 600 {path}`")
    return [
        Token(host.lower(), secret, f"{path}: tokens.{host[:80]}")
        for host, secret in config.tokens.items()
    ]


def _decapitalized(text: str) -> str:
    return text[:1].lower() + text[1:]
