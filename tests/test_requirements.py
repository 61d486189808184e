"""Reading requirement files: what is wanted, what is ignored, what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cvs.store import damage, ingest
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError
from cvs.versions import requirements
from cvs.versions.requirements import Project, Requirement, Requirements


def _texts(text: str | bytes, **files: bytes) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    read = requirements.parse(data, requirer="N", read=lambda path: files.get(path))
    return [one.text for one in read.wanted]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("# only a comment\n\n   \n", []),
        ("numpy>=2  # why\n", ["numpy>=2"]),
        ("a\r\nb\r\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        ("a\nb\n".encode("utf-16"), ["a", "b"]),
        ('a ; python_version<"3.12"\n', ['a; python_version < "3.12"']),
        ("a[x,y]~=1.4.2", ["a[x,y]~=1.4.2"]),
        ("a==1 \\\n  --hash=sha256:00 \\\n  --hash=sha256:11\nb\n", ["a==1", "b"]),
        ("a==1 --hash=sha256:00\n", ["a==1"]),
        ("a \\\n>=1\n", ["a>=1"]),
        ("a>=1 \\\n", ["a>=1"]),
        ("# a \\\nb\n", ["b"]),
        (
            "https://x.org/d/a_b-1.0-py3-none-any.whl#sha256=0",
            ["a-b @ https://x.org/d/a_b-1.0-py3-none-any.whl#sha256=0"],
        ),
        (
            "a @ https://x.org/a-1%2Bcpu-py3-none-any.whl",
            ["a @ https://x.org/a-1%2Bcpu-py3-none-any.whl"],
        ),
    ],
)
def test_what_is_wanted(text: str | bytes, wanted: list[str]) -> None:
    assert _texts(text) == wanted


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("--extra-index-url https://u:p@x.org/simple", "--extra-index-url https://x.org/simple"),
        ("-f https://x.org/wheels", "-f https://x.org/wheels"),
        ("--pre", "--pre"),
        ("-e .", "-e ."),
        ("-c constraints.txt", "-c constraints.txt"),
        ("./local", "./local"),
        ("/opt/a-1-py3-none-any.whl", "/opt/a-1-py3-none-any.whl"),
        ("wheels/a-1-py3-none-any.whl", "wheels/a-1-py3-none-any.whl"),
        ("hg+https://token@x.org/a/b", "hg+https://x.org/a/b"),
        ("a @ svn+https://x.org/a/b@main", "a @ svn+https://x.org/a/b@main"),
        ("-e ./git+local", "-e ./git+local"),
        ("http://x.org/a-1.tar.gz", "http://x.org/a-1.tar.gz"),
        ("https://x.org/a-1.tar.lz", "https://x.org/a-1.tar.lz"),
        ("https://x.org/a.whl", "https://x.org/a.whl"),
        ("http://x.org/a-1-py3-none-any.whl", "http://x.org/a-1-py3-none-any.whl"),
        ("a @ file:///a-1-py3-none-any.whl", "a @ file:///a-1-py3-none-any.whl"),
    ],
)
def test_what_is_not_followed_is_listed_without_credentials(line: str, shown: str) -> None:
    read = requirements.parse(f"{line}\nb\n".encode(), requirer="N")

    assert read.ignored == (f"N: {shown}",)
    assert [one.text for one in read.wanted] == ["b"]


def test_options_behind_a_requirement_are_not_followed_either() -> None:
    read = requirements.parse(b"a>1 --index-url https://u:p@x.org/s --hash=md5:0\n", requirer="N")

    assert ([one.text for one in read.wanted], read.ignored) == (
        ["a>1"],
        ("N: --index-url https://x.org/s",),
    )
    with pytest.raises(InputError, match=r"^python_packages\[0\]: options such as '--pre' have"):
        requirements.packages(["a --pre"])


def test_a_line_that_is_no_requirement_is_named_by_file_and_line() -> None:
    with pytest.raises(InputError, match=r"^N/requirements\.txt:3: 'numpy=>2' is not a requirem"):
        _texts("a\n\nnumpy=>2\n")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InputError, match=r"N/requirements\.txt is not text \(byte 1\)"):
        _texts(b"a\xff")


def test_included_files_are_read_from_the_same_tree() -> None:
    read = requirements.parse(
        b"-r sub/more.txt\nz\n",
        requirer="N",
        read={"sub/more.txt": b"a\n--requirement=../b.txt", "b.txt": b"b\n"}.get,
    )

    assert read.wanted == (
        Requirement("a", "N", "N/sub/more.txt:1"),
        Requirement("b", "N", "N/b.txt:1"),
        Requirement("z", "N", "N/requirements.txt:2"),
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-r none.txt", "there is no none.txt in N"),
        ("-r ../other.txt", "not a file of the same tree"),
        ("-r /etc/passwd", "not a file of the same tree"),
        ("-r https://x.org/r.txt", "not a file of the same tree"),
        ("-r requirements.txt", "includes itself"),
    ],
)
def test_includes_that_lead_elsewhere_are_refused(line: str, problem: str) -> None:
    with pytest.raises(InputError, match=rf"^N/requirements\.txt:1: .*{problem}"):
        _texts(line)


def test_packages_of_a_user_must_be_lockable() -> None:
    assert requirements.packages(["a", " b>1 "]).wanted == (
        Requirement("a", "python_packages", "python_packages[0]"),
        Requirement("b>1", "python_packages", "python_packages[1]"),
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a b", r"python_packages\[0\]: 'a b' is not a requirement"),
        ("", "is not a requirement"),
        (
            "hg+https://u:p@x.org/a",
            "'hg\\+https://x.org/a' is a repository of another kind than git: it cannot be locked",
        ),
        ("./a", "is a local path: it cannot be locked"),
        ("a @ https://x.org/a-1", "is not the URL of a wheel or of a source archive: it cannot"),
    ],
)
def test_packages_of_a_user_that_cannot_be_locked_are_refused(line: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        requirements.packages([line])


def test_a_stored_tree_is_asked_for_its_file(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "Node"
    folder.mkdir()
    (folder / "requirements.txt").write_text("a\n-r ü.txt\n")
    (folder / "ü.txt").write_text("b\n")
    entry = ingest.add_path(store, str(folder))
    (folder / "requirements.txt").unlink()
    without = ingest.add_path(store, str(folder))

    read = requirements.of_tree(store, entry, "Node")
    assert [(one.requirer, one.text) for one in read.wanted] == [("Node", "a"), ("Node", "b")]
    assert requirements.of_tree(store, without, "Node") == Requirements()


def test_a_damaged_tree_is_not_asked(store: Store, small: Callable[..., EntryId]) -> None:
    """What was found damaged decides nothing."""
    entry = small("Node", {"requirements.txt": b"a\n"})
    damage.mark(store.volume, entry)
    with pytest.raises(IntegrityError, match=f"entry {entry[:16]} is damaged"):
        requirements.of_tree(store, entry, "Node")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a; " + "(" * 2000 + "os_name=='x'" + ")" * 2000, "is nested too deep"),
        ("a" * 4097, "the line is longer than 4096 characters"),
        ("x" + " " * 100_000 + "y", "the line is longer than 4096 characters"),
        ("\\\n" * 100_000 + "!", "'!' is not a requirement"),
        ("-r " + "a/" * 2000, "there is no a/a/a"),
        ("\x1b[31m==1", r"'\x1b[31m==1' is not a requirement"),
    ],
)
def test_lines_that_nobody_means(line: str, problem: str) -> None:
    """However a file is made to stop its reader, it is one sentence."""
    with pytest.raises(InputError) as caught:
        _texts(line)
    assert problem in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("url", ["https://[x/a-1-py3-none-any.whl", "a @ https://[x]y/a-1.whl"])
def test_urls_that_are_none(url: str) -> None:
    """What no URL can be is not followed, like others that cannot be locked."""
    read = requirements.parse(url.encode(), requirer="N")

    assert read == Requirements(ignored=(f"N: {url}",))


def test_ignored_lines_are_fit_for_a_lock() -> None:
    """A line that is noted is one line that a terminal can show, not longer than anybody reads,
    and has no credentials."""
    token = "t" * 600
    text = f"-e \tx\x1b[31m\n-f https://{token}@x.org/{'y' * 600}\n"
    first, second = requirements.parse(text.encode(), requirer="N").ignored

    assert first == "N: -e \\tx\\x1b[31m"
    assert second.startswith("N: -f https://x.org/yyy")
    assert len(second) == 503


def test_a_file_of_any_size_is_refused(store: Store, tmp_path: Path) -> None:
    """A file that is larger than any list of packages is not read."""
    (tmp_path / "N").mkdir()
    (tmp_path / "N/requirements.txt").write_bytes(b"#" * ((1 << 20) + 1))
    entry = ingest.add_path(store, str(tmp_path / "N"))

    with pytest.raises(InputError, match=r"^N/requirements\.txt is larger than 1 MiB$"):
        requirements.of_tree(store, entry, "N")


def test_a_file_that_is_included_twice_is_read_once() -> None:
    """Files that include each other over and over end, and what they ask for is asked for once."""
    files = {f"{number}.txt": b"-r %d.txt\n" % (number + 1) * 1000 for number in range(6)}
    files["6.txt"] = b"a\n"
    read = requirements.parse(b"-r 0.txt\n" * 1000, requirer="N", read=files.get)

    assert [one.text for one in read.wanted] == ["a"]


@pytest.mark.parametrize(
    ("line", "project"),
    [
        ("git+https://x.org/a/b", Project("https://x.org/a/b", True)),
        ("git+https://token@x.org/a/b.git", Project("https://token@x.org/a/b.git", True)),
        ("git+https://x.org/a/b@v1.0", Project("https://x.org/a/b", True, "v1.0")),
        (
            "-e git+https://x.org/a/b@main#egg=The_B[one]&subdirectory=py/b",
            Project("https://x.org/a/b", True, "main", "py/b", "the-b", "[one]"),
        ),
        (
            "The.B[two,one] @ git+ssh://git@x.org/a/b@f/x ; python_version > '3'",
            Project(
                *("ssh://git@x.org/a/b", True, "f/x", "", "the-b", "[one,two]"),
                marker='python_version > "3"',
            ),
        ),
        (
            "https://x.org/a/archive/refs/heads/main.zip",
            Project("https://x.org/a/archive/refs/heads/main.zip", False),
        ),
        (
            "b @ https://x.org/b-1.0.tar.gz#sha256=abc",
            Project("https://x.org/b-1.0.tar.gz", False, name="b"),
        ),
    ],
)
def test_what_is_built_first(line: str, project: Project) -> None:
    """A repository or a source archive says where the source is, and maybe what it is."""
    (found,) = requirements.parse(line.encode(), requirer="N").wanted

    assert found.project == project
    assert found.text.replace('"', "'") == line.removeprefix("-e ").replace(
        "The.B[two,one]", "The.B[one,two]"
    )


@pytest.mark.parametrize("folder", ["../x", "a/../../x", "$HOME", "a//b"])
def test_a_project_that_is_elsewhere(folder: str) -> None:
    """A subdirectory stays in its repository."""
    with pytest.raises(InputError, match=r"^N/requirements.txt:1: subdirectory: "):
        requirements.parse(f"git+https://x.org/a#subdirectory={folder}".encode(), requirer="N")
