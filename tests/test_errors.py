"""Bad input: each is one sentence with its place, exit 2, and nothing is written."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from world import CAME_AND_WENT, Done, World

from cvs.versions import lock as locks

pytest_plugins = ["world_fixtures"]

CORE: dict[str, Any] = {"repo": "https://example.org/ComfyUI", "commit": "1" * 40}
NODE: dict[str, Any] = {"repo": "https://example.org/node", "commit": "2" * 40}
MODEL: dict[str, Any] = {"source": "https://example.org/a.safetensors", "target_path": "vae/a"}
SPEC: dict[str, Any] = {"schema_version": 2, "version_id": "bad", "comfy": CORE}


class Bad(NamedTuple):
    """A spec that cannot be used, and what is said of it after its file's name."""

    what: str
    spec: Any
    """Fields beside or in place of those of SPEC; text or bytes are the whole file."""
    message: str


def nodes(*found: Any) -> dict[str, Any]:
    return {"custom_nodes": list(found)}


def models(*found: Any) -> dict[str, Any]:
    return {"models": [MODEL | one for one in found]}


SPECS = [
    Bad("no JSON", "{", " is not JSON: expecting property name"),
    Bad("empty", "", " is not JSON: expecting value (line 1, column 1)"),
    Bad("not UTF-8", b"\xff\xfe", " is not UTF-8 text (byte 0)"),
    Bad("a list", "[]", ": expected an object, got a list"),
    Bad("text", '"x"', ": expected an object, got text"),
    Bad(
        "duplicate key", '{"version_id": "a", "version_id": "b"}', ": the key 'version_id' is there"
    ),
    Bad("NaN", '{"version_id": NaN}', ": NaN is not a value of JSON"),
    Bad("infinity", '{"version_id": -Infinity}', ": -Infinity is not a value of JSON"),
    Bad("deep", "[" * 65 + "]" * 65, " is nested deeper than 64 levels"),
    Bad("very deep", "[" * 100_000, " is nested deeper than 64 levels"),
    Bad("long number", '{"a": ' + "1" * 5000 + "}", ": a number is too long"),
    Bad("large", '"' + "x" * (16 << 20) + '"', " is larger than 16 MiB"),
    # Fields
    Bad("unknown field", {"custom_node": []}, ": there is no field 'custom_node', did you mean"),
    Bad("field far off", {"zzz": 1}, ": there is no field 'zzz'\n"),
    Bad("unknown in node", nodes(NODE | {"refs": "x"}), ": custom_nodes[0]: there is no field"),
    Bad("missing field", '{"schema_version": 2, "version_id": "bad"}', ": the field 'comfy' is"),
    Bad("missing repo", {"comfy": {}}, ": comfy: the field 'repo' is missing"),
    Bad("missing source", {"models": [{"name": "x"}]}, ": models[0]: the field 'source' is missi"),
    Bad("wrong type", {"models": {}}, ": models: expected a list, got an object"),
    Bad("number for text", {"comfy": {"repo": 1}}, ": comfy.repo: expected text, got a whole numb"),
    Bad("text for flag", {"options": {"offline": "yes"}}, ": options.offline: expected true or fa"),
    Bad("null", {"comfy": None}, ": comfy: expected an object, got null"),
    # The version
    Bad("old schema", {"schema_version": 1}, ": schema_version: 1 is not known, this cvs reads 2"),
    Bad("new schema", {"schema_version": 3}, ": schema_version: 3 is not known, this cvs reads 2"),
    Bad("schema as text", {"schema_version": "2"}, ": schema_version: expected a whole number"),
    Bad("other name", {"version_id": "other"}, ": version_id: 'other' is not the file's name"),
    Bad("climbing name", {"version_id": "../x"}, ": version_id: '../x' cannot be the name"),
    # Repositories
    Bad("empty repo", {"comfy": {"repo": ""}}, ": comfy.repo: the repository is empty"),
    Bad("option", {"comfy": {"repo": "--upload-pack=x"}}, ": comfy.repo: '--upload-pack=x' is an"),
    Bad("helper", {"comfy": {"repo": "ext::sh -c x"}}, ": comfy.repo: 'ext::sh -c x' runs a help"),
    Bad("http", {"comfy": {"repo": "http://example.org/x"}}, ": comfy.repo: http:// is not fetch"),
    Bad("ftp", {"comfy": {"repo": "ftp://example.org/x"}}, ": comfy.repo: ftp:// is not fetched"),
    Bad("password", {"comfy": {"repo": "https://me:pw@example.org/x"}}, ": comfy.repo: a password"),
    Bad("two refs", {"comfy": {"repo": "https://e.org/x@a", "ref": "b"}}, ": comfy: repo names th"),
    Bad("bad ref", {"comfy": CORE | {"ref": "a..b"}}, ": comfy.ref: 'a..b' cannot be the name of"),
    Bad("ref as option", {"comfy": CORE | {"ref": "-x"}}, ": comfy.ref: '-x' cannot be the name"),
    Bad("short commit", {"comfy": CORE | {"commit": "abc123"}}, ": comfy.commit: 'abc123' is not"),
    # Nodes
    Bad("two nodes", nodes(NODE, NODE), ": custom_nodes[1]: a second custom node is called 'node'"),
    Bad("case", nodes(NODE, NODE | {"name": "NODE"}), ": custom_nodes[1]: a second custom node"),
    Bad("node's path", nodes(NODE | {"name": "a/b"}), ": custom_nodes[0].name: 'a/b' is not the"),
    Bad("node climbs", nodes(NODE | {"name": ".."}), ": custom_nodes[0].name: '..' climbs out"),
    Bad("hidden node", nodes(NODE | {"name": ".x"}), ": custom_nodes[0].name: ComfyUI does not l"),
    Bad("disabled", nodes(NODE | {"name": "x.disabled"}), ": custom_nodes[0].name: ComfyUI does"),
    # Models
    Bad("absolute", models({"target_path": "/etc/x"}), ": models[0].target_path: '/etc/x' is not"),
    Bad("climbing", models({"target_path": "vae/../../x"}), ": models[0].target_path: 'vae/../../"),
    Bad("home", models({"target_path": "~/x"}), ": models[0].target_path: '~/x' is not relative"),
    Bad("empty path", models({"target_path": ""}), ": models[0].target_path: '' is empty"),
    Bad("dot", models({"target_path": "./x"}), ": models[0].target_path: './x' is not a plain pa"),
    Bad("backslash", models({"target_path": "a\\b"}), ": models[0].target_path: 'a\\\\b' is not a"),
    Bad("variable", models({"target_path": "$X/a"}), ": models[0].target_path: '$X/a' holds a var"),
    Bad("two paths", models({"path": "vae/b"}), ": models[0]: target_path and path name differen"),
    Bad("same path", models({}, {}), ": models[1]: a second model is called 'vae/a', the first is"),
    Bad("same but case", models({}, {"target_path": "VAE/A"}), ": models[1]: a second model is"),
    Bad("below", models({}, {"target_path": "vae/a/b"}), ": models[1]: 'vae/a/b' lies below anoth"),
    Bad("checksum", models({"checksum": "sha256:12"}), ": models[0].checksum: 'sha256:12' is not"),
    Bad("md5", models({"checksum": "md5:" + "1" * 32}), ": models[0].checksum: 'md5:1111111111111"),
    Bad("two checksums", models({"checksum": "1" * 64, "sha256": "2" * 64}), ": models[0]: checks"),
    # The rest
    Bad("package option", {"python_packages": ["-e ."]}, ": python_packages[0]: '-e .' cannot be"),
    Bad("empty package", {"python_packages": [" "]}, ": python_packages[0]: ' ' cannot be used"),
    Bad("env name", {"env": {"A B": "x"}}, ": env: 'A B' cannot be the name of a variable"),
    Bad("env value", {"env": {"A": None}}, ": env.A: None is neither text nor a number"),
    Bad("python", {"python": {"version": "4"}}, ": python.version: '4' is not like '3.11'"),
    Bad("date", {"python": {"exclude_newer": "soon"}}, ": python.exclude_newer: 'soon' is no"),
]


def write(world: World, spec: Any) -> Path:
    path = world.versions / "bad.json"
    if isinstance(spec, dict):
        spec = json.dumps(SPEC | spec)
    path.write_bytes(spec if isinstance(spec, bytes) else spec.encode())
    return path


def assert_sentence(done: Done, message: str) -> None:
    """Exit 2, and on standard error one sentence that begins so, with at most a hint."""
    assert done.code == 2, done
    lines = done.err.splitlines()
    assert done.err.startswith(message), done.err
    assert [line for line in lines[1:] if not line.startswith("hint: ")] == []
    assert len(lines) <= 2


@pytest.mark.parametrize("bad", SPECS, ids=lambda bad: bad.what)
def test_spec(world: World, bad: Bad) -> None:
    """A spec that cannot be used is refused by every command that reads it."""
    path = write(world, bad.spec)
    before = world.listing()
    for command in (["realize", "bad"], ["resolve", "bad"], ["clone", "bad", "new"]):
        done = world.cvs(*command)
        assert_sentence(done, f"error: {path}{bad.message}".rstrip("\n"))
        assert done.out == ""
        if bad.message.endswith("\n"):
            assert done.err.startswith(f"error: {path}{bad.message}")
    assert before == world.listing()


def test_error_as_json(world: World) -> None:
    """With --json a document of the error is on standard output, the sentence on standard error."""
    path = write(world, {"comfy": {}})
    done = world.cvs("realize", "bad", "--json")

    message = f"{path}: comfy: the field 'repo' is missing"
    assert_sentence(done, f"error: {message}\n")
    assert done.json == {"error": message, "hint": None, "exit_code": 2}


def test_error_as_json_has_the_hint(world: World) -> None:
    """The hint is a member of its own."""
    done = world.cvs("run-ui", "demo", "--json")

    expected = {"error": "demo is not realized here", "hint": "cvs realize demo", "exit_code": 2}
    assert done.json == expected


# The command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["realise"], "there is no command 'realise', did you mean 'realize'?"),
        (["zzz"], "there is no command 'zzz'\n"),
        (["--offline"], "there is no command '--offline'"),
        (["realize"], "the following arguments are required: ID"),
        (["realize", "demo", "--ofline"], "unrecognized arguments: --ofline"),
        (["realize", "demo", "--off"], "unrecognized arguments: --off"),
        (["realize", "demo", "more"], "unrecognized arguments: more"),
        (["realize", "demo", "--target"], "argument --target: expected one argument"),
        (["rollback", "demo", "x"], "argument N: invalid int value: 'x'"),
        (["store"], "the following arguments are required: ACTION"),
        (["store", "--json"], "the following arguments are required: ACTION"),
        (["store", "destroy"], "`cvs store` has no action 'destroy'\n"),
        (["store", "verfy"], "`cvs store` has no action 'verfy', did you mean 'verify'?"),
        (["store", "show"], "the following arguments are required: HASH"),
        (["store", "ls", "x"], "unrecognized arguments: x"),
        (["store", "ls", "--kind", "x"], "argument --kind: invalid choice: 'x'"),
        (["store", "show", "xyz"], "'xyz' is not an entry: 8 to 64 digits of its hash are needed"),
        (["store", "show", "0" * 8], "no entry of the store begins with 00000000"),
        (["run-handler", "demo"], "the following arguments are required: --workflow"),
        (["run-handler", "demo", "--workflow", "x", "--output", "y"], "argument --output: invalid"),
        (["realize", "gone"], "there is no version 'gone': {versions}/gone.json does not exist"),
        (["realize", "./gone.json"], "there is no version './gone.json': ./gone.json does not ex"),
        (["resolve", "a b"], "there is no version 'a b': "),
        (["history", "a b"], "the version: 'a b' cannot be the name of a version"),
        (["history", "gone"], "gone has no generations here"),
        (["rollback", "gone"], "gone is not realized here"),
        (["show", "gone"], "there is no version 'gone': "),
        (["delete", "gone"], "there is nothing of 'gone' to delete"),
        (["delete", "demo", "-x"], "unrecognized arguments: -x"),
        (["exec", "gone", "-q", "--", "true"], "gone is not realized here"),
        (["create", "../x"], "the version: '../x' cannot be the name of a version"),
        (["create", "x.json"], "the version: 'x.json' cannot be the name of a version"),
        (["create", ""], "the version: '' cannot be the name of a version"),
        (["create", "x" * 101], "the version: 'xxx"),
        (["create", "new", "--nodes", "["], "--nodes is not JSON: expecting value"),
        (["create", "new", "--nodes", "{}"], "--nodes: a list is needed"),
        (["create", "new", "--nodes", "[1]"], "--nodes: custom_nodes[0]: an object is"),
        (["create", "new", "--nodes", "gone.json"], "gone.json does not exist"),
        (["create", "new", "--models", "gone.yaml"], "gone.yaml does not exist"),
        (
            ["create", "new", "--models", '[{"name": "x"}]'],
            "{versions}/new.json: models[0]: ",
        ),
        (["create", "new", "--ref", ".."], "{versions}/new.json: comfy.ref: '..' cannot be the"),
        (["clone", "demo", "x y"], "the new version: 'x y' cannot be the name of a version"),
        (["clone", "gone", "new"], "there is no version 'gone': "),
        (["realize", "demo", "--wheels-dir", "gone"], "--wheels-dir: gone is not a folder"),
        (["demo", "--dir", "repos"], "--dir: repos is not an empty folder"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_command_line(realized: World, arguments: list[str], message: str) -> None:
    """What cannot be run is one sentence, in the form of all others."""
    before = realized.listing()
    done = realized.cvs(*arguments)

    assert_sentence(done, "error: " + message.replace("{versions}", str(realized.versions)))
    assert before == realized.listing()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("COMFY_OFFLINE", "maybe", "COMFY_OFFLINE is 'maybe', neither true nor false"),
        ("COMFY_PYTHON", "/no/python", "there is no interpreter at /no/python"),
        ("COMFY_PYTHON", "/etc/hostname", "the interpreter /etc/hostname does not run: "),
        ("COMFY_USE_SYSTEM_PYTHON", "maybe", "COMFY_USE_SYSTEM_PYTHON is 'maybe', neither true"),
        ("COMFY_CACHE_ROOT", "{model}/x", "a part of the path is not a folder: {model}"),
        ("CVS_VERSIONS_DIR", "{model}", "there is no version 'demo': {model}/demo.json does not"),
    ],
)
def test_environment(world: World, name: str, value: str, message: str) -> None:
    """A variable that cannot be used is named, or what it names is."""
    places = {"{model}": str(world.model)}
    for place, path in places.items():
        value, message = value.replace(place, path), message.replace(place, path)
    before = world.listing()
    done = world.cvs("realize", "demo", "--locked", *world.local, **{name: value})
    if name == "COMFY_PYTHON":
        # Asked only where there is something to resolve.
        done = world.cvs("resolve", "demo", *world.local, **{name: value})
        assert_sentence(done, f"error: {message}")
        assert not (world.cache / "resolved" / "demo.lock.json").exists()
        return
    assert done.code == 2
    assert done.err.startswith(f"error: {message}") or "something is in the way" in done.err
    assert before == world.listing()


# What sources do not give


def refused(world: World, message: str, *options: str) -> None:
    """A realize that fails, and leaves nothing but what it had stored before it failed."""
    before = world.listing(forgive=CAME_AND_WENT)
    done = world.cvs("realize", "demo", *world.local, *options)

    assert_sentence(done, f"error: {world.versions}/demo.json: {message}")
    assert done.out == ""
    assert "Traceback" not in done.err
    after = world.listing(forgive=CAME_AND_WENT)
    new = [path for path in after if path not in before]
    assert [path for path in new if not path.startswith(("cache/store", "cache/refs"))] == []
    assert [path for path in before if path not in after] == []
    world.assert_sound()


def test_unreachable_repository(realized: World) -> None:
    """A repository that does not answer is named with its place in the spec."""
    realized.environment["COMFY_OFFLINE"] = "false"
    realized.spec(comfy={"repo": "http://127.0.0.1:9/ComfyUI", "ref": "main"})

    refused(realized, "comfy: http://127.0.0.1:9/ComfyUI cannot be reached: ")


def test_no_repository_there(served: World) -> None:
    """A server without that repository is as much."""
    served.volume.prepare()
    served.spec(comfy={"repo": f"{served.url}/gone.git"}, models=[])

    refused(served, f"comfy: there is no git repository at {served.url}/gone.git")


def test_no_repository_in_folder(realized: World) -> None:
    """A folder that is no repository is."""
    realized.spec(comfy={"repo": str(realized.wheels)})

    refused(realized, f"comfy: there is no git repository at {realized.wheels}")


def test_unknown_ref(served: World) -> None:
    """A ref that the repository does not have is named, near ones are hinted at."""
    served.volume.prepare()
    served.spec(comfy={"repo": f"{served.url}/ComfyUI.git", "ref": "mian"}, models=[])

    done = served.cvs("realize", "demo", *served.local)

    place = f"{served.url}/ComfyUI.git ({served.versions}/demo.json: comfy.ref)"
    assert_sentence(done, f"error: ref 'mian' is not in {place}\n")
    assert done.err.endswith("hint: did you mean 'main'?\n")
    served.assert_sound()


def test_unknown_commit(served: World) -> None:
    """So is a commit."""
    served.volume.prepare()
    served.spec(comfy={"repo": f"{served.url}/ComfyUI.git", "commit": "1" * 40}, models=[])

    refused(served, f"comfy: commit {'1' * 40} is not in {served.url}/ComfyUI.git")


def test_local_without_leave(realized: World) -> None:
    """A path of this machine needs --allow-local."""
    realized.spec(comfy={"repo": f"{realized.url}/ComfyUI.git", "ref": "main"})
    done = realized.cvs("realize", "demo")

    path = f"{realized.versions}/demo.json"
    message = f"error: {path}: comfy.repo: '{realized.url}/ComfyUI.git' is a path of this machine\n"
    assert_sentence(done, message)


def test_checksum_mismatch(realized: World) -> None:
    """Another checksum than was promised names both digests and keeps nothing."""
    wrong = "9" * 64
    other = realized.folder / "sources" / "other"
    other.write_bytes(b"other bytes")
    realized.spec(models=[{"source": str(other), "target_path": "vae/x", "sha256": wrong}])
    entries = set(realized.store.ids())
    import hashlib

    found = hashlib.sha256(b"other bytes").hexdigest()
    lock = realized.lock()
    done = realized.cvs("realize", "demo", *realized.local)

    assert_sentence(
        done,
        f"error: {realized.versions}/demo.json: models[0]: other has the digest {found}, "
        f"expected is {wrong}: nothing was kept\n",
    )
    assert entries == set(realized.store.ids())
    assert realized.profile().current() == 1
    assert lock["models"] != realized.lock()["models"]
    realized.assert_sound()


def test_missing_local_model(realized: World) -> None:
    """A local source that is not there is named before anything is fetched."""
    gone = realized.folder / "gone.safetensors"
    realized.spec(models=[{"source": str(gone), "target_path": "vae/x"}])

    refused(realized, f"models[0].source: {gone}: No such file or directory")


def test_folder_as_model(realized: World) -> None:
    """A folder is no file."""
    realized.spec(models=[{"source": str(realized.wheels), "target_path": "vae/x"}])

    refused(realized, f"models[0].source: {realized.wheels} is not a file")


def test_node_without_wheel(realized: World) -> None:
    """A requirement that nothing gives names who asks for it."""
    files: dict[bytes, Any] = {b"requirements.txt": b"no-such-thing>=3\n"}
    commit = realized.new_source("needy.git", files)
    realized.spec(custom_nodes=[{"repo": f"{realized.url}/needy.git", "commit": commit}])
    done = realized.cvs("realize", "demo", *realized.local)

    assert_sentence(done, "error: no folder of wheels has 'no-such-thing', asked for by needy\n")
    assert realized.profile().current() == 1


def test_model_in_place_of_the_core(realized: World) -> None:
    """A model or node where ComfyUI itself has something is refused."""
    source = {"source": str(realized.model), "target_path": "checkpoints/put_checkpoints_here"}
    realized.spec(models=[source])
    done = realized.cvs("realize", "demo", *realized.local)

    message = "models/checkpoints/put_checkpoints_here is part of ComfyUI itself"
    assert_sentence(done, f"error: {message}")
    assert realized.profile().current() == 1
    realized.assert_sound()


# The volume


def damage(name: str) -> Callable[[World], None]:
    def write_text(world: World) -> None:
        path = world.cache / "resolved" / "demo.lock.json"
        lock = world.lock()
        if name == "newer":
            lock["schema_version"] = locks.SCHEMA + 1
        elif name == "entry":
            lock["core"]["entry"] = "x"
        elif name == "path":
            lock["models"][0]["path"] = "../../x"
        elif name == "field":
            del lock["python"]
        path.write_text(json.dumps(lock) if name != "torn" else path.read_text()[:100])

    return write_text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torn", " is not JSON: "),
        ("newer", f": schema_version: {locks.SCHEMA + 1} is not known, this cvs reads "),
        ("entry", ": core.entry: 'x' is not 64 lower-case hexadecimal digits"),
        ("path", ": models[0].path: '../../x' climbs out of its folder"),
        ("field", ": the field 'python' is missing"),
    ],
)
def test_damaged_lock(realized: World, name: str, message: str) -> None:
    """A lock that is damaged or newer is refused with its file, and stays."""
    damage(name)(realized)
    before = realized.listing()

    for command in (["realize"], ["realize", "--dry-run"], ["realize", "--locked"], ["resolve"]):
        done = realized.cvs(command[0], "demo", *realized.local, *command[1:])
        assert_sentence(done, f"error: {realized.cache}/resolved/demo.lock.json{message}")
    assert before == realized.listing()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"cvs-layout 3\n", "{cache} has layout 3, this cvs knows up to 2: nothing was changed"),
        (
            b"cvs-layout x\n",
            "{cache}/format is not the format file of a cvs volume: ",
        ),
        (b"\xff", "{cache}/format is not the format file of a cvs volume: '?'"),
        (b"", "{cache}/format is not the format file of a cvs volume: ''"),
    ],
)
def test_other_layout(realized: World, text: bytes, message: str) -> None:
    """A volume of a newer cvs, or of something else, is left alone by every command."""
    (realized.cache / "format").write_bytes(text)
    before = realized.listing()
    commands = (
        ["realize", "demo", *realized.local],
        ["resolve", "demo", *realized.local],
        ["update", "demo", *realized.local],
        ["list"],
        ["show", "demo"],
        ["history", "demo"],
        ["rollback", "demo"],
        ["delete", "demo"],
        ["store", "ls"],
        ["store", "du"],
        ["exec", "demo", "--", "true"],
        ["shell", "demo", "--", "-c", "true"],
    )
    for command in commands:
        done = realized.cvs(*command)
        assert_sentence(done, "error: " + message.replace("{cache}", str(realized.cache)))
    assert before == realized.listing()


def test_damaged_record(realized: World) -> None:
    """A record that is none is an error with its file."""
    path = Path(realized.profile().record_path(1))
    path.unlink()
    path.write_text("{}")
    done = realized.cvs("history", "demo")

    assert_sentence(done, f"error: {path} is not a record: ")


def test_current_that_is_no_link(realized: World) -> None:
    """A `current` that is a folder, or leads elsewhere, is told."""
    current = realized.cache / "profiles" / "demo" / "current"
    current.unlink()
    current.symlink_to("../elsewhere")
    done = realized.cvs("history", "demo")
    assert_sentence(done, f"error: {current} leads to '../elsewhere', not to a generation")
    current.unlink()
    current.mkdir()

    assert_sentence(realized.cvs("history", "demo"), f"error: {current} is not a link: ")


def test_read_only_volume(realized: World) -> None:
    """A volume that cannot be written is one sentence; looking at it works."""
    import subprocess

    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    mount = ["mount", "--bind", "-o", "ro", str(realized.cache), str(realized.cache)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        realized.spec(custom_nodes=[])
        done = realized.cvs("realize", "demo", *realized.local)
        assert_sentence(done, "error: the file system is read-only: ")
        assert realized.ok("show", "demo").out.startswith("demo: generation 1\n")
        assert realized.ok("history", "demo").err == ""
        assert realized.ok("store", "verify").out.endswith("all well\n")
    finally:
        subprocess.run(["umount", "-l", str(realized.cache)], check=True)


def test_entry_in_the_way(realized: World) -> None:
    """An entry that is damaged where a new one must go names `store repair`."""
    entry = realized.lock()["nodes"][0]["entry"]
    os.unlink(realized.cache / "store" / entry / "manifest.json")
    done = realized.cvs("realize", "demo", *realized.local)

    assert_sentence(done, f"error: {realized.cache}/store/{entry} is not what its name says\n")
    assert f"hint: cvs store repair {entry[:16]}\n" in done.err
    shutil.rmtree(realized.cache / "store" / entry)
    realized.realize()
