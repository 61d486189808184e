"""Where a model lives: the text of a source, read into what it names. Asks nobody.

Every kind has a public form, without credentials and paths of this machine, that reads as the same
source again: that is what a lock keeps.
"""

import os
import re
from typing import NamedTuple
from urllib.parse import (
    SplitResult,
    parse_qsl,
    quote,
    unquote,
    urlencode,
    urlsplit,
    urlunsplit,
)

from cvs.store.errors import InputError, shown
from cvs.versions.sites import CIVITAI, HUGGINGFACE

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")

#: Parameters of a query that may be secrets or die soon, by what their names hold; never kept.
_SECRET = re.compile(
    r"token|secret|passw|pwd|key|auth|sig|cred|session|cookie|jwt|policy|expires|^x-(amz|goog)-"
    r"|^(se|sp|sv|st|sr|spr|sas|skoid|sktid|ske|skt|sks|skv)$",
    re.IGNORECASE,
)

#: The revision of HuggingFace where none is named.
MAIN = "main"
_HUGGINGFACE_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_REPOSITORY_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
#: Revisions that hold a '/' of their own.
_SPECIAL_REVISION = re.compile(r"refs/(?:convert/[A-Za-z0-9_.-]+|pr/[0-9]+)(?=/|$)")
_FILE_PAGES = ("resolve", "blob", "raw")

_CIVITAI_HOSTS = ("civitai.com", "www.civitai.com")
_NUMBER = re.compile(r"[0-9]{1,19}")
#: What chooses among the files of a version at Civitai.
CHOICES = ("fileId", "type", "format", "size", "fp", "quantType")

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_DIGITS = re.compile(r"[0-9a-f]{8,64}")

#: The kinds of sources, for a hint.
_KNOWN = "https://, hf://, civitai:, gs://, s3://, cvs:<hash>, file:// and paths are"


class Local(NamedTuple):
    """A file of this machine."""

    path: str
    """Absolute."""

    @property
    def public(self) -> str:
        """Nothing: a lock names no path of this machine."""
        return ""


class Web(NamedTuple):
    """A file at any http(s) server."""

    url: str
    """May hold credentials."""

    @property
    def public(self) -> str:
        """The URL without user, password and parameters that may be secrets."""
        return public_url(self.url)


class HuggingFace(NamedTuple):
    """A file or folder of a repository."""

    kind: str
    """`models`, `datasets` or `spaces`."""
    repo: str
    revision: str
    path: str
    """"" for all of it."""
    folder: bool
    """Whether it is written as a folder; what is written as a file may be one."""
    token: str = ""
    """What the source itself says of who asks."""

    @property
    def public(self) -> str:
        """The address of the file or folder."""
        if not self.folder:
            return self.file(self.path)
        end = f"/{quote(self.path)}" if self.path else ""
        return f"{HUGGINGFACE}/{self.place}/tree/{quote(self.revision, safe='')}{end}"

    @property
    def place(self) -> str:
        """The repository as it stands in addresses."""
        return self.repo if self.kind == "models" else f"{self.kind}/{self.repo}"

    def file(self, path: str) -> str:
        """The address of a file of the repository."""
        revision = quote(self.revision, safe="")
        return f"{HUGGINGFACE}/{self.place}/resolve/{revision}/{quote(path)}"


class Civitai(NamedTuple):
    """A file of a version of a model; the newest version where none is named."""

    model: str
    """"" where the version alone is named."""
    version: str
    """"" for the newest."""
    choices: tuple[tuple[str, str], ...] = ()
    """What chooses among the files, in the order of CHOICES."""
    token: str = ""
    """What the source itself says of who asks."""

    @property
    def public(self) -> str:
        """The address of the model's page, or of the version's file."""
        query = f"?{urlencode(self.choices)}" if self.choices else ""
        if not self.version:
            return f"{CIVITAI}/models/{self.model}{query}"
        return f"{CIVITAI}/api/download/models/{self.version}{query}"


class Gcs(NamedTuple):
    """An object of Google Cloud Storage, or all whose names begin with a folder's."""

    bucket: str
    name: str
    """A folder's ends with '/'; "" for the whole bucket."""
    generation: str = ""

    @property
    def folder(self) -> bool:
        """Whether it is written as a folder."""
        return not self.name or self.name.endswith("/")

    @property
    def public(self) -> str:
        """`gs://bucket/name#generation`"""
        end = f"#{self.generation}" if self.generation else ""
        return f"gs://{self.bucket}/{self.name}{end}"


class S3(NamedTuple):
    """An object of S3 or of a server that speaks its protocol, or a folder of them."""

    bucket: str
    key: str
    """A folder's ends with '/'; "" for the whole bucket."""
    endpoint: str = ""
    region: str = ""
    version: str = ""

    @property
    def folder(self) -> bool:
        """Whether it is written as a folder."""
        return not self.key or self.key.endswith("/")

    @property
    def public(self) -> str:
        """`s3://bucket/key?endpoint=…&region=…&versionId=…`"""
        named = (("endpoint", self.endpoint), ("region", self.region), ("versionId", self.version))
        query = urlencode([pair for pair in named if pair[1]], safe=":/")
        return f"s3://{self.bucket}/{self.key}{f'?{query}' if query else ''}"


class Stored(NamedTuple):
    """An entry of the store, by the first digits of its id."""

    digits: str

    @property
    def public(self) -> str:
        """`cvs:<digits>`"""
        return f"cvs:{self.digits}"


Source = Local | Web | HuggingFace | Civitai | Gcs | S3 | Stored


def parse(text: str, where: str) -> Source:
    """Reads the text of a source.

    A relative path is relative to the spec's folder, or else to the working directory.

    Args:
        where: the place of the text, begins every message: `file: field`.

    Raises:
        InputError: it is of a kind that is not known, or not of its kind's form.
    """
    if not text.isprintable():
        raise InputError(f"{where}: {shown(text)} cannot be used")
    match = _SCHEME.match(text)
    if match is None:
        base = os.path.dirname(os.path.abspath(where.partition(": ")[0]))
        beside = os.path.join(base, os.path.expanduser(text))
        return Local(
            beside if os.path.exists(beside) else os.path.abspath(os.path.expanduser(text))
        )
    scheme, rest = match[1].lower(), text[match.end() :]
    if scheme in ("hf", "huggingface"):
        return _hf(rest, where)
    if scheme == "civitai":
        return _civitai(rest, where)
    if scheme == "gs":
        return _gcs(rest, where)
    if scheme == "s3":
        return _s3(rest, where)
    if scheme == "cvs":
        return _stored(rest, where)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InputError(f"{where}: the {scheme}: URL is not one") from None
    if scheme == "file":
        path = unquote(parts.path)
        if host not in (None, "localhost") or not path.startswith("/") or not path.isprintable():
            raise InputError(f"{where}: {text!r} is not a file of this machine")
        return Local(path)
    if scheme not in ("http", "https"):
        raise InputError(f"{where}: {scheme}: sources are not known", hint=_KNOWN)
    if not host or port == 0:
        raise InputError(f"{where}: {public_url(text)!r} has no host")
    found: Source | None = None
    if port in (None, 80, 443):
        if host in _HUGGINGFACE_HOSTS:
            found = _hf_page(parts, where)
        elif host in _CIVITAI_HOSTS:
            found = _civitai_path(parts.path.strip("/"), parts.query, where)
    return found or Web(text)


def public_url(url: str) -> str:
    """A URL without user, password and secret parameters, for locks and logs."""
    parts = urlsplit(url)
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if not _SECRET.search(name) and ";" not in name + value
    ]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(query), ""))


def _after_slashes(rest: str, form: str, where: str) -> str:
    """What follows `//`, which begins the rest of most kinds."""
    if not rest.startswith("//"):
        raise InputError(f"{where}: the source is not like {form}")
    return rest[2:]


def _parameters(query: str, known: tuple[str, ...], where: str) -> dict[str, str]:
    """The parameters of a query, each once and known."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise InputError(
                f"{where}: the source has the parameter {shown(name)}, which is not known",
                hint=f"known are {', '.join(known)}",
            )
        if found.setdefault(name, value) != value:
            raise InputError(f"{where}: the source has the parameter {name} twice")
    return found


# HuggingFace


_HF_FORM = "hf://org/repo@revision/path"


def _hf(rest: str, where: str) -> HuggingFace:
    """`//[models/|datasets/|spaces/]org/repo[@revision][/path][?rev=revision]`"""
    place, _, query = _after_slashes(rest, _HF_FORM, where).partition("?")
    named = _parameters(query, ("rev", "revision"), where)
    kind, slash, below = place.partition("/")
    if kind not in ("models", "datasets", "spaces"):
        kind, below = "models", place
    elif not slash:
        raise InputError(f"{where}: the source is not like {_HF_FORM}")
    owner, _, below = below.partition("/")
    # An '@' further on is part of a file's name.
    name, slash, path = below.partition("/")
    name, at, revision = name.partition("@")
    if at:
        special = _SPECIAL_REVISION.match(f"{revision}{slash}{path}")
        if special:
            path = f"{revision}{slash}{path}"[special.end() :].removeprefix("/")
            revision = special[0]
        named.setdefault("rev", unquote(revision))
        if not revision or unquote(revision) != named["rev"]:
            raise InputError(f"{where}: the source names two revisions, or an empty one")
    if len(set(named.values())) > 1:
        raise InputError(f"{where}: the source names two revisions")
    revision = next(iter(named.values()), MAIN)
    return _repository(kind, f"{owner}/{name}", revision, path, where)


def _hf_page(parts: SplitResult, where: str) -> HuggingFace | None:
    """The file or folder that a page of the site shows; None for another page."""
    steps = parts.path.strip("/").split("/")
    kind = "models"
    if steps[0] in ("datasets", "spaces"):
        kind = steps.pop(0)
    # Old repositories of the site itself have no owner.
    marks = [
        mark for mark in (1, 2) if steps[mark : mark + 1] and steps[mark] in (*_FILE_PAGES, "tree")
    ]
    if not marks:
        if len(steps) != 2 or steps[0] in ("api", "docs", "papers", "settings", "collections"):
            return None
        return _repository(kind, "/".join(steps), MAIN, "", where)
    mark = marks[0]
    special = _SPECIAL_REVISION.match("/".join(steps[mark + 1 :]))
    revision = special[0] if special else "".join(steps[mark + 1 : mark + 2])
    rest = steps[mark + 1 + revision.count("/") + 1 :]
    path = "/".join(unquote(step) for step in rest)
    if steps[mark] in _FILE_PAGES and not path:
        raise InputError(f"{where}: the address names no file of the repository")
    found = _repository(kind, "/".join(steps[:mark]), unquote(revision), path, where)
    token = unquote(parts.password or "")
    return found._replace(folder=steps[mark] == "tree", token=token)


def _repository(kind: str, repo: str, revision: str, path: str, where: str) -> HuggingFace:
    if not all(_REPOSITORY_PART.fullmatch(part) for part in repo.split("/")):
        raise InputError(f"{where}: {shown(repo)} is not a repository like 'org/repo'")
    folder = not path or path.endswith("/")
    path = path.rstrip("/")
    odd = any(part in ("", ".", "..") for part in path.split("/")) and path != ""
    if odd or not path.isprintable() or path.startswith("/"):
        raise InputError(f"{where}: {shown(path)} cannot be a path of a repository")
    parts = revision.split("/")
    if not revision.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise InputError(f"{where}: {shown(revision)} cannot be a revision")
    return HuggingFace(kind, repo, revision, path, folder)


# Civitai


_CIVITAI_FORM = "civitai:<version>, civitai://models/<model> or https://civitai.com/models/<model>"


def _civitai(rest: str, where: str) -> Civitai:
    """`<version>`, `//models/<model>` or `//api/download/models/<version>`, with a query."""
    place, _, query = rest.partition("?")
    if _NUMBER.fullmatch(place):
        return _version("", place, query, where)
    found = _civitai_path(place.removeprefix("//").strip("/"), query, where)
    if found is None or not place.startswith("//"):
        raise InputError(f"{where}: the source is not like {_CIVITAI_FORM}")
    return found


def _civitai_path(path: str, query: str, where: str) -> Civitai | None:
    """The model or version that a path of the site leads to; None for another page."""
    steps = path.split("/")
    if steps[:3] == ["api", "download", "models"] and len(steps) == 4:
        number, model = steps[3], ""
    elif steps[0] == "models" and len(steps) in (2, 3):
        number, model = "", steps[1]
    else:
        return None
    if not _NUMBER.fullmatch(number or model):
        raise InputError(f"{where}: {shown(number or model)} is not the number of a model")
    return _version(model, number, query, where)


def _version(model: str, version: str, query: str, where: str) -> Civitai:
    """What of it is chosen. Other parameters of the site mean nothing for the file."""
    found = dict(parse_qsl(query))
    if model and "modelVersionId" in found:
        version = found["modelVersionId"]
        if not _NUMBER.fullmatch(version):
            raise InputError(f"{where}: {shown(version)} is not the number of a version")
        # The number of a version is one of the whole site.
        model = ""
    choices = tuple((name, found[name]) for name in CHOICES if found.get(name))
    if not all(value.isprintable() and len(value) <= 100 for _, value in choices):
        raise InputError(f"{where}: the parameters of the source cannot be used")
    return Civitai(model, version, choices, found.get("token", ""))


# Buckets


def _gcs(rest: str, where: str) -> Gcs:
    """`//bucket/name[#generation]`"""
    bucket, name = _bucket(_after_slashes(rest, "gs://bucket/name", where), where)
    begin, mark, generation = name.rpartition("#")
    if not mark or not _NUMBER.fullmatch(generation):
        return Gcs(bucket, name)
    found = Gcs(bucket, begin, generation)
    if found.folder:
        raise InputError(f"{where}: a folder has no generation")
    return found


def _s3(rest: str, where: str) -> S3:
    """`//bucket/key[?endpoint=…][&region=…][&versionId=…]`"""
    place, _, query = _after_slashes(rest, "s3://bucket/key", where).partition("?")
    bucket, key = _bucket(place, where)
    named = _parameters(query, ("endpoint", "region", "versionId"), where)
    endpoint = named.get("endpoint", "")
    if endpoint:
        _check_endpoint(endpoint, where)
    found = S3(bucket, key, endpoint, named.get("region", ""), named.get("versionId", ""))
    if not all(text.isprintable() for text in found):
        raise InputError(f"{where}: the parameters of the source cannot be used")
    if found.folder and found.version:
        raise InputError(f"{where}: a folder has no version")
    return found


def _check_endpoint(text: str, where: str) -> None:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "?" in text or "#" in text or "@" in text:
        raise InputError(f"{where}: the endpoint is not like https://s3.example.org")


def _bucket(place: str, where: str) -> tuple[str, str]:
    bucket, _, name = place.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{where}: {shown(bucket)} cannot be a bucket")
    if not name.isprintable() or len(name) > 1024:
        raise InputError(f"{where}: {shown(name)} cannot be the name of an object")
    return bucket, name


def _stored(rest: str, where: str) -> Stored:
    digits = rest.lower()
    if not _DIGITS.fullmatch(digits):
        raise InputError(
            f"{where}: {shown(rest)} is not the id of an entry",
            hint="cvs: is followed by 64 hexadecimal digits, or the first 8 or more of them",
        )
    return Stored(digits)
