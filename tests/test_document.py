"""Documents of people are read strictly and written in one form."""

import json
import math
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cvs.store import document
from cvs.store.document import (
    DEPTH_LIMIT,
    SIZE_LIMIT,
    VALUE_LIMIT,
    YAML_SIZE_LIMIT,
    YAML_VALUE_LIMIT,
    load_json,
    load_yaml,
)
from cvs.store.errors import InputError, IntegrityError

WHERE = "versions/x.json"


def refused(load: Any, data: bytes) -> str:
    """The one sentence that a document is refused with."""
    with pytest.raises(InputError) as caught:
        load(data, WHERE)
    assert_sentence(caught.value)
    return caught.value.message.removeprefix(WHERE)


def assert_sentence(error: InputError) -> None:
    """A message is one line that begins with the file and has no period at its end."""
    assert error.message.startswith(WHERE)
    assert error.message.isprintable()
    assert not error.message.endswith(".")
    assert len(error.message) < 1000


def values() -> st.SearchStrategy[Any]:
    """Whatever a document can say."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    numbers = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | text,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=12,
    )


# JSON.


@given(values())
def test_json_says_what_was_meant(value: Any) -> None:
    """What is plain JSON is read as Python reads it, with or without a byte order mark."""
    data = json.dumps(value).encode()

    assert load_json(data, WHERE) == value
    assert load_json(b"\xef\xbb\xbf" + data, WHERE) == value


@given(
    st.binary(max_size=40) | st.text(alphabet='{}[]",:01eE.-\\ud8\n ', max_size=40).map(str.encode)
)
@example(b'"\\ud800"')
@example(b"1e999")
def test_json_of_any_bytes(data: bytes) -> None:
    """Whatever the bytes are, they are a document or one sentence says why not."""
    try:
        value = load_json(data, WHERE)
    except InputError as error:
        assert_sentence(error)
    else:
        document.pretty(value)
        document.canonical(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "a": 1}', ": the key 'a' is there twice"),
        (b'[{"b": {"a": 1, "a": 2}}]', ": the key 'a' is there twice"),
        (b'{"a\\nb": 1, "a\\u000ab": 1}', r": the key 'a\nb' is there twice"),
        (b"[NaN]", ": NaN is not a value of JSON"),
        (b'{"a": Infinity}', ": Infinity is not a value of JSON"),
        (b"-Infinity", ": -Infinity is not a value of JSON"),
        (b"[1e999]", ": 1e999 is too large a number"),
        (b"-1e999", ": -1e999 is too large a number"),
        (b"1" * 5000, ": a number is too long"),
        (b"[" * 5000, f" is nested deeper than {DEPTH_LIMIT} levels"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, f" is nested deeper than {DEPTH_LIMIT} levels"),
        (b'["\\ud800"]', r": a text holds half a character (\ud800 to \udfff)"),
        (b'{"\\uDFFF": 1}', r": a text holds half a character (\ud800 to \udfff)"),
        (b"\xff", " is not UTF-8 text (byte 0)"),
        (b'{"a": "\xc3"}', " is not UTF-8 text (byte 7)"),
        (b"\xff\xfe{\0}\0", " is not UTF-8 text (byte 0)"),
        (b"", " is not JSON: expecting value (line 1, column 1)"),
        (b'{\n"a": 1,\n}', None),
        (b"{} {}", " is not JSON: extra data (line 1, column 4)"),
        (b"// note\n{}", " is not JSON: expecting value (line 1, column 1)"),
        (b'"a\tb"', " is not JSON: invalid control character at (line 1, column 3)"),
        (b" " * (SIZE_LIMIT + 1), " is larger than 16 MiB, too large for a document"),
        (b"[0" + b",0" * VALUE_LIMIT + b"]", " has more than 250,000 values"),
        (b"[{}" + b",{}" * (VALUE_LIMIT // 2) + b"]", " has more than 250,000 values"),
    ],
)
def test_json_is_strict(data: bytes, message: str | None) -> None:
    """What readers let pass elsewhere is refused, with what and where."""
    said = refused(load_json, data)

    assert message is None or said == message


def test_json_at_its_limits() -> None:
    """The deepest and longest that is accepted; brackets in texts do not nest."""
    deep = b"[" * DEPTH_LIMIT + b"]" * DEPTH_LIMIT
    text = "[" * 500 + '"\\' + "{" * 500

    assert str(load_json(deep, WHERE)) == deep.decode()
    assert load_json(json.dumps([text]).encode(), WHERE) == [text]
    assert load_json(b"1" * 4000, WHERE) == int("1" * 4000)
    assert load_json(b"[0" + b",0" * (VALUE_LIMIT - 1) + b"]", WHERE) == [0] * VALUE_LIMIT
    assert load_json(json.dumps(["," * VALUE_LIMIT]).encode(), WHERE) == ["," * VALUE_LIMIT]
    assert load_json(b'"\\ud83d\\ude00"', WHERE) == "\N{GRINNING FACE}"


def test_long_keys_are_cut_in_messages() -> None:
    """A message stays readable whatever the key."""
    key = "k" * 100_000

    assert len(refused(load_json, f'{{"{key}": 1, "{key}": 2}}'.encode())) < 200
    assert len(refused(load_yaml, f'{{"{key}": 1, "{key}": 2}}'.encode())) < 200


# YAML.


@given(values())
def test_yaml_reads_json(value: Any) -> None:
    """JSON is YAML, but for floats such as 1e22, which YAML 1.1 takes for text."""
    data = json.dumps(value).encode()
    found = load_yaml(data, WHERE)

    assert _without_floats(value) == _without_floats(found)


def _without_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_floats(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_floats(inner) for inner in value]
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, float) else value


@given(
    st.binary(max_size=40)
    | st.text(alphabet="ab:-?[]{}&*!|>%#'\",.~ \n\t01_xobe\\uU<=", max_size=40).map(str.encode)
)
@example(b"a: 0x_")
@example(b"a: 0b_")
@example(rb'"\UFFFFFFFF"')
@example(rb'"\U00110000"')
@example(rb'"\ud800"')
@example(b"!<%0A> b")
@example(b"%YAML 1." + b"1" * 5000 + b"\n---\na")
def test_yaml_of_any_bytes(data: bytes) -> None:
    """Whatever the bytes are, they are a document or one sentence says why not."""
    try:
        value = load_yaml(data, WHERE)
    except InputError as error:
        assert_sentence(error)
    else:
        document.pretty(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: ~", None),
        ("a: null", None),
        ("a:", None),
        ("a: true", True),
        ("a: Off", False),
        ("a: 5", 5),
        ("a: -0x1F", -31),
        ("a: 1_000", 1000),
        ("a: 1.5", 1.5),
        ("a: 1.0e+3", 1000.0),
        ("a: 1e3", "1e3"),
        ("a: 'true'", "true"),
        ("a: 2024-05-01", "2024-05-01"),
        ("a: 2024-05-01 10:00:00", "2024-05-01 10:00:00"),
        ("a: 2024-99-99", "2024-99-99"),
        ("a: !!str 5", "5"),
        ('a: !!int "5"', 5),
        ("a: |\n  one\n  two\n", "one\ntwo\n"),
        ('a: "\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        ("a: [[], {b: c}]", [[], {"b": "c"}]),
        ("a: it's 5\" wide [", "it's 5\" wide ["),
    ],
)
def test_yaml_values(text: str, value: Any) -> None:
    """Each kind of scalar has one plain value; times of day and dates are text."""
    found = load_yaml(text.encode(), WHERE)

    assert found == ({"a": value} if text else None)
    assert type(found and found["a"]) is type(value)


@pytest.mark.parametrize("text", ["8188:30", "1:30", "190:20:30.15", "0755", "-017", "0_7"])
def test_yaml_numbers_that_are_none(text: str) -> None:
    """Numbers to the base of 60 or 8 stay what was written: they are ports, times and modes."""
    assert load_yaml(f"a: {text}".encode(), WHERE) == {"a": text}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", ": the key 'a' is there twice (line 2)"),
        ("a: {b: 1,\n  b: 1}", ": the key 'b' is there twice (line 2)"),
        ("a: &x 1\nb: *x", ": aliases are not accepted (line 2)"),
        ("a: &x [1]\nb:\n  - *x", ": aliases are not accepted (line 3)"),
        ("&a [*a]", ": aliases are not accepted (line 1)"),
        ("b: *x", None),
        ("<<: {a: 1}", ": the tag 'tag:yaml.org,2002:merge' is not accepted (line 1)"),
        ("a: &x {b: 1}\nc:\n  <<: *x", None),
        ("1: 2", ": the key 1 is not text (line 1)"),
        ("a:\n  true: 1", ": the key True is not text (line 2)"),
        ("~: 1", ": the key None is not text (line 1)"),
        ("? [a]\n: 1", ": the key ['a'] is not text (line 1)"),
        ("a: !x 1", ": the tag '!x' is not accepted (line 1)"),
        ("a: !<y:str> 1", ": the tag 'y:str' is not accepted (line 1)"),
        ("a: !!binary aGk=", ": the tag 'tag:yaml.org,2002:binary' is not accepted (line 1)"),
        ("a: !!set {x}", ": the tag 'tag:yaml.org,2002:set' is not accepted (line 1)"),
        ("a: !!omap [b: 1]", ": the tag 'tag:yaml.org,2002:omap' is not accepted (line 1)"),
        ("a: !!python/object/apply:os.getcwd []", None),
        ("a: !<%0A> b", r": the tag '\n' is not accepted (line 1)"),
        ("a: !!int x", ": 'x' is not a value (line 1)"),
        ("a: !!bool 5", ": '5' is not a value (line 1)"),
        ("a: .inf", ": '.inf' is not a value (line 1)"),
        ("a: -.Inf", ": '-.Inf' is not a value (line 1)"),
        ("a: .nan", ": '.nan' is not a value (line 1)"),
        ("a: 0x_", ": '0x_' is not a value (line 1)"),
        ("a: " + "1" * 5000, f": {'1' * 40!r} is not a value (line 1)"),
        ('a: "\\ud800"', ": a text holds half a character (line 1)"),
        ("a: 1\n---\nb: 2", None),
        ("a: [", None),
        ("a: \0", None),
        ("- \n" * (YAML_VALUE_LIMIT + 1), " has more than 10,000 values (line 10000)"),
        (" " * (YAML_SIZE_LIMIT + 1), " is larger than 1 MiB, too large for a document"),
        ("[" * 5000, f" is nested deeper than {DEPTH_LIMIT} levels (line 1)"),
        ("- " * 5000, f" is nested deeper than {DEPTH_LIMIT} levels (line 1)"),
        ("[" * 65 + "]" * 65, f" is nested deeper than {DEPTH_LIMIT} levels (line 1)"),
    ],
)
def test_yaml_is_strict(text: str, message: str | None) -> None:
    """Aliases, tags, merges, other keys than text and what is no number are refused."""
    said = refused(load_yaml, text.encode())

    assert message is None or said == message


def test_yaml_bytes() -> None:
    """As of JSON: UTF-8, with or without a byte order mark."""
    assert load_yaml(b"\xef\xbb\xbfa: 1", WHERE) == {"a": 1}
    assert refused(load_yaml, b"a: \xff") == " is not UTF-8 text (byte 3)"


def test_yaml_brackets_that_do_not_nest() -> None:
    """Brackets in comments and quotes are no depth."""
    many = "[" * 200

    assert load_yaml(f"# {many}\na: '{many}'".encode(), WHERE) == {"a": many}


# Files.


def test_load_goes_by_the_name(tmp_path: Path) -> None:
    """`.yaml` and `.yml` are YAML, everything else is JSON."""
    for name, text in (("a.yaml", "a: 1"), ("a.yml", "a: 1"), ("a.json", '{"a": 1}')):
        (tmp_path / name).write_text(text)

        assert document.load(str(tmp_path / name)) == {"a": 1}
    (tmp_path / "b.json").write_text("a: 1")
    with pytest.raises(InputError, match="is not JSON"):
        document.load(str(tmp_path / "b.json"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, and one that is too large are told apart."""
    (tmp_path / "large").write_bytes(b"12345")
    for name, message in (
        ("none", "does not exist"),
        (".", "cannot be read: Is a directory"),
        ("large/x", "cannot be read: Not a directory"),
    ):
        path = os.path.join(tmp_path, name)
        with pytest.raises(InputError) as caught:
            document.read_bytes(path)

        assert caught.value.message == f"{path} {message}"
    assert document.read_bytes(str(tmp_path / "large"), limit=5) == b"12345"
    with pytest.raises(InputError, match="is larger than 0 MiB"):
        document.read_bytes(str(tmp_path / "large"), limit=4)


def test_files_of_the_volume(tmp_path: Path) -> None:
    """What lies where cvs keeps a document is read if it is a file of a sane size, else refused."""
    (tmp_path / "large").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("large")
    os.mkfifo(tmp_path / "pipe")

    assert document.read_stored(str(tmp_path / "large"), 5) == b"12345"
    assert document.read_stored(str(tmp_path / "link"), 5) == b"12345"
    for path, message in (
        ("large", "is larger than 0 MiB, too large for a document"),
        ("pipe", "is not a file"),
        (".", "is not a file"),
        ("/dev/zero", "is not a file"),
    ):
        place = os.path.join(tmp_path, path)
        with pytest.raises(IntegrityError) as caught:
            document.read_stored(place, 4)
        assert caught.value.message == f"{place} {message}"
    with pytest.raises(FileNotFoundError):
        document.read_stored(str(tmp_path / "none"), 4)


# Types.


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of `Outer`."""

    name: str
    size: int | None = None


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document."""

    inner: Inner
    many: tuple[Inner, ...] = ()
    flag: bool = False


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, ": expected an object, got null"),
        ({}, ": the field 'inner' is missing"),
        ({"inner": {}}, ": inner: the field 'name' is missing"),
        ({"inner": {"name": 1}}, ": inner.name: expected text, got a whole number"),
        (
            {"inner": {"name": "", "size": "1"}},
            ": inner.size: expected a whole number or null, got text",
        ),
        (
            {"inner": {"name": "", "size": True}},
            ": inner.size: expected a whole number or null, got true or false",
        ),
        (
            {"inner": {"name": "", "sise": 1}},
            ": inner: there is no field 'sise', did you mean 'size'?",
        ),
        ({"inner": {"name": ""}, "many": {}}, ": many: expected a list, got an object"),
        (
            {"inner": {"name": ""}, "many": [{"name": ""}, {"nmae": ""}]},
            ": many[1]: there is no field 'nmae', did you mean 'name'?",
        ),
        ({"inner": {"name": ""}, "flag": "yes"}, ": flag: expected true or false, got text"),
        ({"inner": {"name": ""}, "flag": 1}, ": flag: expected true or false, got a whole number"),
        ({"zzzzz": 1}, ": there is no field 'zzzzz'"),
        ({"a`b`c": 1}, ": there is no field 'a`b`c'"),
        ({"a\nb": 1}, r": there is no field 'a\nb'"),
        ({"k" * 100_000: 1}, f": there is no field {'k' * 80!r}"),
    ],
)
def test_convert_names_the_place(value: Any, message: str) -> None:
    """A wrong document is refused with the field and what was expected there."""
    with pytest.raises(InputError) as caught:
        document.convert(value, Outer, WHERE)

    assert_sentence(caught.value)
    assert caught.value.message == WHERE + message


@given(values() | st.dictionaries(st.sampled_from(["inner", "many", "flag", "x"]), values()))
def test_convert_any_value(value: Any) -> None:
    """Whatever was parsed, it is the document or one sentence says why not."""
    try:
        found = document.convert(value, Outer, WHERE)
    except InputError as error:
        assert_sentence(error)
    else:
        assert isinstance(found, Outer)


# Writing.


@given(values())
def test_pretty_is_read_again(value: Any) -> None:
    """What is written for people is read as what it was, whatever the order it was made in."""
    data = document.pretty(value)

    assert load_json(data, WHERE) == value
    assert document.pretty(_backwards(value)) == data
    assert data.endswith(b"\n") and not data.endswith(b"\n\n")


def _backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _backwards(value[key]) for key in reversed(value)}
    return [_backwards(inner) for inner in value] if isinstance(value, list) else value


def test_pretty_form() -> None:
    """Sorted keys, two spaces, plain characters, a final newline."""
    assert document.pretty({"b": ["é"], "a": Inner("x")}) == (
        b'{\n  "a": {\n    "name": "x",\n    "size": null\n  },\n  "b": [\n    "\xc3\xa9"\n  ]\n}\n'
    )


def test_pretty_has_no_infinity() -> None:
    """What no reader would accept is not written."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        document.pretty([math.inf])


def test_canonical_form() -> None:
    """Sorted keys at every depth, no space: one form of one value."""
    assert document.canonical({"b": [{"d": 1, "c": "é"}], "a": None}) == (
        '{"a":null,"b":[{"c":"é","d":1}]}'.encode()
    )
    assert document.canonical([Inner("x")]) == document.canonical([{"size": None, "name": "x"}])
