"""Reading documents that people write, strictly, and writing documents in one canonical form.

What JSON and YAML readers let pass in silence is refused here: duplicate keys, NaN and
infinities, absurd depth and size, YAML aliases (a few lines of them can mean gigabytes). Every
error names the file and the field.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cvs.store.errors import SHOWN, InputError, IntegrityError

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")

#: Limits for documents from people, in bytes, levels and values; a lock of 300 packages has about
#: 200 kB and 3,000 values. A value takes up to 250 bytes of memory, however short it is written.
SIZE_LIMIT = 16 << 20
DEPTH_LIMIT = 64
VALUE_LIMIT = 250_000

#: The same for YAML, whose reader takes a second for so many bytes or values.
YAML_SIZE_LIMIT = 1 << 20
YAML_VALUE_LIMIT = 10_000

_INFINITIES = (float("inf"), float("-inf"))

#: What decides how deep and how many the values of a JSON text are, and the texts in which such
#: characters mean nothing. Possessive, so that no text takes long or much memory to pass over.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
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


def read_stored(path: str, limit: int) -> bytes:
    """Reads a document that cvs itself keeps on the volume.

    Raises:
        FileNotFoundError: there is none.
        IntegrityError: something else lies there, or it is larger than `limit` bytes.
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IntegrityError(f"{path} is not a file")
        with open(descriptor, "rb", closefd=False) as file:
            # What is asked for is allocated: that is what there is, and one byte to see its end.
            data = file.read(min(status.st_size, limit) + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise IntegrityError(f"{path} is larger than {limit >> 20} MiB, too large for a document")
    return data


def load_json(data: bytes, where: str) -> Any:
    """Parses JSON strictly; `where` begins every message.

    Raises:
        InputError: not UTF-8, not JSON, a duplicate key, NaN or infinity, too deep, too large,
            too many values.
    """
    text = _text(data, where, SIZE_LIMIT)
    _check_structure(text, where)

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
            msgspec.json.encode(value)
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

    text = _text(data, where, YAML_SIZE_LIMIT)
    try:
        node = yaml.compose(text, Loader=_counting_loader(where))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = (error.problem or error.context or "")[:SHOWN]
        raise InputError(f"{where} is not YAML: {problem}{place}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Numbers of escapes and directives that are out of all bounds are no YAMLError.
        raise InputError(f"{where} is not YAML: {' '.join(str(error).splitlines()[:1])}") from None
    return None if node is None else _from_yaml(node, where)


def _counting_loader(where: str) -> type["yaml.SafeLoader"]:
    """A loader that ends at what is refused anyway, before it is in memory as a whole."""
    import yaml

    class Loader(yaml.SafeLoader):
        _depth = _count = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            if self.check_event(yaml.AliasEvent):
                raise InputError(f"{where}: aliases are not accepted (line {line})")
            self._count += 1
            if self._count > YAML_VALUE_LIMIT:
                raise InputError(f"{where} has more than {YAML_VALUE_LIMIT:,} values (line {line})")
            deeper = not self.check_event(yaml.ScalarEvent)
            if deeper and self._depth >= DEPTH_LIMIT:
                raise InputError(
                    f"{where} is nested deeper than {DEPTH_LIMIT} levels (line {line})"
                )
            self._depth += 1
            node = super().compose_node(parent, index)
            self._depth -= 1
            return node

    return Loader


def _from_yaml(node: "yaml.Node", where: str) -> Any:
    import yaml

    line = node.start_mark.line + 1
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
        raise _unknown_tag(node, where)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _from_yaml(key_node, where)
            if not isinstance(key, str):
                raise InputError(f"{where}: the key {key!r:.80} is not text (line {line})")
            if key in found:
                line = key_node.start_mark.line + 1
                raise InputError(f"{where}: the key {key[:80]!r} is there twice (line {line})")
            found[key] = _from_yaml(value_node, where)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_from_yaml(item, where) for item in node.value]
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
        import difflib

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


def _text(data: bytes, where: str, limit: int) -> str:
    if len(data) > limit:
        raise InputError(f"{where} is larger than {limit >> 20} MiB, too large for a document")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text (byte {error.start})") from None


def _check_structure(text: str, where: str) -> None:
    """Counts brackets and commas outside of texts; of texts, each value may have one and a key."""
    depth = count = texts = 0
    for match in _STRUCTURE.finditer(text):
        character = text[match.start()]
        texts += character == '"'
        if character in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                raise InputError(f"{where} is nested deeper than {DEPTH_LIMIT} levels")
        elif character in "]}":
            depth -= 1
        count += character in "[{,"
        if count > VALUE_LIMIT or texts > 2 * VALUE_LIMIT + 1:
            raise InputError(f"{where} has more than {VALUE_LIMIT:,} values")
