"""Repositories: what a user may write to name one, brought to a form that is safe to hand to git.

Pure. Everything that git would take as an option, as a command (`ext::`), or as a way to read
this machine's files where that was not asked for, is refused here, once.
"""

import ipaddress
import os
import re

import msgspec

from cvs.store.errors import InputError, shown

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCP = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*)@([^/:@\s]+):(.*)", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_USER = re.compile(r"[A-Za-z0-9_%](?:[A-Za-z0-9._~%+-]*)")
_SHORTHAND = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
#: Characters that no path of a URL needs; an escaped control character would reach git decoded.
_NOT_IN_PATH = re.compile(r"[\s?#\\<>\"`|^{}]|%[01][0-9A-Fa-f]|%7[Ff]")
_NOT_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

_PORTS = {"https": "443", "http": "80", "ssh": "22"}
_FORMS = "write https://host/path, ssh://user@host/path or user@host:path"


class Repository(msgspec.Struct, frozen=True):
    """A repository that may be fetched. Made by `parse` alone."""

    url: str
    """What git is given: never a password or token. An absolute path for a local one."""
    public: str
    """The URL without credentials, for locks and logs; "" for a local path."""
    name: str
    """The last part of the path without `.git`: what a clone would be called."""
    canonical: str
    """Equal for spellings of one repository: for keys and comparison, never fetched."""
    is_local: bool = False
    """A folder of this machine."""
    is_loopback: bool = False
    """An http:// server of this machine."""
    user: str = ""
    """The user name of an https:// URL, which may well be a token: it never reaches a command
    line, a message or the disk. "" where there is none; an ssh:// URL keeps its user in `url`."""

    @property
    def shown(self) -> str:
        """How messages call it."""
        return self.public or self.url

    @property
    def is_ssh(self) -> bool:
        """Whether it is reached through ssh."""
        return not self.is_local and not self.url.startswith(("https://", "http://"))

    def __repr__(self) -> str:
        return f"Repository({self.shown!r})"


def parse(text: str, where: str, *, allow_local: bool = False, base: str = ".") -> Repository:
    """Reads a repository, without `@ref` (see `split_ref`).

    Args:
        text: `https://host/path`, `ssh://user@host/path` or `user@host:path`; with `allow_local`
            also a path, `file://` and `http://` on this machine.
        where: the file and field that it stands in; begins every message.
        allow_local: whether folders and servers of this machine may be named.
        base: the folder that a relative path is relative to.

    Raises:
        InputError: anything else. No message repeats a password or token.
    """
    if not text or text.isspace():
        raise InputError(f"{where}: the repository is empty")
    if not text.isprintable() or len(text) > 2048:
        raise InputError(f"{where}: {_shown(text)} holds characters that no repository has")
    if text.startswith("-"):
        raise InputError(f"{where}: {_shown(text)} is an option, not a repository", hint=_FORMS)
    if match := _SCHEME.fullmatch(text):
        scheme, rest = match[1].lower(), match[2]
        if scheme == "file":
            return _local(_file_path(rest, text, where), text, where, allow_local, base)
        if scheme not in _PORTS:
            raise InputError(f"{where}: {scheme}:// is not fetched from", hint=_FORMS)
        return _url(scheme, rest, text, where, allow_local)
    if "::" in text:
        raise InputError(f"{where}: {_shown(text)} runs a helper program", hint=_FORMS)
    if match := _SCP.fullmatch(text):
        return _scp(match[1], match[2], match[3], text, where)
    if ":" in text.partition("/")[0] or "@" in text.partition("/")[0]:
        raise InputError(f"{where}: {_shown(text)} is not a repository", hint=_FORMS)
    return _local(text, text, where, allow_local, base)


def split_ref(text: str) -> tuple[str, str | None]:
    """Splits `REPO@REF` into the repository and the ref; neither is checked.

    The user of a URL is no ref, and `user@host:path` has none in it. In a local path only an '@'
    of the last part begins a ref.

    >>> split_ref("https://me@github.com/comfyanonymous/ComfyUI@v1/x")
    ('https://me@github.com/comfyanonymous/ComfyUI', 'v1/x')
    >>> split_ref("git@github.com:comfyanonymous/ComfyUI")
    ('git@github.com:comfyanonymous/ComfyUI', None)
    """
    match = _SCHEME.fullmatch(text)
    if match and match[1].lower() != "file":
        start = text.find("/", match.start(2))
        at = text.find("@", start) if start >= 0 else -1
    elif not match and _SCP.fullmatch(text):
        at = -1
    else:
        at = text.find("@", text.rstrip("/").rfind("/") + 1)
    if at <= 0:
        return text, None
    return text[:at], text[at + 1 :]


def check_ref(ref: str, where: str) -> str:
    """Returns the name of a branch, tag or other ref, or a commit, if git could have one so called.

    Raises:
        InputError: the rules of `git check-ref-format` are broken, or it begins with '-'.
    """
    parts = ref.split("/")
    if (
        not ref
        or len(ref) > 1024
        or not ref.isprintable()
        or ref == "@"
        or ref.startswith("-")
        or ref.endswith(".")
        or ".." in ref
        or "@{" in ref
        or _NOT_IN_REF.search(ref)
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    ):
        raise InputError(f"{where}: {shown(ref)} cannot be the name of a branch, tag or commit")
    return ref


def with_user(repository: Repository, other: Repository) -> Repository:
    """A repository on the host of `other`, reached with the same user."""
    return msgspec.structs.replace(repository, user=other.user)


def is_commit(text: str) -> bool:
    """Whether `text` is a full commit id: 40 lower-case hexadecimal digits, 64 for SHA-256."""
    return _COMMIT.fullmatch(text) is not None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None


def _url(scheme: str, rest: str, text: str, where: str, allow_local: bool) -> Repository:
    authority, _, path = rest.partition("/")
    userinfo, _, address = authority.rpartition("@")
    if ":" in userinfo:
        raise InputError(
            f"{where}: a password must not stand in the URL {_shown(text)}",
            hint="let git know it: a credential helper or ~/.netrc",
        )
    host, port = _address(address, text, where)
    loopback = is_loopback(host)
    if scheme == "http" and not (allow_local and loopback):
        raise InputError(
            f"{where}: http:// is not fetched from, anybody on the way could change it",
            hint="write https://",
        )
    if userinfo and (not _USER.fullmatch(userinfo) or _NOT_IN_PATH.search(userinfo)):
        raise InputError(f"{where}: {_shown(text)} has a user that cannot be one")
    path = _path(path, text, where)
    port = f":{port}" if port and port != _PORTS[scheme] else ""
    place = f"{host}{port}/{path}"
    user = f"{userinfo}@" if userinfo and scheme == "ssh" else ""
    url = f"{scheme}://{user}{place}"
    return Repository(
        url=url,
        public=url,
        name=_name(path, text, where),
        canonical=_canonical(f"{scheme}://{user}{place}"),
        is_loopback=scheme == "http",
        user=userinfo if scheme != "ssh" else "",
    )


def _scp(user: str, host: str, path: str, text: str, where: str) -> Repository:
    host, _ = _address(host, text, where)
    if "@" in path:
        raise InputError(
            f"{where}: {text!r} cannot carry a ref",
            hint="write the ref into a field of its own, or the repository as ssh://",
        )
    if path.startswith("-"):
        raise InputError(f"{where}: {text!r} has a path that begins with '-'")
    # The path may be absolute; a relative one is relative to the user's home on the server.
    root = "/" if path.startswith("/") else ""
    path = root + _path(path, text, where)
    url = f"{user}@{host}:{path}"
    return Repository(url=url, public=url, name=_name(path, text, where), canonical=_canonical(url))


def _local(path: str, text: str, where: str, allow_local: bool, base: str) -> Repository:
    if not allow_local:
        hint = "--allow-local accepts repositories of this machine"
        if _SHORTHAND.fullmatch(text):
            hint = f"did you mean https://github.com/{text}?"
        raise InputError(f"{where}: {_shown(text)} is a path of this machine", hint=hint)
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: {text!r} is not a path") from None
    absolute = os.path.abspath(os.path.join(base, os.path.expanduser(path)))
    return Repository(
        url=absolute,
        public="",
        name=_name(absolute, text, where),
        canonical=_canonical(absolute),
        is_local=True,
    )


def _file_path(rest: str, text: str, where: str) -> str:
    from urllib.parse import unquote

    host, slash, path = rest.partition("/")
    if host.lower() not in ("", "localhost") or not slash:
        raise InputError(f"{where}: {_shown(text)} is not a file:// URL of this machine")
    try:
        decoded = "/" + unquote(path, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if not decoded.isprintable():
        raise InputError(f"{where}: {_shown(text)} holds characters that no repository has")
    return decoded


def _address(text: str, whole: str, where: str) -> tuple[str, str]:
    """Host in lower case and port ("" for none)."""
    host, port = text, ""
    if text.startswith("["):
        inside, bracket, after = text[1:].partition("]")
        try:
            host = f"[{ipaddress.IPv6Address(inside)}]" if bracket and "%" not in inside else ""
        except ValueError:
            host = ""
        colon, port = after[:1], after[1:]
        valid = bool(host) and (not after or colon == ":")
    else:
        host, colon, port = text.partition(":")
        valid = bool(_HOST.fullmatch(host)) and ".." not in host
    if colon and not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536):
        valid = valid and not port
    if not valid:
        raise InputError(f"{where}: {_shown(whole)} has no host that could be one", hint=_FORMS)
    return host.lower(), port.lstrip("0")


def _path(path: str, text: str, where: str) -> str:
    path = path.strip("/")
    parts = path.split("/")
    if "@" in path or _NOT_IN_PATH.search(path) or any(p in ("", ".", "..") for p in parts):
        raise InputError(f"{where}: {_shown(text)} has a path that no repository has", hint=_FORMS)
    return path


def _name(path: str, text: str, where: str) -> str:
    name = path.rstrip("/").removesuffix("/.git").rpartition("/")[2].removesuffix(".git")
    if name in ("", ".", "..") or len(name.encode()) > 255:
        raise InputError(f"{where}: {_shown(text)} does not name a repository")
    return name


def _canonical(url: str) -> str:
    trimmed = url.rstrip("/").removesuffix("/.git")
    return trimmed.removesuffix(".git")


def _shown(text: str) -> str:
    """`text` for a message about it: without whatever could be a credential, printable."""
    start = text.find("://") + 3 if "://" in text else 0
    at = text.rfind("@")
    if at > start and (start or ":" in text[:at]):
        text = f"{text[:start]}…{text[at:]}"
    return repr(text if len(text) <= 200 else text[:200] + "…")
