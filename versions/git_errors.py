"""What went wrong, in one sentence: from what git prints to an error for the user. Pure."""

import re

from cvs.store.errors import CvsError, SourceError, StoreError
from cvs.versions.repository import Repository

_LOGIN = "a credential helper of git, ~/.netrc or an ssh key is used where there is one"

#: What git says, what that means (`{repo}` is the repository), and a cure. The first that fits
#: counts; texts are those of git, curl and ssh in the C locale.
_MEANINGS: tuple[tuple[str, str, str | None], ...] = (
    (r"transport '[^']*' not allowed", "{repo} leads to a protocol that is not allowed", None),
    (
        r"could not read (?:Username|Password)|terminal prompts disabled",
        "{repo} does not exist or needs a login",
        _LOGIN,
    ),
    (
        r"Authentication failed|HTTP Basic: Access denied|returned error: 40[13]|"
        r"Permission denied",
        "{repo} did not accept the login",
        _LOGIN,
    ),
    (r"Host key verification failed", "the host key of {repo} is not known to ssh", None),
    (r"SSL certificate|certificate verif|SSL routines", "{repo} has no valid certificate", None),
    (
        r"Repository not found|repository '[^']*' not found|returned error: (?:404|410)|"
        r"does not appear to be a git repository|not a git repository|cannot change to|"
        r"not valid: is this a git repository",
        "there is no git repository at {repo}",
        None,
    ),
    (r"Could not resolve host", "{repo} cannot be reached: its host is not known", None),
    (
        r"Failed to connect|Couldn't connect|Connection refused|Connection timed out|"
        r"Network is unreachable|No route to host",
        "{repo} cannot be reached: no connection",
        None,
    ),
    (r"Operation too slow|timed out", "{repo} stopped answering", None),
    (r"returned error: (\d+)", "{repo} answered with HTTP status {0}", None),
)

_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_LAST_WORDS = tuple(
    re.compile(rf"^{word}: *(.*\S)", re.MULTILINE) for word in ("fatal", "error", "remote", "ssh")
)


def explain(stderr: str, repository: Repository) -> CvsError:
    """The error that git's messages stand for."""
    if _FULL.search(stderr):
        return StoreError(
            f"no space for temporary files while fetching {repository.shown}",
            hint="TMPDIR names the folder where they go",
        )
    for pattern, sentence, hint in _MEANINGS:
        if found := re.search(pattern, stderr):
            return SourceError(sentence.format(*found.groups(), repo=repository.shown), hint=hint)
    words = [found for pattern in _LAST_WORDS for found in pattern.findall(stderr)[-1:]]
    last = words[0] if words else stderr.strip() or "it said nothing"
    said = "".join(c if c.isprintable() else " " for c in last[:300]).rstrip(".")
    return SourceError(f"git could not read {repository.shown}: {said}")


def refuses_bare_commit(stderr: str) -> bool:
    """Whether the server gives only what its refs name: the commit may well be there."""
    return "unadvertised object" in stderr or "does not allow request" in stderr


def has_no_commit(stderr: str) -> bool:
    """Whether the server says that it does not have the commit."""
    return "not our ref" in stderr or "couldn't find remote ref" in stderr


def missing_object(stderr: str) -> str | None:
    """The object that the server's own repository lacks, if that is what stopped it."""
    found = re.search(
        r"(?:unable to read|missing object|missing blob|bad object) ([0-9a-f]{40,64})", stderr
    )
    return found[1] if found else None
