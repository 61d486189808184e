"""`cvs create`: from flags to a spec with commits; `cvs clone`: from a spec to a spec."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from world import World

pytest_plugins = ["world_fixtures"]

NODES = [{"repo": "{url}/demo-node.git", "ref": "v2", "name": "painter"}]
MODEL = {"source": "https://example.org/a.safetensors", "target_path": "loras/a.safetensors"}


def written(world: World, version: str = "new") -> Any:
    return json.loads((world.versions / f"{version}.json").read_text())


def create(world: World, *options: str) -> Any:
    """Creates `new` from the world's core and returns the spec."""
    world.ok("create", "new", "--repo", f"{world.url}/ComfyUI.git", "--allow-local", *options)
    return written(world)


def nodes_text(world: World) -> str:
    return json.dumps(NODES).replace("{url}", world.url)


# What is written


def test_spec_in_full(served: World) -> None:
    """A spec has every field, refs became commits, and nothing but it was written."""
    options = ["--nodes", f"{served.url}/demo-node.git@v2", "--package", "onnx>=1.14"]
    done = served.ok(
        "create",
        "new",
        "--repo",
        f"{served.url}/ComfyUI.git@main",
        *options,
        "--models",
        json.dumps([MODEL]),
        "--allow-local",
    )

    expected = {
        "comfy": {"commit": served.material.core, "repo": f"{served.url}/ComfyUI.git@main"},
        "custom_nodes": [{"commit": served.material.v2, "repo": f"{served.url}/demo-node.git@v2"}],
        "env": {},
        "models": [MODEL],
        "options": {},
        "python_packages": ["onnx>=1.14"],
        "schema_version": 2,
        "version_id": "new",
    }
    assert expected == written(served)
    assert done.out == (
        f"wrote {served.versions}/new.json: ComfyUI {served.material.core[:12]}, "
        "1 nodes, 1 models\n"
    )
    assert done.err == ""
    assert sorted(path.name for path in served.versions.iterdir()) == ["demo.json", "new.json"]
    assert not served.cache.exists()


def test_form(world: World) -> None:
    """Sorted keys, two spaces, text as it is, a final newline."""
    create(world, "--models", json.dumps([MODEL | {"name": "Größe.safetensors"}]))

    text = (world.versions / "new.json").read_text()
    parsed = json.loads(text)
    assert json.dumps(parsed, sort_keys=True, indent=2, ensure_ascii=False) + "\n" == text
    assert "Größe" in text


def test_json_result(world: World) -> None:
    """--json gives the version, the file and the spec."""
    done = world.ok(
        "create", "new", "--repo", f"{world.url}/ComfyUI.git", "--allow-local", "--json"
    )

    assert {
        "version": "new",
        "file": f"{world.versions}/new.json",
        "spec": written(world),
    } == done.json


def test_quiet(world: World) -> None:
    """--quiet gives the result and no remarks."""
    model = json.dumps([{"source": "https://example.org/x"}])
    options = ["--repo", f"{world.url}/ComfyUI.git", "--allow-local", "--models", model]
    done = world.ok("create", "new", *options, "--auto-checksum", "--quiet")

    assert done.out.startswith(f"wrote {world.versions}/new.json: ")
    assert done.err == ""


@pytest.mark.parametrize("ref", ["main", "refs/heads/main", "HEAD", "v1"])
def test_ref_option(world: World, ref: str) -> None:
    """--ref is a field of its own beside the commit that it names."""
    repo = f"{world.url}/demo-node.git"
    world.ok("create", "new", "--repo", repo, "--ref", ref, "--allow-local")

    assert {"repo": repo, "ref": ref, "commit": world.material.v1} == written(world)["comfy"]


def test_full_commit_asks_nobody(served: World) -> None:
    """A ref that is a commit is taken as it is."""
    asked = served.requests()
    found = create(served, "--ref", "1" * 40)

    assert found["comfy"]["commit"] == "1" * 40
    assert asked == served.requests()


# Nodes and models, in every form


@pytest.mark.parametrize("form", ["text", "json", "yaml", "yml", "file", "object", "names"])
def test_forms_of_nodes(world: World, form: str) -> None:
    """JSON text, a JSON or YAML file, an object with the list, or repositories alone."""
    text, path = nodes_text(world), world.folder / f"nodes.{form}"
    repo, name = f"{world.url}/demo-node.git", "painter"
    given = {
        "text": ["--nodes", text],
        "json": ["--nodes", str(path)],
        "yaml": ["--nodes", str(path)],
        "yml": ["--nodes", str(path)],
        "file": ["--nodes-file", str(path)],
        "object": ["--nodes", f'{{"custom_nodes": {text}}}'],
        "names": ["--nodes", json.dumps([f"{repo}@v2"])],
    }[form]
    yaml = f"- repo: {repo}\n  ref: v2\n  name: {name}\n"
    path.write_text(yaml if form in ("yaml", "yml") else text)
    if form == "file":
        path.rename(path.with_suffix(".json"))
        given[1] = str(path.with_suffix(".json"))
    found = create(world, *given)["custom_nodes"]

    expected = {"repo": repo, "ref": "v2", "name": name, "commit": world.material.v2}
    if form == "names":
        expected = {"repo": f"{repo}@v2", "commit": world.material.v2}
    assert [expected] == found


def test_nodes_repeat(world: World) -> None:
    """--nodes and --nodes-file repeat; the order is that of the spec."""
    world.new_source("other.git", {b"__init__.py": b""})
    file = world.folder / "more.json"
    file.write_text(json.dumps([{"repo": f"{world.url}/ComfyUI.git", "name": "third"}]))
    options = ["--nodes", f"{world.url}/demo-node.git@v1", "--nodes", f"{world.url}/other.git"]
    found = create(world, *options, "--nodes-file", str(file))["custom_nodes"]

    expected = ["demo-node.git@v1", "other.git", "ComfyUI.git"]
    assert expected == [node["repo"].removeprefix(f"{world.url}/") for node in found]


def test_models_repeat(world: World) -> None:
    """--models and --models-file repeat, as JSON text, JSON and YAML files."""
    plain = world.folder / "m.json"
    plain.write_text(json.dumps({"models": [MODEL | {"target_path": "loras/b.safetensors"}]}))
    yaml = world.folder / "m.yaml"
    yaml.write_text("models:\n  - source: hf://org/repo/c.safetensors\n    target_subdir: vae\n")
    options = ["--models", json.dumps([MODEL]), "--models", str(plain), "--models-file", str(yaml)]
    found = create(world, *options)["models"]

    expected = [
        MODEL,
        MODEL | {"target_path": "loras/b.safetensors"},
        {"source": "hf://org/repo/c.safetensors", "target_subdir": "vae"},
    ]
    assert expected == found


# Checksums of what is there


@pytest.mark.parametrize("where", ["option", "variable", "default"])
def test_auto_checksum(world: World, where: str) -> None:
    """--auto-checksum fills in what lies in --models-root, MODELS_DIR or the cache's models/."""
    root = world.cache / "models" if where == "default" else world.folder / "mine"
    (root / "checkpoints").mkdir(parents=True)
    (root / "checkpoints" / "demo.safetensors").write_bytes(world.model.read_bytes())
    models: list[dict[str, str]] = [
        {"source": "https://example.org/x", "target_path": "checkpoints/demo.safetensors"},
        {"source": "https://example.org/absent", "target_path": "checkpoints/absent"},
        {"source": "https://example.org/y", "path": "vae/y", "sha256": "a" * 64},
    ]
    options = ["--auto-checksum", "--models", json.dumps(models)]
    options += ["--models-root", str(root)] if where == "option" else []
    environment = {"MODELS_DIR": str(root)} if where == "variable" else {}
    repo = ["--repo", f"{world.url}/ComfyUI.git", "--allow-local"]
    done = world.ok("create", "new", *repo, *options, **environment)

    expected = [{**models[0], "checksum": f"sha256:{world.material.sha256}"}, *models[1:]]
    assert expected == written(world)["models"]
    assert done.err == f"warning: checkpoints/absent is not in {root}: no checksum\n"


def test_auto_checksum_below_comfy_home(world: World) -> None:
    """Without MODELS_DIR an existing COMFY_HOME/models is looked into, as before."""
    root = world.home / "models" / "checkpoints"
    root.mkdir(parents=True)
    (root / "demo.safetensors").write_bytes(world.model.read_bytes())
    model = {"source": "https://example.org/x", "target_path": "checkpoints/demo.safetensors"}
    found = create(world, "--auto-checksum", "--models", json.dumps([model]))["models"]

    assert [{**model, "checksum": f"sha256:{world.material.sha256}"}] == found


# Where it is written


def test_output(world: World) -> None:
    """--output is the file, its folders are made."""
    path = world.folder / "deep" / "er" / "spec.json"
    options = ["--repo", f"{world.url}/ComfyUI.git", "--allow-local", "--output", str(path)]
    world.ok("create", "new", *options)

    assert json.loads(path.read_text())["version_id"] == "new"
    assert not (world.versions / "new.json").exists()


def test_relative_output_and_repo(world: World) -> None:
    """A relative --output is a file here, and so is a relative repository."""
    world.ok("create", "new", "--repo", "repos/ComfyUI.git", "--allow-local", "--output", "s.json")

    found = json.loads((world.folder / "s.json").read_text())["comfy"]
    repo = str(world.folder / "repos/ComfyUI.git")
    assert {"repo": repo, "commit": world.material.core} == found


def test_existing_is_kept(world: World) -> None:
    """A spec that exists is refused before anything is asked, and replaced with --force."""
    before = world.listing()
    repo = ["--repo", f"{world.url}/ComfyUI.git", "--allow-local"]
    done = world.cvs("create", "demo", *repo)

    assert done.code == 2
    assert done.err == (
        f"error: {world.versions}/demo.json exists already\nhint: --force replaces it\n"
    )
    assert before == world.listing()
    world.ok("create", "demo", *repo, "--force")
    assert written(world, "demo")["custom_nodes"] == []


def test_offline_needs_commits(served: World) -> None:
    """--offline names the repository that would have to be asked, and asks nobody."""
    asked = served.requests()
    done = served.cvs(
        "create", "new", "--repo", f"{served.url}/ComfyUI.git", "--offline", "--allow-local"
    )

    assert done.code == 2
    assert (
        f"which commit 'HEAD' of {served.url}/ComfyUI.git is, only a connection tells" in done.err
    )
    assert asked == served.requests()
    assert not (served.versions / "new.json").exists()


# Clone


def test_clone(world: World) -> None:
    """A clone is the spec under a new name, in the form that specs have; nothing else changes."""
    world.spec(env={"A": 1}, options={"skip_models": True})
    before = world.listing(forgive=("versions",))
    done = world.ok("clone", "demo", "twin", "--json")

    expected = {**written(world, "demo"), "version_id": "twin"}
    path = world.versions / "twin.json"
    assert expected == json.loads(path.read_text())
    assert json.dumps(expected, sort_keys=True, indent=2) + "\n" == path.read_text()
    assert {"version": "twin", "file": str(path), "from": "demo"} == done.json
    path.unlink()
    assert before == world.listing(forgive=("versions",))


def test_clone_keeps_existing(world: World) -> None:
    """An existing file is refused and kept; --force replaces it, --output names another."""
    world.spec("twin", env={"MINE": "1"})
    before = world.listing()
    done = world.cvs("clone", "demo", "twin")

    assert (2, before) == (done.code, world.listing())
    assert done.err.startswith(f"error: {world.versions}/twin.json exists already\n")
    other = world.folder / "else" / "twin.json"
    world.ok("clone", "demo", "twin", "--output", str(other))
    assert written(world, "twin")["env"] == {"MINE": "1"}
    world.ok("clone", "demo", "twin", "--force")
    assert (world.versions / "twin.json").read_text() == other.read_text()


def test_clone_of_yaml(world: World) -> None:
    """A spec may be YAML; its clone is JSON."""
    path: Path = world.folder / "spec.yaml"
    path.write_text(
        f"schema_version: 2\nversion_id: spec\ncomfy:\n  repo: {world.url}/ComfyUI.git\n"
    )
    world.ok("clone", str(path), "twin")

    expected = {
        "schema_version": 2,
        "version_id": "twin",
        "comfy": {"repo": f"{world.url}/ComfyUI.git"},
    }
    assert expected == written(world, "twin")


def test_auto_checksum_of_what_was_adopted(world: World) -> None:
    """A link into the store is not read: its manifest has the checksum."""
    root = world.cache / "models"
    (root / "loras").mkdir(parents=True)
    (root / "loras" / "a.ckpt").write_bytes(b"a model" * 300)
    world.ok("models", "adopt", str(root), "--quiet")
    (content,) = (world.cache / "store").glob("*/content")
    content.chmod(0o644)
    content.write_bytes(b"changed" * 300)
    model = {"source": "https://host.example/a.ckpt", "target_path": "loras/a.ckpt"}
    (found,) = create(world, "--auto-checksum", "--models", json.dumps([model]))["models"]
    assert found["checksum"] == f"sha256:{hashlib.sha256(b'a model' * 300).hexdigest()}"
