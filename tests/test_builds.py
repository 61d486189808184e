"""Wheels that have to be built: chosen by the real uv, built in the real sandbox."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import sourcemaker
import wheelmaker
from gitserver import DATE, GitServer, Source
from indexserver import IndexServer

from cvs.store import seal, unplugged
from cvs.store.entries import Store
from cvs.store.errors import InputError, OfflineError, SourceError
from cvs.store.volume import Volume
from cvs.versions import building, interpreter, python, requirements, wheels
from cvs.versions.access import Access
from cvs.versions.builds import Builder, Builds
from cvs.versions.lock import Python, Wheel
from cvs.versions.spec import PythonSettings

STATES = (seal.state(), unplugged.state())
pytestmark = pytest.mark.skipif(set(STATES) != {"full"}, reason=", ".join(STATES))

PROBE = interpreter.probe(interpreter.find(None))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with IndexServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "made")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "volume")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "git").mkdir()
    with GitServer(tmp_path / "git") as running:
        yield running


def local() -> Access:
    """Repositories of this machine may be read; a new one each time, as it is told to stop."""
    return Access(allow_local=True)


def new_store(path: Path) -> Store:
    volume = Volume(str(path))
    volume.prepare()
    return Store(volume)


def resolve(
    store: Store,
    index: IndexServer | None,
    *lines: str,
    access: Access | None = None,
    previous: Python | None = None,
    exclude_newer: str | None = None,
    **settings: object,
) -> Python:
    """The lock of requirements, as `python_packages`."""
    if index is not None:
        settings.setdefault("index_url", index.url)
    chosen = PythonSettings(**settings)  # type: ignore[arg-type]
    access = access or local()
    return python.resolve(
        requirements.packages(lines).wanted,
        settings=chosen,
        probe=PROBE,
        exclude_newer=exclude_newer,
        previous=previous,
        wheels_dir=access.wheels_dir,
        offline=access.offline,
        builds=Builds(store, Builder(chosen, PROBE, access), exclude_newer, previous),
    )


def by_name(locked: Python) -> dict[str, Wheel]:
    return {one.name: one for one in locked.wheels}


def versions(locked: Python) -> dict[str, str]:
    return {one.name: one.version for one in locked.wheels}


def project(server: GitServer, name: str, files: dict[str, str], *, below: str = "") -> str:
    """A repository with a project; the commit is its main branch."""
    source = Source(server.root / name)
    server_files = {f"{below}{path}".encode(): text.encode() for path, text in files.items()}
    source.commit(server_files)
    return f"git+{server.url}/{name}"


def tip(server: GitServer, name: str) -> str:
    """The commit that a repository's main branch is."""
    return (server.root / name / "refs/heads/main").read_text().strip()


def test_a_source_archive_is_built(index: IndexServer, folder: str, store: Store) -> None:
    """The lock has the wheel, and all that it was built from; what it needs is there as well."""
    tools = wheelmaker.make(folder, "tools", "3")
    tools_url = index.add(tools)
    more_url = index.add(wheelmaker.make(folder, "more", "1"))
    index.add(wheelmaker.make(folder, "needed", "1"))
    path = sourcemaker.sdist(
        *(folder, "Top-a", "1.5"),
        requires=["needed>=1", "extra-one; extra == 'x'"],
        extras=["x"],
        build_requires=["tools>=2"],
        asks=["more"],
        hook="import tools, more; files['said.txt'] = tools.VERSION.encode()",
    )
    url = index.add(path, "2026-02-03T04:05:06Z")

    locked = resolve(store, index, "top-a>1")

    assert versions(locked) == {"needed": "1", "top-a": "1.5"}
    top = by_name(locked)["top-a"]
    assert (top.file, top.url, top.uploaded) == (
        *("Top_a-1.5-py3-none-any.whl", ""),
        "2026-02-03T04:05:06Z",
    )
    assert (top.index, top.required_by) == (index.url, ("python_packages",))
    built = top.built
    assert built is not None
    assert (built.url, built.file, built.sha256, built.date) == (
        *(url, os.path.basename(path), wheelmaker.sha256(path), "2026-02-03T04:05:06Z"),
    )
    assert [(one.name, one.url) for one in built.requires] == [
        *(("more", more_url), ("tools", tools_url)),
    ]
    assert (built.commit, built.request, built.compiler) == ("", "", "")
    assert by_name(locked)["needed"].required_by == ("top-a",)
    assert wheels.missing(store, msgspec.structs.replace(locked, wheels=(top,))) == []


def test_built_once(index: IndexServer, folder: str, store: Store, tmp_path: Path) -> None:
    """A volume that has built something does not fetch its source again; its lock is the same."""
    path = sourcemaker.sdist(folder, "a", "1")
    index.add(path)
    first = resolve(store, index, "a")
    index.paths.clear()

    assert resolve(store, index, "a") == first
    assert resolve(store, index, "a", previous=first) == first
    assert [one for one in index.paths if one.endswith(".gz")] == []

    other = resolve(new_store(tmp_path / "other"), index, "a")
    assert other == first
    assert [one for one in index.paths if one.endswith(".gz")] != []


def test_wheels_go_first(index: IndexServer, folder: str, store: Store) -> None:
    """A version with a wheel is taken before a newer one without; a range may ask for that one."""
    index.add(wheelmaker.make(folder, "a", "1"))
    index.add(sourcemaker.sdist(folder, "a", "2"))

    assert versions(resolve(store, index, "a")) == {"a": "1"}
    assert versions(resolve(store, index, "a>1")) == {"a": "2"}


def test_what_is_built_says_what_it_needs(index: IndexServer, folder: str, store: Store) -> None:
    """What the newest needs does not fit: an older one is built and taken."""
    index.add(wheelmaker.make(folder, "base", "1"))
    index.add(wheelmaker.make(folder, "base", "2"))
    for version, needs in (("1", "base<2"), ("2", "base<3"), ("3", "base>=2")):
        index.add(sourcemaker.sdist(folder, "a", version, requires=[needs]))

    locked = resolve(store, index, "a", "base<2")

    assert versions(locked) == {"a": "2", "base": "1"}


def test_of_two_one_is_built(index: IndexServer, folder: str, store: Store) -> None:
    """A package that has neither a fitting wheel nor a source is the one that is named."""
    index.add(sourcemaker.sdist(folder, "a", "1"))
    index.add(wheelmaker.make(folder, "b", "1", tag="cp38-cp38-win_amd64"))

    with pytest.raises(SourceError) as caught:
        resolve(store, index, "a", "b")

    assert caught.value.message == (
        f"b has no wheel for {PROBE.abi} on {PROBE.platform} and no source archive, "
        "asked for by python_packages"
    )


def test_nothing_is_built(index: IndexServer, folder: str, store: Store, server: GitServer) -> None:
    """Where that is not wanted each is refused by its name; nothing ran, nothing is stored."""
    index.add(sourcemaker.sdist(folder, "a", "1"))
    repository = project(server, "b", sourcemaker.files("b", "1"))

    with pytest.raises(SourceError, match=r"^a has no wheel for ") as archive:
        resolve(store, index, "a", no_build=True)
    with pytest.raises(InputError) as git:
        resolve(store, index, repository, no_build=True)

    assert "it would have to be built, and nothing is built here" in (archive.value.hint or "")
    assert git.value.message == (
        f"python_packages[0]: {repository} would have to be built, and nothing is built here"
    )
    assert list(store.ids()) == []


@pytest.mark.parametrize("below", ["", "py/project/"])
def test_a_repository_is_built(
    index: IndexServer, folder: str, store: Store, server: GitServer, below: str
) -> None:
    """A line names a repository; the lock has the commit, and what the wheel needs."""
    index.add(wheelmaker.make(folder, "needed", "1"))
    index.add(wheelmaker.make(folder, "optional", "1"))
    made = sourcemaker.files(
        *("Some.Thing", "2"),
        requires=["needed", "optional; extra == 'x'"],
        extras=["x"],
    )
    address = project(server, "repo", made, below=below)
    where = f"#subdirectory={below.rstrip('/')}" if below else ""

    locked = resolve(store, index, f"some-thing[x] @ {address}@main{where}")
    bare = resolve(store, index, f"{address}{where}")

    assert versions(locked) == {"needed": "1", "optional": "1", "some-thing": "2"}
    assert versions(bare) == {"needed": "1", "some-thing": "2"}
    one = by_name(locked)["some-thing"]
    assert one.built is not None
    assert one.built.url == address.removeprefix("git+")
    assert one.built.commit == tip(server, "repo")
    assert (one.uploaded, one.built.date) == (DATE, DATE)
    assert (one.built.subdirectory, one.built.sha256) == (below.rstrip("/"), "")
    assert one.required_by == ("python_packages",)


def test_a_branch_stays_until_it_is_asked_for(
    index: IndexServer, store: Store, server: GitServer
) -> None:
    """A lock's commit stays while the requirement is the same; another ref is another one."""
    address = project(server, "a", sourcemaker.files("a", "1"))
    first = resolve(store, index, f"{address}@main")
    moved = {path.encode(): text.encode() for path, text in sourcemaker.files("a", "2").items()}
    source = Source(server.root / "a")
    source.commit(moved)

    assert resolve(store, index, f"{address}@main", previous=first) == first
    assert versions(resolve(store, index, f"{address}@main")) == {"a": "2"}
    assert versions(resolve(store, index, address, previous=first)) == {"a": "2"}


def test_a_repository_that_asks_for_another(
    index: IndexServer, store: Store, server: GitServer
) -> None:
    """What a built package needs may be a repository too, and a marker may leave it out."""
    below = project(server, "below", sourcemaker.files("below", "1"))
    top = project(
        server,
        "top",
        sourcemaker.files(
            "top",
            "1",
            requires=[f"below @ {below}", "nowhere @ git+https://x.invalid/y; sys_platform == 'x'"],
        ),
    )

    locked = resolve(store, index, top)

    assert versions(locked) == {"below": "1", "top": "1"}
    assert by_name(locked)["below"].required_by == ("top",)


def test_repositories_without_end(index: IndexServer, store: Store, server: GitServer) -> None:
    """A package that asks for its own repository ends, and so do two that ask for each other."""
    address = f"git+{server.url}/a"
    project(server, "a", sourcemaker.files("a", "1", requires=[f"a @ {address}"]))

    assert versions(resolve(store, index, address)) == {"a": "1"}


def test_a_build_asks_git_for_the_version(
    index: IndexServer, store: Store, server: GitServer
) -> None:
    """Tools that do are given the history and the tags."""
    hook = """
    import subprocess
    said = subprocess.run(["git", "describe", "--tags"], capture_output=True, check=True).stdout
    listed = subprocess.run(["git", "status", "--short"], capture_output=True, check=True).stdout
    files["said.txt"] = said
    files["listed.txt"] = listed
    """
    made = sourcemaker.files("a", "1", hook=hook)
    made["pyproject.toml"] += "# setuptools-scm\n"
    address = project(server, "a", made)
    source = Source(server.root / "a")
    source.tag("v3", tip(server, "a"))
    between = source.commit({b"x": b"1"}, parents=(tip(server, "a"),))
    again = {path.encode(): text.encode() for path, text in made.items()}
    commit = source.commit(again, parents=(between,))

    one = by_name(resolve(store, index, address))["a"]

    assert content(store, one, "said.txt") == f"v3-2-g{commit[:7]}\n".encode()
    assert content(store, one, "listed.txt") == b""


def content(store: Store, one: Wheel, path: str) -> bytes:
    """A file of a built wheel, as it is stored."""
    from cvs.versions import wheel

    entry = wheel.stored(store, one.sha256, PROBE.abi)
    assert entry is not None
    return Path(store.get(entry), "site-packages", path).read_bytes()


def test_what_a_build_sees(
    index: IndexServer, folder: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable of ours with a secret, no network, no place to write but its own."""
    monkeypatch.setenv("UV_INDEX_PRIVATE_PASSWORD", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    outside = Path(folder, "outside")
    hook = f"""
    import json, os, socket
    said = dict(os.environ)
    for name, call in (
        ("socket", lambda: socket.socket()),
        ("write", lambda: open({str(outside)!r}, "w")),
        ("store", lambda: open({store.volume.root!r} + "/store/x", "w")),
        # This runs outside of the sandbox too, when more is installed.
        ("python", lambda: os.unlink(os.environ["VIRTUAL_ENV"] + "/bin/python")),
        ("package", lambda: open(os.environ["VIRTUAL_ENV"] + "/lib/x.pth", "w")),
    ):
        try:
            call()
            said[name] = "done"
        except OSError as error:
            said[name] = error.strerror
    files["said.json"] = json.dumps(said).encode()
    """
    # Also a hook that is asked for more comes before what is installed then.
    index.add(wheelmaker.make(folder, "more", "1"))
    index.add(sourcemaker.sdist(folder, "a", "1", hook=hook, asks=["more"]), None)

    one = by_name(resolve(store, index, "a"))["a"]
    said = msgspec.json.decode(content(store, one, "said.json"), type=dict[str, str])

    assert "secret" not in said.values()
    names = ("socket", "write", "store", "python", "package")
    assert {said[name] for name in names} == {"Permission denied"}
    assert (said["SOURCE_DATE_EPOCH"], said["PYTHONHASHSEED"]) == ("315619200", "0")
    assert not outside.exists()


@pytest.mark.parametrize(
    ("hook", "message", "hint"),
    [
        ("raise ValueError('no such thing')", "ValueError: no such thing", None),
        ("import nothing_like_that", "named 'nothing_like_that'", "it needs nothing_like_that to"),
        ("import os; os._exit(3)", "Backend subprocess exited", None),
        ("files.clear(); files['../x.py'] = b''", "has a file that would lie outside", None),
    ],
)
def test_a_build_that_fails(
    index: IndexServer, folder: str, store: Store, hook: str, message: str, hint: str | None
) -> None:
    """One sentence with what the build said last; nothing is stored and nothing left."""
    index.add(sourcemaker.sdist(folder, "a", "1", hook=hook))

    with pytest.raises(SourceError) as caught:
        resolve(store, index, "a")

    assert caught.value.message.startswith(("a 1 cannot be built: ", "the wheel a-1"))
    assert message in caught.value.message
    assert caught.value.message.endswith(" (asked for by python_packages)")
    assert (caught.value.hint or "").startswith(hint or "")
    assert list(store.ids()) == []
    assert os.listdir(store.volume.tmp) == []


@pytest.mark.parametrize(
    "build",
    [
        "import os; os.symlink('/etc/hostname', folder + '/a-1-py3-none-any.whl')",
        "import os; os.mkfifo(folder + '/a-1-py3-none-any.whl')",
        "name = '../' + name; open(folder + '/' + name, 'w').close()",
    ],
)
def test_a_wheel_that_is_elsewhere(
    index: IndexServer, folder: str, store: Store, build: str
) -> None:
    """What a build names as its wheel is a file, where it was told to put it."""
    made = sourcemaker.files("a", "1")
    made["backend.py"] = (
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        f"    name = 'a-1-py3-none-any.whl'\n    {build}\n    return name\n"
    )
    path = sourcemaker.archive(folder, "a-1.tar.gz", {f"a-1/{one}": made[one] for one in made})
    index.add(path)

    with pytest.raises(SourceError, match="which is not a file of its own"):
        resolve(store, index, "a")
    assert list(store.ids()) == []


def test_a_build_that_is_another(
    index: IndexServer, folder: str, store: Store, server: GitServer
) -> None:
    """What comes out has to be what was asked for."""
    liar = sourcemaker.sdist(folder, "a", "1")
    os.rename(liar, f"{folder}/b-1.tar.gz")
    index.add(f"{folder}/b-1.tar.gz")
    address = project(server, "a", sourcemaker.files("a", "1"))

    with pytest.raises(SourceError, match=r"^b-1.tar.gz builds a 1 instead of b 1 "):
        resolve(store, index, "b")
    with pytest.raises(InputError) as caught:
        resolve(store, index, f"b @ {address}")
    assert caught.value.message == f"python_packages[0]: b @ {address} is a, not b"


def test_one_package_from_two_places(index: IndexServer, store: Store, server: GitServer) -> None:
    """Two repositories for one package are named with who wants them."""
    first = project(server, "one", sourcemaker.files("a", "1"))
    second = project(server, "two", sourcemaker.files("a", "2"))

    with pytest.raises(InputError) as caught:
        resolve(store, index, first, second)

    assert caught.value.message == (
        f"a is wanted from two places: python_packages wants {first}, "
        f"python_packages wants {second}"
    )


def again(store: Store, locked: Python, access: Access, **settings: object) -> Sequence[str]:
    """Fetches a lock's wheels into another store; what it has then."""
    wheels.fetch(
        store,
        locked,
        settings=PythonSettings(**settings),  # type: ignore[arg-type]
        access=access,
    )
    return list(store.ids())


def test_another_volume_builds_the_same(
    index: IndexServer, folder: str, store: Store, server: GitServer, tmp_path: Path
) -> None:
    """From the lock alone: the same source, the same tools, the same wheel, the same entries."""
    index.add(wheelmaker.make(folder, "tools", "1"))
    index.add(sourcemaker.sdist(folder, "a", "1", build_requires=["tools"]))
    address = project(server, "b", sourcemaker.files("b", "1", hook="files['t'] = b'x'"))
    locked = resolve(store, index, "a", address)
    index.add(wheelmaker.make(folder, "tools", "2"))
    wheels.fetch(store, locked, settings=PythonSettings())

    assert sorted(again(new_store(tmp_path / "other"), locked, local())) == sorted(store.ids())


def test_a_second_build_is_another(
    index: IndexServer, folder: str, store: Store, tmp_path: Path
) -> None:
    """A build that gives something else each time is refused, and says how to go on."""
    hook = "import uuid; files['t'] = uuid.uuid4().bytes"
    index.add(sourcemaker.sdist(folder, "a", "1", hook=hook))
    locked = resolve(store, index, "a")
    other = new_store(tmp_path / "other")

    with pytest.raises(SourceError) as caught:
        again(other, locked, local())

    assert caught.value.message.startswith(
        "a 1 was built from its source as it is locked, and is not the wheel of the lock"
    )
    assert "cvs update --package a" in (caught.value.hint or "")
    assert list(other.ids()) == []


def test_the_source_was_replaced(
    index: IndexServer, folder: str, store: Store, tmp_path: Path
) -> None:
    """Other bytes under the same address are refused."""
    index.add(sourcemaker.sdist(folder, "a", "1"))
    locked = resolve(store, index, "a")
    index.add(sourcemaker.sdist(folder, "a", "1", content={"a.py": "EVIL = True"}))

    with pytest.raises(SourceError, match="is not what the lock names: it has another SHA-256"):
        again(new_store(tmp_path / "other"), locked, local())


def test_without_a_connection(
    index: IndexServer, folder: str, store: Store, tmp_path: Path
) -> None:
    """A folder with the source and the tools is enough, to lock and to build; else it is named."""
    near = str(tmp_path / "near")
    wheelmaker.make(near, "tools", "1")
    sourcemaker.sdist(near, "a", "1", build_requires=["tools"])
    offline = Access(offline=True, wheels_dir=near)

    locked = resolve(store, None, "a", access=offline)

    built = by_name(locked)["a"].built
    assert built is not None
    assert (built.url, built.file) == ("", "a-1.tar.gz")
    assert again(new_store(tmp_path / "other"), locked, offline) != []

    index.add(sourcemaker.sdist(folder, "b", "1"))
    online = resolve(store, index, "b")
    with pytest.raises(OfflineError, match=r"^b-1.tar.gz is needed for a build and no connection"):
        again(new_store(tmp_path / "third"), online, Access(offline=True))


def test_a_lock_whose_wheels_must_not_be_built(
    index: IndexServer, folder: str, store: Store, tmp_path: Path
) -> None:
    """What is stored is taken; what would have to be built is named."""
    index.add(sourcemaker.sdist(folder, "a", "1"))
    locked = resolve(store, index, "a")
    refusing = Access(no_build=True)

    assert again(store, locked, refusing) != []
    with pytest.raises(SourceError) as caught:
        again(new_store(tmp_path / "other"), locked, refusing)
    assert caught.value.message == (
        "wheels that are not stored would have to be built: a-1-py3-none-any.whl"
    )


COMPILED = """
import os, subprocess
open("a.c", "w").write("int answer(void) { return 42; }\\n")
flags = os.environ["CFLAGS"].split()
path = os.path.abspath("a.c")
subprocess.run(["cc", "-shared", "-fPIC", "-g", *flags, path, "-o", "a.so"], check=True)
files["a.so"] = open("a.so", "rb").read()
"""


@pytest.mark.skipif(not building.compiler("x-1-cp311-cp311-linux.whl"), reason="no C compiler")
def test_compiled_code(index: IndexServer, folder: str, store: Store, tmp_path: Path) -> None:
    """The folder of a build leaves no trace in compiled code; the lock names the compiler, and
    asks for the C library that it was linked with."""
    tag = f"{PROBE.abi}-{PROBE.abi}-{PROBE.platform}"
    index.add(sourcemaker.sdist(folder, "a", "1", hook=COMPILED, tag=tag))

    locked = resolve(store, index, "a")

    one = by_name(locked)["a"]
    assert one.built is not None
    assert one.built.compiler == building.compiler(one.file)
    assert content(store, one, "a.so")[:4] == b"\x7fELF"
    libc = PROBE.libc.removeprefix("glibc ")
    assert (locked.interpreter.glibc_needed, locked.interpreter.glibc_needed_by) == (libc, one.file)
    assert again(new_store(tmp_path / "other"), locked, local()) != []


def test_a_wheel_for_another_system(index: IndexServer, folder: str, store: Store) -> None:
    """A build that gives a wheel for elsewhere is refused with its name."""
    index.add(sourcemaker.sdist(folder, "a", "1", tag="cp38-cp38-win_amd64"))

    with pytest.raises(SourceError, match=r"^a 1 builds 'a-1-cp38-cp38-win_amd64.whl', which does"):
        resolve(store, index, "a")
