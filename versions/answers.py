"""Small answers of the sites' APIs, as data."""

from typing import Any, TypeVar

import msgspec

from cvs.store import document
from cvs.store.errors import InputError, SourceError
from cvs.versions.http import Small, show

T = TypeVar("T")


def parsed(answer: Small, kind: type[T]) -> T:
    """The data of a JSON answer; what `kind` does not name is passed over.

    Raises:
        SourceError: it is not JSON, or not of that kind.
    """
    try:
        data: Any = document.load_json(answer.data, "the answer")
        return msgspec.convert(data, kind)
    except (InputError, msgspec.ValidationError):
        raise SourceError(f"{show(answer.url)} gives an answer that cannot be read") from None
