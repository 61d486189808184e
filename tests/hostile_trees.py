"""Hostile trees: folders of this machine, what is given to a writer of trees, and git's."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from gitserver import Source, lfs_pointer, link, modules, submodule
from hostile import BAD_PATHS, BAD_TARGETS, COLLIDING, LEGAL_NAMES, LONG, Case, refused, taken

from cvs.store.stage import TreeWriter

Make = Callable[[bytes], object]


def _file(path: bytes, data: bytes = b"") -> Make:
    def make(root: bytes) -> None:
        folder = os.path.dirname(path)
        os.makedirs(root + b"/" + folder, exist_ok=True)
        Path(os.fsdecode(root + b"/" + path)).write_bytes(data)

    return make


def _link(path: bytes, target: bytes) -> Make:
    def make(root: bytes) -> None:
        os.makedirs(os.path.dirname(root + b"/" + path), exist_ok=True)
        os.symlink(target, root + b"/" + path)

    return make


def _all(*makes: Make) -> Make:
    def make(root: bytes) -> None:
        for one in makes:
            one(root)

    return make


def _deep(depth: int, name: bytes = b"d") -> Make:
    """Folders in each other, deeper than any path can say."""

    def make(root: bytes) -> None:
        here = os.open(root, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=here)
            inner = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)

    return make


def _socket(root: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(root + b"/x")


#: What makes a folder hostile, given its path; a link there to `canary` leads out of it.
FOLDERS = [
    *[
        Case(f"link {id}", _link(b"x", target), said)
        for id, (target, said) in BAD_TARGETS.items()
        if id not in ("NUL", "empty", "too long")
    ],
    *refused(
        "that leaves it",
        {
            "link to the canary": _link(b"x", b"../canary"),
            "link to what leads to the canary": _link(b"x", b"../way"),
            "link two up from one deep": _link(b"a/x", b"../../canary"),
            "link and its own folder": _all(_link(b"x", b".."), _file(b"y/z")),
        },
    ),
    *refused(
        "has '..' after a name",
        {
            "link through a link": _all(_link(b"a", b"."), _link(b"x", b"a/../canary")),
            "link through a folder": _all(_file(b"a/b"), _link(b"x", b"a/../a/b")),
        },
    ),
    *refused(
        "is not a file, folder or link",
        {
            "pipe": lambda root: os.mkfifo(root + b"/x"),
            "pipe far below": _all(_file(b"a/b/c"), lambda root: os.mkfifo(root + b"/a/b/x")),
            "socket": _socket,
            "pipe with a name of escapes": lambda root: os.mkfifo(root + b"/\x1b[31m\n\xff"),
        },
    ),
    *refused(
        "is longer than 1024 bytes",
        {
            "path of 1,025 bytes": _deep(513),
            "path of 4,000 bytes": _deep(2000),
            "path of 20,000 bytes": _deep(100, b"d" * 200),
        },
    ),
    *refused(
        "differ in case or normal form",
        {
            f"names that differ in {id}": _all(*(_file(name) for name in pair))
            for id, pair in COLLIDING.items()
        },
    ),
    *taken(
        {
            **{f"name {id}": _file(name, b"x") for id, name in LEGAL_NAMES.items()},
            "nothing": lambda root: None,
            "link to nothing": _link(b"x", b"nowhere"),
            "link to itself": _link(b"x", b"x"),
            "links in a circle": _all(_link(b"x", b"y"), _link(b"y", b"x")),
            "link to its folder": _link(b"a/x", b"."),
            "link to the root": _link(b"a/x", b".."),
            "link that is not UTF-8": _link(b"x", b"\xff\n\x1b"),
            "file of another's": _file(b"x", b"x"),
            "file without any right": _all(
                _file(b"x", b"x"), lambda root: os.chmod(root + b"/x", 0)
            ),
            "file with all rights": _all(
                _file(b"x", b"x"), lambda root: os.chmod(root + b"/x", 0o7777)
            ),
            "file with two names": _all(
                _file(b"x", b"x"), lambda root: os.link(root + b"/x", root + b"/y")
            ),
            "sparse file": _all(_file(b"x"), lambda root: os.truncate(root + b"/x", 1 << 20)),
            "511 folders deep": _deep(511),
        }
    ),
]


Write = Callable[[TreeWriter], object]


def _writes(*calls: Write) -> Write:
    def write(writer: TreeWriter) -> None:
        for call in calls:
            call(writer)

    return write


#: What is asked of a writer of trees.
WRITES = [
    *[
        Case(f"{what} {id}", lambda writer, call=call, path=path: call(writer, path), "")
        for what, call in {
            "file": lambda writer, path: writer.write(path, b"x"),
            "stream": lambda writer, path: writer.write_chunks(path, [b"x"]),
            "folder": lambda writer, path: writer.folder(path),
            "link": lambda writer, path: writer.link(path, b"x"),
        }.items()
        for id, path in BAD_PATHS.items()
        if path or what != "folder"
    ],
    *[
        Case(f"target {id}", lambda writer, target=target: writer.link(b"x", target), said)
        for id, (target, said) in BAD_TARGETS.items()
    ],
    *refused(
        "in the tree twice",
        {
            "file twice": _writes(lambda w: w.write(b"a", b""), lambda w: w.write(b"a", b"")),
            "file and stream": _writes(
                lambda w: w.write(b"a", b""), lambda w: w.write_chunks(b"a", [])
            ),
            "file and folder": _writes(lambda w: w.write(b"a", b""), lambda w: w.folder(b"a")),
            "folder and file": _writes(lambda w: w.folder(b"a"), lambda w: w.write(b"a", b"")),
            "file below a file": _writes(
                lambda w: w.write(b"a", b""), lambda w: w.write(b"a/b", b"")
            ),
            "file and link": _writes(lambda w: w.write(b"a", b""), lambda w: w.link(b"a", b"b")),
            "link and file": _writes(lambda w: w.link(b"a", b"b"), lambda w: w.write(b"a", b"")),
            "link twice": _writes(lambda w: w.link(b"a", b"b"), lambda w: w.link(b"a", b"c")),
            "link and folder": _writes(lambda w: w.link(b"a", b"b"), lambda w: w.folder(b"a")),
            "file through a link": _writes(
                lambda w: w.link(b"a", b"b"), lambda w: w.write(b"a/x", b"")
            ),
            "file through a link to a folder": _writes(
                lambda w: w.folder(b"b"),
                lambda w: w.link(b"a", b"b"),
                lambda w: w.write_chunks(b"a/x", [b"x"]),
            ),
        },
    ),
    *refused(
        "differ in case or normal form",
        {
            **{
                f"names that differ in {id}": lambda w, pair=pair: [
                    w.write(name, b"") for name in pair
                ]
                for id, pair in COLLIDING.items()
            },
            "file and link that differ in case": _writes(
                lambda w: w.write(b"a", b""), lambda w: w.link(b"A", b"b")
            ),
            "folders that differ in case": _writes(
                lambda w: w.write(b"a/x", b""), lambda w: w.write(b"A/y", b"")
            ),
        },
    ),
    *taken(
        {
            **{
                f"name {id}": _writes(
                    lambda w, name=name: w.write(name, b"x"),
                    lambda w, name=name: w.write_chunks(b"d/" + name, [b"x", b"y"], True),
                    lambda w, name=name: w.folder(b"e/" + name),
                    lambda w, name=name: w.link(b"f/" + name, b"../d/" + name),
                )
                for id, name in LEGAL_NAMES.items()
            },
            "folder twice": _writes(lambda w: w.folder(b"a"), lambda w: w.folder(b"a")),
            "the root": lambda w: w.folder(b""),
            "512 folders deep": lambda w: w.folder(b"/".join([b"a"] * 512)),
        }
    ),
]

#: Names that trees may not have; what is taken has bad looks.
TREE_NAMES = [
    *refused(
        "cannot be the name of",
        {
            "empty": "",
            "dot": ".",
            "dot dot": "..",
            "slash": "/",
            "climbing": "../x",
            "absolute": "/etc",
            "in a folder": "a/b",
            "NUL": "a\0b",
            "manifest": "manifest.json",
            "manifest in capitals": "Manifest.JSON",
            "half a character": "\ud800",
            "not UTF-8": os.fsdecode(b"\xff"),
            "long and half a character": LONG + "\ud800",
        },
    ),
    *refused("longer than 255 bytes", {"256 bytes": "n" * 256, "100 kB": LONG}),
    *taken(
        {
            id: name.decode()
            for id, name in LEGAL_NAMES.items()
            if "\ufffd" not in name.decode("utf-8", "replace")
        }
    ),
]


Commit = Callable[[Source], str]


def _tree(*lines: tuple[str, bytes]) -> Commit:
    """A commit of one tree whose lines are files, folders, links or whatever their modes say."""

    def make(source: Source) -> str:
        blob = source.put("blob", b"x")
        folder = source.tree([("100644", b"x", blob)])
        found = [(mode, name, folder if mode == "40000" else blob) for mode, name in lines]
        return source.commit(source.tree(found))

    return make


def _raw(data: bytes) -> Commit:
    """A commit of a tree of any bytes."""
    return lambda source: source.commit(source.put("tree", data))


def _links(target: bytes) -> Commit:
    return lambda source: source.commit({b"x": link(target)})


def _head(text: bytes) -> Commit:
    """A commit that is whatever it is."""

    def make(source: Source) -> str:
        tree = source.files({b"a": b"1"}).encode()
        return source.put("commit", text.replace(b"TREE", tree))

    return make


def _modules(text: bytes) -> Commit:
    """A commit with one submodule `s` and a .gitmodules."""
    return lambda source: source.commit({b"s": submodule("c" * 40), b".gitmodules": text})


def _at(url: str) -> Commit:
    return _modules(modules({"s": url}))


_ID = b"\1" * 20
_OID = "0" * 64

#: Commits of a repository of this machine, by what makes them; they are read as trees.
COMMITS = [
    *[
        Case(f"path {id}", _tree(("100644", path)), "")
        for id, path in BAD_PATHS.items()
        if id not in ("NUL", "empty")
    ],
    *[
        Case(f"folder {id}", _tree(("40000", path)), "")
        for id, path in BAD_PATHS.items()
        if id not in ("NUL", "empty")
    ],
    *[
        Case(f"target {id}", _links(target), said if id != "too long" else "too long")
        for id, (target, said) in BAD_TARGETS.items()
    ],
    *refused(
        "would be a repository inside the tree",
        {
            ".git as a folder": _tree(("40000", b".git")),
            ".git as a file": _tree(("100644", b".git")),
            ".git as a link": _tree(("120000", b".git")),
            ".git in capitals": _tree(("40000", b".GIT")),
            ".git of mixed case": _tree(("40000", b".gIt")),
        },
    ),
    *refused(
        "differ in case or normal form",
        {
            f"names that differ in {id}": _tree(*(("100644", name) for name in pair))
            for id, pair in COLLIDING.items()
        },
    ),
    *refused(
        "",
        {
            "tree of text": _raw(b"hello"),
            "tree of NULs": _raw(bytes(100)),
            "tree with half a line": _raw(b"100644 a\0" + _ID[:10]),
            "tree without a name": _raw(b"100644 \0" + _ID),
            "tree without a mode": _raw(b" a\0" + _ID),
            "tree with a mode of letters": _raw(b"1006xx a\0" + _ID),
            "tree with an object that is not there": _raw(b"100644 a\0" + _ID),
            "tree with a folder that is not there": _raw(b"40000 a\0" + _ID),
            "tree in itself": lambda source: source.commit(
                source.put("tree", b"40000 a\0" + _ID, _ID.hex())
            ),
            "folder that is a file": lambda source: source.commit(
                source.tree([("40000", b"a", source.put("blob", b"x"))])
            ),
            "file that is a folder": lambda source: source.commit(
                source.tree([("100644", b"a", source.files({b"x": b""}))])
            ),
            "link that is a folder": lambda source: source.commit(
                source.tree([("120000", b"a", source.files({b"x": b""}))])
            ),
            "file that is a commit": lambda source: source.commit(
                source.tree([("100644", b"a", source.commit({b"x": b""}))])
            ),
            "tree that is a file": lambda source: source.commit(source.put("blob", b"x")),
            "file twice": _tree(("100644", b"a"), ("100644", b"a")),
            "file and folder": _tree(("100644", b"a"), ("40000", b"a")),
            "file and link": _tree(("100644", b"a"), ("120000", b"a")),
            "link and folder": _tree(("120000", b"x"), ("40000", b"x")),
        },
    ),
    *refused(
        "",
        {
            "commit of nothing": _head(b""),
            "commit of text": _head(b"hello\n"),
            "commit of NULs": _head(bytes(100)),
            "commit without a tree": _head(b"committer T <t> 1 +0000\n\nx"),
            "commit of a tree that is none": _head(b"tree x\ncommitter T <t> 1 +0000\n\nx"),
            "commit with a tree that is not there": _head(
                b"tree " + b"1" * 40 + b"\ncommitter T <t> 1 +0000\n\nx"
            ),
        },
    ),
    *refused(
        "has no valid date or tree",
        {
            f"commit with a date {id}": _head(b"tree TREE\ncommitter T <t> " + date + b"\n\nx")
            for id, date in {
                "of nothing": b"",
                "of text": b"now",
                "beyond all": b"9" * 100 + b" +0000",
                "of 10,000 digits": b"9" * 10_000 + b" +0000",
                "before all": b"-" + b"9" * 20 + b" +0000",
                "a fraction": b"1.5 +0000",
                "not a number": b"NaN +0000",
            }.items()
        },
    ),
    *refused(
        ".gitmodules cannot be read",
        {
            ".gitmodules of nothing that is": _modules(b"[submodule\n"),
            ".gitmodules of NULs": _modules(bytes(100)),
            ".gitmodules of a bad key": _modules(b'[submodule "s"]\n\t1 = x\n'),
        },
    ),
    *refused(
        ".gitmodules: s: ",
        {
            f"submodule {id}": _at(url)
            for id, url in {
                "helper": "ext::sh -c touch% x",
                "option": "--upload-pack=touch x",
                "other scheme": "git://example.org/x",
                "plain http": "http://example.org/x",
                "password": "https://me:secret@example.org/x",
                "host with an option": "ssh://-oProxyCommand=x/y",
                "with C1": "https://e.org/x\x9b",
                "of 3,000 characters": "https://e.org/" + "x" * 3000,
                "host that is none": "https://[::g]/x",
            }.items()
        },
    ),
    *refused(
        "there is no git repository at",
        {
            "submodule to nowhere": _at("./nowhere"),
            "submodule far up": _at("../" * 300 + "nowhere"),
            "submodule to a device": _at("/dev/zero"),
            "submodule to a file": _at("/etc/passwd"),
        },
    ),
    *refused(
        "is not in",
        {"submodule to itself that it does not have": _at(".")},
    ),
    *refused(
        "is stored with Git LFS",
        {
            "pointer to nothing": lambda source: source.commit({b"a": lfs_pointer(b"gone")}),
            "pointer with a size of 18 digits": lambda source: source.commit(
                {b"a": lfs_pointer(b"gone").replace(b"size 4", b"size " + b"9" * 18)}
            ),
            "pointer to other bytes": lambda source: source.commit(
                {b"a": _kept(source, b"true", b"lie!")}
            ),
            "pointer to more bytes": lambda source: source.commit(
                {b"a": _kept(source, b"true", b"true and more")}
            ),
            "pointer to fewer bytes": lambda source: source.commit(
                {b"a": _kept(source, b"true", b"tr")}
            ),
            "pointer to a folder": lambda source: source.commit(
                {b"a": _kept(source, b"true", None)}
            ),
            "pointer to a device": lambda source: source.commit(
                {b"a": _kept(source, b"true", "/dev/zero")}
            ),
            "pointer with a name of escapes": lambda source: source.commit(
                {b"\x1b[31m\n\xff": lfs_pointer(b"gone")}
            ),
        },
    ),
    *refused(
        "is stored with a Git LFS extension",
        {
            "pointer with an extension": lambda source: source.commit(
                {b"a": lfs_pointer(b"x").replace(b"oid", b"ext-0-x y\noid")}
            ),
        },
    ),
    *taken(
        {
            **{f"name {id}": _tree(("100644", name)) for id, name in LEGAL_NAMES.items()},
            "modes of old": _tree(("100664", b"a"), ("100600", b"b"), ("100777", b"c")),
            "tree with a mode of 100 digits": _raw(b"1" * 100 + b" a\0" + _ID),
            "mode with zeros": _tree(("0100644", b"a")),
            "modes of devices": _tree(("60000", b"a"), ("20000", b"b"), ("10000", b"c")),
            "mode without a kind": _tree(("644", b"a")),
            "lines in no order": _tree(("100644", b"b"), ("100644", b"a")),
            "link to nothing": _links(b"nowhere"),
            "link of escapes": _links(b"\x1b[31m\n\xff"),
            "submodule that nothing names": _modules(b""),
            "submodule without a URL": _modules(b'[submodule "s"]\n\tpath = s\n'),
            "submodule of another path": _modules(modules({"../s": "/etc"})),
            "include in .gitmodules": _modules(b"[include]\n\tpath = /etc/passwd\n"),
            ".gitmodules that is a link": lambda source: source.commit(
                {b".gitmodules": link(b"x"), b"s": submodule("c" * 40)}
            ),
            "pointer with a size of 19 digits": lambda source: source.commit(
                {b"a": lfs_pointer(b"gone").replace(b"size 4", b"size " + b"9" * 19)}
            ),
            "pointer with capitals": lambda source: source.commit(
                {b"a": lfs_pointer(b"gone").replace(b"sha256:", b"SHA256:")}
            ),
            "pointer with text behind": lambda source: source.commit(
                {b"a": lfs_pointer(b"gone") + b"x"}
            ),
            "pointer as a link": lambda source: source.commit(
                {b"a": link(lfs_pointer(b"gone").replace(b"/", b"_"))}
            ),
            "message of escapes": _head(b"tree TREE\ncommitter T <t> 1 +0000\n\n\x1b[31m\xff\0"),
            "committer of escapes": _head(b"tree TREE\ncommitter \x1b[31m\xff <t> 1 +0000\n\nx"),
            "two trees": _head(b"tree TREE\ntree TREE\ncommitter T <t> 1 +0000\n\nx"),
        }
    ),
]


def _kept(source: Source, named: bytes, kept: bytes | str | None) -> bytes:
    """A pointer to one content in whose place another lies: bytes, a link or a folder."""
    pointer = lfs_pointer(named)
    oid = pointer.partition(b"sha256:")[2][:64].decode()
    place = source.folder / "lfs/objects" / oid[:2] / oid[2:4] / oid
    place.parent.mkdir(parents=True)
    if isinstance(kept, bytes):
        place.write_bytes(kept)
    elif kept is None:
        place.mkdir()
    else:
        place.symlink_to(kept)
    return pointer
