"""Bad packages, bad indexes and bad requirement files, through the real commands and the real uv.

Each is one sentence and exit code 2, names who or what is to blame, and leaves everything as it
was: no entry but commits, nothing half written, the lock untouched.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import wheelmaker
from indexserver import IndexServer, Mode
from world import Done, World

from cvs.store.manifest import TreeManifest
from cvs.versions import http, retry

pytest_plugins = ["world_fixtures"]

FILE = "a-1-py3-none-any.whl"


class Shop(NamedTuple):
    """A world whose Python packages come from an index on this host."""

    world: World
    index: IndexServer

    def sell(self, name: str, version: str, **more: Any) -> str:
        """Puts a wheel into the index."""
        path = wheelmaker.make(str(self.world.folder / "sold"), name, version, **more)
        return self.index.add(path)

    def want(self, *, python: dict[str, Any] | None = None, **nodes: str | bytes) -> None:
        """Writes a spec with nodes whose requirements.txt says so."""
        found = []
        for name, text in nodes.items():
            data = text if isinstance(text, bytes) else text.encode()
            files: dict[bytes, Any] = {b"requirements.txt": data}
            commit = self.world.new_source(f"{name}.git", files)
            found.append({"repo": f"{self.world.url}/{name}.git", "commit": commit})
        settings = {"index_url": self.index.url, "exclude_newer": "none", **(python or {})}
        self.world.spec(custom_nodes=found, models=None, python=settings)

    def run(self, command: str) -> Done:
        """Runs a command; a realize without its trial start."""
        more = ["--no-trial"] if command == "realize" else []
        return self.world.cvs(command, "demo", "--allow-local", *more)

    def refused(self, command: str) -> str:
        """The sentence of a command that has to fail and to leave everything as it was."""
        before = self._left()
        done = self.run(command)
        first, *rest = done.err.splitlines()
        assert (done.code, done.out) == (2, ""), done
        assert first.startswith("error: ")
        assert all(line.startswith("hint: ") for line in rest)
        assert not first.endswith(".")
        assert before == self._left()
        return first.removeprefix("error: ")

    def _left(self) -> dict[str, bytes]:
        """What a failure must not change. Commits may be stored before it, and are right."""
        world = self.world
        world.volume.prepare()
        world.assert_sound()
        for entry in world.store.ids():
            document = world.store.manifest(entry)
            assert isinstance(document, TreeManifest)
            assert "@" in document.origin, "a commit"
        temporary = world.folder / "tmp"
        assert [path for path in temporary.rglob("*") if path.parent != temporary] == []
        return {
            str(path): path.read_bytes()
            for folder in ("resolved", "profiles", "refs/wheel")
            for path in (world.cache / folder).rglob("*")
            if path.is_file()
        }


@pytest.fixture
def shop(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A world with an empty index, whose clients do not wait long."""
    temporary = world.folder / "tmp"
    temporary.mkdir()
    world.environment |= {
        "COMFY_OFFLINE": "false",
        "TMPDIR": str(temporary),
        "UV_CACHE_DIR": str(world.folder / "uv"),
        "UV_HTTP_RETRIES": "0",
        "UV_HTTP_TIMEOUT": "1",
    }
    monkeypatch.setattr(retry, "pause", lambda seconds, stop: None)
    monkeypatch.setattr(http, "TIMEOUTS", (1, 0.2))
    with IndexServer() as index:
        yield Shop(world, index)


# Wheels


def _lie(rows: list[list[str]]) -> list[list[str]]:
    return [[path, "sha256=" + "A" * 43 if hashed else "", size] for path, hashed, size in rows]


BAD_WHEELS: dict[str, tuple[dict[str, Any], str]] = {
    "a RECORD that lies": ({"record": _lie}, "has other bytes in 'a.py' than its RECORD says"),
    "a RECORD without a file": (
        {"record": lambda rows: [row for row in rows if row[0] != "a.py"]},
        "has the file 'a.py' that its RECORD does not name",
    ),
    "a path that climbs": (
        {"files": {"a.py": "", "../evil.py": ""}},
        "has a file that would lie outside, '../evil.py'",
    ),
    "an absolute path": (
        {"files": {"a.py": "", "/etc/evil.py": ""}},
        "has a file that would lie outside, '/etc/evil.py'",
    ),
}


@pytest.mark.parametrize("name", BAD_WHEELS)
def test_wheels_that_lie(shop: Shop, name: str) -> None:
    """A wheel that is not what it says is named with the file in it; it is locked, never stored."""
    arguments, message = BAD_WHEELS[name]
    shop.sell("a", "1", **arguments)
    shop.want(N="a")
    assert shop.run("resolve").code == 0

    assert shop.refused("realize") == f"the wheel {FILE} {message}"
    assert not list(shop.world.folder.rglob("evil.py"))


def test_another_digest_than_that_of_the_lock(shop: Shop) -> None:
    """What an index replaced is refused by its address, and the hint leads to a new lock."""
    shop.sell("a", "1")
    shop.want(N="a")
    assert shop.run("resolve").code == 0
    sold = shop.world.folder / "sold" / FILE
    size = sold.stat().st_size
    for number in range(100):
        url = shop.sell("a", "1", files={"a.py": f"VERSION = {100 + number}\n"})
        if sold.stat().st_size == size:
            break

    message = shop.refused("realize")
    assert message == f"{url} is not what the lock names: it has another SHA-256"
    assert shop.run("update").code == 0
    assert shop.run("realize").code == 0


# Indexes

WHEN_LOCKED: dict[Mode, str] = {
    "404": "does not exist (answer 404)",
    "500": "answered 500, 5 times in a row",
    "garbage": "has 11 bytes instead of {size}",
    "cut": "broke off and cannot be resumed",
    "silent": "did not answer in time, 5 times in a row",
    "redirect": "leads to no file",
}


@pytest.mark.parametrize("mode", WHEN_LOCKED)
def test_an_index_that_fails_when_a_wheel_is_fetched(shop: Shop, mode: Mode) -> None:
    """It is named by the wheel's address; when it works again, all goes on."""
    url = shop.sell("a", "1")
    size = (shop.world.folder / "sold" / FILE).stat().st_size
    shop.want(N="a")
    assert shop.run("resolve").code == 0
    shop.index.files, shop.index.elsewhere = mode, "file:///etc/passwd?"

    assert shop.refused("realize") == f"{url} {WHEN_LOCKED[mode].format(size=size)}"
    shop.index.files = "ok"
    assert shop.run("realize").code == 0


PAGES: dict[Mode, str] = {
    "404": "the package index has no 'a', asked for by N",
    "500": "the package index at {host} answered 500",
    "garbage": "the package index at {host} gave something that is not an index page",
    "cut": "the package index at {host} broke off",
    "silent": "the package index at {host} did not answer in time",
    "redirect": "the package index at {host} did not give what was asked: HTTP 302 Found",
}


@pytest.mark.parametrize("mode", PAGES)
def test_an_index_that_fails_when_versions_are_chosen(shop: Shop, mode: Mode) -> None:
    """It is named by its host; the lock stays what it was."""
    shop.want()
    assert shop.run("resolve").code == 0
    shop.sell("a", "1")
    shop.want(N="a")
    shop.index.mode, shop.index.elsewhere = mode, "file:///etc/passwd?"

    message = shop.refused("resolve")
    assert message.startswith(PAGES[mode].format(host=shop.index.host))
    assert "cause:" not in message


@pytest.mark.parametrize("when", ["resolve", "realize"])
def test_credentials_follow_no_redirect(shop: Shop, when: str) -> None:
    """Another host than that of the index gets neither user nor password; nobody is told them."""
    shop.sell("a", "1")
    shop.index.user = "me:s3cret"
    url = shop.index.url.replace("http://", "http://me:s3cret@")
    shop.want(python={"index_url": url}, N="a")
    with IndexServer() as other:
        other.add(str(shop.world.folder / "sold" / FILE))
        shop.index.elsewhere = f"http://{other.host}"
        if when == "realize":
            assert shop.run("resolve").code == 0
        shop.index.files = "redirect"
        done = shop.run(when)

        assert done.code == 0, done
        assert other.paths != []
        assert set(other.credentials) == {None}
        assert "s3cret" not in done.err + done.out + str(shop.world.lock())


# Requirements that cannot be met


def _one(shop: Shop) -> None:
    shop.sell("a", "1")
    shop.want(N="a>=2")


def _two(shop: Shop) -> None:
    for version in ("1", "2"):
        shop.sell("a", version)
    shop.want(N="a>=2", M="a<2")


def _dependency(shop: Shop) -> None:
    for version in ("1", "2"):
        shop.sell("dep", version)
    shop.sell("x", "1", requires=["dep>=2"])
    shop.want(N="x", M="dep<2", O="dep")


def _dependencies(shop: Shop) -> None:
    for version in ("1", "2"):
        shop.sell("dep", version)
    shop.sell("x", "1", requires=["mid"])
    shop.sell("mid", "1", requires=["dep>=2"])
    shop.sell("y", "1", requires=["dep<2"])
    shop.want(N="x", M="y")


def _constraint(shop: Shop) -> None:
    shop.sell("dep", "2")
    shop.sell("x", "1", requires=["dep>=2"])
    shop.want(python={"constraints": ["dep<2"]}, N="x")


def _missing(shop: Shop) -> None:
    shop.sell("x", "1", requires=["gone>=2"])
    shop.want(N="x")


def _platform(shop: Shop) -> None:
    for tag in ("cp311-cp311-win_amd64", "py3-none-macosx_11_0_arm64"):
        shop.sell("a", "1", tag=tag)
    shop.want(N="a")


def _platform_of_a_dependency(shop: Shop) -> None:
    shop.sell("a", "1", tag="py3-none-win_amd64")
    shop.sell("x", "1", requires=["a"])
    shop.want(N="x")


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (_one, ["N (a>=2) asks for what cannot be had: ", "only a==1 is available"]),
        (_two, ["'M' and 'N' contradict each other on a: M wants a<2, N wants a>=2"]),
        (_dependency, ["N (x)", "M (dep<2)", "contradict each other: ", "x depend on dep>=2"]),
        (_dependencies, ["N (x)", "M (y)", "contradict each other: ", "dep>=2", "dep<2"]),
        (_constraint, ["N (x)", "python.constraints (dep<2)", "contradict each other: "]),
        (_missing, ["the package index has no 'gone', a dependency of N (x)"]),
        (_platform, ["a has no wheel for ", ", asked for by N"]),
        (_platform_of_a_dependency, ["a has no wheel for ", ", a dependency of N (x)"]),
    ],
)
def test_what_cannot_be_met(shop: Shop, make: Callable[[Shop], None], parts: list[str]) -> None:
    """Those who ask are named with what they ask for, also across dependencies."""
    shop.want()
    assert shop.run("resolve").code == 0
    make(shop)

    message = shop.refused("realize")
    assert [part for part in parts if part not in message] == []
    assert " (dep)" not in message, "who has no range is not to blame"


# Requirement files as nodes have them


@pytest.mark.parametrize(
    ("line", "versions", "ignored"),
    [
        ("a==1.*", ["1.5"], []),
        ("a>=1,<1.4 # until it is mended", ["1"], []),
        ("a (>=1,<1.4)", ["1"], []),
        ("a[]", ["1.5"], []),
        ("a>=1,", ["1.5"], []),
        (b"\xef\xbb\xbfa\r\n", ["1.5"], []),
        ("a<1.4\n".encode("utf-16"), ["1"], []),
        ("\u00a0a", ["1.5"], []),
        ("a ; sys_platform == 'win32'", [], []),
        ("a>=1; platform_system == 'Linux' # for all others", ["1.5"], []),
        ("a --index-url https://x.org/w", ["1.5"], ["N: --index-url https://x.org/w"]),
        (
            "--extra-index-url https://me:pw@x.org/s\na",
            ["1.5"],
            ["N: --extra-index-url https://x.org/s"],
        ),
        ("-f https://x.org/links\na", ["1.5"], ["N: -f https://x.org/links"]),
        ("a @ file:///a-1-py3-none-any.whl", [], ["N: a @ file:///a-1-py3-none-any.whl"]),
        ("//a note", [], ["N: //a note"]),
    ],
)
def test_lines_as_nodes_have_them(
    shop: Shop, line: str | bytes, versions: list[str], ignored: list[str]
) -> None:
    """What can be read is, and what is not followed is in the lock without credentials."""
    for version in ("1", "1.5"):
        shop.sell("a", version)
    shop.want(N=line)
    assert shop.run("resolve").code == 0

    python = shop.world.lock()["python"]
    assert [wheel["version"] for wheel in python["wheels"]] == versions
    assert python["ignored"] == ignored


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a==", "N/requirements.txt:2: 'a==' is not a requirement: "),
        ("a=1", "N/requirements.txt:2: 'a=1' is not a requirement: "),
        ("a>=1.0 <2", "N/requirements.txt:2: 'a>=1.0 <2' is not a requirement: "),
        ("a~=1", "N/requirements.txt:2: 'a~=1' is not a requirement: "),
        ("a>=1.*", "N/requirements.txt:2: 'a>=1.*' is not a requirement: "),
        ("a==latest", "N/requirements.txt:2: 'a==latest' is not a requirement: "),
        ("pip install a", "N/requirements.txt:2: 'pip install a' is not a requirement: "),
        ("'a>=1'", "N/requirements.txt:2: \"'a>=1'\" is not a requirement: "),
        ("<<<<<<< HEAD", "N/requirements.txt:2: '<<<<<<< HEAD' is not a requirement: "),
        ("a\u200b", r"N/requirements.txt:2: 'a\u200b' is not a requirement: "),
        ("a\x00", r"N/requirements.txt:2: 'a\x00' is not a requirement: "),
        ("-r more.txt", "N/requirements.txt:2: there is no more.txt in N"),
        (b"a\xff", "N/requirements.txt is not text (byte "),
        ("python>=3.9", "the package index has no 'python', asked for by N"),
    ],
)
def test_lines_that_cannot_be_read(shop: Shop, line: str | bytes, message: str) -> None:
    """They are named by file and line, or by who asks."""
    shop.want()
    assert shop.run("resolve").code == 0
    data = line if isinstance(line, bytes) else line.encode()
    shop.want(N=b"# what it needs\n" + data)

    assert shop.refused("resolve").startswith(message)


def test_a_line_can_be_overruled(shop: Shop) -> None:
    """What a node asks for and nobody has is left out as the hint says."""
    shop.sell("a", "1")
    shop.want(N="python>=3.9\na")
    hint = shop.run("resolve").err.splitlines()[-1]
    override = "python; python_version < '3'"
    assert f'"{override}" in python.overrides leaves it out' in hint
    shop.want(python={"overrides": [override]}, N="python>=3.9\na")

    assert shop.run("resolve").code == 0
    assert [wheel["name"] for wheel in shop.world.lock()["python"]["wheels"]] == ["a"]
