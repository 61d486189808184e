"""What a model file is, told from its first bytes and its size.

The rules for safetensors are those of its reference implementation: a header of up to 100 MB whose
tensors lie behind it without a gap, up to the very end of the file. So one that was cut, or goes
on behind its end, is known without a checksum.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec

from cvs.store.errors import InputError, IntegrityError, SourceError, shown

Kind = Literal["safetensors", "gguf", "pickle", "onnx", "unknown"]

#: Names that a model file is expected under.
SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")

#: Names whose files are loaded as pickles, whatever they are.
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")

_SAFETENSORS = (".safetensors", ".sft")
#: Where a web page may be what was asked for.
_PAGES = (".html", ".htm", ".xhtml", ".svg", ".xml", ".md")

#: The cure where no pickles are allowed.
NO_PICKLE = "take the model as .safetensors, or allow pickles if you trust who made it"

#: Bytes of the start of a file that all but a header of safetensors is told from.
START = 4096

#: Bytes of the longest header of safetensors, as of its reference implementation.
HEADER_LIMIT = 100_000_000

#: Bytes of memory that one and what is read from it may take.
_MEMORY_LIMIT = 200_000_000

#: Bits of one number of each type of safetensors. A type that came later is not measured.
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
}

_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
_HTML = re.compile(
    rb"(?:<!--(?:(?!-->).)*+-->\s*+)*+<(?:!doctype\s+html|html[\s>])", re.IGNORECASE | re.DOTALL
)
_XML = re.compile(rb"<[?!A-Za-z]")
_JSON = re.compile(rb'\{\s*["}]|\[\s*[\[{"\]]')
#: Of a zip file the name of its first member: what torch saves begins with its pickle.
_TORCH_ZIP = re.compile(rb"PK\x03\x04.{26}[^\0]{1,200}\.pkl", re.DOTALL)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Format(NamedTuple):
    """What a model file is, and what its header says."""

    kind: Kind
    tensors: int | None = None
    """How many it has; None where the header does not say."""
    dtypes: Mapping[str, int] = {}
    """The types of its numbers, as `BF16`, each with the bytes that it takes."""
    metadata: Mapping[str, str] = {}
    """What its maker wrote about it."""


class NotModel(Exception):
    """Bytes are not what they should be; its text goes on after the file's name."""


class OtherFormat(NotModel):
    """Bytes do not even begin as those of the format that their name promises: nothing says that
    they are not as they were made."""


class _Tensor(msgspec.Struct, frozen=True):
    """What a header of safetensors says of one tensor."""

    dtype: str
    shape: tuple[_Count, ...]
    data_offsets: tuple[_Count, _Count]


_HEADER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TENSOR = msgspec.json.Decoder(_Tensor)
_METADATA = msgspec.json.Decoder(dict[str, str] | None)


def is_model(name: str) -> bool:
    """Whether a file of that name is expected to be a model."""
    return name.lower().endswith(SUFFIXES)


def is_pickle(name: str) -> bool:
    """Whether a file of that name is loaded as a pickle: all that is known before its bytes."""
    return name.lower().endswith(PICKLES)


def check(
    path: str, name: str, *, allow_pickle: bool = True, warn: Callable[[str], object] | None = None
) -> Format:
    """Makes sure that a complete file is what its name promises, before it is stored.

    Args:
        warn: told of a file in another format than its name says, which is let pass then.

    Raises:
        SourceError: it is a web page, an error or a pointer in place of a model.
        IntegrityError: it is cut, overlong or broken; it is in another format and there is no
            `warn`.
        InputError: it is a pickle, or would be loaded as one, and none is allowed.
    """
    try:
        found = _read(path, name)
    except OtherFormat as fault:
        if warn is None:
            raise IntegrityError(f"{name} {fault}", hint=_hint(name)) from None
        warn(f"{name} {fault}")
        found = Format("unknown")
    except NotModel as fault:
        raise IntegrityError(f"{name} {fault}", hint=_hint(name)) from None
    if not allow_pickle and (found.kind == "pickle" or _may_be_pickle(found, name)):
        what = "is a pickle" if found.kind == "pickle" else "would be loaded as a pickle"
        raise InputError(
            f"{name} {what}, which may run any program, and options.allow_pickle is false",
            hint=NO_PICKLE,
        )
    return found


def _may_be_pickle(found: Format, name: str) -> bool:
    return found.kind == "unknown" and is_pickle(name)


def read(path: str, name: str) -> Format:
    """What a file is that is called `name`.

    Raises:
        SourceError, IntegrityError: as `check`.
    """
    try:
        return _read(path, name)
    except NotModel as fault:
        raise IntegrityError(f"{name} {fault}", hint=_hint(name)) from None


def _read(path: str, name: str) -> Format:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(START)
        if stand_in := instead(start, name):
            raise SourceError(f"{name} is {stand_in[0]} and no model", hint=stand_in[1])
        kind = kind_of(start, name)
        if is_model(name) and not size:
            raise NotModel("is empty")
        _check_name(kind, name)
        if kind == "safetensors":
            length = header_length(start, size)
            file.seek(8)
            return header(file.read(length), size)
        return _gguf(start, size) if kind == "gguf" else Format(kind)


def _hint(name: str) -> str:
    return f"fetch {os.path.basename(name)} again, or look at what its source has"


def instead(start: bytes, name: str) -> tuple[str, str] | None:
    """What came in place of a file, by its first bytes, and the cure; None where nothing did."""
    if start.startswith(_LFS_POINTER):
        return (
            "a pointer of Git LFS",
            "the source gives the pointer and not the file: use the address of the file itself",
        )
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _HTML.match(text) and not name.lower().endswith(_PAGES):
        return (
            "a web page",
            "open the address in a browser: it may ask for a login or for a licence",
        )
    if is_model(name) and (_XML.match(text) or _JSON.match(text)) and _is_text(text):
        what = "a JSON document" if _JSON.match(text) else "an XML document"
        return what, f"it begins: {shown(text[:100].decode(errors='replace'))}"
    return None


def _is_text(start: bytes) -> bool:
    """Whether these bytes, which may end within a character, are text."""
    try:
        start[:-4].decode()
    except UnicodeDecodeError:
        return False
    return not re.search(rb"[\x00-\x08\x0e-\x1f]", start)


def kind_of(start: bytes, name: str) -> Kind:
    """What a file is by its first bytes, and by its name where these say nothing."""
    lower = name.lower()
    if is_model(name) and start.startswith(b"GGUF"):
        return "gguf"
    # A length that no header has is none: of a pickle, say.
    length = int.from_bytes(start[:8], "little")
    if is_model(name) and start[8:9] == b"{" and length <= HEADER_LIMIT:
        return "safetensors"
    if _TORCH_ZIP.match(start) or _PICKLE.match(start):
        return "pickle"
    if start[257:262] == b"ustar" and lower.endswith(PICKLES):
        # As torch saved before it used zip.
        return "pickle"
    if lower.endswith(_SAFETENSORS) and not start.startswith(b"PK"):
        return "safetensors"
    return "onnx" if lower.endswith(".onnx") else "unknown"


def _check_name(kind: Kind, name: str) -> None:
    """Refuses what no loader would take under this name."""
    lower = name.lower()
    if lower.endswith(_SAFETENSORS) and kind != "safetensors":
        what = "in another format" if kind == "unknown" else f"in the format {kind}"
        raise OtherFormat(f"is {what}, not in that of its name")
    if lower.endswith(".gguf") and kind != "gguf":
        raise OtherFormat("is not in the format of its name: it does not begin with GGUF")


def header_length(start: bytes, size: int) -> int:
    """The bytes of the header of a safetensors file, which stands behind these 8.

    Raises:
        NotModel: no header can be so long.
    """
    if len(start) < 8:
        raise OtherFormat(f"is no safetensors file: it has {size} bytes")
    length = int.from_bytes(start[:8], "little")
    if length > HEADER_LIMIT:
        raise OtherFormat(
            f"is no safetensors file: its header would have {length} bytes, "
            f"{HEADER_LIMIT} are the most"
        )
    if 8 + length > size:
        raise NotModel(f"is cut: its header has {length} bytes, the whole file {size}")
    return length


def header(data: bytes, size: int) -> Format:
    """What the header of a safetensors file says.

    Args:
        size: of the whole file, which the header has to account for.

    Raises:
        NotModel: it is not one, or the file is shorter or longer than it says.
    """
    if _memory(data) > _MEMORY_LIMIT:
        raise NotModel(f"has a header of {len(data)} bytes that is too complex to be read")
    try:
        items = _HEADER.decode(data)
        metadata = _METADATA.decode(items.pop("__metadata__", msgspec.Raw(b"null")))
        tensors = [(name, _TENSOR.decode(raw)) for name, raw in items.items()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotModel(f"has a header that is not one of safetensors: {error}") from None
    tensors.sort(key=lambda item: item[1].data_offsets)
    end = 0
    dtypes: dict[str, int] = {}
    for name, tensor in tensors:
        begin, before = tensor.data_offsets[0], end
        end = tensor.data_offsets[1]
        if begin != before or end < begin:
            raise NotModel(f"has a header in which the place of {shown(name)} cannot be")
        bits = _BITS.get(tensor.dtype)
        if bits is not None and _volume(tensor.shape) * bits != (end - begin) * 8:
            raise NotModel(f"has a header in which {shown(name)} has not the size of its shape")
        dtypes[tensor.dtype] = dtypes.get(tensor.dtype, 0) + end - begin
    wanted = 8 + len(data) + end
    if size < wanted:
        raise NotModel(f"is cut: it has {size} bytes of {wanted}")
    if size > wanted:
        raise NotModel(f"is too long: it has {size} bytes, its header accounts for {wanted}")
    return Format("safetensors", len(tensors), dtypes, metadata or {})


def _memory(data: bytes) -> int:
    """Bytes that a document and what is read from it take at most, by its texts and items."""
    wide = not data.isascii() or b"\\u" in data
    items = data.count(b",") + data.count(b":")
    return len(data) * (5 if wide else 2) + 100 * items


def _volume(shape: tuple[int, ...]) -> int:
    """The numbers in a tensor; more than any file has once that is known."""
    if 0 in shape:
        return 0
    found = 1
    for length in shape:
        found *= length
        if found >> 64:
            break
    return found


def _gguf(start: bytes, size: int) -> Format:
    """What the first bytes of a GGUF file say: its version and two counts."""
    if len(start) < 24:
        raise NotModel(f"is cut: it has {size} bytes")
    # One for machines of the other byte order has its version turned round.
    order: Literal["little", "big"] = "little" if any(start[4:6]) else "big"
    version = int.from_bytes(start[4:8], order)
    wide = 4 if version == 1 else 8
    tensors = int.from_bytes(start[8 : 8 + wide], order)
    items = int.from_bytes(start[8 + wide : 8 + 2 * wide], order)
    # Of each there are at least a length, a type and a value.
    if not 1 <= version <= 0xFFFF or (tensors + items) * 12 > size:
        raise NotModel(f"is no GGUF file: {tensors} tensors do not fit into {size} bytes")
    return Format("gguf", tensors)
