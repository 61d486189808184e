"""Reading documents that people write, strictly, and writing documents in one canonical form.

What JSON and YAML readers let pass in silence is refused here: duplicate keys, NaN and
infinities, absurd depth and size, YAML aliases (a few lines of them can mean gigabytes). Every
error names the file and the field.
"""

import difflib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cvs.store.errors import InputError

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")

#: Limits for documents from people; a lock of 300 packages has about 200 kB.
SIZE_LIMIT = 16 << 20
DEPTH_LIMIT = 64

_INFINITIES = (float("inf"), float("-inf"))
#: An escape that stands for half a character, unless its other half is beside it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

#: What YAML reads as another value than it looks like: 8188:30 as 491310, 0755 as 493.
_MISREAD = re.compile(r"[^:]*:.*|[-+]?0[0-9_]+")
_YAML_TAG = "tag:yaml.org,2002:"
_COLLECTIONS = (_YAML_TAG + "map", _YAML_TAG + "seq")
_SCALARS: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (float, int)}
_NULLS = ("", "~", "null", "Null", "NULL")

_MESSAGE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<where>[^`]*)`)?$", re.DOTALL)
_QUOTED = re.compile(r"`([^`]*)`")
_TYPE_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


def read_bytes(path: str, *, limit: int = SIZE_LIMIT) -> bytes:
    """Reads a document's file.

    Raises:
        InputError: there is none, it cannot be read, or it is larger than `limit` bytes.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise InputError(f"{path} is larger than {limit >> 20} MiB, too large for a document")
    return data


def load_json(data: bytes, where: str) -> Any:
    """Parses JSON strictly; `where` begins every message.

    Raises:
        InputError: not UTF-8, not JSON, a duplicate key, NaN or infinity, too deep, too large.
    """
    text = _text(data, where)
    _check_depth(text, where)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                raise InputError(f"{where}: the key {key[:80]!r} is there twice")
            found[key] = value
        return found

    def constant(name: str) -> Any:
        raise InputError(f"{where}: {name} is not a value of JSON")

    def number(digits: str) -> float:
        value = float(digits)
        if value in _INFINITIES:
            raise InputError(f"{where}: {digits[:40]} is too large a number")
        return value

    try:
        value = json.loads(
            text, object_pairs_hook=pairs, parse_constant=constant, parse_float=number
        )
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not JSON: {error.msg[:1].lower()}{error.msg[1:]} "
            f"(line {error.lineno}, column {error.colno})"
        ) from None
    except ValueError:
        # Python refuses to read integers of thousands of digits.
        raise InputError(f"{where}: a number is too long") from None
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{where}: a text holds half a character (\\ud800 to \\udfff)"
            ) from None
    return value


def load_yaml(data: bytes, where: str) -> Any:
    """Parses YAML (plain data only), as strictly as `load_json`.

    Raises:
        InputError: as `load_json`; also for aliases, tags and keys that are not text.
    """
    import yaml

    text = _text(data, where)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise InputError(f"{where} is not YAML: {error.problem or error.context}{place}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Numbers of escapes and directives that are out of all bounds are no YAMLError.
        raise InputError(f"{where} is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise InputError(f"{where} is nested deeper than {DEPTH_LIMIT} levels") from None
    return None if node is None else _from_yaml(node, where, 0, set())


def _from_yaml(node: "yaml.Node", where: str, depth: int, seen: set[int]) -> Any:
    import yaml

    line = node.start_mark.line + 1
    if depth >= DEPTH_LIMIT and isinstance(node, yaml.CollectionNode):
        raise InputError(f"{where} is nested deeper than {DEPTH_LIMIT} levels (line {line})")
    if id(node) in seen:
        raise InputError(f"{where}: aliases are not accepted (line {line})")
    seen.add(id(node))
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
        raise _unknown_tag(node, where)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _from_yaml(key_node, where, depth + 1, seen)
            if not isinstance(key, str):
                raise InputError(f"{where}: the key {key!r:.80} is not text (line {line})")
            if key in found:
                line = key_node.start_mark.line + 1
                raise InputError(f"{where}: the key {key[:80]!r} is there twice (line {line})")
            found[key] = _from_yaml(value_node, where, depth + 1, seen)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_from_yaml(item, where, depth + 1, seen) for item in node.value]
    value: str = node.value
    tag = node.tag.removeprefix(_YAML_TAG)
    if tag in ("str", "timestamp"):
        return _whole(value, where, line)
    if tag == "null" and value in _NULLS:
        return None
    if tag in _SCALARS:
        if _MISREAD.fullmatch(value):
            return value
        try:
            plain = yaml.safe_load(value) if len(value) < 100 else None
        except (yaml.YAMLError, ValueError):
            plain = None
        if type(plain) not in _SCALARS[tag] or plain != plain or plain in _INFINITIES:
            raise InputError(f"{where}: {value[:40]!r} is not a value (line {line})")
        return plain
    raise _unknown_tag(node, where)


def _unknown_tag(node: "yaml.Node", where: str) -> InputError:
    line = node.start_mark.line + 1
    return InputError(f"{where}: the tag {node.tag[:80]!r} is not accepted (line {line})")


def _whole(text: str, where: str, line: int) -> str:
    """Puts the halves of characters together that escapes gave one by one, as in JSON."""
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise InputError(f"{where}: a text holds half a character (line {line})") from None


def load(path: str) -> Any:
    """Reads a JSON file, or a YAML file where its name ends so.

    Raises:
        InputError: as `read_bytes`, `load_json`, `load_yaml`.
    """
    data = read_bytes(path)
    is_yaml = path.endswith((".yaml", ".yml"))
    return load_yaml(data, path) if is_yaml else load_json(data, path)


def convert(value: Any, kind: type[T], where: str) -> T:
    """Makes a typed document of parsed data.

    Raises:
        InputError: an unknown or missing field or a wrong type, with its place.
    """
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise InputError(_explain(str(error), kind, where)) from None


def _explain(text: str, kind: Any, where: str) -> str:
    match = _MESSAGE.match(text)
    assert match is not None  # The pattern fits every text.
    what, place = match["what"], (match["where"] or "$").removeprefix("$").removeprefix(".")
    names = _QUOTED.findall(what)
    if what.startswith("Object contains unknown field"):
        name = what.partition("`")[2][:-1][:80]
        what = f"there is no field {name!r}"
        near = difflib.get_close_matches(name, _fields(kind, place), 1)
        what += f", did you mean {near[0]!r}?" if near else ""
    elif what.startswith("Object missing required field"):
        what = f"the field {names[0]!r} is missing"
    elif what.startswith("Expected `") and len(names) == 2:
        what = f"expected {_types(names[0])}, got {_types(names[1])}"
    else:
        what = what[:1].lower() + what[1:].replace("`", "'")
    return f"{where}: {place}: {what}" if place else f"{where}: {what}"


def _types(names: str) -> str:
    return " or ".join(_TYPE_NAMES.get(name.strip(), name.strip()) for name in names.split("|"))


def _fields(kind: Any, place: str) -> list[str]:
    """The fields of the struct at a place such as `models[...].name` inside `kind`."""
    for part in re.findall(r"[^.\[\]]+", place):
        if part == "..." or part.isdecimal():
            kind = next(iter(getattr(kind, "__args__", ())), None)
            continue
        if not isinstance(kind, type) or not issubclass(kind, msgspec.Struct):
            return []
        types = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        kind = types.get(part)
        arguments = [one for one in getattr(kind, "__args__", ()) if one is not type(None)]
        if isinstance(kind, type) is False and len(arguments) == 1:
            kind = arguments[0]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [field.encode_name for field in msgspec.structs.fields(kind)]
    return []


def pretty(document: Any) -> bytes:
    """The form of documents that people read: sorted keys, two spaces, a final newline."""
    plain = msgspec.to_builtins(document)
    text = json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def canonical(value: Any) -> bytes:
    """The one form of a value that digests are taken of: sorted keys, no space."""
    return msgspec.json.encode(_sorted(msgspec.to_builtins(value)))


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


def _text(data: bytes, where: str) -> str:
    if len(data) > SIZE_LIMIT:
        raise InputError(f"{where} is larger than {SIZE_LIMIT >> 20} MiB, too large for a document")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text (byte {error.start})") from None


def _check_depth(text: str, where: str) -> None:
    """Counts brackets outside of strings."""
    depth, quoted, escaped = 0, False, False
    for character in text:
        if quoted:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                raise InputError(f"{where} is nested deeper than {DEPTH_LIMIT} levels")
        elif character in "]}":
            depth -= 1
