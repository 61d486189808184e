"""Civitai: which file of which version is meant, and what is known of it before it is fetched.

A lock names version and file at the public address, whatever address was asked.
"""

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlsplit

import msgspec

from cvs.store.digest import EntryId
from cvs.store.errors import SourceError
from cvs.versions import answers, sources
from cvs.versions.http import Client
from cvs.versions.located import Located
from cvs.versions.sites import CIVITAI
from cvs.versions.tokens import Tokens

_DIGEST = re.compile(r"[0-9a-f]{64}")

#: What the site says of a version whose files anybody may have.
_DOWNLOAD = "Download"


class _Hashes(msgspec.Struct, frozen=True):
    sha256: str = msgspec.field(default="", name="SHA256")
    blake3: str = msgspec.field(default="", name="BLAKE3")


class _Metadata(msgspec.Struct, frozen=True):
    format: str | None = None
    size: str | None = None
    fp: str | None = None
    quant_type: str | None = msgspec.field(default=None, name="quantType")


class _File(msgspec.Struct, frozen=True):
    name: str
    id: int = 0
    type: str = ""
    size: float | None = msgspec.field(default=None, name="sizeKB")
    metadata: _Metadata = _Metadata()
    hashes: _Hashes = _Hashes()
    url: str = msgspec.field(default="", name="downloadUrl")
    primary: bool | None = None

    @property
    def choices(self) -> dict[str, str]:
        """What tells it from the other files of its version, as addresses have it."""
        named = {
            "fileId": str(self.id) if self.id else "",
            "type": self.type,
            "format": self.metadata.format,
            "size": self.metadata.size,
            "fp": self.metadata.fp,
            "quantType": self.metadata.quant_type,
        }
        return {name: value for name, value in named.items() if value}


class _Version(msgspec.Struct, frozen=True):
    id: int
    name: str = ""
    files: tuple[_File, ...] = ()
    usage: str = msgspec.field(default=_DOWNLOAD, name="usageControl")


class _Model(msgspec.Struct, frozen=True):
    versions: tuple[_Version, ...] = msgspec.field(default=(), name="modelVersions")


def locate(source: sources.Civitai, endpoint: str, tokens: Tokens) -> Located:
    """The file that is meant: the primary one, unless the source chooses another.

    Raises:
        SourceError: the site does not have it, or refuses it.
    """
    version = _version(source, endpoint, Client(tokens))
    shown = f"{CIVITAI}/api/download/models/{version.id}"
    if version.usage != _DOWNLOAD:
        raise SourceError(f"{shown} may be used on the site alone: its author allows no download")
    if not version.files:
        raise SourceError(f"{shown} has no files, or none any more")
    file = _chosen(version, source.choices, shown)
    named = sources.Civitai("", str(version.id), _naming(file))
    sha256, blake3 = file.hashes.sha256.lower(), file.hashes.blake3.lower()
    return Located(
        source=named.public,
        name=file.name,
        size=_size(file.size),
        sha256=sha256 if _DIGEST.fullmatch(sha256) else None,
        entry=EntryId(blake3) if _DIGEST.fullmatch(blake3) else None,
    )


def address(source: sources.Civitai, endpoint: str) -> str:
    """Where a file is fetched."""
    return endpoint + source.public.removeprefix(CIVITAI)


def _version(source: sources.Civitai, endpoint: str, client: Client) -> _Version:
    kind = "model-versions" if source.version else "models"
    url = f"{endpoint}/api/v1/{kind}/{source.version or source.model}"
    answer = client.ask(url)
    if answer.status in (401, 403):
        message, hint = client.tokens.refusal(url, answer.status, answer.headers)
        raise SourceError(message, hint=hint)
    if answer.status == 404:
        raise SourceError(
            f"{source.public} does not exist (answer 404)",
            hint="its author may have taken it back",
        )
    if answer.status != 200:
        raise SourceError(f"{source.public} answered {answer.status}")
    if source.version:
        return answers.parsed(answer, _Version)
    versions = answers.parsed(answer, _Model).versions
    if not versions:
        raise SourceError(f"{source.public} has no published version")
    # The site lists the newest first.
    return versions[0]


def _chosen(version: _Version, choices: Sequence[tuple[str, str]], shown: str) -> _File:
    """The file that fits what is asked for; of several the primary one, else the first."""
    fitting = [
        file
        for file in version.files
        if all(file.choices.get(name, "").lower() == value.lower() for name, value in choices)
    ]
    if not fitting:
        known = "; ".join(
            " ".join(f"{name}={value}" for name, value in file.choices.items())
            for file in version.files
        )
        asked = " ".join(f"{name}={value}" for name, value in choices)
        raise SourceError(f"{shown} has no file with {asked}", hint=f"it has {known}")
    return next((file for file in fitting if file.primary), fitting[0])


def _naming(file: _File) -> tuple[tuple[str, str], ...]:
    """The parameters that name this file and no other.

    The site's own address of the file has them, but for the primary file: without parameters it
    gives every user the one that their settings prefer.
    """
    given = dict(parse_qsl(urlsplit(file.url).query))
    found = given if given.keys() & {*sources.CHOICES} else file.choices
    if not given:
        # Addresses with the number of a file are newer than the rest: a mirror may not know them.
        found = {name: value for name, value in found.items() if name != "fileId"}
    return tuple((name, found[name]) for name in sources.CHOICES if found.get(name))


def _size(kilobytes: float | None) -> int | None:
    """The bytes of a file, where the number of kilobytes was not rounded."""
    if kilobytes is None or not 0 <= kilobytes < 1 << 40:
        return None
    size = kilobytes * 1024
    # A number with up to two decimals may have been rounded to them.
    rounded = (kilobytes * 100).is_integer()
    return int(size) if size.is_integer() and not rounded else None
