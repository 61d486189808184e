"""HuggingFace: what is known of a file or folder of a repository before it is fetched.

Asks as the site's own client (huggingface_hub) does. A lock names the commit, at the public
address, whatever address was asked.
"""

import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote, urljoin

import msgspec

from cvs.store.errors import SourceError
from cvs.versions import answers, sources
from cvs.versions.http import Client, Small
from cvs.versions.located import Folder, Located
from cvs.versions.sites import HUGGINGFACE
from cvs.versions.tokens import Tokens, host_of

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r"<([^<>]*)>\s*;[^,]*\brel=\"?next\"?")

#: Pages of a listing, of up to a thousand files each.
_PAGES = 100

_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Sha1 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{40}\Z")]


class _Revision(msgspec.Struct, frozen=True):
    sha: _Sha1


class _Large(msgspec.Struct, frozen=True):
    oid: _Sha256
    size: _Size


class _Item(msgspec.Struct, frozen=True):
    type: str
    path: str
    oid: str = ""
    size: _Size | None = None
    lfs: _Large | None = None


class _Missing(Exception):
    """There is no file of that name: it may be a folder."""


def locate(source: sources.HuggingFace, endpoint: str, tokens: Tokens) -> Located | Folder:
    """What the site knows of a file or folder.

    Raises:
        SourceError: it does not have it, or refuses it.
    """
    client = Client(tokens)
    if not source.folder:
        try:
            return _file(source, endpoint, client)
        except _Missing:
            missing = f"{source.public} does not exist"
        try:
            return _folder(source, endpoint, client)
        except _Missing:
            raise SourceError(missing, hint=_files_hint(source)) from None
    try:
        return _folder(source, endpoint, client)
    except _Missing:
        raise SourceError(
            f"{source.public} is no folder of the repository", hint=_files_hint(source)
        ) from None


def address(source: sources.HuggingFace, endpoint: str) -> str:
    """Where a file is fetched."""
    return asked_at(source.file(source.path), endpoint)


def asked_at(public: str, endpoint: str) -> str:
    """A public address as an address below the endpoint."""
    return endpoint + public.removeprefix(HUGGINGFACE)


def _files_hint(source: sources.HuggingFace) -> str:
    tree = source._replace(path="", folder=True)
    return f"what there is stands at {tree.public}"


def _file(source: sources.HuggingFace, endpoint: str, client: Client) -> Located:
    url = address(source, endpoint)
    answer = client.ask(
        url,
        method="HEAD",
        # Compressed, it would have another length.
        headers={"Accept-Encoding": "identity"},
        follows=_same_host(url),
    )
    _judge(answer, source, client)
    headers = answer.headers
    commit = headers.get("X-Repo-Commit", "")
    if not _COMMIT.fullmatch(commit):
        raise SourceError(f"{source.public}: the answer does not name the commit of the file")
    redirected = 300 <= answer.status < 400
    length = headers.get("X-Linked-Size") or ("" if redirected else headers.get("Content-Length"))
    sha256 = _tag(headers.get("X-Linked-Etag"))
    blob = _tag(headers.get("ETag"))
    return Located(
        source=source._replace(revision=commit).public,
        name=source.path.rpartition("/")[2],
        size=int(length) if length and length.isdecimal() and len(length) < 19 else None,
        sha256=sha256 if _SHA256.fullmatch(sha256) else None,
        git=blob if _COMMIT.fullmatch(blob) and not sha256 else None,
    )


def _tag(text: str | None) -> str:
    """An ETag without its quotes."""
    return (text or "").removeprefix("W/").strip('"')


def _judge(answer: Small, source: sources.HuggingFace, client: Client) -> None:
    """Raises unless it is an answer about the file or folder."""
    status, code = answer.status, answer.headers.get("X-Error-Code", "")
    if 200 <= status < 400:
        return
    if status in (401, 403):
        message, hint = client.tokens.refusal(answer.url, status, answer.headers)
        raise SourceError(message, hint=hint)
    if code == "RevisionNotFound":
        raise SourceError(
            f"{HUGGINGFACE}/{source.place} has no branch, tag or commit {source.revision!r}"
        )
    if code == "RepoNotFound":
        raise SourceError(f"{HUGGINGFACE}/{source.place} does not exist (answer {status})")
    if status == 404:
        raise _Missing
    raise SourceError(f"{source.public} answered {status}")


def _folder(source: sources.HuggingFace, endpoint: str, client: Client) -> Folder:
    """Everything below a path, at the commit that the revision names now."""
    api = f"{endpoint}/api/{source.kind}/{source.repo}"
    if not _COMMIT.fullmatch(source.revision):
        url = f"{api}/revision/{quote(source.revision, safe='')}"
        answer = client.ask(url, follows=_same_host(url))
        _judge(answer, source, client)
        source = source._replace(revision=answers.parsed(answer, _Revision).sha)
    below = f"/{quote(source.path, safe='')}" if source.path else ""
    url = f"{api}/tree/{source.revision}{below}?recursive=true&expand=false"
    found: dict[str, Located] = {}
    for _ in range(_PAGES):
        answer = client.ask(url, follows=_same_host(url))
        _judge(answer, source, client)
        for item in answers.parsed(answer, list[_Item]):
            if item.type == "file":
                path = item.path.removeprefix(f"{source.path}/" if source.path else "")
                found[path] = _item(source, item)
        following = _NEXT.search(answer.headers.get("Link", ""))
        if following is None:
            break
        url = _following(url, following[1], endpoint)
    else:
        raise SourceError(f"{source.public} has more than {_PAGES},000 files")
    if not found:
        raise _Missing
    name = source.path or source.repo
    return Folder(
        source=source._replace(folder=True).public,
        name=name.rpartition("/")[2],
        files=tuple(sorted(found.items())),
    )


def _item(source: sources.HuggingFace, item: _Item) -> Located:
    return Located(
        source=source.file(item.path),
        name=item.path.rpartition("/")[2],
        size=item.size if item.lfs is None else item.lfs.size,
        sha256=None if item.lfs is None else item.lfs.oid,
        git=item.oid if item.lfs is None and _COMMIT.fullmatch(item.oid) else None,
    )


def _following(url: str, link: str, endpoint: str) -> str:
    """The next page of a listing, which a mirror may name at the public address."""
    target = asked_at(link, endpoint) if link.startswith(f"{HUGGINGFACE}/") else urljoin(url, link)
    if host_of(target) != host_of(url):
        raise SourceError(f"{endpoint} leads to another host for the rest of a listing")
    return target


def _same_host(url: str) -> Callable[[str], bool]:
    """Follows redirects to the same host alone: repositories that were renamed are found by them,
    and another host knows nothing of repositories."""
    return lambda target: host_of(target) == host_of(url)
