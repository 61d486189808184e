"""Reading a form with files out of a request's body."""

import re
from dataclasses import dataclass


@dataclass
class Field:
    """One field of a form; `filename` is None unless it is a file."""

    value: bytes
    filename: str | None


def parse(content_type: str, body: bytes) -> dict[str, Field]:
    """The fields by name, the first of each name; none for anything but a form."""
    boundary = re.search(r'multipart/form-data.*?boundary=("?)([^";]+)\1', content_type, re.I)
    if boundary is None:
        return {}
    mark = b"\r\n--" + boundary[2].strip().encode()
    fields: dict[str, Field] = {}
    for part in (b"\r\n" + body).split(mark)[1:]:
        if part.startswith(b"--"):
            break
        head, gap, value = part.partition(b"\r\n\r\n")
        if not gap:
            continue
        disposition = re.search(rb"(?im)^content-disposition:[ \t]*(.*)$", head)
        text = disposition[1].decode("utf-8", "replace") if disposition else ""
        name = _parameter(text, "name")
        if name is not None:
            fields.setdefault(name, Field(value, _parameter(text, "filename")))
    return fields


def _parameter(text: str, name: str) -> str | None:
    match = re.search(rf'(?i);\s*{name}=(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', text)
    if match is None:
        return None
    return re.sub(r"\\(.)", r"\1", match[1]) if match[1] is not None else match[2]
