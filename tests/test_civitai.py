"""Civitai: which file is meant, and what is known of it before it is fetched."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from blake3 import blake3
from hubserver import TOKEN, HubServer

from cvs.store.entries import Store
from cvs.store.errors import SourceError
from cvs.store.volume import Volume
from cvs.versions import civitai, locate, models, sources
from cvs.versions.access import Access
from cvs.versions.located import Located
from cvs.versions.sites import Sites
from cvs.versions.spec import Model as Wanted
from cvs.versions.tokens import Token, Tokens, host_of

SITE = "https://civitai.com"
#: As many bytes as no number with two decimals stands for.
DATA = bytes(range(256)) * 100 + b"!"
FULL = DATA[::-1]
WHERE = "versions/x.json: models[0]"


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A site with a model of two versions, the older of which has two files."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HubServer() as made:
        full = {
            "name": "full.ckpt",
            "metadata": {"format": "PickleTensor", "size": "full", "fp": "fp32"},
            "downloadUrl": f"{SITE}/api/download/models/11?type=Model&format=PickleTensor"
            "&size=full&fp=fp32",
        }
        made.version(11, [(FULL, full), (DATA, {"primary": True})])
        pinned = {"primary": True, "downloadUrl": f"{SITE}/api/download/models/12?fileId=120"}
        made.version(12, [(FULL, pinned)])
        made.models[1] = [12, 11]
        made.models[2] = []
        yield made


def access(site: HubServer, token: str = "") -> Access:
    """Access to the stand-in."""
    asked = Sites(civitai=site.site.url)
    given = [Token(host_of(site.site.url), token, "CIVITAI_TOKEN")] if token else []
    return Access(sites=asked, tokens=Tokens(given, asked))


def located(store: Store, site: HubServer, text: str) -> Located:
    """What is known of a source."""
    found = locate.locate(store, sources.parse(text, WHERE), access(site), WHERE)
    assert isinstance(found, Located)
    return found


def known(data: bytes) -> tuple[int, str, str]:
    """Size and digests of some bytes."""
    return len(data), hashlib.sha256(data).hexdigest(), blake3(data).hexdigest()


def wanted(source: str) -> Wanted:
    """What a spec asks for."""
    return Wanted(name="m.st", source=source, path="m.st", sha256=None, where=WHERE)


@pytest.mark.parametrize(
    ("text", "data", "end"),
    [
        ("civitai:11", DATA, "11?type=Model&format=SafeTensor&size=pruned&fp=fp16"),
        ("civitai:12", FULL, "12?fileId=120"),
        ("civitai://models/1", FULL, "12?fileId=120"),
        (f"{SITE}/models/1/a-model", FULL, "12?fileId=120"),
        (
            f"{SITE}/models/1?modelVersionId=11",
            DATA,
            "11?type=Model&format=SafeTensor&size=pruned&fp=fp16",
        ),
        (
            f"{SITE}/api/download/models/11?type=Model&format=PickleTensor&size=full&fp=fp32",
            FULL,
            "11?type=Model&format=PickleTensor&size=full&fp=fp32",
        ),
        ("civitai:11?size=full", FULL, "11?type=Model&format=PickleTensor&size=full&fp=fp32"),
        ("civitai:11?fileId=110", FULL, "11?type=Model&format=PickleTensor&size=full&fp=fp32"),
        ("civitai:11?size=Pruned", DATA, "11?type=Model&format=SafeTensor&size=pruned&fp=fp16"),
    ],
)
def test_a_file(store: Store, site: HubServer, text: str, data: bytes, end: str) -> None:
    """Both digests and the size are known, and an address that names this very file."""
    found = located(store, site, text)

    assert found.source == f"{SITE}/api/download/models/{end}"
    assert (found.size, found.sha256, found.entry) == known(data)
    assert site.cdn.requests == []
    again = located(store, site, found.source)
    assert again == found


def test_a_file_is_fetched_once(store: Store, site: HubServer) -> None:
    """What its BLAKE3 says is stored is not fetched, under whatever number."""
    want = wanted("civitai:11")
    found = models.ensure(store, want, locate.describe(store, want, access(site)), access(site))

    assert found.entry == blake3(DATA).hexdigest()
    assert found.file == "model.safetensors"
    asked = len(site.cdn.requests)
    site.version(13, [(DATA, {"primary": True, "hashes": {"BLAKE3": found.entry.upper()}})])
    again = locate.describe(store, wanted("civitai:13"), access(site))
    assert again.sha256 is None
    assert models.stored(store, again) == found.entry
    assert len(site.cdn.requests) == asked > 0


def test_a_login(store: Store, site: HubServer) -> None:
    """The key is told to the site alone; without it the sentence says where one is made."""
    site.versions[12]["requireAuth"] = True
    want = wanted("civitai:12")
    described = locate.describe(store, want, access(site))
    with pytest.raises(SourceError) as caught:
        models.ensure(store, want, described, access(site))
    assert "is given to users of the site alone, and no token is set" in caught.value.message
    assert "civitai.com/user/account" in (caught.value.hint or "")
    found = models.ensure(store, want, described, access(site, TOKEN))

    assert found.entry == blake3(FULL).hexdigest()
    assert {request.authorization for request in site.cdn.requests} == {None}
    assert TOKEN not in repr(found)


def test_a_key_in_the_source(store: Store, site: HubServer) -> None:
    """Addresses with `token=` work as they did, and no document has the key."""
    site.versions[12]["requireAuth"] = True
    want = wanted(f"{SITE}/api/download/models/12?token={TOKEN}")
    described = locate.describe(store, want, access(site))
    found = models.ensure(store, want, described, access(site))

    assert found.entry == blake3(FULL).hexdigest()
    assert TOKEN not in repr(found)
    assert not any(TOKEN in request.path for request in site.site.requests)
    assert {request.authorization for request in site.cdn.requests} == {None}


def test_early_access(store: Store, site: HubServer) -> None:
    """A key alone does not help."""
    site.versions[12]["earlyAccess"] = True
    want = wanted("civitai:12")
    allowed = access(site, TOKEN)
    with pytest.raises(SourceError) as caught:
        models.ensure(store, want, locate.describe(store, want, allowed), allowed)

    assert "was refused although CIVITAI_TOKEN was sent (answer 403)" in caught.value.message
    assert "early access" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("civitai:99", f"{SITE}/api/download/models/99 does not exist (answer 404)"),
        ("civitai://models/99", f"{SITE}/models/99 does not exist (answer 404)"),
        ("civitai://models/2", f"{SITE}/models/2 has no published version"),
        ("civitai:11?fp=fp8", f"{SITE}/api/download/models/11 has no file with fp=fp8"),
    ],
)
def test_what_is_not_given(store: Store, site: HubServer, text: str, message: str) -> None:
    """Each answer of the site in one sentence."""
    with pytest.raises(SourceError) as caught:
        located(store, site, text)

    assert caught.value.message == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"usageControl": "Generation"}, "may be used on the site alone"),
        ({"files": []}, "has no files, or none any more"),
        ({"files": 1}, "gives an answer that cannot be read"),
        ({"id": "x"}, "gives an answer that cannot be read"),
    ],
)
def test_versions_without_a_file(
    store: Store, site: HubServer, fields: dict[str, Any], message: str
) -> None:
    """What cannot be downloaded is told before the fetch."""
    site.versions[12] |= fields
    with pytest.raises(SourceError, match=message):
        located(store, site, "civitai:12")


@pytest.mark.parametrize(
    ("kilobytes", "size"),
    [
        (len(DATA) / 1024, len(DATA)),
        (6775430.35, None),
        (100, None),
        (0.5, None),
        (2082642.474609375, 2132625894),
        (None, None),
        (-1.123, None),
        (1e300, None),
    ],
)
def test_sizes(store: Store, site: HubServer, kilobytes: float | None, size: int | None) -> None:
    """A number of kilobytes that may be rounded is no size: the file would be refused for it."""
    site.versions[12]["files"][0]["sizeKB"] = kilobytes
    asked = sources.Civitai("", "12")

    assert civitai.locate(asked, site.site.url, Tokens()).size == size
    assert site.cdn.requests == []
    # A plan has sizes all the same: the file itself is asked, unless it is there.
    assert located(store, site, "civitai:12").size == (size or len(FULL))
    assert len(site.cdn.requests) == (size is None)


def test_a_size_that_nobody_tells(store: Store, site: HubServer) -> None:
    """Without a key the file says nothing; that is told when it is fetched."""
    site.versions[12]["files"][0]["sizeKB"] = None
    site.versions[12]["requireAuth"] = True

    assert located(store, site, "civitai:12").size is None


def test_digests_that_are_none(store: Store, site: HubServer) -> None:
    """New files have no digests yet."""
    site.versions[12]["files"][0]["hashes"] = {"SHA256": "", "AutoV2": "0123"}
    found = located(store, site, "civitai:12")

    assert (found.sha256, found.entry) == (None, None)
