"""Running git: through GitPython, with lists of arguments that were checked before, hardened.

Nothing from the caller's own repository, and nothing from a fetched one, decides what git does:
no hook, filter, helper program or submodule is run, no prompt is shown. The user's own settings
(credential helpers, proxies, certificates, ssh) stay in force.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from cvs.store import temporary
from cvs.store.errors import SourceError
from cvs.versions.repository import Repository

#: Variables by which a surrounding git call, such as a hook that starts cvs, names its own
#: repository.
_FOREIGN = (
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_ATTR_SOURCE", "GIT_COMMON_DIR", "GIT_CONFIG"),
    *("GIT_CONFIG_PARAMETERS", "GIT_DEFAULT_HASH", "GIT_DIR", "GIT_GRAFT_FILE"),
    *("GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_QUARANTINE_PATH", "GIT_REPLACE_REF_BASE"),
    *("GIT_SHALLOW_FILE", "GIT_TEMPLATE_DIR", "GIT_WORK_TREE"),
)

_SETTINGS = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    # Read from the object itself what commits and trees are, not from an index over them.
    ("core.commitGraph", "false"),
    # Larger blobs are streamed instead of held in memory.
    ("core.bigFileThreshold", "16m"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("fetch.unpackLimit", "1"),
    ("fetch.writeCommitGraph", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("protocol.ext.allow", "never"),
    ("protocol.version", "2"),
    ("transfer.bundleURI", "false"),
    # A server that sends nothing for two minutes does not answer any more.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "120"),
)

_VARIABLES = {
    "GCM_INTERACTIVE": "never",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "SSH_ASKPASS_REQUIRE": "never",
}

#: How ssh is called where the user has not said how.
_SSH = ("core.sshCommand", "ssh -o BatchMode=yes -o ConnectTimeout=30")

#: Seconds that git gets to end by itself once it was told to.
_GRACE = 5.0

#: Gives the user name of a URL an empty password where no helper of the user's knows one: that is
#: how a token as user name is meant.
_EMPTY_PASSWORD = '!f() { test "$1" = get && echo password=; }; f'


class Failed(Exception):
    """git ended with an error; `stderr` has no credential in it. Never leaves versions/git.py."""

    def __init__(self, stderr: str) -> None:
        super().__init__(stderr)
        self.stderr = stderr


class Git:
    """Runs git for one repository, in a private folder.

    Args:
        folder: an empty folder of the caller's; its bare repository is `folder/repo`.
        repository: decides which protocols git may speak.
    """

    def __init__(self, folder: str, repository: Repository) -> None:
        self.folder = folder
        self.repository = repository
        self.directory = os.path.join(folder, "repo")
        self._environment = _environment(folder, repository, ())
        if repository.is_ssh and not {"GIT_SSH", "GIT_SSH_COMMAND"} & set(os.environ):
            with self.process("config", "--get", "core.sshCommand") as process:
                own = process.communicate()[0]
            if not own:
                self._environment = _environment(folder, repository, (_SSH,))

    def init(self, commit: str) -> None:
        """Makes the private bare repository, for commits of the kind of `commit`.

        By hand: it is a handful of files whose layout is fixed, and a process less.
        """
        for folder in ("objects/info", "objects/pack", "refs"):
            os.makedirs(os.path.join(self.directory, folder))
        version, more = "0", ""
        if len(commit) == 64:
            version, more = "1", "[extensions]\n\tobjectformat = sha256\n"
        config = f"[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{more}"
        for name, text in (("HEAD", "ref: refs/heads/none\n"), ("config", config)):
            with open(os.path.join(self.directory, name), "w", encoding="ascii") as file:
                file.write(text)

    @property
    def inside(self) -> str:
        """The option that makes git work in the private repository."""
        return f"--git-dir={self.directory}"

    @property
    def local(self) -> str:
        """The folder of a local repository; as for a clone, its `.git` may have been left out."""
        url = self.repository.url
        return url if os.path.isdir(url) else f"{url}.git"

    @contextlib.contextmanager
    def listed(self, ids: Iterable[str]) -> Iterator[IO[bytes]]:
        """Object ids as standard input: a file, since a pipe that both sides fill would hang."""
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.write("".join(f"{id}\n" for id in ids).encode("ascii"))
            file.seek(0)
            yield file

    def output(self, *arguments: str, stdin: IO[bytes] | None = None) -> bytes:
        """Runs git and returns what it prints.

        Raises:
            Failed: it did not end well.
        """
        with self.process(*arguments, stdin=stdin) as process:
            output, errors = process.communicate()
        self.check(process.returncode, errors)
        return output

    @contextlib.contextmanager
    def process(
        self, *arguments: str, stdin: IO[bytes] | None = None
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Starts git; whatever happens inside, it and its children are gone afterwards."""
        try:
            from git.cmd import Git as GitPython
            from git.exc import GitCommandNotFound
        except ImportError:
            raise SourceError("git is not installed", hint="apt install git") from None
        driver = GitPython(self.folder)
        foreign = [option for name in _FOREIGN if name in os.environ for option in ("-u", name)]
        command = [GitPython.GIT_PYTHON_GIT_EXECUTABLE or "git", *arguments]
        if foreign:
            # GitPython can set variables for git but not remove them.
            command = ["env", *foreign, *command]
        try:
            # In our own process group: Ctrl-C in a terminal reaches git in whatever thread it runs.
            handle = driver.execute(
                command,
                istream=stdin,  # type: ignore[arg-type]
                as_process=True,
                env=self._environment,
            )
        except GitCommandNotFound:
            raise SourceError("git is not installed", hint="apt install git") from None
        assert isinstance(handle, GitPython.AutoInterrupt)
        process = handle.proc
        assert process is not None
        try:
            yield process
        finally:
            _end(process)

    def check(self, status: int, errors: bytes) -> None:
        """Raises Failed unless `status` is that of a git that did what it should."""
        if status != 0:
            raise Failed(self._scrubbed(errors))

    def _scrubbed(self, errors: bytes) -> str:
        from urllib.parse import unquote

        text = errors.decode("utf-8", "replace")
        for secret in {self.repository.user, unquote(self.repository.user)} - {""}:
            text = text.replace(secret, "…")
        return text


@contextlib.contextmanager
def workspace(repository: Repository) -> Iterator[Git]:
    """Git in a temporary folder of its own."""
    with temporary.folder() as held:
        yield Git(held.folder, repository)


def _environment(
    folder: str, repository: Repository, more: tuple[tuple[str, str], ...]
) -> dict[str, str]:
    variables = dict(_VARIABLES)
    variables["GIT_ALLOW_PROTOCOL"] = "http:https" if repository.is_loopback else "https:ssh"
    # No repository that happens to lie above the private folder, or above a local one, is meant.
    above = {os.path.dirname(os.path.realpath(folder)), os.path.dirname(folder)}
    settings = [*_SETTINGS, *more]
    if repository.is_local:
        above |= {
            os.path.dirname(repository.url),
            os.path.dirname(os.path.realpath(repository.url)),
        }
        # Named by the user, so trusted to be read whoever owns it.
        settings += [("safe.directory", "*"), ("safe.bareRepository", "all")]
    variables["GIT_CEILING_DIRECTORIES"] = ":".join(sorted(above))
    if repository.user:
        settings += _credential(repository)
    # What the caller's environment configures stays; ours is added behind and wins.
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(count) if count.isascii() and count.isdecimal() else 0
    for index, (key, value) in enumerate(settings, first):
        variables[f"GIT_CONFIG_KEY_{index}"] = key
        variables[f"GIT_CONFIG_VALUE_{index}"] = value
    variables["GIT_CONFIG_COUNT"] = str(first + len(settings))
    return variables


def _credential(repository: Repository) -> list[tuple[str, str]]:
    """The user of a URL as settings: in a URL it would stand in the command line of a helper."""
    from urllib.parse import unquote

    scheme, _, rest = repository.url.partition("://")
    place = f"{scheme}://{rest.partition('/')[0]}"
    return [
        (f"credential.{place}.username", unquote(repository.user)),
        (f"credential.{place}.helper", _EMPTY_PASSWORD),
    ]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process with its children, if it has not ended, and closes its streams."""
    family: list[int] = []
    try:
        if process.poll() is None:
            family = [*_descendants(process.pid), process.pid]
            _signal(family, signal.SIGTERM)
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                pass
    finally:
        if process.poll() is None:
            _signal(family or [process.pid], signal.SIGKILL)
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _descendants(pid: int) -> list[int]:
    """Children, their children and so on, deepest first; none where the kernel does not say."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return []
    return [below for child in children for below in (*_descendants(child), child)]


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
