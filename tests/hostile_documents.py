"""Hostile documents: JSON and YAML as such, manifests, records, locks and specs."""

import json
from collections.abc import Mapping
from typing import Any

import locks
import msgspec
from hostile import BAD_PATHS, BAD_TARGETS, COLLIDING, LEGAL_NAMES, LONG, Case, refused, taken

from cvs.store.tree import quote
from cvs.versions.lock import encode as encode_lock

ZERO, ONE = "0" * 64, "1" * 64


def changed(whole: Mapping[str, Any], **fields: Any) -> bytes:
    """A document with some fields changed; None removes one."""
    merged = {**whole, **fields}
    return json.dumps({key: merged[key] for key in merged if merged[key] is not None}).encode()


# JSON.

JSON = [
    *refused(
        "is not UTF-8 text",
        {
            "bytes": b"\xff\xfe\xfd",
            "UTF-16": '{"a": 1}'.encode("utf-16"),
            "UTF-32": '{"a": 1}'.encode("utf-32"),
            "Latin-1": '{"é": 1}'.encode("latin-1"),
            "surrogate in bytes": b'"\xed\xa0\x80"',
            "overlong": b'"\xc0\x80"',
            "beyond Unicode": b'"\xf4\x90\x80\x80"',
            "cut character": b'"\xf0\x9f\x98',
        },
    ),
    *refused(
        "is not JSON",
        {
            "nothing": b"",
            "space": b" \n\t",
            "NUL": b"\0",
            "NUL behind": b"{}\0",
            "half an object": b'{"a":',
            "half a text": b'"abc',
            "text that ends in a backslash": b'"abc\\',
            "half an escape": b'"\\u12"',
            "unknown escape": b'"\\x41"',
            "newline in a text": b'"a\nb"',
            "comment": b"/* x */ {}",
            "comma at the end": b"[1,]",
            "two values": b"{} {}",
            "names without quotes": b"{a: 1}",
            "quotes of Python": b"{'a': 1}",
            "number with a zero": b"[01]",
            "number of Python": b"[1_000]",
            "hexadecimal": b"[0x10]",
            "100,000 brackets that close": b"]" * 100_000,
            "100,001 quotes": b'"' * 100_001,
            "100,000 backslashes": b"\\" * 100_000,
            "truth of Python": b"True",
            "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
        },
    ),
    *refused(
        "is nested deeper than 64 levels",
        {
            "lists 65 deep": b"[" * 65 + b"]" * 65,
            "lists 100,000 deep": b"[" * 100_000,
            "lists 100,000 deep and closed": b"[" * 100_000 + b"]" * 100_000,
            "objects 100,000 deep": b'{"a":' * 100_000,
            "lists and objects": b'[{"a":' * 50_000,
        },
    ),
    *refused(
        "is there twice",
        {
            "key": b'{"a": 1, "a": 1}',
            "key with an escape": b'{"a": 1, "\\u0061": 2}',
            "empty key": b'{"": 1, "": 2}',
            "key far below": b"[" * 60 + b'{"a": 1, "a": 2}' + b"]" * 60,
            "long key": b'{"' + LONG.encode() + b'": 1, "' + LONG.encode() + b'": 1}',
            "key of control characters": b'{"\\u001b[31m": 1, "\\u001b[31m": 2}',
        },
    ),
    *refused(
        "is not a value of JSON",
        {"NaN": b'{"a": NaN}', "infinity": b"[Infinity]", "minus infinity": b"-Infinity"},
    ),
    *refused(
        "too large a number",
        {"1e400": b"[1e400]", "-1e400": b"-1e400", "million digits and .0": b"1" * 10**6 + b".0"},
    ),
    *refused(
        "a number is too long",
        {"a million digits": b"1" * 10**6, "minus 5,000 digits": b"[-" + b"9" * 5000 + b"]"},
    ),
    *refused(
        "half a character",
        {
            "first half": b'"\\ud800"',
            "second half": b'"\\udfff"',
            "halves in the wrong order": b'"\\ude00\\ud83d"',
            "half in a key": b'{"\\ud800": 1}',
            "two first halves": b'"\\ud83d\\ud83d"',
            "half in a long text": f'"{LONG}\\ud800"'.encode(),
        },
    ),
    *refused(
        "is larger than 16 MiB",
        {
            "50 MB of text": lambda: b'"' + b"x" * 50_000_000 + b'"',
            "17 MB of space": lambda: b" " * 17_000_000,
        },
    ),
    *refused(
        "has more than 250,000 values",
        {
            "a million numbers": lambda: b"[0" + b",0" * 10**6 + b"]",
            "a million lists": lambda: b"[[]" + b",[]" * 10**6 + b"]",
            "a million objects": lambda: b"[{}" + b",{}" * 10**6 + b"]",
            "a million commas": lambda: b"," * 10**6,
            "a million texts": lambda: b'"a"' * 10**6,
        },
    ),
    *taken(
        {
            "lists 64 deep": b"[" * 64 + b"]" * 64,
            "brackets in a text": json.dumps("[{" * 100_000).encode(),
            "commas in a text": json.dumps("," * 300_000).encode(),
            "quotes in a text": json.dumps('"' * 100_000).encode(),
            "backslashes in a text": json.dumps("\\" * 100_001).encode(),
            "both halves": b'"\\ud83d\\ude00"',
            "NUL in a text": b'"\\u0000"',
            "control characters in a text": b'"\\u001b[31m\\u009b"',
            "a million digits behind the point": b"0." + b"1" * 10**6,
            "tiny number": b"1e-400",
            "minus zero": b"-0",
            "byte order mark": b"\xef\xbb\xbf{}",
            "names of Python and JavaScript": b'{"__class__": 1, "__proto__": 2}',
            "15 MB of text": lambda: b'"' + b"x" * 15_000_000 + b'"',
        }
    ),
]


# YAML.

_LAUGHS = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

YAML = [
    *refused(
        "aliases are not accepted",
        {
            "billion laughs": _LAUGHS.encode(),
            "alias": b"a: &x 1\nb: *x",
            "alias to itself": b"&a [*a]",
            "alias of nothing": b"*x",
            "alias as a key": b"&a x: 1\n*a : 2",
            "long alias": b"*" + b"x" * 100_000,
            "300,000 aliases": lambda: b"[&a x" + b",*a" * 300_000,
        },
    ),
    *refused(
        "is not accepted",
        {
            "Python object": b"!!python/object/apply:os.system [id]",
            "Python module": b"a: !!python/module:os ''",
            "Python name": b"a: !!python/name:os.system ''",
            "own tag": b"a: !x 1",
            "long tag": b"!" + b"x" * 100_000 + b" 1",
            "tag with an escape": b"!%1B[31m x",
            "unknown tag of a list": b"!!seq2 [a]",
            "set": b"!!set {a, b}",
            "ordered map": b"!!omap [a: 1]",
            "pairs": b"!!pairs [a: 1]",
            "binary": b"!!binary aGVsbG8=",
            "merge": b"<<: {a: 1}",
            "merge of a list": b"<<: [{a: 1}, {b: 2}]",
            "default value": b"=: 1",
        },
    ),
    *refused(
        "is there twice",
        {
            "key": b"a: 1\na: 2",
            "key in braces": b"{a: 1, a: 2}",
            "key once quoted": b"a: 1\n'a': 2",
            "long key": b"? " + b"k" * 10_000 + b"\n: 1\n? " + b"k" * 10_000 + b"\n: 2",
        },
    ),
    *refused(
        "is not text",
        {
            "number as a key": b"1: a",
            "null as a key": b"~: a",
            "list as a key": b"? [a]\n: b",
            "map as a key": b"? {a: b}\n: c",
            "truth as a key": b"yes: a",
        },
    ),
    *refused(
        "is nested deeper than 64 levels",
        {
            "lists 5,000 deep": b"[" * 5_000,
            "maps 5,000 deep": b"{" * 5_000,
            "dashes 100,000 deep": b"- " * 100_000,
            "questions 100,000 deep": b"? " * 100_000,
            "lists in maps": b"{a: [" * 50_000,
            "indentation": b"".join(b" " * depth + b"a:\n" for depth in range(500)),
        },
    ),
    *refused(
        "is not a value",
        {
            "infinity": b"a: .inf",
            "not a number": b"a: .nan",
            "100,000 digits": b"1" * 100_000,
            "nothing of a number": b"0x_",
            "text as a number": b"!!int x",
        },
    ),
    *refused("half a character", {"first half": b'"\\ud800"', "second half": b'a: "\\udfff"'}),
    *refused("is not UTF-8 text", {"bytes": b"a: \xff", "UTF-16": "a: 1".encode("utf-16")}),
    *refused(
        "is not YAML",
        {
            "NUL": b"a: \0",
            "escape character": b"a: \x1b[31m",
            "half a list": b"[a, b",
            "half a text": b'"abc',
            "tab as indentation": b"a:\n\tb: 1",
            "two documents": b"a: 1\n---\nb: 2",
            "version of the future": b"%YAML 3.0\n---\na",
            "version of 5,000 digits": b"%YAML 1." + b"1" * 5000 + b"\n---\na",
            "unknown handle": b"!x!y z",
            "long handle": b"!" + b"x" * 10_000 + b"!y z",
            "two anchors": b"&a &b x",
            "one anchor twice": b"[&a x, &a y]",
            "character beyond Unicode": b'"\\UFFFFFFFF"',
            "unknown escape": b'"\\q"',
            "colon in a value": b"a: b: c",
            "at sign": b"a: @x",
        },
    ),
    *refused(
        "is larger than 1 MiB",
        {
            "50 MB of text": lambda: b"a: " + b"x" * 50_000_000,
            "2 MB of comments": lambda: b"# x\n" * 500_000,
        },
    ),
    *refused(
        "has more than 10,000 values",
        {
            "12,000 lines": b"- a\n" * 12_000,
        },
    ),
    *taken(
        {
            "nothing": b"",
            "comment": b"# x",
            "anchor without alias": b"a: &x 1",
            "brackets in quotes": b"a: '" + b"[" * 10_000 + b"'",
            "text that looks like a tag": b"a: '!!python/name:os.system'",
            "NUL in a text": b'"\\0"',
            "control characters in a text": b'"\\e[31m\\x9b"',
            "octal number": b"a: 0755",
            "sexagesimal number": b"a: 190:20:30",
            "date that is none": b"a: 2024-99-99",
            "Norway": b"a: NO",
            "long line": b"a: " + b"x" * 100_000,
        }
    ),
]


# Manifests.

FILE: dict[str, Any] = {
    "kind": "file",
    "format": 1,
    "digest": ZERO,
    "size": 0,
    "sha256": ONE,
    "content": "content",
}
TREE: dict[str, Any] = {"kind": "tree", "format": 1, "name": "t", "size": 0, "nodes": []}
SET: dict[str, Any] = {"kind": "set", "format": 1, "members": []}


def tree(*nodes: Any) -> bytes:
    """A manifest of nodes, whose size is right."""
    size = sum(node[2] for node in nodes if node[0] == "f" and len(node) > 2)
    return changed(TREE, size=size, nodes=nodes)


def f(path: str, size: int = 0, *more: Any) -> list[Any]:
    """A file of a manifest."""
    return ["f", path, size, *(more or [ZERO])]


def d(path: str) -> list[str]:
    """A folder of a manifest."""
    return ["d", path]


_NO_MANIFEST = {
    "nothing": b"",
    "null": b"null",
    "list": b"[]",
    "text": b'"x"',
    "NUL": b"\0",
    "not UTF-8": b'{"kind":"set","format":1,"members":[],"origin":"\xff"}',
    "not UTF-8 in an unknown field": b'{"\xff":"\xff"}',
    "half a document": changed(SET)[:-1],
    "two documents": changed(SET) * 2,
    "a million brackets": lambda: b"[" * 10**6,
    "deep in an unknown field": b'{"kind":"set","x":' + b"[" * 150_000,
    "deep in the nodes": b'{"kind":"tree","nodes":' + b"[" * 150_000,
    "half a character": b'{"kind":"set","format":1,"members":[],"origin":"\\ud800"}',
    "kind missing": changed(FILE, kind=None),
    "kind unknown": changed(FILE, kind="folder"),
    "kind a number": changed(FILE, kind=1),
    "kind long": changed(FILE, kind=LONG),
    "kind of another": changed(FILE, kind="tree"),
    "unknown field": changed(FILE, more=1),
    "long unknown field": changed(FILE, **{LONG: 1}),
    "unknown field with escapes": changed(FILE, **{"\x1b[31m\n": 1}),
    "format missing": changed(FILE, format=None),
    "format zero": changed(FILE, format=0),
    "format far below": changed(FILE, format=-(10**4000)),
    "format true": changed(FILE, format=True),
    "format a fraction": changed(FILE, format=1.5),
    "format a text": changed(FILE, format="1"),
    "format of a million digits": b'{"kind":"set","format":' + b"1" * 10**6 + b"}",
    "format NaN": b'{"kind":"set","format":NaN}',
    "size missing": changed(FILE, size=None),
    "size a text": changed(FILE, size="0"),
    "size null": b'{"kind":"file","format":1,"size":null}',
    "size a list": changed(FILE, size=[0]),
    "size 1e300": changed(FILE, size=1e300),
    "digest missing": changed(FILE, digest=None),
    "digest short": changed(FILE, digest=ZERO[1:]),
    "digest long": changed(FILE, digest=ZERO + "0"),
    "digest in capitals": changed(FILE, digest="A" * 64),
    "digest that climbs": changed(FILE, digest="../" + ZERO[3:]),
    "digest with a newline": changed(FILE, digest=ZERO[1:] + "\n"),
    "digest of other digits": changed(FILE, digest="٠" * 64),
    "digest of 100 kB": changed(FILE, digest=LONG),
    "sha256 in capitals": changed(FILE, sha256="F" * 64),
    "content that climbs": changed(FILE, content="../../../etc/passwd"),
    "content absolute": changed(FILE, content="/etc/passwd"),
    "content empty": changed(FILE, content=""),
    "content of the manifest": changed(FILE, content="manifest.json"),
    "content with a newline": changed(FILE, content="content.gguf\n"),
    "content with NUL": changed(FILE, content="content\0"),
    "content with a long suffix": changed(FILE, content="content." + "x" * 17),
    "content with two suffixes": changed(FILE, content="content.tar.gz"),
    "content with another suffix": changed(FILE, content="content.é"),
    "content of 100 kB": changed(FILE, content=LONG),
    "name missing": changed(TREE, name=None),
    "name that climbs": changed(TREE, name="../up"),
    "name dot dot": changed(TREE, name=".."),
    "name dot": changed(TREE, name="."),
    "name empty": changed(TREE, name=""),
    "name absolute": changed(TREE, name="/etc"),
    "name with NUL": changed(TREE, name="a\0"),
    "name of the manifest": changed(TREE, name="manifest.json"),
    "name of the manifest in capitals": changed(TREE, name="MANIFEST.JSON"),
    "name of a tree of 256 bytes": changed(TREE, name="n" * 256),
    "name of 100 kB": changed(TREE, name=LONG),
    "size of a tree that lies": changed(TREE, size=1),
    "size of a tree below zero": changed(TREE, size=-1),
    "nodes missing": changed(TREE, nodes=None),
    "nodes an object": changed(TREE, nodes={}),
    "node empty": changed(TREE, nodes=[[]]),
    "node null": changed(TREE, nodes=[None]),
    "node a text": changed(TREE, nodes=["f"]),
    "node an object": changed(TREE, nodes=[{"kind": "f"}]),
    "node of an unknown kind": tree(["x", "a"]),
    "node of a number": tree([1, "a"]),
    "file with too little": tree(["f", "a", 0]),
    "file with too much": tree(f("a", 0, ZERO, False, 1)),
    "link without a target": tree(["l", "a"]),
    "folder with a target": tree(["d", "a", "b"]),
    "path a number": tree(["d", 1]),
    "digest of a node short": tree(f("a", 0, "0")),
    "digest of a node in capitals": tree(f("a", 0, "A" * 64)),
    "digest of a node that climbs": tree(f("a", 0, "../" + ZERO[3:])),
    "size of a node true": changed(TREE, nodes=[f("a", True)]),
    "executable a number": tree(f("a", 0, ZERO, 1)),
    "members missing": changed(SET, members=None),
    "members a text": changed(SET, members=ZERO),
    "members descending": changed(SET, members=[ONE, ZERO]),
    "members twice": changed(SET, members=[ZERO, ZERO]),
    "member short": changed(SET, members=["x"]),
    "member that climbs": changed(SET, members=["../" + ZERO[3:]]),
    "a million short members": lambda: b'{"kind":"set","format":1,"members":["x"' + b',"x"' * 10**6,
    "300,000 nodes": lambda: b'{"kind":"tree","nodes":[["d","a"]' + b',["d","a"]' * 300_000,
    "a million lists": lambda: b'{"kind":"tree","nodes":[[]' + b",[]" * 10**6,
    "40 MB": lambda: changed(SET, origin="x" * 40_000_000),
}

_NO_TREES = {
    "is not a quoted path": {
        "path not in its one form": d("%41"),
        "path with small digits": d("%ff"),
        "path with half an escape": d("a%"),
        "path with other digits": d("%١١"),
        "path with a sign in an escape": d("%+1"),
        "path with a raw newline": d("a\nb"),
        "path with a raw escape sequence": d("\x1b[31m"),
        "path with a raw C1": d("\x9b31m"),
        "path of a quoted character": d("%C3%A9"),
        "path of 100 kB and a percent": d(LONG + "%"),
        "target with a raw newline": ["l", "a", "b\nc"],
        "target with half an escape": ["l", "a", "%"],
    },
    "its folder is not": {
        "file without its folder": f("a/b"),
        "folder without its folder": d("a/b"),
        "deep without folders": d("/".join("a" * 500)),
    },
    "has a size or digest that no file has": {
        "size beyond all": f("a", 1 << 63),
        "size below zero": f("a", -5),
        "size of 4,000 digits": f("a", 10**4000),
    },
}

#: A tree is judged when its identity is computed, the rest when it is read.
MANIFESTS = [
    *refused("is not a manifest", _NO_MANIFEST),
    *refused(
        "this cvs reads up to 1",
        {
            "format of the future": changed(FILE, format=2),
            "format far in the future": changed(FILE, format=10**4000),
        },
    ),
    *[
        Case(id, tree(node), said)
        for said, nodes in _NO_TREES.items()
        for id, node in nodes.items()
    ],
    *[Case(f"path {id}", tree(d(quote(path))), "") for id, path in BAD_PATHS.items()],
    *[
        Case(f"target {id}", tree(["l", "a", quote(target)]), said)
        for id, (target, said) in BAD_TARGETS.items()
    ],
    *refused(
        "that leaves it",
        {
            "target two up from one deep": tree(d("a"), ["l", "a/b", "../../x"]),
            "target up and up": tree(d("a"), ["l", "a/b", ".././../x"]),
        },
    ),
    *refused(
        "its folder is not",
        {
            "file below a file": tree(f("a"), f("a/b")),
            "file below a link": tree(["l", "a", "b"], f("a/b")),
            "file below a link to a folder": tree(d("b"), ["l", "a", "b"], f("a/b")),
        },
    ),
    *refused(
        "is in the tree twice",
        {
            "file twice": tree(f("a"), f("a")),
            "folder twice": tree(d("a"), d("a")),
            "file and folder": tree(f("a"), d("a")),
            "file and link": tree(f("a"), ["l", "a", "b"]),
            "link twice": tree(["l", "a", "b"], ["l", "a", "c"]),
        },
    ),
    *refused(
        "differ in case or normal form",
        {
            f"names that differ in {id}": tree(*map(d, map(quote, pair)))
            for id, pair in COLLIDING.items()
        },
    ),
    *refused(
        "has a size or digest",
        {"sizes that cancel out": changed(TREE, size=0, nodes=[f("a", -5), f("b", 5)])},
    ),
    *taken(
        {
            "empty tree": tree(),
            "empty set": changed(SET),
            "field twice": changed(SET)[:-1] + b', "format": 1}',
            "no SHA-256": changed(FILE, sha256=""),
            "origin of 100 kB": changed(SET, origin=LONG),
            "origin with escapes": changed(SET, origin="\x1b[31m\n\x9b"),
            "created that is no time": changed(SET, created="\x1b]0;title\x07"),
            "name of a tree with a newline": changed(TREE, name="two\nlines"),
            "name of a tree with escapes": changed(TREE, name="\x1b[31m"),
            "link to nothing": tree(["l", "a", "nowhere"]),
            "link to itself": tree(["l", "a", "a"]),
            "links in a circle": tree(["l", "a", "b"], ["l", "b", "a"]),
            "link to its folder": tree(d("a"), ["l", "a/b", ".."]),
            "link to the root": tree(["l", "a", "."]),
            "path of 1023 bytes": tree(*(d("/".join("a" * depth)) for depth in range(1, 513))),
            "brackets in names": tree(*(d("[" * length) for length in range(1, 200))),
            "the largest size": tree(f("a", (1 << 63) - 1)),
        }
    ),
    *taken({f"name {id}": tree(d(quote(name))) for id, name in LEGAL_NAMES.items()}),
]


# Records.

_RECORD: dict[str, Any] = msgspec.to_builtins(locks.record())
_CORE = ["", f"{ONE}/ComfyUI"]
#: Fields that records of before do not have.
_LATER = ("provided", "overlaps")


def linked(path: str, target: str = f"{ONE}/name") -> bytes:
    """A record with a link beside that of its core."""
    return changed(_RECORD, links=[_CORE, [path, target]])


RECORDS = [
    *refused(
        "is not a record",
        {
            "nothing": b"",
            "null": b"null",
            "list": b"[]",
            "NUL": b"\0",
            "not UTF-8": b'{"format": 1, "host": "\xff"}',
            "a million brackets": lambda: b"[" * 10**6,
            "deep in an unknown field": b'{"format": 1, "x":' + b"[" * 150_000,
            "half a character": changed(_RECORD, host="x").replace(b'"x"', b'"\\ud800"', 1),
            "half a document": changed(_RECORD)[:-1],
            "two documents": changed(_RECORD) * 2,
            "unknown field": changed(_RECORD, more=1),
            "long unknown field": changed(_RECORD, **{LONG: 1}),
            "unknown field with escapes": changed(_RECORD, **{"\x1b[31m\n": 1}),
            **{
                f"{key} missing": changed(_RECORD, **{key: None})
                for key in _RECORD
                if key not in _LATER
            },
            **{f"{key} a number": changed(_RECORD, **{key: 1.5}) for key in _RECORD},
            "format zero": changed(_RECORD, format=0),
            "format far below": changed(_RECORD, format=-(10**4000)),
            "format of a million digits": b'{"format":' + b"1" * 10**6 + b"}",
            "version that climbs": changed(_RECORD, version="../x"),
            "version dot dot": changed(_RECORD, version=".."),
            "version empty": changed(_RECORD, version=""),
            "version with NUL": changed(_RECORD, version="a\0"),
            "version absolute": changed(_RECORD, version="/etc"),
            "version of 100 kB": changed(_RECORD, version=LONG),
            "entry short": changed(_RECORD, entries=["x"]),
            "entry that climbs": changed(_RECORD, entries=["../" + ZERO[3:]]),
            "entry with a newline": changed(_RECORD, entries=[ZERO[1:] + "\n"]),
            "entry of 100 kB": changed(_RECORD, entries=[LONG]),
            "wheel set in capitals": changed(_RECORD, wheel_set="A" * 64),
            "no core": changed(_RECORD, links=[]),
            "two cores": changed(_RECORD, links=[_CORE, _CORE]),
            "link with too much": changed(_RECORD, links=[[*_CORE, True, 1]]),
            "link with too little": changed(_RECORD, links=[[""]]),
            "link to nothing": linked("a", ""),
            "link to an entry": linked("a", ONE),
            "link to the store": linked("a", "../store"),
            "link out of an entry": linked("a", f"{ONE}/.."),
            "link below an entry's content": linked("a", f"{ONE}/a/b"),
            "link to a name of 256 bytes": linked("a", f"{ONE}/{'n' * 256}"),
            "link to an absolute path": linked("a", "/etc/passwd"),
            "link to a name with NUL": linked("a", f"{ONE}/a\0b"),
            "same path twice": changed(_RECORD, links=[_CORE, *[["a", f"{ONE}/a"]] * 2]),
            "path below another": changed(
                _RECORD, links=[_CORE, ["a/b", f"{ONE}/a"], ["a", f"{ONE}/a"]]
            ),
            **{f"path {id}": linked(path.decode()) for id, path in BAD_PATHS.items() if path},
        },
    ),
    *refused(
        "this cvs reads up to 1",
        {
            "format of the future": changed(_RECORD, format=2),
            "format far in the future": changed(_RECORD, format=10**4000),
        },
    ),
    *refused("is larger than 4 MiB", {"5 MB": lambda: changed(_RECORD, host="x" * 5_000_000)}),
    *taken(
        {
            "field twice": changed(_RECORD)[:-1] + b', "host": "x"}',
            "host with escapes": changed(_RECORD, host="\x1b[31m\n"),
            "host of 100 kB": changed(_RECORD, host=LONG),
            "created that is no time": changed(_RECORD, created="\x9b"),
            "name with a newline": linked("two\nlines", f"{ONE}/two\nlines"),
        }
    ),
]


# Locks.

_LOCK: dict[str, Any] = json.loads(encode_lock(locks.lock()))


def locked(place: str, value: Any) -> bytes:
    """A lock with one value replaced, by its place: `core.name`, `nodes.0.name`."""
    whole = json.loads(encode_lock(locks.lock()))
    *above, last = [int(part) if part.isdecimal() else part for part in place.split(".")]
    inner = whole
    for key in above:
        inner = inner[key]
    inner[last] = value
    return json.dumps(whole).encode()


_PLACES = ("core.name", "nodes.0.name", "models.0.path", "python.wheels.0.file")
_BAD_FILES = {
    "that climbs": "../../etc/passwd.whl",
    "absolute": "/etc/passwd.whl",
    "of a home": "~/x.whl",
    "of a drive": "C:\\x.whl",
    "with a backslash": "a\\b.whl",
    "empty": "",
    "dot dot": "..",
    "with a newline": "a\nb.whl",
    "with NUL": "a\0b.whl",
    "with an escape": "\x1b[31m.whl",
    "with a variable": "$HOME.whl",
    "that is quoted": "%2e%2e.whl",
    "of 256 bytes": "n" * 252 + ".whl",
    "of 100 kB": LONG + ".whl",
    "right to left": "a\u202eb.whl",
}

LOCKS = [
    *refused(
        "",
        {
            "nothing": b"",
            "null": b"null",
            "list": b"[]",
            "number": b"1",
            "text": b'"x"',
            "unknown field": locked("more", 1),
            "long unknown field": locked(LONG, 1),
            "unknown field with escapes": locked("\x1b[31m\n", 1),
            **{f"{key} null": locked(key, None) for key in _LOCK},
            **{f"{key} a number": locked(key, 1.5) for key in _LOCK},
            **{f"{key} a list of lists": locked(key, [[[]]]) for key in _LOCK},
            **{
                f"{place} {id}": locked(place, name)
                for place in _PLACES
                for id, name in _BAD_FILES.items()
            },
            **{
                f"{place} {id}": locked(place, digest)
                for place in ("core.entry", "models.0.sha256", "python.wheels.0.sha256")
                for id, digest in {
                    "short": ZERO[1:],
                    "in capitals": "A" * 64,
                    "that climbs": "../" + ZERO[3:],
                    "with a newline": ZERO[1:] + "\n",
                    "of 100 kB": LONG,
                }.items()
            },
            **{
                f"{place} {id}": locked(place, size)
                for place in ("core.size", "models.0.size", "python.wheels.0.size")
                for id, size in {
                    "below zero": -1,
                    "beyond all": 1 << 63,
                    "of 4,000 digits": 10**4000,
                    "a fraction": 1.5,
                    "true": True,
                }.items()
            },
            **{
                f"{place} with {id}": locked(place, text)
                for place in ("core.repo", "core.date", "python.wheels.0.url", "parts.core")
                for id, text in {
                    "a newline": "a\nb",
                    "an escape": "\x1b[31m",
                    "C1": "\x9b",
                    "NUL": "\0",
                    "a line separator": "\u2028",
                }.items()
            },
            "commit short": locked("core.commit", "c" * 39),
            "commit of 100 kB": locked("core.commit", LONG),
            "commit with an option": locked("core.commit", "--upload-pack=x"),
            "submodule that climbs": locked(
                "core.submodules", [{"path": "../x", "repo": "", "commit": "c" * 40}]
            ),
            "submodule without a commit": locked(
                "core.submodules", [{"path": "x", "repo": "", "commit": ""}]
            ),
            "node twice": locked("nodes", [_LOCK["nodes"][0]] * 2),
            "model twice": locked("models", [_LOCK["models"][0]] * 2),
            "schema true": locked("schema_version", True),
            "schema a text": locked("schema_version", "3"),
        },
    ),
    *refused(
        "is not known",
        {
            "schema zero": locked("schema_version", 0),
            "schema of the future": locked("schema_version", 4),
            "schema far in the future": locked("schema_version", 10**4000),
            "schema far below": locked("schema_version", -(10**4000)),
        },
    ),
    *taken(
        {
            "name of a wheel of 100 kB": locked("python.wheels.0.name", LONG),
            "no nodes": locked("nodes", []),
            "the largest size": locked("core.size", (1 << 63) - 1),
        }
    ),
]


# Specs.

SPEC: dict[str, Any] = {
    "schema_version": 2,
    "version_id": "x",
    "comfy": {"repo": "https://example.org/ComfyUI"},
}


def spec(**fields: Any) -> bytes:
    """A spec with fields replaced or added."""
    return changed(SPEC, **fields)


def _repo(text: str) -> bytes:
    return spec(comfy={"repo": text})


def _model(**fields: Any) -> bytes:
    return spec(models=[{"source": "https://example.org/m", **fields}])


_BAD_TEXTS = {
    "empty": "",
    "of space": " \t",
    "with a newline": "a\nb",
    "with an escape": "\x1b[31m",
    "with C1": "\x9b",
    "with NUL": "a\0b",
    "right to left": "a\u202eb",
    "of 100 kB": LONG,
}
_BAD_REPOS = {
    "option": "--upload-pack=touch x",
    "short option": "-x",
    "helper": "ext::sh -c touch% x",
    "file descriptor": "fd::17/x",
    "other scheme": "git://example.org/x",
    "plain http": "http://example.org/x",
    "script": "javascript:alert(1)",
    "password": "https://me:secret@example.org/x",
    "host that is none": "https://exa mple.org/x",
    "host with an option": "ssh://-oProxyCommand=touch%20x/y",
    "scp with an option": "-oProxyCommand=x@host:y",
    "no host": "https:///x",
    "no path": "https://example.org",
    "climbing": "https://example.org/../x",
    "escape in the path": "https://example.org/x%0ay",
    "port that is none": "https://example.org:99999/x",
    "port of other digits": "https://example.org:٤٤٣/x",
    "IPv6 that is none": "https://[::g]/x",
    "IPv6 with a zone": "https://[fe80::1%25eth0]/x",
    "user that is none": "https://a b@example.org/x",
    "dots in the host": "https://example..org/x",
}

SPECS = [
    *refused(
        "x.json",
        {
            **{f"{key} null": changed({**SPEC, key: ""}).replace(b'""', b"null") for key in SPEC},
            **{f"{key} a number": spec(**{key: 1.5}) for key in SPEC},
            **{f"{key} a list": spec(**{key: [[]]}) for key in SPEC},
            "unknown field": spec(more=1),
            "long unknown field": spec(**{LONG: 1}),
            "unknown field with escapes": spec(**{"\x1b[31m\n": 1}),
            "unknown field in a node": spec(custom_nodes=[{"repo": "https://e.org/x", LONG: 1}]),
            "schema far in the future": spec(schema_version=10**4000),
            **{f"version {id}": spec(version_id=text) for id, text in _BAD_TEXTS.items()},
            "version that climbs": spec(version_id="../x"),
            "version hidden": spec(version_id=".x"),
            "version of a lock": spec(version_id="x.lock"),
            "version with a space": spec(version_id="a b"),
            "version of another alphabet": spec(version_id="é"),
            **{f"repo {id}": _repo(text) for id, text in _BAD_TEXTS.items()},
            **{f"repo {id}": _repo(text) for id, text in _BAD_REPOS.items()},
            **{
                f"ref {id}": spec(comfy={"repo": "https://e.org/x", "ref": text})
                for id, text in {
                    **_BAD_TEXTS,
                    "option": "--upload-pack=x",
                    "range": "a..b",
                    "reflog": "a@{1}",
                    "hidden": ".a",
                    "lock": "a.lock",
                    "pattern": "a*",
                }.items()
            },
            "commit of 100 kB": spec(comfy={"repo": "https://e.org/x", "commit": LONG}),
            "commit with a newline": spec(comfy={"repo": "https://e.org/x", "commit": "c\n"}),
            **{
                f"node {id}": spec(custom_nodes=[{"repo": "https://e.org/x", "name": text}])
                for id, text in {
                    **_BAD_TEXTS,
                    "that climbs": "../x",
                    "dot dot": "..",
                    "hidden": ".x",
                    "disabled": "x.disabled",
                    "with a slash": "a/b",
                    "with a backslash": "a\\b",
                    "of 256 bytes": "n" * 256,
                    "of a cache": "__pycache__",
                }.items()
            },
            "two nodes in one place": spec(
                custom_nodes=[{"repo": "https://e.org/x"}, {"repo": "https://e.org/X"}]
            ),
            **{
                f"model in a place {id}": _model(target_path=text)
                for id, text in {
                    **_BAD_TEXTS,
                    "that climbs": "../x",
                    "that climbs from its variable": "$MODELS_DIR/../x",
                    "absolute": "/etc/passwd",
                    "of a home": "~/x",
                    "of a drive": "C:/x",
                    "of a variable": "$HOME/x",
                    "that is quoted": "%2e%2e/x",
                    "with a dot": "a/./b",
                    "ending in a slash": "a/",
                    "of 1025 bytes": "a/" * 512 + "b",
                }.items()
            },
            **{f"source {id}": _model(source=text) for id, text in _BAD_TEXTS.items()},
            **{
                f"name of a model {id}": _model(target_path="a", name=text)
                for id, text in _BAD_TEXTS.items()
                if text
            },
            **{
                f"checksum {id}": _model(target_path="a", checksum=text)
                for id, text in {**_BAD_TEXTS, "of another kind": "md5:" + "0" * 32}.items()
            },
            "model below another": spec(
                models=[
                    {"source": "https://e.org/a", "target_path": "a"},
                    {"source": "https://e.org/b", "target_path": "A/b"},
                ]
            ),
            **{f"package {id}": spec(python_packages=[text]) for id, text in _BAD_TEXTS.items()},
            "package with an option": spec(python_packages=["--index-url=http://x"]),
            **{
                f"index {id}": spec(python={"index_url": text})
                for id, text in {
                    **_BAD_TEXTS,
                    "of another scheme": "ftp://x",
                    "two": "https://a https://b",
                    "that is an option": "--x",
                }.items()
            },
            **{
                f"date {id}": spec(python={"exclude_newer": text})
                for id, text in {**_BAD_TEXTS, "that is none": "2024-99-99"}.items()
            },
            **{
                f"Python {id}": spec(python={"version": text})
                for id, text in {**_BAD_TEXTS, "2": "2.7", "of other digits": "3.١١"}.items()
            },
            **{
                f"folder of wheels {id}": spec(python={"find_links": [text]})
                for id, text in _BAD_TEXTS.items()
            },
            **{
                f"variable {id}": spec(env={text: "1"})
                for id, text in {**_BAD_TEXTS, "with an equals sign": "a=b"}.items()
                if text != LONG
            },
            "variable with NUL in its value": spec(env={"A": "\0"}),
            "variable with a list": spec(env={"A": []}),
            "variable with a truth": spec(env={"A": True}),
        },
    ),
    *taken(
        {
            "variable with an escape in its value": spec(env={"A": "\x1b[31m\n"}),
            "variable of 4,000 digits": spec(env={"A": 10**4000}),
            "variable with a long name": spec(env={LONG: "1"}),
            "model with emoji": _model(target_path="vae/😀.safetensors"),
        }
    ),
]
