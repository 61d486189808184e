"""HuggingFace: what is known before anything is fetched, as the site's own client has it."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hubserver import COMMIT, SIGNATURE, TOKEN, HubServer, Repository

from cvs.store import manifest
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, OfflineError, SourceError
from cvs.store.volume import Volume
from cvs.versions import locate, models, restore, sources
from cvs.versions import lock as documents
from cvs.versions.access import Access
from cvs.versions.located import Folder, Located
from cvs.versions.lock import ModelFile
from cvs.versions.sites import Sites
from cvs.versions.spec import Model as Wanted
from cvs.versions.tokens import Token, Tokens, host_of

HUB = "https://huggingface.co"
LARGE = bytes(range(256)) * 5000
SMALL = b'{"a": 1}\n'
SHA256 = hashlib.sha256(LARGE).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0" % len(SMALL) + SMALL).hexdigest()
WHERE = "versions/x.json: models[0]"
FILES = {
    "config.json": SMALL,
    "model.bin": LARGE,
    "unet/a b#c.bin": LARGE[:9000],
    "unet/config.json": SMALL,
    "unet/deep/x.json": b"{}",
}


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A site with one repository of each kind."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HubServer() as made:
        large = frozenset({"model.bin", "unet/a b#c.bin"})
        revisions = ("main", "v1", "refs/pr/1", "odd/branch")
        made.repositories = {
            "org/repo": Repository(dict(FILES), large, revisions),
            "datasets/org/data": Repository({"a.csv": b"1,2"}),
            "org/gated": Repository(dict(FILES), large, gated=True),
            "org/private": Repository(dict(FILES), large, private=True),
        }
        made.renamed = {"old/name": "org/repo"}
        yield made


def access(hub: HubServer, token: str = "") -> Access:
    """Access to the stand-in."""
    sites = Sites(huggingface=hub.site.url)
    given = [Token(host_of(hub.site.url), token, "HF_TOKEN")] if token else []
    return Access(sites=sites, tokens=Tokens(given, sites))


def located(store: Store, hub: HubServer, text: str, token: str = "") -> Located | Folder:
    """What is known of a source."""
    return locate.locate(store, sources.parse(text, WHERE), access(hub, token), WHERE)


def refused(store: Store, hub: HubServer, text: str, token: str = "") -> SourceError:
    """Why a source is refused."""
    with pytest.raises(SourceError) as caught:
        located(store, hub, text, token)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "hf://org/repo/model.bin",
        "hf://org/repo@v1/model.bin",
        "hf://old/name/model.bin?rev=refs/pr/1",
        f"{HUB}/org/repo/blob/odd%2Fbranch/model.bin",
    ],
)
def test_a_large_file(store: Store, hub: HubServer, text: str) -> None:
    """Commit, size and SHA-256 are known from the headers; none of its bytes was asked for."""
    found = located(store, hub, text)

    place = "old/name" if "old" in text else "org/repo"
    public = f"{HUB}/{place}/resolve/{COMMIT}/model.bin"
    assert found == Located(public, "model.bin", len(LARGE), SHA256)
    assert hub.cdn.requests == []


def test_a_small_file(store: Store, hub: HubServer) -> None:
    """What git itself has is known by its id there."""
    found = located(store, hub, "hf://org/repo/unet/config.json")

    public = f"{HUB}/org/repo/resolve/{COMMIT}/unet/config.json"
    assert found == Located(public, "config.json", len(SMALL), git=BLOB)


def test_a_file_of_a_dataset(store: Store, hub: HubServer) -> None:
    """Datasets and spaces lie beside models."""
    found = located(store, hub, "hf://datasets/org/data/a.csv")

    assert isinstance(found, Located)
    assert found.source == f"{HUB}/datasets/org/data/resolve/{COMMIT}/a.csv"


@pytest.mark.parametrize(
    "text", ["hf://org/repo/unet", "hf://org/repo@v1/unet/", f"{HUB}/org/repo/tree/main/unet"]
)
def test_a_folder(store: Store, hub: HubServer, text: str) -> None:
    """Every file with its digest, over all pages of the listing."""
    found = located(store, hub, text)

    base = f"{HUB}/org/repo/resolve/{COMMIT}/unet"
    large = hashlib.sha256(LARGE[:9000]).hexdigest()
    assert isinstance(found, Folder)
    assert (found.source, found.name) == (f"{HUB}/org/repo/tree/{COMMIT}/unet", "unet")
    assert dict(found.files) == {
        "a b#c.bin": Located(f"{base}/a%20b%23c.bin", "a b#c.bin", 9000, large),
        "config.json": Located(f"{base}/config.json", "config.json", len(SMALL), git=BLOB),
        "deep/x.json": Located(
            f"{base}/deep/x.json", "x.json", 2, git=hashlib.sha1(b"blob 2\0{}").hexdigest()
        ),
    }


def test_a_mirror_that_names_the_site(store: Store, hub: HubServer) -> None:
    """Its listings may lead to the public address: the rest is asked of it all the same. To
    another host nobody is led."""
    hub.links = HUB
    found = located(store, hub, "hf://org/repo/unet/")

    assert isinstance(found, Folder)
    assert len(found.files) == 3
    hub.links = hub.cdn.url
    assert "leads to another host" in refused(store, hub, "hf://org/repo/unet/").message
    assert hub.cdn.requests == []


def test_a_whole_repository(store: Store, hub: HubServer) -> None:
    """Without a path all of it."""
    found = located(store, hub, "hf://org/repo")

    assert isinstance(found, Folder)
    assert [path for path, _ in found.files] == sorted(FILES)


@pytest.mark.parametrize(
    ("text", "token", "message", "hint"),
    [
        ("hf://org/none/a", "", "is in a repository that is private or does not exist", "HF_TOKEN"),
        ("hf://org/none/a", TOKEN, f"{HUB}/org/none does not exist (answer 404)", ""),
        ("hf://org/private/a", "", "private or does not exist", "huggingface.co/settings/tokens"),
        ("hf://org/gated/a", "", "is in a gated repository, and no token", f"{HUB}/org/gated"),
        ("hf://org/gated/unet/", "", "is in a gated repository", f"{HUB}/org/gated"),
        ("hf://org/repo@v2/model.bin", "", "org/repo has no branch, tag or commit 'v2'", ""),
        ("hf://org/repo@v2/unet/", "", "org/repo has no branch, tag or commit 'v2'", ""),
        (
            "hf://org/repo/none.bin",
            "",
            f"{HUB}/org/repo/resolve/main/none.bin does not exist",
            f"{HUB}/org/repo/tree/main",
        ),
        ("hf://org/repo/none/", "", "tree/main/none is no folder", f"{HUB}/org/repo/tree/main"),
    ],
)
def test_what_is_not_given(
    store: Store, hub: HubServer, text: str, token: str, message: str, hint: str
) -> None:
    """Each error of the site in one sentence, with what to do."""
    found = refused(store, hub, text, token)

    assert message in found.message
    assert hint in (found.hint or "")
    assert TOKEN not in found.message


def test_a_licence_that_was_not_accepted(store: Store, hub: HubServer) -> None:
    """The token is known, and its account has no access."""
    hub.access = False
    found = refused(store, hub, "hf://org/gated/model.bin", TOKEN)

    assert "a gated repository that HF_TOKEN has no access to (answer 403)" in found.message
    assert f"ask for access at {HUB}/org/gated " in (found.hint or "")


def test_an_answer_without_a_commit(store: Store, hub: HubServer) -> None:
    """What cannot be pinned is refused: tomorrow it may be another file."""
    hub.repositories["org/repo"].commit = "main"
    assert "does not name the commit" in refused(store, hub, "hf://org/repo/model.bin").message


# Into the store.


def wanted(source: str, name: str = "model.bin", **fields: str) -> Wanted:
    """What a spec asks for."""
    return Wanted(name=name, source=source, path=f"a/{name}", sha256=None, where=WHERE, **fields)


def test_a_file_is_fetched_once(store: Store, hub: HubServer) -> None:
    """What is pinned is fetched; under another name of the same bytes nothing is."""
    allowed = access(hub, TOKEN)
    want = wanted("hf://org/gated/model.bin")
    described = locate.describe(store, want, allowed)
    found = models.ensure(store, want, described, allowed)

    assert (described.sha256, described.entry) == (SHA256, None)
    assert found.source == f"{HUB}/org/gated/resolve/{COMMIT}/model.bin"
    asked = len(hub.cdn.requests)
    assert asked > 0
    again = wanted("hf://org/repo@v1/model.bin", "other.bin")
    known = locate.describe(store, again, access(hub))
    assert models.stored(store, known) == found.entry
    assert models.ensure(store, again, known, access(hub)).entry == found.entry
    assert known.file == "model.bin"
    assert len(hub.cdn.requests) == asked


def test_the_token_stays_at_home(store: Store, hub: HubServer) -> None:
    """It is told to the site, and neither to the host that has the bytes nor to any file."""
    allowed = access(hub, TOKEN)
    want = wanted("hf://org/private/model.bin")
    found = models.ensure(store, want, locate.describe(store, want, allowed), allowed)

    assert {request.authorization for request in hub.site.requests} == {f"Bearer {TOKEN}"}
    assert {request.authorization for request in hub.cdn.requests} == {None}
    assert TOKEN not in repr(found)
    for folder, _, names in os.walk(store.volume.root):
        for path in (Path(folder, name) for name in names):
            data = b"" if path.is_symlink() else path.read_bytes()
            assert TOKEN.encode() not in data
            assert SIGNATURE.encode() not in data


def test_a_token_in_the_source(store: Store, hub: HubServer) -> None:
    """A user in the address is who asks, and is not kept."""
    text = f"https://me:{TOKEN}@huggingface.co/org/private/resolve/main/model.bin"
    want = wanted(text)
    described = locate.describe(store, want, access(hub))
    found = models.ensure(store, want, described, access(hub))

    assert found.sha256 == SHA256
    assert TOKEN not in repr(found)
    assert {request.authorization for request in hub.cdn.requests} == {None}


def test_a_folder_is_fetched(store: Store, hub: HubServer) -> None:
    """Its files become one tree, each checked; the lock names all of them."""
    want = wanted("hf://org/repo/unet", "unet")
    described = locate.describe(store, want, access(hub))
    found = models.ensure(store, want, described, access(hub))

    assert found.entry is not None
    folder = Path(store.volume.store, store.content(found.entry))
    assert folder.name == "unet"
    assert (folder / "config.json").read_bytes() == SMALL
    assert (folder / "a b#c.bin").read_bytes() == LARGE[:9000]
    assert (folder / "deep/x.json").read_bytes() == b"{}"
    assert found.size == described.size == 9000 + len(SMALL) + 2
    assert [one.path for one in found.files] == ["a b#c.bin", "config.json", "deep/x.json"]
    asked = len(hub.site.requests)
    assert models.ensure(store, want, found, access(hub)) == found
    assert len(hub.site.requests) == asked
    with store.stage() as stage:
        assert models.stage_model(stage, want, found, access(hub)).id == found.entry


def test_a_folder_whose_file_was_changed(store: Store, hub: HubServer) -> None:
    """The lock knows each file: another one is refused, by git's id as well."""
    want = wanted("hf://org/repo/unet", "unet")
    described = locate.describe(store, want, access(hub))
    hub.repositories["org/repo"].files["unet/config.json"] = SMALL.replace(b"1", b"2")
    with pytest.raises(IntegrityError, match=r"config\.json is the git object"):
        models.ensure(store, want, described, access(hub))

    assert list(store.ids()) == []


def test_offline(store: Store, hub: HubServer) -> None:
    """Nobody is asked, and what is missing is named."""
    want = wanted("hf://org/repo/model.bin")
    offline = Access(offline=True, sites=access(hub).sites)
    described = locate.describe(store, want, offline)

    assert (described.source, described.size) == (f"{HUB}/org/repo/resolve/main/model.bin", None)
    with pytest.raises(OfflineError, match="is not stored and no connection may be made"):
        models.ensure(store, want, described, offline)
    assert hub.site.requests == []


def test_mirrors(store: Store, hub: HubServer) -> None:
    """The first source that has it counts; the others stand in the lock as mirrors."""
    gone, there = "hf://org/none/model.bin", "hf://org/repo/model.bin"
    want = wanted(gone, mirrors=(there,))
    described = locate.describe(store, want, access(hub))
    public = f"{HUB}/org/none/resolve/main/model.bin"

    assert described.source == f"{HUB}/org/repo/resolve/{COMMIT}/model.bin"
    assert described.mirrors == (public,)
    # What was there at resolving may be gone at realizing.
    swapped = wanted(there, mirrors=(gone,))
    mirrored = documents.Model(
        name="m",
        path="m",
        request="",
        source=public,
        size=None,
        sha256=SHA256,
        entry=None,
        mirrors=(described.source,),
    )
    assert models.ensure(store, swapped, mirrored, access(hub)).sha256 == SHA256
    with pytest.raises(SourceError) as caught:
        locate.describe(store, wanted(gone, mirrors=("hf://org/no/x",)), access(hub))
    assert caught.value.message.startswith(f"{WHERE}: no source of model.bin has it: http")
    assert caught.value.message.count("private or does not exist") == 2


def test_a_checksum_that_the_site_denies(store: Store, hub: HubServer) -> None:
    """It is told before a byte is fetched."""
    want = Wanted(
        name="m", source="hf://org/repo/model.bin", path="m", sha256="0" * 64, where=WHERE
    )
    with pytest.raises(SourceError, match=f"has the digest {SHA256}, expected is 000"):
        locate.describe(store, want, access(hub))
    assert hub.cdn.requests == []


def test_a_folder_in_a_lock(store: Store, hub: HubServer) -> None:
    """The files of a folder are as the site tells them."""
    described = locate.describe(store, wanted("hf://org/repo/unet/", "unet"), access(hub))

    assert described.files[1] == ModelFile(
        path="config.json",
        source=f"{HUB}/org/repo/resolve/{COMMIT}/unet/config.json",
        size=len(SMALL),
        git=BLOB,
    )


def test_parse_errors_name_the_source(store: Store, hub: HubServer) -> None:
    """A second source is named by its place."""
    with pytest.raises(InputError, match=r"models\[0\]\.sources\[1\]: the source is not like hf"):
        locate.describe(store, wanted("hf://org/repo/x", mirrors=("hf:x",)), access(hub))


@pytest.mark.parametrize("text", ["hf://org/repo/model.bin", "hf://org/repo/unet/"])
def test_a_repair(store: Store, hub: HubServer, text: str) -> None:
    """What is damaged comes back from where its manifest says it came from, if no lock is left."""
    want = wanted(text, "some.bin")
    found = models.ensure(store, want, locate.describe(store, want, access(hub)), access(hub))
    assert found.entry is not None
    (maker,) = restore.sources(store, found.entry, [], access(hub))

    assert maker.shown == found.source
    with maker.open(store, found.entry) as offer:
        assert offer.document is not None
        assert manifest.identity(offer.document) == found.entry


# The stand-in itself.

_CLIENT = """
import json, sys
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub import snapshot_download
from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError, EntryNotFoundError
from huggingface_hub.utils import RevisionNotFoundError

cache, token = sys.argv[1:]
found = {}
for path in ("model.bin", "unet/config.json"):
    told = get_hf_file_metadata(hf_hub_url("org/repo", path, revision="v1"))
    data = open(hf_hub_download("org/repo", path, revision="v1", cache_dir=cache), "rb").read()
    found[path] = [told.commit_hash, told.etag, told.size, len(data)]
found["tree"] = sorted(
    [one.path, one.size, one.blob_id, one.lfs and one.lfs.sha256]
    for one in HfApi().list_repo_tree("org/repo", "unet", recursive=True)
    if hasattr(one, "blob_id")
)
snapshot = snapshot_download("org/gated", cache_dir=cache, token=token)
found["snapshot"] = len(open(f"{snapshot}/unet/a b#c.bin", "rb").read())
for name, repo, path, revision in (
    ("gated", "org/gated", "model.bin", None),
    ("repo", "org/none", "model.bin", None),
    ("entry", "org/repo", "none.bin", None),
    ("revision", "org/repo", "model.bin", "v2"),
):
    try:
        hf_hub_download(repo, path, revision=revision, cache_dir=f"{cache}/none", token=False)
    except Exception as error:
        found[name] = type(error).__name__
print(json.dumps(found))
"""


def test_the_stand_in_is_like_the_site(store: Store, hub: HubServer, tmp_path: Path) -> None:
    """The site's own client fetches from it, and is told what cvs is told."""
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "NO_PROXY": "127.0.0.1",
        "HF_ENDPOINT": hub.site.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, "-c", _CLIENT, f"{tmp_path}/cache", TOKEN]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    for path in ("model.bin", "unet/config.json"):
        mine = located(store, hub, f"hf://org/repo@v1/{path}")
        assert isinstance(mine, Located)
        size = len(FILES[path])
        assert found[path] == [COMMIT, mine.sha256 or mine.git, size, size]
        assert f"/resolve/{COMMIT}/" in mine.source
    folder = located(store, hub, "hf://org/repo/unet")
    assert isinstance(folder, Folder)
    theirs = {path: (size, sha256 or blob) for path, size, blob, sha256 in found["tree"]}
    assert theirs == {
        f"unet/{path}": (one.size, one.sha256 or one.git) for path, one in folder.files
    }
    assert found["snapshot"] == 9000
    errors = [found[name] for name in ("gated", "repo", "entry", "revision")]
    assert errors == [
        "GatedRepoError",
        "RepositoryNotFoundError",
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
    ]
    assert {request.authorization for request in hub.cdn.requests} == {None}
