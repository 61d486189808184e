"""Fixtures of worlds. A test module that wants them says `pytest_plugins = ["world_fixtures"]`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from gitserver import GitServer, Source
from world import DEMO, Material, World, files_of

from cvs import demo_material as material


@pytest.fixture(scope="session")
def the_material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Repositories, a wheel and a model, from what cvs ships for its demo."""
    folder = tmp_path_factory.mktemp("material")
    core = Source(folder / "repos" / "ComfyUI.git").commit(files_of(DEMO / "core"))
    node = Source(folder / "repos" / "demo-node.git")
    v1 = node.commit(files_of(DEMO / "node" / "v1"))
    v2 = node.commit(files_of(DEMO / "node" / "v2"), branch=None, parents=(v1,))
    node.ref("refs/tags/v1", v1)
    node.tag("v2", v2)
    material.wheel(str(folder / "wheels"))
    sha256 = material.model(str(folder / "sources" / "demo.safetensors"))
    return Material(folder, core, v1, v2, sha256)


@pytest.fixture
def world(tmp_path: Path, the_material: Material) -> World:
    """A world with a spec `demo` and an empty volume."""
    folder = tmp_path / "world"
    folder.mkdir()
    made = World(folder, the_material)
    made.spec()
    return made


@pytest.fixture(scope="session")
def the_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first world that is realized leaves a copy of its volume for the others."""
    return tmp_path_factory.mktemp("seed") / "cache"


@pytest.fixture
def realized(world: World, the_seed: Path) -> World:
    """A world whose `demo` is realized: generation 1, with node v1."""
    if the_seed.exists():
        # A volume holds no path of itself, so a copy is as good.
        shutil.copytree(the_seed, world.cache, symlinks=True)
        world.realize()
    else:
        world.realize()
        shutil.copytree(world.cache, the_seed, symlinks=True)
    return world


@pytest.fixture
def served(tmp_path: Path, the_material: Material) -> Iterator[World]:
    """A world whose repositories are behind a git server, and whose cvs may go on line.

    The server is the index of Python packages as well, and has none.
    """
    folder = tmp_path / "world"
    folder.mkdir()
    made = World(folder, the_material)
    with GitServer(made.repos) as server:
        made.server = server
        made.url = server.url
        made.environment["COMFY_OFFLINE"] = "false"
        made.spec(python={"index_url": f"{server.url}/simple/"})
        yield made
