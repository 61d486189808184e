"""What git, curl and ssh print becomes one sentence."""

import pytest

from cvs.store.errors import SourceError, StoreError
from cvs.versions import git_errors
from cvs.versions.repository import parse

HERE = "https://example.org/a/b"
LOGIN = "a credential helper of git, ~/.netrc or an ssh key is used where there is one"


@pytest.mark.parametrize(
    ("stderr", "message", "hint"),
    [
        (
            "fatal: unable to access 'https://example.org/a/b/': "
            "Could not resolve host: example.org",
            f"{HERE} cannot be reached: its host is not known",
            None,
        ),
        (
            "fatal: unable to access 'https://example.org/a/b/': Failed to connect to "
            "example.org port 443 after 3 ms: Couldn't connect to server",
            f"{HERE} cannot be reached: no connection",
            None,
        ),
        (
            "ssh: connect to host example.org port 22: Connection timed out\n"
            "fatal: Could not read from remote repository.",
            f"{HERE} cannot be reached: no connection",
            None,
        ),
        (
            "ssh: Could not resolve hostname example.org: Name or service not known\n"
            "fatal: Could not read from remote repository.",
            f"{HERE} cannot be reached: its host is not known",
            None,
        ),
        (
            "fatal: could not read Username for 'https://example.org': terminal prompts disabled",
            f"{HERE} does not exist or needs a login",
            LOGIN,
        ),
        (
            "remote: Invalid username or password.\n"
            "fatal: Authentication failed for 'https://example.org/a/b/'",
            f"{HERE} did not accept the login",
            LOGIN,
        ),
        (
            "git@example.org: Permission denied (publickey).\n"
            "fatal: Could not read from remote repository.",
            f"{HERE} did not accept the login",
            LOGIN,
        ),
        (
            "Host key verification failed.\nfatal: Could not read from remote repository.",
            f"the host key of {HERE} is not known to ssh",
            None,
        ),
        (
            "fatal: unable to access 'https://example.org/a/b/': SSL certificate problem: "
            "self-signed certificate",
            f"{HERE} has no valid certificate",
            None,
        ),
        (
            "fatal: unable to access 'https://example.org/a/b/': server certificate verification "
            "failed. CAfile: none CRLfile: none",
            f"{HERE} has no valid certificate",
            None,
        ),
        (
            "remote: Repository not found.\nfatal: repository 'https://example.org/a/b/' not found",
            f"there is no git repository at {HERE}",
            None,
        ),
        (
            "fatal: https://example.org/a/b/info/refs not valid: is this a git repository?",
            f"there is no git repository at {HERE}",
            None,
        ),
        (
            "fatal: unable to access 'https://example.org/a/b/': The requested URL returned "
            "error: 502",
            f"{HERE} answered with HTTP status 502",
            None,
        ),
        (
            "error: RPC failed; curl 28 Operation too slow. Less than 1 bytes/sec transferred "
            "the last 120 seconds\nfatal: expected flush after ref listing",
            f"{HERE} stopped answering",
            None,
        ),
        (
            "fatal: transport 'file' not allowed",
            f"{HERE} leads to a protocol that is not allowed",
            None,
        ),
        (
            "remote: Enumerating objects: 5, done.\nerror: something\x1b[31m odd\nfatal: It broke.",
            f"git could not read {HERE}: It broke",
            None,
        ),
        ("odd \x1b[31mtext\n", f"git could not read {HERE}: odd  [31mtext", None),
        ("", f"git could not read {HERE}: it said nothing", None),
    ],
)
def test_explain(stderr: str, message: str, hint: str | None) -> None:
    """Each known text has its sentence, the rest is git's own last word, printable."""
    error = git_errors.explain(stderr, parse(HERE, "test"))
    assert isinstance(error, SourceError)
    assert (error.message, error.hint) == (message, hint)


@pytest.mark.parametrize("text", ["No space left on device", "Disk quota exceeded"])
def test_no_space(text: str) -> None:
    """A full disk is not the repository's fault."""
    error = git_errors.explain(f"fatal: write error: {text}", parse(HERE, "test"))
    assert isinstance(error, StoreError)
    assert error.message == f"no space for temporary files while fetching {HERE}"
    assert error.hint == "TMPDIR names the folder where they go"


def test_what_a_server_lacks() -> None:
    """A commit that is not given, one that is not there, and an object that is lost."""
    refused = "error: Server does not allow request for unadvertised object aaaa"
    absent = "fatal: remote error: upload-pack: not our ref aaaa"
    assert git_errors.refuses_bare_commit(refused)
    assert not git_errors.refuses_bare_commit(absent)
    assert git_errors.has_no_commit(absent)
    assert not git_errors.has_no_commit(refused)
    lost = f"remote: fatal: unable to read {'b' * 40}        \nfatal: protocol error"
    assert git_errors.missing_object(lost) == "b" * 40
    assert git_errors.missing_object(absent) is None
