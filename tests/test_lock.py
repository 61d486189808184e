"""The lock as a document: what is written is read, and nothing else is."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import locks
import msgspec
import pytest
from faults import fail_at
from hypothesis import given
from hypothesis import strategies as st
from strategies import digests

from cvs.store.errors import InputError
from cvs.store.volume import Volume
from cvs.versions import lock as documents
from cvs.versions.lock import (
    Commit,
    Installed,
    Interpreter,
    Lock,
    Model,
    ModelFile,
    Parts,
    Python,
    Submodule,
    Wheel,
)

WHERE = "x.lock.json"

#: What a path that leaves its folder, or hides, may look like.
BAD_PATHS = [
    "../a",
    "a/../../b",
    "/etc/passwd",
    "~/a",
    "C:\\a",
    "a\\b",
    "a/%2e%2e/b",
    "$HOME/a",
    "",
]
BAD_DIGESTS = ["", "0" * 63, "A" * 64, "g" * 64, "../" + "0" * 61, "0" * 64 + "\n"]


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


_text = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=8)
_name = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
_path = st.lists(_name, min_size=1, max_size=3).map("/".join)
_size = st.integers(0, 2**63 - 1)
_commit_id = st.binary(min_size=20, max_size=20).map(bytes.hex)


def tuples(
    inner: st.SearchStrategy[Any], unique_by: Callable[[Any], Any] | None = None
) -> st.SearchStrategy[tuple[Any, ...]]:
    """Short tuples."""
    return st.lists(inner, max_size=2, unique_by=unique_by).map(tuple)


_commits = st.builds(
    Commit,
    name=_name,
    request=_text,
    repo=_text,
    ref=st.none() | _text,
    commit=_commit_id,
    date=_text,
    entry=digests(),
    size=_size,
    submodules=tuples(st.builds(Submodule, path=_path, repo=_text, commit=_commit_id)),
    lfs=tuples(_text),
    installed=st.just(msgspec.UNSET)
    | st.builds(
        Installed,
        entry=digests(),
        size=_size,
        python=digests(),
        wrote=tuples(_text),
        removed=tuples(_text),
    ),
)
_wheels = st.builds(
    Wheel,
    name=_text,
    version=_text,
    file=_name.map(lambda name: f"{name}.whl"),
    sha256=digests(),
    size=st.none() | _size,
    url=_text,
    uploaded=st.none() | _text,
    required_by=tuples(_text),
    index=_text,
    entry=st.none() | digests(),
)
_interpreters = st.builds(
    Interpreter,
    implementation=_text,
    version=_text,
    abi=_text,
    platform=_text,
    libc=_text,
    glibc_needed=st.from_regex(
        r"([0-9]{1,4}\.[0-9]{1,4})?", fullmatch=True, alphabet="0123456789."
    ),
    glibc_needed_by=_text,
)
_pythons = st.builds(
    Python,
    interpreter=_interpreters,
    exclude_newer=st.none() | _text,
    wheels=tuples(_wheels),
    ignored=tuples(_text),
    requirements=_text,
    provided=tuples(_text),
)
_file = st.builds(
    Model,
    name=_text,
    path=_path,
    request=_text,
    source=_text,
    size=st.none() | _size,
    sha256=st.none() | digests(),
    entry=st.none() | digests(),
    file=st.just("") | _name,
    mirrors=tuples(_text),
)
_model_files = st.builds(
    ModelFile,
    path=_name,
    source=_text,
    size=st.none() | _size,
    sha256=st.none() | digests(),
    git=st.none() | _commit_id,
)
_folder = st.builds(
    Model,
    name=_text,
    path=_path,
    request=_text,
    source=_text,
    size=st.none() | _size,
    sha256=st.none(),
    entry=st.none() | digests(),
    files=tuples(_model_files, lambda one: one.path.casefold()),
)
_models = _file | _folder
_parts = st.builds(Parts, core=_text, nodes=_text, python=_text, models=_text, interpreter=_text)
_locks = st.builds(
    Lock,
    schema_version=st.just(documents.SCHEMA),
    version_id=_text,
    parts=_parts,
    core=_commits,
    nodes=tuples(_commits, lambda node: node.name.casefold()),
    python=_pythons,
    models=tuples(_models, lambda model: model.path.casefold().partition("/")[0]),
)


def refused(data: bytes) -> str:
    """The one sentence that a lock is refused with, without its file."""
    with pytest.raises(InputError) as caught:
        documents.decode(data, WHERE)
    assert_sentence(caught.value)
    return caught.value.message.removeprefix(WHERE)


def assert_sentence(error: InputError) -> None:
    """A message is one line that begins with the file and has no period at its end."""
    assert error.message.startswith(WHERE)
    assert error.message.isprintable()
    assert not error.message.endswith(".")
    assert len(error.message) < 1000


def changed(change: Callable[[Any], None], lock: Lock | None = None) -> bytes:
    """A lock whose data was changed."""
    data = json.loads(documents.encode(lock or locks.lock()))
    change(data)
    return json.dumps(data).encode()


# Reading and writing.


@given(_locks)
def test_what_is_written_is_read(lock: Lock) -> None:
    """Every lock survives writing and reading, and has one form."""
    data = documents.encode(lock)
    found = documents.decode(data, WHERE)

    assert found == lock
    assert documents.encode(found) == data


def test_the_form_of_a_lock() -> None:
    """Sorted keys, two spaces, a final newline: differences read well."""
    text = documents.encode(locks.lock()).decode()

    assert text.endswith("}\n")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert list(json.loads(text)) == [
        *("core", "models", "nodes", "parts", "python", "schema_version", "version_id"),
    ]


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    """Bytes that are no lock are refused in one sentence."""
    try:
        documents.decode(data, WHERE)
    except InputError as error:
        assert_sentence(error)


@given(st.data())
def test_any_change(data: st.DataObject) -> None:
    """A lock with any value changed is a lock, or is refused in one sentence."""
    document = json.loads(documents.encode(data.draw(_locks)))
    place: Any = document
    while True:
        keys = range(len(place)) if isinstance(place, list) else sorted(place)
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | _text
        | st.sampled_from(BAD_PATHS + BAD_DIGESTS)
        | st.lists(st.none(), max_size=1)
        | st.dictionaries(_text, st.none(), max_size=1)
    )
    try:
        found = documents.decode(json.dumps(document).encode(), WHERE)
    except InputError as error:
        assert_sentence(error)
    else:
        for path in (*(m.path for m in found.models), *(n.name for n in found.nodes)):
            assert os.path.normpath(os.path.join("/base", path)) == f"/base/{path}"


# What is refused.


@pytest.mark.parametrize(
    ("version", "message", "hint"),
    [
        (documents.SCHEMA + 1, "4 is not known, this cvs reads 3", "update cvs"),
        (0, "0 is not known, this cvs reads 3", "remove it: `cvs resolve` makes it anew"),
        ("1", "expected a whole number, got text", None),
        (True, "expected a whole number, got true or false", None),
        (None, "expected a whole number, got null", None),
    ],
)
def test_other_schemas(version: Any, message: str, hint: str | None) -> None:
    """A newer lock is refused before its fields are looked at."""
    data = json.dumps({"schema_version": version, "what": 1}).encode()
    with pytest.raises(InputError) as caught:
        documents.decode(data, WHERE)
    if hint is not None:
        assert caught.value.message == f"{WHERE}: schema_version: {message}"
    data = changed(lambda lock: lock.update(schema_version=version))
    with pytest.raises(InputError) as caught:
        documents.decode(data, WHERE)

    assert caught.value.message == f"{WHERE}: schema_version: {message}"
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ([], ": there is no field 'what'"),
        (["core"], ": core: there is no field 'what'"),
        (["nodes", 0], ": nodes[0]: there is no field 'what'"),
        (["python"], ": python: there is no field 'what'"),
        (["python", "interpreter"], ": python.interpreter: there is no field 'what'"),
        (["python", "wheels", 0], ": python.wheels[0]: there is no field 'what'"),
        (["models", 0], ": models[0]: there is no field 'what'"),
        (["parts"], ": parts: there is no field 'what'"),
    ],
)
def test_unknown_fields(place: list[Any], message: str) -> None:
    """A field that this code does not know would be lost: the lock is refused."""

    def change(lock: Any) -> None:
        for key in place:
            lock = lock[key]
        lock["what"] = 1

    assert refused(changed(change)) == message


def test_a_lock_of_before_has_less() -> None:
    """What came later has a default: a lock without it is read, and means that it is not known."""

    def change(lock: Any) -> None:
        assert "glibc_needed" not in lock["python"]["interpreter"]
        for wheel in lock["python"]["wheels"]:
            assert "built" not in wheel
            wheel.pop("index", None)
            wheel.pop("entry", None)
        del lock["python"]["provided"]
        del lock["python"]["layout"]

    assert documents.decode(changed(change), WHERE) == locks.lock()


def test_a_commit_says_nothing_of_an_install_that_was_not_run() -> None:
    """The bytes of a lock whose nodes have no install.py are what they were before it was run."""
    text = documents.encode(locks.lock())
    assert b"installed" not in text
    assert refused(changed(lambda lock: lock["nodes"][0].update(installed=None))) == (
        ": nodes[0].installed: expected an object, got null"
    )

    def install(lock: Any) -> None:
        lock["nodes"][0]["installed"] = {
            "entry": locks.entry(7),
            "size": 1,
            "python": "a" * 64,
            "wrote": ["a"],
            "removed": [],
        }

    (node,) = documents.decode(changed(install), WHERE).nodes
    assert (node.used, node.entry) == (locks.entry(7), locks.lock().nodes[0].entry)
    assert locks.lock().nodes[0].used == locks.lock().nodes[0].entry


@pytest.mark.parametrize("text", ["new", "2.", "2.28\n", "2.28.1", "glibc 2.28"])
def test_a_glibc_that_is_none(text: str) -> None:
    """What a system is compared with is a version."""
    said = refused(changed(lambda lock: lock["python"]["interpreter"].update(glibc_needed=text)))

    assert said == f": python.interpreter.glibc_needed: {text!r} is not like '2.28'"


#: A lock with a model that is a file, and one that is a folder.
FOLDER = locks.lock(
    models=(
        locks.model(),
        locks.model(
            "diffusers/a",
            sha256=None,
            mirrors=("https://h/a",),
            files=(ModelFile(path="b/c", source="https://h/c", size=1, git="1" * 40),),
        ),
    )
)


def test_what_a_model_does_not_have_is_left_out() -> None:
    """A lock of before these fields is the same, byte by byte."""
    plain, folder = (msgspec.to_builtins(one) for one in FOLDER.models)

    assert plain.keys() == {*("name", "path", "request", "source", "size", "sha256", "entry")}
    assert folder.keys() - plain.keys() == {"mirrors", "files"}
    assert folder["files"][0].keys() == {"path", "source", "size", "git"}
    assert documents.decode(documents.encode(FOLDER), WHERE) == FOLDER


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"file": "a/b"}, ".file: 'a/b' is not the name of one file"),
        ({"file": ".."}, ".file: '..' "),
        ({"sha256": "0" * 64}, ".sha256: a folder has none"),
        ({"files": [{"path": "a", "source": "", "size": -1}]}, ".files[0].size: "),
        (
            {"files": [{"path": "a", "source": "", "size": 1, "git": "0" * 39}]},
            f".files[0].git: '{'0' * 39}' is not the id of a blob of git",
        ),
        (
            {"files": [{"path": one, "source": "", "size": 1} for one in ("a", "A/b")]},
            ".files[1]: 'A/b' lies below another file, 'a'",
        ),
    ],
)
def test_folders_that_are_none(fields: dict[str, Any], message: str) -> None:
    """What is fetched into a folder has one place in it."""
    found = refused(changed(lambda lock: lock["models"][1].update(fields), FOLDER))
    assert found.startswith(f": models[1]{message}")


@pytest.mark.parametrize("text", BAD_DIGESTS)
@pytest.mark.parametrize(
    ("place", "field"),
    [
        (["core"], "entry"),
        (["nodes", 0], "entry"),
        (["python", "wheels", 0], "sha256"),
        (["python", "wheels", 0], "entry"),
        (["models", 0], "entry"),
        (["models", 0], "sha256"),
        (["models", 1, "files", 0], "sha256"),
    ],
)
def test_digests_that_are_none(place: list[Any], field: str, text: str) -> None:
    """Digests become paths: each is 64 lower-case hexadecimal digits."""

    def change(lock: Any) -> None:
        for key in place:
            lock = lock[key]
        lock[field] = text

    shown = ".".join(map(str, place)).replace(".0", "[0]").replace(".1", "[1]")
    assert refused(changed(change, FOLDER)) == (
        f": {shown}.{field}: {text!r} is not 64 lower-case hexadecimal digits"
    )


@pytest.mark.parametrize("text", BAD_PATHS)
def test_paths_that_climb(text: str) -> None:
    """No path of a lock leaves its folder, wherever it stands."""
    submodule = {"path": text, "repo": "", "commit": "1" * 40}
    for change in (
        lambda lock: lock["models"][0].update(path=text),
        lambda lock: lock["models"][1]["files"][0].update(path=text),
        lambda lock: lock["core"].update(name=text),
        lambda lock: lock["nodes"][0].update(name=text),
        lambda lock: lock["nodes"][0].update(submodules=[submodule]),
    ):
        assert f": {text!r} " in refused(changed(change, FOLDER))
    file = f"{text}/x.whl"
    assert refused(changed(lambda lock: lock["python"]["wheels"][0].update(file=file)))


@pytest.mark.parametrize("name", ["a/b", "/a", "a/"])
def test_nodes_are_called_like_one_folder(name: str) -> None:
    """A node's name is that of one folder in custom_nodes/."""
    said = refused(changed(lambda lock: lock["nodes"][0].update(name=name)))

    assert said.startswith(f": nodes[0].name: {name!r} is not ")


@pytest.mark.parametrize(
    "text", ["", "main", "1" * 39, "A" * 40, "--upload-pack=x", "1" * 40 + "\n"]
)
def test_commits_that_are_none(text: str) -> None:
    """A lock has full commits alone."""
    message = f"{text!r} is not a full commit"
    submodule = {"path": "a", "repo": "", "commit": text}

    assert refused(changed(lambda lock: lock["core"].update(commit=text))) == f": core: {message}"
    assert refused(changed(lambda lock: lock["nodes"][0].update(submodules=[submodule]))) == (
        f": nodes[0]: {message}"
    )


@pytest.mark.parametrize("file", ["x.tar.gz", "", "a/x.whl", "../x.whl", "a\\x.whl", "x\n.whl"])
def test_wheels_that_are_none(file: str) -> None:
    """A wheel is the name of one file."""
    said = refused(changed(lambda lock: lock["python"]["wheels"][0].update(file=file)))

    assert said.startswith(f": python.wheels[0].file: {file!r} ")


# Files.


def test_no_lock_yet(tmp_path: Path) -> None:
    """Where there is no file there is no lock; a folder or dangling link is an error."""
    assert documents.read(str(tmp_path / "x.lock.json")) is None
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        documents.read(str(tmp_path))
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="does not exist"):
        documents.read(str(tmp_path / "link"))


def test_a_lock_is_written_and_read(volume: Volume) -> None:
    """The file is replaced, and nothing unfinished is left."""
    path = os.path.join(volume.resolved, "x.lock.json")
    for lock in (locks.lock(), locks.lock(version_id="y")):
        documents.write(path, lock, volume.tmp)

        assert documents.read(path) == lock
    assert os.listdir(volume.tmp) == []
    assert os.listdir(volume.resolved) == ["x.lock.json"]


def test_a_lock_on_another_file_system(volume: Volume, tmp_path: Path) -> None:
    """A lock may lie anywhere, in a folder that is made, and leaves nothing beside itself."""
    path = tmp_path / "new" / "x.lock"
    for lock in (locks.lock(), locks.lock(version_id="y")):
        documents.write(str(path), lock, volume.tmp)

        assert documents.read(str(path)) == lock
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_any_change_may_fail(volume: Volume, tmp_path: Path, elsewhere: bool) -> None:
    """Whichever change fails, the old lock is there or the new one, whole and alone."""
    folder = str(tmp_path) if elsewhere else volume.resolved
    path = os.path.join(folder, "x.lock.json")
    old, new = locks.lock(), locks.lock(version_id="y")
    documents.write(path, old, volume.tmp)
    number, failed = 0, True
    while failed:
        number += 1
        try:
            with fail_at(number, calls=("create", "write", "fsync", "close", "rename")):
                documents.write(path, new, volume.tmp)
            failed = False
        except OSError:
            pass
        # The rename is the fifth; after it the folder is synced.
        assert documents.read(path) == (old if number <= 5 else new)
        assert os.listdir(volume.tmp) == []
        assert os.listdir(folder) == ["x.lock.json"]

    assert number == 7


def test_a_lock_of_the_tool_before_is_none(tmp_path: Path) -> None:
    """What the old tool left in the lock's place is no lock, and is kept when one is written."""
    old = {"schema_version": 2, "version_id": "v", "comfy": {"repo": "x", "commit": "y"}}
    path = tmp_path / "resolved" / "v.lock.json"
    path.parent.mkdir()
    path.write_text(json.dumps(old))
    (tmp_path / "tmp").mkdir()

    assert documents.read(str(path)) is None
    lock = documents.decode(changed(lambda lock: None), WHERE)
    documents.write(str(path), lock, str(tmp_path / "tmp"))
    assert documents.read(str(path)) == lock
    assert json.loads((path.parent / f"v.lock.json{documents.BEFORE}").read_text()) == old


def with_place(value: Any, place: list[str | int], new: Any) -> bytes:
    """The document of a lock with one value replaced."""
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return json.dumps(value).encode()


@pytest.mark.parametrize("size", [-1, 1 << 63, 10**4000])
def test_sizes_that_are_none(size: int) -> None:
    """A size that nothing can have would break every sum of sizes."""
    for place in (["core", "size"], ["models", 0, "size"], ["python", "wheels", 0, "size"]):
        document = json.loads(documents.encode(locks.lock()))
        said = refused(with_place(document, place, size))
        assert "size: " in said


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\x7f", "\x9b", "\u2028"])
def test_texts_that_steer_a_terminal(text: str) -> None:
    """Names, refs and URLs of a lock are shown and logged: none has a control character."""
    for place, shown in (
        (["core", "ref"], "core.ref"),
        (["python", "wheels", 0, "required_by", 0], "python.wheels[0].required_by[0]"),
        (["parts", "core"], "parts.core"),
    ):
        document = json.loads(documents.encode(locks.lock()))
        said = refused(with_place(document, place, text))
        assert said == f": {shown}: {text!r} has control characters"


def test_one_place_for_two() -> None:
    """Two nodes or models in one place, or a model below another, are no version."""
    node, model = locks.commit("node"), locks.model("a/b")
    for lock, said in (
        (locks.lock(nodes=(node, locks.commit("NODE"))), ": nodes[1]: a second custom node is"),
        (locks.lock(models=(model, locks.model("A/B"))), ": models[1]: a second model is called"),
        (locks.lock(models=(model, locks.model("A/b/c"))), ": models[1]: 'A/b/c' lies below an"),
    ):
        assert refused(documents.encode(lock)).startswith(said)


BUILT = {
    "url": "https://example.org/a-1.tar.gz",
    "date": "2024-05-06T07:08:09Z",
    "file": "a-1.tar.gz",
    "sha256": "7" * 64,
    "requires": [msgspec.to_builtins(locks.wheel("setuptools"))],
}


def built(**fields: Any) -> bytes:
    """A lock whose first wheel was built."""
    return changed(
        lambda lock: lock["python"]["wheels"][0].update(
            built={name: value for name, value in (BUILT | fields).items() if value is not None}
        )
    )


def test_what_was_built_is_kept() -> None:
    """A lock with the source of a wheel reads as it was written."""
    read = documents.decode(built(), WHERE)

    assert documents.decode(documents.encode(read), WHERE) == read
    assert read.python.wheels[0].built is not None
    assert read.python.wheels[0].built.shown == "a-1.tar.gz"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sha256": None}, ": either sha256 or commit is needed"),
        ({"commit": "a" * 40}, ": either sha256 or commit is needed"),
        ({"sha256": "x"}, ".sha256: 'x' is not 64 lower-case hexadecimal digits"),
        ({"sha256": None, "commit": "main"}, ".commit: 'main' is not a full commit"),
        ({"file": "../a.tar.gz"}, ".file: '../a.tar.gz' climbs out of its folder"),
        ({"file": "a/b.tar.gz"}, ".file: 'a/b.tar.gz' is not the name of one file"),
        ({"subdirectory": "../x"}, ".subdirectory: '../x' climbs out of its folder"),
        ({"date": "today"}, ".date: 'today' is not like '2026-01-31T12:00:00Z'"),
        (
            {"requires": [{**BUILT["requires"][0], "sha256": "x"}]},  # type: ignore[index]
            ".requires[0].sha256: 'x' is not 64 lower-case hexadecimal digits",
        ),
        (
            {"requires": [{**BUILT["requires"][0], "built": BUILT}]},  # type: ignore[index]
            ".requires[0].built: what builds is not built itself",
        ),
    ],
)
def test_a_source_that_is_none(fields: dict[str, Any], message: str) -> None:
    """What would be fetched and built is checked like everything else."""
    assert refused(built(**fields)) == f": python.wheels[0].built{message}"
