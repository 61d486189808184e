"""What is known of a model before it is fetched, and how it is fetched, whatever its source is."""

import contextlib
import os
from collections.abc import Iterator, Sequence

from cvs.store.entries import Store
from cvs.store.errors import CvsError, InputError, IntegrityError, SourceError, StoreError
from cvs.store.manifest import FileManifest, SetManifest
from cvs.versions import sources
from cvs.versions.access import Access
from cvs.versions.located import Folder, Located
from cvs.versions.lock import Model, ModelFile
from cvs.versions.remote import Remote
from cvs.versions.sources import S3, Civitai, Gcs, HuggingFace, Local, Source, Stored, Web
from cvs.versions.spec import Model as Wanted
from cvs.versions.tokens import Token, Tokens, host_of


def describe(store: Store, wanted: Wanted, access: Access) -> Model:
    """What can be known of a model before it is fetched: what the first of its sources says that
    has it. Without a connection that is what the spec says.

    Raises:
        InputError: a source of a kind that is not known, or a local file that is not there.
        SourceError: no server has it; tells what each one said.
    """
    places = [sources.parse(text, where) for text, where in _texts(wanted)]
    failures: list[CvsError] = []
    for place, (_, where) in zip(places, _texts(wanted), strict=True):
        try:
            with placed(wanted.where):
                found = locate(store, place, access, where)
                _check_digest(wanted, place, found)
        except (InputError, SourceError) as error:
            failures.append(error)
            if place is not places[-1]:
                access.progress.note(f"{error.message}; the next source is tried")
            continue
        others = [one.public for one in places if one is not place]
        return _model(wanted, found, tuple(one for one in others if one))
    raise of_all(wanted, failures)


def of_all(wanted: Wanted, failures: Sequence[CvsError]) -> CvsError:
    """The one error that all sources of a model made, or what each of them said."""
    if len(failures) == 1:
        return failures[0]
    told = "; ".join(one.message.removeprefix(f"{wanted.where}: ") for one in failures)
    hint = next((one.hint for one in failures if one.hint), None)
    return SourceError(f"{wanted.where}: no source of {wanted.name} has it: {told}", hint=hint)


def _texts(wanted: Wanted) -> list[tuple[str, str]]:
    """The sources of a model, with their places for messages."""
    if not wanted.mirrors:
        return [(wanted.source, f"{wanted.where}.source")]
    return [(text, f"{wanted.where}.sources[{index}]") for index, text in enumerate(wanted.sources)]


def locate(store: Store, source: Source, access: Access, where: str) -> Located | Folder:
    """What the origin of a model says of it.

    Args:
        where: the place of the source, begins messages about a local file.

    Raises:
        InputError: a local file or entry that is not there.
        SourceError: the server does not have it, or refuses it.
    """
    if isinstance(source, Local):
        return _local(source, where)
    if isinstance(source, Stored):
        return _stored(store, source, where)
    if access.offline:
        return Located(source.public, "")
    if isinstance(source, HuggingFace):
        from cvs.versions import huggingface

        return huggingface.locate(source, access.sites.huggingface, _tokens(source, access))
    if isinstance(source, Civitai):
        from cvs.versions import civitai

        found = civitai.locate(source, access.sites.civitai, _tokens(source, access))
        if found.size is None and not (found.entry and store.has(found.entry)):
            found = found._replace(size=_size(sources.parse(found.source, where), access))
        return found
    if isinstance(source, Gcs):
        from cvs.versions import gcs

        return gcs.locate(source)
    if isinstance(source, S3):
        from cvs.versions import s3

        return s3.locate(source)
    from cvs.versions import download

    return Located(source.public, "", download.answer(remote(source, access)).size)


def _size(source: Source, access: Access) -> int | None:
    """What the file itself says of its size; whether it may be fetched is told by the fetch."""
    from cvs.versions import download

    try:
        return download.answer(remote(source, access)).size
    except SourceError:
        return None


def remote(source: Source, access: Access) -> Remote:
    """A file at its origin, to be fetched.

    Raises:
        SourceError: it is a folder, or nothing that is fetched.
    """
    from cvs.versions.http import HttpRemote

    if isinstance(source, Web):
        return HttpRemote(source.url, tokens=access.tokens)
    if isinstance(source, HuggingFace) and not source.folder:
        from cvs.versions import huggingface

        url = huggingface.address(source, access.sites.huggingface)
        return HttpRemote(url, tokens=_tokens(source, access))
    if isinstance(source, Civitai) and source.version:
        from cvs.versions import civitai

        url = civitai.address(source, access.sites.civitai)
        return HttpRemote(url, tokens=_tokens(source, access))
    if isinstance(source, Gcs) and not source.folder:
        from cvs.versions import gcs

        return gcs.GcsRemote(source)
    if isinstance(source, S3) and not source.folder:
        from cvs.versions import s3

        return s3.S3Remote(source)
    if isinstance(source, Stored):
        raise SourceError(f"the store has no entry {source.digits}")
    raise SourceError(f"{source.public or 'a local path'} is no file that can be fetched")


def origins(wanted: Wanted, model: Model) -> list[Source]:
    """Where a locked model is fetched, in the order in which these are tried: at the place that
    the lock names, with the credentials of the spec, and then at the others.

    Raises:
        InputError: a source of a kind that is not known.
    """
    named = {
        found.public: found
        for found in (sources.parse(text, where) for text, where in _texts(wanted))
    }
    where = f"{wanted.where}.source"

    def origin(public: str) -> Source:
        return named.get(public) or sources.parse(public, where)

    if not model.source and "" not in named:
        # It was locked before its place was known.
        return list(named.values())
    first = origin(model.source)
    if isinstance(first, HuggingFace | Civitai):
        for asked in named.values():
            if isinstance(asked, type(first)) and asked.public not in model.mirrors:
                first = first._replace(token=asked.token)
    return [first, *(origin(public) for public in model.mirrors)]


@contextlib.contextmanager
def placed(where: str) -> Iterator[None]:
    """Puts the place in the spec before what a server is to blame for."""
    try:
        yield
    except (IntegrityError, SourceError) as error:
        if error.message.startswith(f"{where}: "):
            raise
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from None


def _tokens(source: HuggingFace | Civitai, access: Access) -> Tokens:
    """The tokens of a run, and before them the one that stands in the source itself."""
    if not source.token:
        return access.tokens
    sites = access.sites
    asked = sites.huggingface if isinstance(source, HuggingFace) else sites.civitai
    return access.tokens.having(Token(host_of(asked), source.token, "the token in the source"))


def _local(source: Local, where: str) -> Located:
    try:
        size = os.stat(source.path).st_size
    except OSError as error:
        raise InputError(f"{where}: {source.path}: {error.strerror}") from None
    if not os.path.isfile(source.path):
        raise InputError(f"{where}: {source.path} is not a file")
    return Located("", "", size)


def _stored(store: Store, source: Stored, where: str) -> Located:
    try:
        entry = store.find(source.digits)
        document = store.manifest(entry)
    except StoreError as error:
        raise InputError(f"{where}: {error.message}", hint=error.hint) from None
    if isinstance(document, SetManifest):
        raise InputError(f"{where}: {source.public} is a set of entries and no model")
    sha256 = document.sha256 if isinstance(document, FileManifest) else None
    return Located(Stored(entry).public, "", document.size, sha256, entry)


def _check_digest(wanted: Wanted, source: Source, found: Located | Folder) -> None:
    """Raises SourceError where an origin has other bytes than the spec asks for."""
    sha256 = found.sha256 if isinstance(found, Located) else None
    if wanted.sha256 and isinstance(found, Folder):
        raise SourceError(f"{source.public} is a folder, which has no checksum")
    if wanted.sha256 and sha256 and wanted.sha256 != sha256:
        raise SourceError(
            f"{source.public} has the digest {sha256}, expected is {wanted.sha256}",
            hint="the file was replaced, or the checksum is that of another file",
        )


def _model(wanted: Wanted, found: Located | Folder, mirrors: tuple[str, ...]) -> Model:
    if isinstance(found, Located):
        return Model(
            name=wanted.name,
            path=wanted.path,
            request=wanted.request,
            source=found.source,
            size=found.size,
            sha256=wanted.sha256 or found.sha256,
            entry=found.entry,
            file="" if found.name == wanted.name else found.name,
            mirrors=mirrors,
        )
    sizes = [one.size for _, one in found.files]
    known = [size for size in sizes if size is not None]
    return Model(
        name=wanted.name,
        path=wanted.path,
        request=wanted.request,
        source=found.source,
        size=sum(known) if len(known) == len(sizes) else None,
        sha256=None,
        entry=None,
        mirrors=mirrors,
        files=tuple(
            ModelFile(path=path, source=one.source, size=one.size, sha256=one.sha256, git=one.git)
            for path, one in found.files
        ),
    )
