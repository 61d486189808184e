"""Models from elsewhere, with the commands: planned, fetched, told and found again."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hubserver import COMMIT, SIGNATURE, TOKEN, HubServer, Repository
from world import World

pytest_plugins = ["world_fixtures"]

LARGE = bytes(range(256)) * 4000 + b"!"
SHA256 = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Both sites: a repository that asks for a token, and a model."""
    with HubServer() as made:
        files = {"unet/a.safetensors.index.json": b"{}", "m.bin": LARGE}
        made.repositories["org/repo"] = Repository(files, frozenset({"m.bin"}), private=True)
        made.version(11, [(LARGE, {"primary": True})], requireAuth=True)
        yield made


class Sites:
    """A world that asks the stand-ins."""

    def __init__(self, world: World, hub: HubServer) -> None:
        self.world = world
        world.environment |= {
            "HF_ENDPOINT": hub.site.url,
            "CIVITAI_ENDPOINT": hub.site.url,
            "HF_TOKEN": TOKEN,
            "CIVITAI_TOKEN": TOKEN,
            "NO_PROXY": "127.0.0.1",
            "XDG_CONFIG_HOME": str(world.folder / "config"),
        }

    def spec(self, *models: dict[str, Any]) -> None:
        """A spec with these models."""
        self.world.spec(models=list(models))

    def run(self, *arguments: str, **environment: str | None) -> Any:
        """Runs a command that has to succeed; what it says on standard output."""
        given = {"COMFY_OFFLINE": "false", **environment}
        done = self.world.ok(*arguments, **given)
        assert TOKEN not in done.out + done.err
        assert SIGNATURE not in done.out + done.err
        return done

    def realize(self, *options: str) -> Any:
        """Realizes the version."""
        return self.run("realize", "demo", *self.world.local, *options)


@pytest.fixture
def sites(world: World, hub: HubServer) -> Sites:
    """A world that asks the stand-ins."""
    return Sites(world, hub)


_FILE = {"source": "hf://org/repo/m.bin", "target_path": "vae/m.bin"}
_FOLDER = {"source": "hf://org/repo/unet", "target_path": "diffusers/unet"}
_MODEL = {"source": "civitai:11", "name": "x.bin", "target_subdir": "loras"}


def test_the_whole_way(sites: Sites, hub: HubServer) -> None:
    """Planned with sizes, fetched once though two models are the same, linked as file and folder,
    found again without asking, and no secret anywhere."""
    sites.spec(_FILE, _FOLDER, _MODEL)
    plan = json.loads(sites.realize("--dry-run", "--json").out)
    assert hub.cdn.requests == []
    planned = {item["name"]: item for item in plan["items"] if item["kind"] == "model"}
    assert [planned[name]["size"] for name in ("vae/m.bin", "diffusers/unet")] == [len(LARGE), 2]
    assert (
        plan["bytes_to_fetch"]
        - sum(item["size"] or 0 for item in plan["items"] if item["kind"] != "model")
        == len(LARGE) + 2
    )
    sites.realize()
    world = sites.world
    assert (world.home / "models/vae/m.bin").read_bytes() == LARGE
    assert (world.home / "models/loras/x.bin").read_bytes() == LARGE
    folder = world.home / "models/diffusers/unet"
    assert (folder / "a.safetensors.index.json").read_bytes() == b"{}"
    vae, unet, lora = world.lock()["models"]
    assert vae["source"] == f"https://huggingface.co/org/repo/resolve/{COMMIT}/m.bin"
    assert unet["source"] == f"https://huggingface.co/org/repo/tree/{COMMIT}/unet"
    assert lora["source"].startswith("https://civitai.com/api/download/models/11?")
    assert vae["entry"] == lora["entry"] != unet["entry"]
    assert len({request.path.partition("?")[0] for request in hub.cdn.requests}) == 1
    count = len(hub.site.requests)
    sites.realize()
    assert len(hub.site.requests) == count
    world.assert_sound()
    for root, _, names in os.walk(world.folder):
        for path in (Path(root, name) for name in names):
            data = b"" if path.is_symlink() else path.read_bytes()
            assert TOKEN.encode() not in data, path
            assert SIGNATURE.encode() not in data, path
    assert {request.authorization for request in hub.cdn.requests} == {None}


def test_what_is_stored_is_not_planned(sites: Sites, hub: HubServer) -> None:
    """Of a model that is stored under another name, no byte will move."""
    sites.spec(_FILE)
    sites.realize()
    sites.spec(_FILE, _MODEL)
    plan = json.loads(sites.realize("--dry-run", "--json").out)

    (planned,) = [item for item in plan["items"] if item["name"] == "loras/x.bin"]
    assert (planned["stored"], planned["size"]) == (True, len(LARGE))


def test_a_missing_token(sites: Sites, hub: HubServer) -> None:
    """It is said which one, and where it is made."""
    sites.spec(_FILE)
    # Both stand-ins are one host, which one of the tokens is enough for.
    nobody: dict[str, str | None] = {"HF_TOKEN": None, "CIVITAI_TOKEN": None}
    done = sites.world.cvs("realize", "demo", *sites.world.local, **nobody, COMFY_OFFLINE="false")

    assert done.code == 2
    assert "models[0]: " in done.err
    assert "make a token at https://huggingface.co/settings/tokens and set HF_TOKEN" in done.err


def test_a_token_of_the_configuration(sites: Sites, hub: HubServer) -> None:
    """A host's token in the user's file is as good; what is not known there is refused."""
    config = sites.world.folder / "config/cvs/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[tokens]\n"{hub.site.url.removeprefix("http://")}" = "{TOKEN}"\n')
    config.chmod(0o600)
    sites.spec(_FILE)
    sites.run("resolve", "demo", *sites.world.local, HF_TOKEN=None, CIVITAI_TOKEN=None)
    assert sites.world.lock()["models"][0]["sha256"] == SHA256
    config.write_text("[token]\n")
    done = sites.world.cvs("resolve", "demo", *sites.world.local, COMFY_OFFLINE="false")
    assert (done.code, "there is no field 'token'" in done.err) == (2, True)


def test_an_entry_as_a_source(sites: Sites, hub: HubServer) -> None:
    """A model that is stored is named by the first digits of its id; the lock has all of them."""
    sites.spec(_FILE)
    sites.realize()
    entry = sites.world.lock()["models"][0]["entry"]
    sites.spec({"source": f"cvs:{entry[:10]}", "target_path": "unet/m.bin"})
    sites.realize("--offline")

    (model,) = sites.world.lock()["models"]
    assert (model["source"], model["entry"]) == (f"cvs:{entry}", entry)
    assert (sites.world.home / "models/unet/m.bin").read_bytes() == LARGE
    sites.spec({"source": "cvs:01234567", "target_path": "unet/m.bin"})
    done = sites.world.cvs("realize", "demo", *sites.world.local)
    assert done.code == 2
    assert "models[0].source: no entry of the store begins with 01234567" in done.err
