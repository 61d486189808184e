"""Resolving through the real uv, against an index on this host."""

import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import wheelmaker
from indexserver import IndexServer, Mode, certified

from cvs.store.errors import CvsError, InputError, OfflineError, SourceError
from cvs.versions import interpreter, python, requirements
from cvs.versions.lock import Python
from cvs.versions.requirements import Requirement
from cvs.versions.spec import PythonSettings

PROBE = interpreter.probe(interpreter.find(None))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with IndexServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "wheels")


def _wanted(**lines: str | list[str]) -> list[Requirement]:
    """Requirements by requirer: `A="numpy<2"`."""
    found: list[Requirement] = []
    for requirer, texts in lines.items():
        text = "\n".join([texts] if isinstance(texts, str) else texts)
        found += requirements.parse(text.encode(), requirer=requirer).wanted
    return found


def _resolve(
    index: IndexServer | None,
    wanted: list[Requirement],
    *,
    exclude_newer: str | None = None,
    previous: Python | None = None,
    wheels_dir: str | None = None,
    offline: bool = False,
    **settings: object,
) -> Python:
    if index is not None:
        settings.setdefault("index_url", index.url)
    return python.resolve(
        wanted,
        settings=PythonSettings(**settings),  # type: ignore[arg-type]
        probe=PROBE,
        exclude_newer=exclude_newer,
        previous=previous,
        wheels_dir=wheels_dir,
        offline=offline,
    )


def _versions(locked: Python) -> dict[str, str]:
    return {one.name: one.version for one in locked.wheels}


def test_every_wheel_is_pinned_with_all_that_the_index_says(
    index: IndexServer, folder: str
) -> None:
    path = wheelmaker.make(folder, "Top_Level", "1.0+local.1", requires=["below>=1"])
    url = index.add(path, "2026-02-03T04:05:06Z")
    below = wheelmaker.make(folder, "below", "1.5")
    index.add(below, None)

    locked = _resolve(index, _wanted(ComfyUI="top-level", Node=["below<2", "top-level"]))

    top = {one.name: one for one in locked.wheels}["top-level"]
    assert top.version == "1.0+local.1"
    assert top.file == os.path.basename(path)
    assert (top.sha256, top.size) == (wheelmaker.sha256(path), os.path.getsize(path))
    assert top.url.replace("%2B", "+") == url
    assert top.uploaded == "2026-02-03T04:05:06Z"
    assert top.required_by == ("ComfyUI", "Node")
    dependency = {one.name: one for one in locked.wheels}["below"]
    assert dependency.uploaded is None
    assert dependency.required_by == ("Node", "top-level")
    assert [one.name for one in locked.wheels] == ["below", "top-level"]
    assert locked.interpreter == PROBE.interpreter


def test_nothing_wanted_asks_nobody() -> None:
    locked = python.resolve(
        [], settings=PythonSettings(), probe=PROBE, exclude_newer=None, ignored=["N: -e ."] * 2
    )

    assert (locked.wheels, locked.ignored) == ((), ("N: -e .",))


def test_the_wheel_that_fits_best_is_chosen(index: IndexServer, folder: str) -> None:
    best = wheelmaker.make(folder, "a", "1", tag=PROBE.tags[0])
    for tag in ("py3-none-any", "cp311-cp311-win_amd64", PROBE.tags[5]):
        index.add(wheelmaker.make(folder, "a", "1", tag=tag))
    index.add(best)

    assert [one.file for one in _resolve(index, _wanted(N="a")).wheels] == [os.path.basename(best)]


def test_nothing_newer_than_the_date_is_considered(index: IndexServer, folder: str) -> None:
    index.add(wheelmaker.make(folder, "a", "1"), "2026-01-01T00:00:00Z")
    index.add(wheelmaker.make(folder, "a", "2"), "2026-03-01T12:00:00Z")

    for date, version in (
        ("2026-02-01", "1"),
        ("2026-03-01T11:59:59Z", "1"),
        ("2026-03-01", "2"),
        (None, "2"),
    ):
        locked = _resolve(index, _wanted(N="a"), exclude_newer=date)
        assert (_versions(locked), locked.exclude_newer) == ({"a": version}, date)


def test_a_date_that_excludes_everything_is_the_hint(index: IndexServer, folder: str) -> None:
    index.add(wheelmaker.make(folder, "a", "1"), "2026-01-01T00:00:00Z")
    index.add(wheelmaker.make(folder, "a", "2"), "2026-03-01T00:00:00Z")

    with pytest.raises(InputError, match=r"only a<?=?=?1 is available and you require a>=2") as e:
        _resolve(index, _wanted(N="a>=2"), exclude_newer="2026-02-01")
    assert e.value.hint is not None
    assert "2026-02-01" in e.value.hint


def test_an_index_without_dates_is_not_shut_out_by_one(index: IndexServer, folder: str) -> None:
    """PyTorch's index has none; its wheels are in the lock as undated."""
    index.add(wheelmaker.make(folder, "a", "1", requires=["b"]), None)
    index.add(wheelmaker.make(folder, "b", "1"), "2026-01-01T00:00:00Z")
    index.add(wheelmaker.make(folder, "b", "2"), "2026-03-01T00:00:00Z")

    locked = _resolve(index, _wanted(N="a"), exclude_newer="2026-02-01")

    assert _versions(locked) == {"a": "1", "b": "1"}
    assert [one.uploaded for one in locked.wheels] == [None, "2026-01-01T00:00:00Z"]


def test_pins_stay_unless_something_else_is_asked(index: IndexServer, folder: str) -> None:
    index.add(wheelmaker.make(folder, "a", "1"))
    index.add(wheelmaker.make(folder, "b", "1"))
    first = _resolve(index, _wanted(N=["a", "b"]))
    index.add(wheelmaker.make(folder, "a", "2"))
    index.add(wheelmaker.make(folder, "b", "2"))
    index.add(wheelmaker.make(folder, "c", "1"))

    kept = _resolve(index, _wanted(N=["a", "b"], Other="c"), previous=first)
    moved = _resolve(index, _wanted(N=["a", "b>=2"]), previous=first)
    fresh = _resolve(index, _wanted(N=["a", "b"]))

    assert _versions(kept) == {"a": "1", "b": "1", "c": "1"}
    assert _versions(moved) == {"a": "1", "b": "2"}
    assert _versions(fresh) == {"a": "2", "b": "2"}


def test_the_first_package_of_a_version_is_chosen(index: IndexServer, folder: str) -> None:
    """A lock that had none is no file that uv could read versions from."""
    index.add(wheelmaker.make(folder, "a", "1"))
    none = _resolve(index, [])

    assert _versions(_resolve(index, _wanted(N="a"), previous=none)) == {"a": "1"}


def test_overrides_and_constraints_count(index: IndexServer, folder: str) -> None:
    for version in ("1", "2", "3"):
        index.add(wheelmaker.make(folder, "a", version))
        index.add(wheelmaker.make(folder, "b", version))

    locked = _resolve(
        index, _wanted(N=["a==1", "b"], M="a==2"), overrides=("a==3",), constraints=("b<3",)
    )

    assert _versions(locked) == {"a": "3", "b": "2"}
    assert {one.required_by for one in locked.wheels} == {("N", "M"), ("N",)}


def test_an_override_leaves_a_package_out(index: IndexServer, folder: str) -> None:
    index.add(wheelmaker.make(folder, "a", "1"))

    locked = _resolve(index, _wanted(N=["a", "never"]), overrides=("never; python_version < '3'",))

    assert _versions(locked) == {"a": "1"}


def test_what_the_image_provides_is_not_locked(index: IndexServer, folder: str) -> None:
    """Nor asked for, by whomever: a requirer, another package, in whatever version."""
    index.add(wheelmaker.make(folder, "a", "1", requires=["torch>=99", "b"]))
    index.add(wheelmaker.make(folder, "b", "1", requires=["Torch_Vision[all]"]))
    index.add(wheelmaker.make(folder, "torch", "1", requires=["c"]))

    locked = _resolve(
        index,
        _wanted(N=["a", "torch<2", "torchaudio"], M="torch>=3"),
        provided=("torch>=2.7", "torch.vision", "torchaudio"),
        overrides=("never; python_version < '3'",),
    )

    assert _versions(locked) == {"a": "1", "b": "1"}
    assert locked.provided == ("torch>=2.7", "torch.vision", "torchaudio")
    assert not [path for path in index.paths if "torch" in path]


def test_the_first_index_that_has_a_package_wins(folder: str, index: IndexServer) -> None:
    """Or a stranger's newer version on a public index would replace a private one."""
    index.add(wheelmaker.make(folder, "a", "9"))
    index.add(wheelmaker.make(folder, "b", "1"))
    with IndexServer() as private:
        private.add(wheelmaker.make(folder, "a", "1"))
        second = index.url
        with IndexServer() as public:
            public.add(wheelmaker.make(folder, "c", "1"))
            for name in ("a", "b"):
                public.add(wheelmaker.make(folder, name, "10"))
            locked = _resolve(
                public, _wanted(N=["a", "b", "c"]), extra_index_urls=(private.url, second)
            )

            assert _versions(locked) == {"a": "1", "b": "1", "c": "1"}
            assert [one.index for one in locked.wheels] == [private.url, second, public.url]


def test_local_folders_give_wheels_without_an_address(index: IndexServer, folder: str) -> None:
    path = wheelmaker.make(folder, "a", "1+cpu")

    locked = _resolve(
        index, _wanted(N="a"), find_links=(folder,), exclude_newer="2020-01-01"
    ).wheels[0]

    assert (locked.url, locked.uploaded) == ("", None)
    assert (locked.sha256, locked.size) == (wheelmaker.sha256(path), os.path.getsize(path))


def test_the_index_of_a_wheel_is_in_the_lock(index: IndexServer, folder: str) -> None:
    """Without credentials; a wheel of a folder, or that was asked for by its URL, has none."""
    index.user = "me:s3cret"
    index.add(wheelmaker.make(folder + "-remote", "a", "1", requires=["below"]))
    index.add(wheelmaker.make(folder + "-remote", "below", "1"))
    wheelmaker.make(folder, "local", "1")
    with IndexServer() as other:
        url = other.add(wheelmaker.make(folder + "-other", "direct", "1"))
        wanted = [
            *_wanted(N=["a", "local"]),
            Requirement(f"direct @ {url}", "M", "M/requirements.txt:1"),
        ]
        locked = _resolve(
            None,
            wanted,
            index_url=index.url.replace("//", "//me:s3cret@"),
            find_links=(folder,),
        )

    assert {one.name: (one.index, one.required_by) for one in locked.wheels} == {
        "a": (index.url, ("N",)),
        "below": (index.url, ("a",)),
        "direct": ("", ("M",)),
        "local": ("", ("N",)),
    }


def test_an_index_on_this_disk_is_not_named(folder: str, tmp_path: Path) -> None:
    """A lock has no local path."""
    path = wheelmaker.make(folder, "a", "1")
    page = tmp_path / "simple" / "a" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="file://{path}">{os.path.basename(path)}</a>')

    locked = _resolve(None, _wanted(N="a"), index_url=f"file://{tmp_path}/simple").wheels[0]

    assert (locked.version, locked.url, locked.index) == ("1", "", "")


def test_the_newest_glibc_that_is_needed_is_in_the_lock(index: IndexServer, folder: str) -> None:
    """The lock says which wheel wants it."""
    older, newer = (
        next(tag for tag in PROBE.tags if tag.startswith(f"{PROBE.abi}-{PROBE.abi}-{name}"))
        for name in ("manylinux_2_5_", "manylinux_2_17_")
    )
    index.add(wheelmaker.make(folder, "a", "1", tag=newer))
    index.add(wheelmaker.make(folder, "b", "1", tag=older))
    index.add(wheelmaker.make(folder, "c", "1"))

    found = _resolve(index, _wanted(N=["a", "b", "c"])).interpreter
    nothing = _resolve(index, _wanted(N="c")).interpreter

    assert (found.glibc_needed, found.glibc_needed_by) == ("2.17", f"a-1-{newer}.whl")
    assert nothing == PROBE.interpreter


def test_a_folder_is_the_only_source_offline(index: IndexServer, folder: str) -> None:
    wheelmaker.make(folder, "a", "1")
    index.add(wheelmaker.make(folder + "-remote", "a", "2"))

    locked = _resolve(index, _wanted(N="a"), wheels_dir=folder, offline=True)
    both = _resolve(index, _wanted(N="a"), wheels_dir=folder)

    assert (_versions(locked), _versions(both)) == ({"a": "1"}, {"a": "2"})
    with pytest.raises(SourceError, match="no folder of wheels has 'b', asked for by N"):
        _resolve(index, _wanted(N="b"), wheels_dir=folder, offline=True)
    with pytest.raises(OfflineError, match="not locked yet and no connection may be made"):
        _resolve(index, _wanted(N="a"), offline=True)
    assert not [path for path in index.paths if "/b/" in path]


def test_the_url_of_a_wheel_is_pinned_as_it_is(index: IndexServer, folder: str) -> None:
    path = wheelmaker.make(folder, "a", "1")
    url = index.add(path)
    wanted = [Requirement(f"a @ {url}", "N", "N/requirements.txt:1")]

    locked = _resolve(index, wanted).wheels[0]

    assert (locked.url, locked.sha256, locked.version) == (url, wheelmaker.sha256(path), "1")
    assert locked.required_by == ("N",)


def test_the_url_of_a_wheel_that_is_not_there_is_named(index: IndexServer) -> None:
    url = f"http://{index.host}/files/a-1-py3-none-any.whl"

    with pytest.raises(SourceError, match=rf"^{url} answered 404$"):
        _resolve(index, [Requirement(f"a @ {url}", "N", "N/requirements.txt:1")])


def test_credentials_reach_the_index_and_nothing_else(
    index: IndexServer, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.user = "me:s3cret"
    index.add(wheelmaker.make(folder, "a", "1"))
    commands: list[str] = []
    run = python.subprocess.run

    def observed(command: list[str], **options: object) -> object:
        commands.extend(command)
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(python.subprocess, "run", observed)
    url = index.url.replace("//", "//me:s3cret@")

    locked = _resolve(index, _wanted(N="a"), index_url=url)

    assert _versions(locked) == {"a": "1"}
    assert locked.wheels[0].url.startswith(f"http://{index.host}/")
    assert "s3cret" not in repr(locked) + " ".join(commands)
    with pytest.raises(SourceError) as caught:
        _resolve(index, _wanted(N="a"), index_url=index.url.replace("//", "//me:wr0ng@"))
    assert "wr0ng" not in caught.value.message


def test_two_requirers_that_cannot_agree_are_named(index: IndexServer, folder: str) -> None:
    for version in ("1", "2"):
        index.add(wheelmaker.make(folder, "numpy", version))

    with pytest.raises(InputError) as caught:
        _resolve(index, _wanted(A="numpy<2", B="numpy>=2", C="numpy"))

    assert caught.value.message == (
        "'A' and 'B' contradict each other on numpy: A wants numpy<2, B wants numpy>=2"
    )


def test_one_requirer_and_the_constraints_can_contradict_too(
    index: IndexServer, folder: str
) -> None:
    index.add(wheelmaker.make(folder, "a", "1"))

    with pytest.raises(InputError, match="'A' contradicts itself on a: it wants a"):
        _resolve(index, _wanted(A=["a<1", "a>1"]))
    with pytest.raises(InputError, match=r"'A' and 'python\.constraints' contradict"):
        _resolve(index, _wanted(A="a==1"), constraints=("a!=1",))


def test_other_conflicts_are_explained_by_what_uv_says(index: IndexServer, folder: str) -> None:
    index.add(wheelmaker.make(folder, "a", "1", requires=["c<2"]))
    index.add(wheelmaker.make(folder, "b", "1", requires=["c>=2"]))
    for version in ("1", "2"):
        index.add(wheelmaker.make(folder, "c", version))

    with pytest.raises(InputError) as caught:
        _resolve(index, _wanted(A="a", B="b"))

    message = caught.value.message
    assert message.startswith(
        "the Python packages of A (a) and B (b) contradict each other: Because"
    )
    assert "c>=2" in message
    assert "\n" not in message
    assert not message.endswith(".")


def test_a_package_without_a_fitting_wheel_is_named(index: IndexServer, folder: str) -> None:
    index.add(wheelmaker.make(folder, "a", "1", tag="cp311-cp311-win_amd64"))
    index.add(wheelmaker.make(folder, "b", "1", requires=["a"]))

    with pytest.raises(
        SourceError, match=rf"^a has no wheel for {PROBE.abi} on .*, asked for by N"
    ):
        _resolve(index, _wanted(N="a"))
    with pytest.raises(SourceError, match=r"^a has no wheel .*, a dependency of N \(b\)$"):
        _resolve(index, _wanted(N="b"))


def test_a_wheel_may_have_come_later(index: IndexServer, folder: str) -> None:
    """Of a package without a wheel that fits, the hint names the day: later there may be one."""
    index.add(
        wheelmaker.make(folder, "a", "1", tag="cp311-cp311-win_amd64"), "2026-01-01T00:00:00Z"
    )

    with pytest.raises(SourceError, match=r"^a has no wheel") as caught:
        _resolve(index, _wanted(N="a"), exclude_newer="2026-02-01")

    assert "nothing newer than 2026-02-01 counts" in (caught.value.hint or "")


def test_an_unknown_package_is_named(index: IndexServer) -> None:
    with pytest.raises(SourceError) as caught:
        _resolve(index, _wanted(N="nothing-like-it", M="nothing_like_it>1"))

    assert caught.value.message == ("the package index has no 'nothing-like-it', asked for by N, M")


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("500", "the package index at {host} answered 500"),
        ("garbage", "the package index at {host} gave something that is not an index page"),
        ("404", "the package index has no 'a', asked for by N"),
    ],
)
def test_a_broken_index_is_named(index: IndexServer, folder: str, mode: Mode, problem: str) -> None:
    index.add(wheelmaker.make(folder, "a", "1"))
    index.mode = mode

    with pytest.raises(SourceError) as caught:
        _resolve(index, _wanted(N="a"))

    assert caught.value.message == problem.format(host=index.host)


def test_a_backend_of_torch_is_pytorchs_index(
    index: IndexServer, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch comes from there alone, everything else from where it came from before.

    Behind a proxy that is not there no connection leaves this host, and the error says where to.
    """
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("UV_TORCH_BACKEND", "cu118")
    index.add(wheelmaker.make(folder, "torch", "1"))
    index.add(wheelmaker.make(folder, "numpy", "1"))

    assert _versions(_resolve(index, _wanted(N=["torch", "numpy"]))) == {"numpy": "1", "torch": "1"}
    assert _versions(_resolve(index, _wanted(N="numpy"), torch_backend="cpu")) == {"numpy": "1"}
    with pytest.raises(
        SourceError, match=r"^the package index at download\.pytorch\.org cannot be reached"
    ):
        _resolve(index, _wanted(N="torch"), torch_backend="cpu")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_torch_is_locked_from_pytorchs_index(
    index: IndexServer, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its wheels have no dates and are taken all the same; the lock says which index has them.

    A proxy on this host stands in for download.pytorch.org.
    """
    index.add(wheelmaker.make(folder, "numpy", "1"), "2026-01-01T00:00:00Z")
    index.add(wheelmaker.make(folder, "torch", "9"), "2026-01-01T00:00:00Z")
    monkeypatch.setenv("UV_INSECURE_HOST", "download.pytorch.org")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with IndexServer() as pytorch:
        pytorch.certified = certified(str(tmp_path), "download.pytorch.org")
        path = wheelmaker.make(folder, "torch", "2.7.0+cu128", requires=["numpy"])
        pytorch.add(path, None)
        monkeypatch.setenv("HTTPS_PROXY", f"http://{pytorch.host}")
        locked = _resolve(
            index, _wanted(N="torch"), torch_backend="cu128", exclude_newer="2026-02-01"
        )

    numpy, torch = locked.wheels
    assert (numpy.version, numpy.index) == ("1", index.url)
    assert (torch.version, torch.uploaded) == ("2.7.0+cu128", None)
    assert torch.index == "https://download.pytorch.org/whl/cu128"
    assert torch.url.startswith("https://download.pytorch.org/whl/")
    assert torch.sha256 == wheelmaker.sha256(path)


def test_a_backend_of_torch_does_without_a_connection(folder: str) -> None:
    """Offline the folders of wheels are all there is."""
    wheelmaker.make(folder, "torch", "1+cpu")

    locked = _resolve(
        None, _wanted(N="torch"), wheels_dir=folder, offline=True, torch_backend="cpu"
    )

    assert _versions(locked) == {"torch": "1+cpu"}


def test_what_would_have_to_be_built_is_named(index: IndexServer, folder: str) -> None:
    """Nothing is built, whatever `no_build` says."""
    os.makedirs(folder)
    with tarfile.open(os.path.join(folder, "a-1.tar.gz"), "w:gz"):
        pass

    for setting in (True, False):
        with pytest.raises(SourceError, match=r"^a has no wheel for .*, asked for by N$"):
            _resolve(index, _wanted(N="a"), find_links=(folder,), no_build=setting)


def test_an_index_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")

    with pytest.raises(
        SourceError, match=r"the package index at 127\.0\.0\.1:9 cannot be reached: connection"
    ):
        _resolve(None, _wanted(N="a"), index_url="http://u:p@127.0.0.1:9/simple")


def test_an_index_without_digests_is_measured(index: IndexServer, folder: str) -> None:
    path = wheelmaker.make(folder, "a", "1")
    index.add(path)
    index.mode = "no-hash"
    index.user = "me:s3cret"
    url = index.url.replace("//", "//me:s3cret@")

    locked = _resolve(index, _wanted(N="a"), index_url=url).wheels[0]
    assert (locked.sha256, locked.size) == (wheelmaker.sha256(path), os.path.getsize(path))


def test_settings_of_uv_and_pip_do_not_count(
    index: IndexServer, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A lock is the same whoever makes it."""
    index.add(wheelmaker.make(folder, "a", "1"))
    index.add(wheelmaker.make(folder, "a", "2a1"))
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "uv"
    config.mkdir(parents=True)
    (config / "uv.toml").write_text('prerelease = "allow"\n')
    monkeypatch.setenv("UV_PRERELEASE", "allow")
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "nowhere"))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "nowhere"))

    assert _versions(_resolve(index, _wanted(N="a"))) == {"a": "1"}


def test_overrides_that_cannot_be_read_are_named(index: IndexServer) -> None:
    with pytest.raises(InputError, match=r"^python\.overrides: 'a b' is not a requirement"):
        _resolve(index, _wanted(N="a"), overrides=("a b",))


def test_a_folder_that_is_not_there_is_an_error(index: IndexServer, folder: str) -> None:
    with pytest.raises(CvsError, match="find-links"):
        _resolve(index, _wanted(N="a"), find_links=(folder,))


@pytest.mark.skipif(sys.platform != "linux", reason="wheels of the package index for Linux")
def test_the_public_index_gives_all_that_a_lock_needs() -> None:
    try:
        locked = _resolve(None, _wanted(N="six==1.17.0"), exclude_newer="2025-01-01")
    except SourceError as error:
        pytest.skip(error.message)

    six = locked.wheels[0]
    assert six.sha256 == "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"
    assert (six.size, six.uploaded) == (11050, "2024-12-04T17:35:26Z")
    assert six.url.startswith("https://")
