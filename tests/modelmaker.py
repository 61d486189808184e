"""Small model files of each format, as the programs that read them take them."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any


def safetensors(
    content: bytes = b"weights", metadata: Mapping[str, str] | None = None, dtype: str = "U8"
) -> bytes:
    """A safetensors file with these bytes as its only tensor."""
    bits = {"U8": 8, "F8_E4M3": 8, "BF16": 16, "F16": 16, "F32": 32}[dtype]
    tensor = {
        "dtype": dtype,
        "shape": [len(content) * 8 // bits],
        "data_offsets": [0, len(content)],
    }
    items: dict[str, Any] = {"weight": tensor}
    if metadata is not None:
        items["__metadata__"] = dict(metadata)
    return with_header(items, content)


def with_header(items: Any, content: bytes = b"") -> bytes:
    """A file with any header, which need not fit its content."""
    header = items if isinstance(items, bytes) else json.dumps(items).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content


def gguf(tensors: int = 1, items: int = 0, version: int = 3, size: int = 400) -> bytes:
    """What a GGUF file begins with, and zeros up to a size."""
    start = b"GGUF" + version.to_bytes(4, "little")
    start += tensors.to_bytes(8, "little") + items.to_bytes(8, "little")
    return start.ljust(size, b"\0")


def torch_zip(members: Sequence[str] = ("archive/data.pkl", "archive/version")) -> bytes:
    """A file as torch.save writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in members:
            archive.writestr(name, b"\x80\x02}q\x00.")
    return file.getvalue()


#: What a file begins with that torch.save wrote before it used zip.
LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e80024de9032e") + b"\0" * 40
