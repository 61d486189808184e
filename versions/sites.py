"""The sites whose answers cvs understands, and where each is asked."""

from typing import NamedTuple
from urllib.parse import urlsplit

from cvs.store.errors import InputError

#: Their public addresses: what a lock names, wherever they were asked.
HUGGINGFACE = "https://huggingface.co"
CIVITAI = "https://civitai.com"


class Sites(NamedTuple):
    """Where each site is asked: its public address, or another one that gives the same."""

    huggingface: str = HUGGINGFACE
    civitai: str = CIVITAI


#: Every site at its public address.
PUBLIC = Sites()


def parse(huggingface: str | None, civitai: str | None) -> Sites:
    """The sites, with what the settings say in place of their public addresses.

    Raises:
        InputError: one is no http(s) address.
    """
    return Sites(
        _address("HF_ENDPOINT", huggingface) if huggingface else HUGGINGFACE,
        _address("CIVITAI_ENDPOINT", civitai) if civitai else CIVITAI,
    )


def _address(variable: str, text: str) -> str:
    """An address without a final '/'. It is not repeated in a message: it may hold a password."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or "?" in text or "#" in text or " " in text:
        raise InputError(f"{variable} is not an address like https://huggingface.co")
    if "@" in parts.netloc:
        raise InputError(f"{variable} holds a user or password", hint="tokens have their own place")
    return text.rstrip("/")
