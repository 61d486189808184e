"""The spec: every form that users have, and every way to get it wrong."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import uv
from hypothesis import given
from hypothesis import strategies as st

from cvs.store.errors import InputError
from cvs.versions import spec as specs
from cvs.versions.spec import Model, Source, Spec

FILE = "versions/x.json"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "5" * 64

#: Ends of messages.
NOT_A_REF = " cannot be the name of a branch, tag or commit"
NOT_A_COMMIT = " is not a full commit of 40 hexadecimal digits"
NO_MEANING = " holds a variable or escape that has no meaning here"
NOT_SHA256 = " is not sha256:<64 hexadecimal digits>"
NOT_A_DATE = " is not a date, 'core' or 'none'"
NO_PATH = " cannot be the path of a file of a wheel"


def document(**fields: Any) -> dict[str, Any]:
    """The smallest spec with fields beside it or in place of its own."""
    core = {"repo": "https://github.com/comfyanonymous/ComfyUI"}
    return {"schema_version": 2, "version_id": "x", "comfy": core, **fields}


def read(**fields: Any) -> Spec:
    """A spec with these fields."""
    return specs.parse(document(**fields), FILE)


def refused(**fields: Any) -> str:
    """The one sentence that a spec with these fields is refused with, without its file."""
    with pytest.raises(InputError) as caught:
        read(**fields)
    assert_sentence(caught.value)
    return caught.value.message.removeprefix(f"{FILE}: ")


def assert_sentence(error: InputError) -> None:
    """A message is one line that begins with the file and has no period at its end."""
    assert error.message.startswith(f"{FILE}: ")
    assert error.message.isprintable()
    assert not error.message.endswith(".")
    assert len(error.message) < 1000


def core(**fields: Any) -> Source:
    """The core of a spec whose `comfy` has these fields."""
    return read(comfy=fields).core


def node(**fields: Any) -> Source:
    """The only node of a spec."""
    return read(custom_nodes=[{"repo": "https://example.org/a/node", **fields}]).nodes[0]


def model(source: str = "https://example.org/a/m.safetensors", **fields: Any) -> Model:
    """The only model of a spec."""
    return read(models=[{"source": source, **fields}]).models[0]


# The whole document.


def test_the_guide_s_example() -> None:
    """The spec of the guide that users have reads as it always did."""
    found = specs.parse(
        {
            "schema_version": 2,
            "version_id": "my-version",
            "comfy": {"repo": "https://github.com/comfyanonymous/ComfyUI", "ref": "master"},
            "custom_nodes": [],
            "models": [],
            "python_packages": ["sageattention", "onnx>=1.14", "onnxruntime-gpu"],
            "env": {},
            "options": {},
        },
        FILE,
    )

    assert found == Spec(
        version_id="my-version",
        core=Source(
            name="ComfyUI",
            repo="https://github.com/comfyanonymous/ComfyUI",
            ref="master",
            commit=None,
            where=f"{FILE}: comfy",
            base=os.path.abspath("versions"),
        ),
        nodes=(),
        models=(),
        packages=("sageattention", "onnx>=1.14", "onnxruntime-gpu"),
        python=specs.PythonSettings(),
        find_links=(),
        env={},
        offline=False,
        skip_models=False,
        allow_pickle=True,
        file=FILE,
    )


def test_load_reads_json_and_yaml(tmp_path: Path) -> None:
    """A spec may be JSON or YAML, and its file begins every message about it."""
    text = json.dumps(document())
    for name in ("x.json", "x.yaml", "x.yml"):
        path = tmp_path / name
        path.write_text(text)

        assert specs.load(str(path)).core.where == f"{path}: comfy"
    path.write_text(text.replace("comfy", "uncomfy", 1))
    with pytest.raises(InputError) as caught:
        specs.load(str(path))
    assert caught.value.message == (f"{path}: there is no field 'uncomfy', did you mean 'comfy'?")


@pytest.mark.parametrize(
    ("version", "message", "hint"),
    [
        (3, "3 is not known, this cvs reads 2", "update cvs"),
        (10**30, f"{10**30} is not known, this cvs reads 2", "update cvs"),
        (1, "1 is not known, this cvs reads 2", None),
        (True, "expected a whole number, got true or false", None),
        (2.0, "expected a whole number, got a number", None),
        ("2", "expected a whole number, got text", None),
        (None, "expected a whole number, got null", None),
    ],
)
def test_schema_version(version: Any, message: str, hint: str | None) -> None:
    """Another version of the form is refused before anything else is looked at."""
    with pytest.raises(InputError) as caught:
        specs.parse({**document(what=1), "schema_version": version}, FILE)

    assert caught.value.message == f"{FILE}: schema_version: {message}"
    assert caught.value.hint == hint


@pytest.mark.parametrize("name", ["x", "wan-demo", "2.1", "A_b.C-9", "a" * 100, "json"])
def test_version_id(name: str) -> None:
    """What can name a version."""
    assert read(version_id=name).version_id == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".x",
        "-x",
        "_x",
        "a/b",
        "a b",
        "a\n",
        "é",
        "a" * 101,
        "x.json",
        "x.lock",
        "a\0",
    ],
)
def test_version_id_that_is_none(name: str) -> None:
    """A name becomes part of paths: what could be another path, or another file, is none."""
    assert refused(version_id=name) == f"version_id: {name!r} cannot be the name of a version"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"custom_node": []}, "there is no field 'custom_node', did you mean 'custom_nodes'?"),
        ({"comfy": None}, "comfy: expected an object, got null"),
        ({"comfy": "https://example.org/x"}, "comfy: expected an object, got text"),
        ({"comfy": {}}, "comfy: the field 'repo' is missing"),
        ({"comfy": {"repo": "https://a/b", "name": "c"}}, "comfy: there is no field 'name'"),
        ({"custom_nodes": {}}, "custom_nodes: expected a list, got an object"),
        ({"custom_nodes": ["x"]}, "custom_nodes[0]: expected an object, got text"),
        ({"custom_nodes": None}, "custom_nodes: expected a list, got null"),
        ({"models": [{}]}, "models[0]: the field 'source' is missing"),
        ({"models": [{"source": 1}]}, "models[0].source: expected text, got a whole number"),
        ({"python_packages": "x"}, "python_packages: expected a list, got text"),
        ({"python_packages": [1]}, "python_packages[0]: expected text, got a whole number"),
        ({"env": []}, "env: expected an object, got a list"),
        (
            {"options": {"offline": 1}},
            "options.offline: expected true or false, got a whole number",
        ),
        (
            {"options": {"ofline": True}},
            "options: there is no field 'ofline', did you mean 'offline'?",
        ),
        ({"python": {"version": 3.11}}, "python.version: expected text or null, got a number"),
    ],
)
def test_wrong_types(fields: dict[str, Any], message: str) -> None:
    """Every wrong type and unknown field is named with its place."""
    assert refused(**fields) == message


def test_options() -> None:
    """Both options, both ways."""
    assert (read().offline, read().skip_models) == (False, False)
    assert read().allow_pickle
    found = read(options={"offline": True, "skip_models": True, "allow_pickle": False})
    assert (found.offline, found.skip_models, found.allow_pickle) == (True, True, False)


# Repositories.


@pytest.mark.parametrize(
    ("fields", "repo", "ref", "commit"),
    [
        ({"repo": "https://h/o/C"}, "https://h/o/C", None, None),
        ({"repo": "https://h/o/C@master"}, "https://h/o/C", "master", None),
        ({"repo": "https://h/o/C.git@v1/x"}, "https://h/o/C.git", "v1/x", None),
        ({"repo": "https://h/o/C", "ref": "v1"}, "https://h/o/C", "v1", None),
        ({"repo": "https://h/o/C@v1", "ref": "v1"}, "https://h/o/C", "v1", None),
        ({"repo": "https://h/o/C", "ref": None, "commit": None}, "https://h/o/C", None, None),
        ({"repo": "https://h/o/C", "commit": COMMIT}, "https://h/o/C", None, COMMIT),
        ({"repo": "https://h/o/C", "ref": "v1", "commit": COMMIT}, "https://h/o/C", "v1", COMMIT),
        ({"repo": f"https://h/o/C@{COMMIT}"}, "https://h/o/C", COMMIT, COMMIT),
        ({"repo": "https://h/o/C", "ref": COMMIT}, "https://h/o/C", COMMIT, COMMIT),
        (
            {"repo": "https://h/o/C", "ref": COMMIT, "commit": COMMIT},
            "https://h/o/C",
            COMMIT,
            COMMIT,
        ),
        ({"repo": "https://h/o/C", "ref": COMMIT[:12]}, "https://h/o/C", COMMIT[:12], None),
        ({"repo": "https://me@h/o/C"}, "https://me@h/o/C", None, None),
        ({"repo": "https://me@h/o/C@v1"}, "https://me@h/o/C", "v1", None),
        ({"repo": "git@h:o/C.git"}, "git@h:o/C.git", None, None),
        ({"repo": "git@h:o/C.git", "ref": "v1"}, "git@h:o/C.git", "v1", None),
        ({"repo": "ssh://git@h/o/C@v1"}, "ssh://git@h/o/C", "v1", None),
        ({"repo": "/srv/C@v1"}, "/srv/C", "v1", None),
        ({"repo": "../C"}, "../C", None, None),
        ({"repo": "file:///srv/C"}, "file:///srv/C", None, None),
    ],
)
def test_repositories(
    fields: dict[str, Any], repo: str, ref: str | None, commit: str | None
) -> None:
    """Every form in which a repository and what of it is wanted can be written."""
    found = core(**fields)

    assert (found.repo, found.ref, found.commit) == (repo, ref, commit)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"repo": ""}, ".repo: the repository is empty"),
        (
            {"repo": "https://me:pass@h/o/C"},
            ".repo: a password must not stand in the URL 'https://…@h/o/C'",
        ),
        (
            {"repo": "http://h/o/C"},
            ".repo: http:// is not fetched from, anybody on the way could change it",
        ),
        ({"repo": "ext::sh"}, ".repo: 'ext::sh' runs a helper program"),
        ({"repo": "--upload-pack=x"}, ".repo: '--upload-pack=x' is an option, not a repository"),
        ({"repo": "https://h"}, ".repo: 'https://h' has a path that no repository has"),
        ({"repo": "git@h:o/C@v1"}, ".repo: 'git@h:o/C@v1' cannot carry a ref"),
        ({"repo": "https://h/o/C@a", "ref": "b"}, ": repo names the ref 'a' and ref names 'b'"),
        ({"repo": "https://h/o/C", "ref": ""}, ".ref: ''" + NOT_A_REF),
        ({"repo": "https://h/o/C@"}, ".ref: ''" + NOT_A_REF),
        ({"repo": "https://h/o/C", "ref": "-x"}, ".ref: '-x'" + NOT_A_REF),
        ({"repo": "https://h/o/C", "ref": "a..b"}, ".ref: 'a..b'" + NOT_A_REF),
        ({"repo": "https://h/o/C", "commit": "abc"}, ".commit: 'abc'" + NOT_A_COMMIT),
        (
            {"repo": "https://h/o/C", "commit": COMMIT.upper()},
            f".commit: {COMMIT.upper()!r}" + NOT_A_COMMIT,
        ),
        (
            {"repo": "https://h/o/C", "commit": COMMIT + "\n"},
            f".commit: {COMMIT + chr(10)!r}" + NOT_A_COMMIT,
        ),
        (
            {"repo": "https://h/o/C", "ref": COMMIT, "commit": "f" * 40},
            ": ref and commit name different commits",
        ),
        (
            {"repo": f"https://h/o/C@{COMMIT}", "commit": "f" * 40},
            ": ref and commit name different commits",
        ),
    ],
)
def test_repositories_that_are_none(fields: dict[str, Any], message: str) -> None:
    """What names no repository, ref or commit is refused, for the core and for nodes alike."""
    assert refused(comfy=fields) == f"comfy{message}"
    assert refused(custom_nodes=[fields]) == f"custom_nodes[0]{message}"


def test_relative_repositories_are_relative_to_the_spec(tmp_path: Path) -> None:
    """A path in a spec means the same wherever cvs is started; it needs to be allowed."""
    file = tmp_path / "versions" / "x.json"
    file.parent.mkdir()
    file.write_text(json.dumps(document(comfy={"repo": "../core"})))
    found = specs.load(str(file)).core

    assert found.repository(allow_local=True).url == f"{tmp_path}/core"
    with pytest.raises(InputError, match="is a path of this machine"):
        found.repository(allow_local=False)


# Nodes.


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "node"),
        ({"repo": "https://h/o/ComfyUI-Manager.git"}, "ComfyUI-Manager"),
        ({"repo": "https://h/o/a@v1"}, "a"),
        ({"repo": "git@h:o/a.git"}, "a"),
        ({"repo": "/srv/a/.git"}, "a"),
        ({"name": "other"}, "other"),
        ({"name": "with space"}, "with space"),
        ({"name": "Ünï"}, "Ünï"),
    ],
)
def test_node_names(fields: dict[str, Any], name: str) -> None:
    """A node is called as it says, or else as its repository."""
    assert node(**fields).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "'' is empty"),
        ("a/b", "'a/b' is not the name of one folder"),
        ("..", "'..' climbs out of its folder"),
        ("a\\b", r"'a\\b' is not a plain path"),
        ("a\nb", r"'a\nb' cannot be the path of a file"),
        (".x", "ComfyUI does not load a custom node called '.x'"),
        ("x.disabled", "ComfyUI does not load a custom node called 'x.disabled'"),
        ("__pycache__", "ComfyUI does not load a custom node called '__pycache__'"),
    ],
)
def test_node_names_that_are_none(name: str, message: str) -> None:
    """A name is that of one folder, which ComfyUI loads."""
    assert refused(custom_nodes=[{"repo": "https://h/o/a", "name": name}]) == (
        f"custom_nodes[0].name: {message}"
    )


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("a", "A"), ("Straße", "STRASSE")])
def test_two_nodes_of_one_name(first: str, second: str) -> None:
    """Two nodes cannot have one folder, on a disk that ignores case neither."""
    nodes = [{"repo": "https://h/o/x", "name": name} for name in (first, "other", second)]

    assert refused(custom_nodes=nodes) == (
        f"custom_nodes[2]: a second custom node is called {second!r}, the first is custom_nodes[0]"
    )


def test_two_nodes_of_one_repository() -> None:
    """Names by default count as well, and a name of its own helps."""
    nodes = [{"repo": "https://h/o/x"}, {"repo": "https://h/p/x.git"}]
    assert "a second custom node is called 'x'" in refused(custom_nodes=nodes)
    nodes[1]["name"] = "y"

    assert [one.name for one in read(custom_nodes=nodes).nodes] == ["x", "y"]


def test_a_node_may_be_called_like_the_core() -> None:
    """The core's name is not that of a node."""
    assert node(name="ComfyUI").name == "ComfyUI"


def test_nodes_that_write() -> None:
    """Whether a node writes into its own folder changes nothing of what is asked for."""
    assert (node().writable, node(writable=True).writable) == (False, True)
    assert node().request == node(writable=True).request
    assert refused(custom_nodes=[{"repo": "https://h/o/a", "writable": "yes"}]) == (
        "custom_nodes[0].writable: expected true or false, got text"
    )
    assert refused(comfy={"repo": "https://h/o/a", "writable": True}) == (
        "comfy: there is no field 'writable'"
    )


def test_nodes_whose_install_runs() -> None:
    """Whether a node's install.py runs is another question than which commit it has."""
    assert (node().run_install, node(run_install=True).run_install) == (False, True)
    assert node().request == node(run_install=True).request
    assert refused(custom_nodes=[{"repo": "https://h/o/a", "run_install": 1}]) == (
        "custom_nodes[0].run_install: expected true or false, got a whole number"
    )
    assert refused(comfy={"repo": "https://h/o/a", "run_install": True}) == (
        "comfy: there is no field 'run_install'"
    )


# Models.


@pytest.mark.parametrize(
    ("fields", "name", "path"),
    [
        ({}, "m.safetensors", "m.safetensors"),
        ({"name": "n"}, "n", "n"),
        ({"target_subdir": "checkpoints"}, "m.safetensors", "checkpoints/m.safetensors"),
        ({"target_subdir": "a/b/", "name": "n"}, "n", "a/b/n"),
        ({"target_subdir": ""}, "m.safetensors", "m.safetensors"),
        ({"target_subdir": "$MODELS_DIR"}, "m.safetensors", "m.safetensors"),
        ({"target_subdir": "$MODELS_DIR/a"}, "m.safetensors", "a/m.safetensors"),
        ({"target_subdir": "${MODELS_DIR}/a/"}, "m.safetensors", "a/m.safetensors"),
        ({"target_subdir": "$COMFY_HOME/models/a"}, "m.safetensors", "a/m.safetensors"),
        ({"target_path": "a/n"}, "m.safetensors", "a/n"),
        ({"path": "a/n"}, "m.safetensors", "a/n"),
        ({"path": "a/n", "target_path": "a/n"}, "m.safetensors", "a/n"),
        ({"target_path": "a/n", "target_subdir": "b", "name": "k"}, "k", "a/n"),
        ({"target_path": "$MODELS_DIR/a/n"}, "m.safetensors", "a/n"),
        ({"target_path": "${MODELS_DIR}/a/n"}, "m.safetensors", "a/n"),
        ({"path": "$COMFY_HOME/models/a/n"}, "m.safetensors", "a/n"),
        ({"path": "${COMFY_HOME}/models/a/n"}, "m.safetensors", "a/n"),
        ({"target_path": "models/a"}, "m.safetensors", "models/a"),
    ],
)
def test_places_of_models(fields: dict[str, Any], name: str, path: str) -> None:
    """target_path, or path, or target_subdir and name; below the models folder."""
    found = model(**fields)

    assert (found.name, found.path) == (name, path)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://h/a/b.gguf", "b.gguf"),
        ("https://h/a/b.gguf?download=true&x=/y", "b.gguf"),
        ("https://h/a/b.gguf#c/d", "b.gguf"),
        ("https://h/a/b/", "b"),
        ("gs://bucket/a/b.st", "b.st"),
        ("hf://org/repo@rev/a/b.st", "b.st"),
        ("huggingface://org/repo/b.st?rev=x", "b.st"),
        ("civitai://models/512", "512"),
        ("file:///srv/b.st", "b.st"),
        ("/srv/b.st", "b.st"),
        ("../b#1?.st", "b#1?.st"),
        ("b.st", "b.st"),
    ],
)
def test_names_by_default(source: str, name: str) -> None:
    """A model is called as the last part of its source's path."""
    assert model(source).name == name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf://org/repo@v1.0", "repo"),
        ("hf://org/repo@v1/unet/", "unet"),
        ("hf://org/repo/a@b.st", "a@b.st"),
        ("s3://bucket/a/b.st?endpoint=https://h", "b.st"),
        ("gs://bucket/a/b.st#123", "b.st"),
        ("civitai://models/12", "12"),
    ],
)
def test_names_of_other_sources(source: str, name: str) -> None:
    """What names a version of a file is no part of its name."""
    assert model(source).name == name


@pytest.mark.parametrize("source", ["civitai:12", "cvs:0123456789abcdef"])
def test_numbers_are_no_names(source: str) -> None:
    """ComfyUI would not find a model without an extension: a name is asked for."""
    message = "models[0]: the name cannot be told from the source"
    assert refused(models=[{"source": source, "target_subdir": "loras"}]) == message
    assert model(source, name="a.st", target_subdir="loras").path == "loras/a.st"


def test_several_sources() -> None:
    """In the order in which they stand, each once; the first one gives the name."""
    first, second = "https://h/a.st", "hf://org/repo/b.st"
    both = read(models=[{"sources": [first, second, first]}]).models[0]

    assert (both.source, both.mirrors, both.name) == (first, (second,), "a.st")
    assert both == model(first, sources=[second])
    assert both == model(first, sources=[first, second])
    assert model(first, sources=[]) == model(first)
    assert len({both.request, model(first).request, model(second).request}) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": []}, "models[0]: the field 'source' is missing"),
        ({"sources": "https://h/a"}, "models[0].sources: expected a list, got text"),
        ({"sources": ["https://h/a", ""]}, "models[0].sources[1]: '' cannot be used"),
        ({"sources": [1]}, "models[0].sources[0]: expected text, got a whole number"),
    ],
)
def test_sources_that_are_none(fields: dict[str, Any], message: str) -> None:
    """A list of sources is one of texts, and not empty."""
    assert refused(models=[fields]) == message


@pytest.mark.parametrize("source", ["https://h", "https://h/", "https://h/?a/b.st", "file:///"])
def test_sources_without_a_name(source: str) -> None:
    """A source without a path gives no name; a place gives one."""
    assert refused(models=[{"source": source}]) == (
        "models[0]: the name cannot be told from the source"
    )
    assert model(source, target_path="a/b").name == "b"
    assert model(source, name="n").path == "n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": ""}, ".source: '' cannot be used"),
        ({"source": " -x"}, ".source: ' -x' cannot be used"),
        ({"source": "a\nb"}, r".source: 'a\nb' cannot be used"),
        ({"target_path": "/a"}, ".target_path: '/a' is not relative"),
        ({"path": "../a"}, ".path: '../a' climbs out of its folder"),
        ({"path": "a\\b"}, r".path: 'a\\b' is not a plain path"),
        ({"path": "~/a"}, ".path: '~/a' is not relative"),
        ({"path": "C:/a"}, ".path: 'C:/a' is not relative"),
        ({"path": "a/%2e%2e/b"}, ".path: 'a/%2e%2e/b'" + NO_MEANING),
        ({"path": "$MODELS_DIR/../a"}, ".path: '../a' climbs out of its folder"),
        ({"path": "$MODELS_DIR//a"}, ".path: '/a' is not relative"),
        ({"path": "$MODELS_DIR/$MODELS_DIR/a"}, ".path: '$MODELS_DIR/a'" + NO_MEANING),
        (
            {"path": "$COMFY_HOME/custom_nodes/a"},
            ".path: '$COMFY_HOME/custom_nodes/a'" + NO_MEANING,
        ),
        ({"path": ""}, ".path: '' is empty"),
        ({"path": "a", "target_path": "b"}, ": target_path and path name different places"),
        ({"target_subdir": "/a"}, ".target_subdir: '/a' is not relative"),
        ({"target_subdir": "/"}, ".target_subdir: '/' is not relative"),
        ({"target_subdir": "../a"}, ".target_subdir: '../a' climbs out of its folder"),
        ({"target_subdir": "$MODELS_DIR/../a"}, ".target_subdir: '../a' climbs out of its folder"),
        ({"name": "../n"}, ".name: '../n' climbs out of its folder"),
        ({"name": "a\nb", "path": "a"}, r".name: 'a\nb' cannot be used"),
        ({"name": " "}, ".name: ' ' cannot be used"),
        ({"checksum": ""}, ".checksum: ''" + NOT_SHA256),
        ({"checksum": "sha256:12"}, ".checksum: 'sha256:12'" + NOT_SHA256),
        ({"checksum": "md5:" + "1" * 32}, f".checksum: 'md5:{'1' * 32}'" + NOT_SHA256),
        ({"sha256": "x" * 64}, f".sha256: '{'x' * 64}'" + NOT_SHA256),
        ({"checksum": "1" * 64, "sha256": "2" * 64}, ": checksum and sha256 differ"),
    ],
)
def test_models_that_are_none(fields: dict[str, Any], message: str) -> None:
    """Every bad field of a model is named."""
    assert refused(models=[{"source": "https://h/m", **fields}]) == f"models[0]{message}"


@pytest.mark.parametrize(
    "fields",
    [
        {"checksum": f"sha256:{SHA256}"},
        {"checksum": SHA256},
        {"checksum": f" SHA256:{SHA256.upper()} "},
        {"sha256": SHA256},
        {"sha256": f"sha256:{SHA256}"},
        {"checksum": f"sha256:{SHA256}", "sha256": SHA256},
    ],
)
def test_checksums(fields: dict[str, str]) -> None:
    """All forms of a checksum are one."""
    assert model(**fields).sha256 == SHA256


def paths(*paths: str) -> dict[str, Any]:
    """Models at these paths."""
    return {"models": [{"source": "https://h/m", "target_path": path} for path in paths]}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("a/b", "a/b", "models[1]: a second model is called 'a/b', the first is models[0]"),
        ("a/b", "A/B", "models[1]: a second model is called 'A/B', the first is models[0]"),
        ("a/b", "a/b/c", "models[1]: 'a/b/c' lies below another model, 'a/b'"),
        ("a/b/c/d", "a/b", "models[0]: 'a/b/c/d' lies below another model, 'a/b'"),
        ("A", "a/b", "models[1]: 'a/b' lies below another model, 'A'"),
    ],
)
def test_models_in_one_place(first: str, second: str, message: str) -> None:
    """Two models cannot lie in one place, nor one below another, whatever the case."""
    assert refused(**paths(first, second)) == message


def test_models_side_by_side() -> None:
    """Models of one folder or one beginning are no trouble."""
    assert len(read(**paths("a/b", "a/bc", "a/c", "ab", "c/a/b")).models) == 5


# Packages, Python, variables.


def test_packages() -> None:
    """Packages are kept as written, in their order."""
    wanted = ["onnx>=1.14", " numpy ", "x @ https://h/x-1-py3-none-any.whl", "a[b]; sys_platform"]

    assert read(python_packages=wanted).packages == (wanted[0], "numpy", *wanted[2:])


@pytest.mark.parametrize("text", ["", " ", "-r x.txt", " --index-url x", "a\nb", "a\0"])
def test_packages_that_are_none(text: str) -> None:
    """A package can be no option, and no second line."""
    assert refused(python_packages=["a", text]) == f"python_packages[1]: {text!r} cannot be used"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": "3"}, "version: '3' is not like '3.11'"),
        ({"version": "3.11.1"}, "version: '3.11.1' is not like '3.11'"),
        ({"version": "3.1\u0661"}, "version: '3.1\u0661' is not like '3.11'"),
        ({"version": "3.11\n"}, r"version: '3.11\n' is not like '3.11'"),
        ({"exclude_newer": "soon"}, "exclude_newer: 'soon'" + NOT_A_DATE),
        ({"exclude_newer": "2024-13-01"}, "exclude_newer: '2024-13-01'" + NOT_A_DATE),
        (
            {"exclude_newer": "2024-02-30T00:00:00Z"},
            "exclude_newer: '2024-02-30T00:00:00Z'" + NOT_A_DATE,
        ),
        ({"exclude_newer": "2024-01-01 00:00"}, "exclude_newer: '2024-01-01 00:00'" + NOT_A_DATE),
        ({"exclude_newer": "2024-01-01\n"}, r"exclude_newer: '2024-01-01\n'" + NOT_A_DATE),
        ({"index_url": "-x"}, "index_url: an index is a URL that begins with https://"),
        ({"index_url": ""}, "index_url: an index is a URL that begins with https://"),
        ({"index_url": "https://h/\n"}, "index_url: an index is a URL that begins with https://"),
        (
            {"extra_index_urls": ["https://h", "https://me:pass@h https://i"]},
            "extra_index_urls[1]: there is a space in the URL",
        ),
        ({"find_links": [""]}, "find_links[0]: '' cannot be used"),
        ({"overrides": ["a", "-r b"]}, "overrides[1]: '-r b' cannot be used"),
        ({"constraints": [" -c b"]}, "constraints[0]: ' -c b' cannot be used"),
        ({"torch_backend": "cu12"}, "torch_backend: 'cu12' is not known"),
        ({"torch_backend": ""}, "torch_backend: '' is not known"),
        ({"provided": ["a", "a b"]}, "provided[1]: 'a b' is not a name with a range"),
        ({"provided": ["a[b]"]}, "provided[0]: 'a[b]' is not a name with a range"),
        ({"provided": ["a @ https://h/a.whl"]}, None),
        ({"provided": ["a; os_name == 'x'"]}, None),
        ({"provided": ["-r a"]}, "provided[0]: '-r a' cannot be used"),
        ({"provided": ["A.b", "a_b>1"]}, "provided[1]: provided[0] names a-b as well"),
        (
            {"overrides": ["b", "a<2"], "provided": ["a"]},
            "overrides[1]: provided[0] names a as well",
        ),
        ({"overlaps": ["bin/*", ""]}, "overlaps[1]: '' cannot be used"),
        ({"overlaps": ["/bin/x"]}, "overlaps[0]: '/bin/x'" + NO_PATH),
        ({"overlaps": ["bin/../x"]}, "overlaps[0]: 'bin/../x'" + NO_PATH),
        (
            {"overlaps": ["lib/python3.11/site-packages/a.py"]},
            "overlaps[0]: 'lib/python3.11/site-packages/a.py'" + NO_PATH,
        ),
        ({"no_build": "yes"}, "no_build: expected true or false, got text"),
        ({"exclude_new": "core"}, None),
    ],
)
def test_python_settings_that_are_none(settings: dict[str, Any], message: str | None) -> None:
    """Every bad setting is named; what may hold a credential is not repeated."""
    said = refused(python=settings)

    assert message is None or said == f"python{':' if message.startswith(':') else '.'}{message}"


def test_python_settings() -> None:
    """Settings are kept as written; folders of wheels are relative to the spec."""
    written = {
        "version": "3.12",
        "exclude_newer": "2024-02-29T12:00:00Z",
        "index_url": "https://me:pass@h/simple",
        "extra_index_urls": ["https://h/whl/cu128"],
        "find_links": ["wheels", "/srv/wheels", "https://h/links", "file:///srv", "~/w"],
        "overrides": ["numpy<2"],
        "constraints": ["torch==2.4"],
    }
    found = read(python=written)

    assert found.find_links == tuple(written["find_links"])
    assert found.python.find_links == (
        os.path.abspath("versions/wheels"),
        *written["find_links"][1:4],
        os.path.expanduser("~/w"),
    )
    assert read(python={"provided": ["torch>=2.7", "x"]}).python.provided == ("torch>=2.7", "x")
    for name in ("core", "none", "2024-01-01"):
        assert read(python={"exclude_newer": name}).python.exclude_newer == name


def test_the_backends_of_torch_are_those_of_uv() -> None:
    """What is refused here is what uv would refuse."""
    done = subprocess.run(
        [uv.find_uv_bin(), "pip", "compile", "--help", "--color", "never"],
        capture_output=True,
        text=True,
        check=True,
    )
    said = " ".join(done.stdout.split())
    values = re.search(r"--torch-backend <.*?\[possible values: (.*?)\]", said)

    assert values is not None
    assert sorted(values[1].split(", ")) == sorted(specs.TORCH_BACKENDS)
    for name in ("auto", "cpu", "cu128", "rocm6.3"):
        assert read(python={"torch_backend": name}).python.torch_backend == name


def test_variables() -> None:
    """Numbers are written out, text is kept."""
    values = {"A": "x", "B_1": 5, "_c": 1.5, "D": "", "E": "a\nb = $HOME", "F": 10**30}

    assert read(env=values).env == {**values, "B_1": "5", "_c": "1.5", "F": str(10**30)}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("", "x", "env: '' cannot be the name of a variable"),
        ("1A", "x", "env: '1A' cannot be the name of a variable"),
        ("A=B", "x", "env: 'A=B' cannot be the name of a variable"),
        ("A\n", "x", r"env: 'A\n' cannot be the name of a variable"),
        ("É", "x", "env: 'É' cannot be the name of a variable"),
        ("A", True, "env.A: True is neither text nor a number"),
        ("A", None, "env.A: None is neither text nor a number"),
        ("A", ["x"], "env.A: ['x'] is neither text nor a number"),
        ("A", {}, "env.A: {} is neither text nor a number"),
        ("A", "a\0b", "env.A: the value holds a NUL character"),
    ],
)
def test_variables_that_are_none(name: str, value: Any, message: str) -> None:
    """A variable has a name that programs accept and a value that the system takes."""
    assert refused(env={"OK": "1", name: value}) == message


# Digests of what is asked for.


def test_requests_say_what_is_asked_for() -> None:
    """Repository, ref and commit count for a source, source and checksum for a model."""
    asked = core(repo="https://h/o/C", ref="a").request
    assert asked == core(repo="https://h/o/C@a").request
    others = [
        core(repo="https://h/o/C"),
        core(repo="https://h/o/D", ref="a"),
        core(repo="https://h/o/C", ref="b"),
        core(repo="https://h/o/C", ref="a", commit=COMMIT),
        model("https://h/C"),
        model("https://h/C", sha256=SHA256),
    ]

    assert len({asked, *(other.request for other in others)}) == len(others) + 1
    assert node(name="a").request == node(name="b").request
    assert model(name="a").request == model(target_path="b").request


# Pins.


def test_commits_are_written_in() -> None:
    """Commits go into the data as it was read; everything else stays, None leaves one alone."""
    data = document(custom_nodes=[{"repo": "a"}, {"repo": "b", "commit": "old"}], env={"A": 1})
    before = json.dumps(data)
    found = specs.with_commits(data, COMMIT, [None, COMMIT])

    assert json.dumps(data) == before
    assert found == {
        **data,
        "comfy": {**data["comfy"], "commit": COMMIT},
        "custom_nodes": [{"repo": "a"}, {"repo": "b", "commit": COMMIT}],
    }
    assert specs.with_commits(document(), None, []) == document()


# Anything at all.

_TEXT = st.text(max_size=10) | st.text(alphabet="ab/.:@$-%~\\ \n", max_size=10)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_REPO = st.sampled_from(["https://h/o/C", "git@h:o/C", "../C"]) | _TEXT


def _maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_SOURCE = _maybe(repo=_REPO, ref=_TEXT, commit=_TEXT, name=_TEXT)
_MODEL = _maybe(
    source=_TEXT, name=_TEXT, target_subdir=_TEXT, target_path=_TEXT, path=_TEXT, checksum=_TEXT
)
_SPEC = st.fixed_dictionaries(
    {"schema_version": st.just(2), "version_id": st.just("x"), "comfy": _SOURCE | _ANY},
    optional={
        "custom_nodes": st.lists(_SOURCE, max_size=3) | _ANY,
        "models": st.lists(_MODEL, max_size=3) | _ANY,
        "python_packages": st.lists(_TEXT, max_size=3) | _ANY,
        "env": st.dictionaries(_TEXT, _ANY, max_size=3),
        "options": _maybe(offline=st.booleans(), skip_models=_ANY, allow_pickle=_ANY),
        "python": _maybe(
            version=_TEXT,
            exclude_newer=_TEXT,
            index_url=_TEXT,
            find_links=st.lists(_TEXT),
            torch_backend=_TEXT,
            no_build=st.booleans(),
            provided=st.lists(_TEXT, max_size=2),
            overlaps=st.lists(_TEXT, max_size=2),
        ),
    },
)


@given(_SPEC | _ANY)
def test_any_value(data: Any) -> None:
    """Whatever the data, it is a spec that stays below its folders, or one sentence says why."""
    try:
        found = specs.parse(data, FILE)
    except InputError as error:
        assert_sentence(error)
        return
    for path in (*(one.path for one in found.models), *(one.name for one in found.nodes)):
        assert os.path.normpath(os.path.join("/base", path)) == f"/base/{path}"
    for source in (found.core, *found.nodes):
        assert len(source.request) == 64
        source.repository(allow_local=True)
