"""Submodules: which repository a folder of a tree comes from, as `.gitmodules` says. Pure."""

from cvs.store.errors import InputError, SourceError, shown
from cvs.store.tree import quote
from cvs.versions import repository
from cvs.versions.repository import Repository


def read(listing: bytes) -> dict[bytes, str]:
    """The URL of each submodule by its path.

    Args:
        listing: what `git config -z --list` prints of a `.gitmodules`: for each setting
            `submodule.<name>.<field>`, newline, value, NUL.
    """
    fields: dict[bytes, dict[bytes, bytes]] = {}
    for item in listing.split(b"\0"):
        key, newline, value = item.partition(b"\n")
        if newline and key.startswith(b"submodule."):
            section, _, field = key.rpartition(b".")
            fields.setdefault(section, {})[field] = value
    found = {}
    for values in fields.values():
        path, url = values.get(b"path"), values.get(b"url")
        if path and url:
            found[path.rstrip(b"/")] = url.decode("utf-8", "replace")
    return found


def locate(url: str, parent: Repository, path: bytes) -> Repository:
    """The repository of the submodule at `path`, from its URL and the repository it is part of.

    `./` and `../` are relative to the parent's URL, as git has it, and stay on its host. Only a
    repository of this machine may have submodules of this machine.

    Raises:
        SourceError: a URL that may not be fetched.
    """
    where = f"{parent.shown}: .gitmodules: {quote(path)}"
    try:
        if url.startswith(("./", "../")):
            return _relative(url, parent, where)
        found = repository.parse(
            url, where, allow_local=parent.is_local or parent.is_loopback, base=parent.url
        )
    except InputError as error:
        raise SourceError(error.message) from None
    if found.is_local and not parent.is_local:
        raise SourceError(f"{where}: {shown(url)} is a path of this machine")
    return found


def _relative(url: str, parent: Repository, where: str) -> Repository:
    if parent.is_local:
        return repository.parse(url, where, allow_local=True, base=parent.url)
    address = parent.url
    # What cannot be climbed above: the host, and of user@host:path all before the path.
    root, separator = address.partition("://")[2].partition("/")[0], "/"
    root = f"{address.partition('://')[0]}://{root}"
    if "://" not in address:
        root, separator = address.partition(":")[0], ":"
    parts = address[len(root) + 1 :].split("/")
    for part in url.rstrip("/").split("/"):
        if part == "..":
            if not parts:
                raise InputError(f"{where}: {shown(url)} climbs out of the server")
            parts.pop()
        elif part != ".":
            parts.append(part)
    found = repository.parse(
        root + separator + "/".join(parts), where, allow_local=parent.is_loopback
    )
    return repository.with_user(found, parent)
