"""The one exception family of cvs.

    CvsError                 a sentence for the user, exit code 2
    ├── InputError           a file, field or flag that cannot be used
    ├── SourceError          a repository, index or server that did not give what was asked
    ├── OfflineError         something is missing and no connection may be made
    ├── StoreError           the volume cannot do what is needed
    │   ├── EntryMissing     no entry of that name
    │   └── IntegrityError   bytes differ from the digest they were promised under
    └── RunError             ComfyUI did not start, stopped, or refused a workflow; exit code 1

Whatever is not a CvsError is a defect and keeps its traceback.
"""


class CvsError(Exception):
    """An error that is explained to the user: one sentence, and a hint where there is a cure.

    Messages have no final period and name the place (file, field, URL without credentials).
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(CvsError):
    """What the user wrote cannot be used: names the file and the field."""


class SourceError(CvsError):
    """A repository, package index or server did not give what was asked of it."""


class OfflineError(CvsError):
    """Something is not stored yet and no connection may be made; names exactly what."""


class StoreError(CvsError):
    """The volume or an entry of the store cannot do what is needed."""


class EntryMissing(StoreError):
    """There is no entry of that name in the store."""


class IntegrityError(StoreError):
    """Bytes differ from the digest that they were promised under."""


class RunError(CvsError):
    """ComfyUI did not start, stopped, or refused the workflow."""

    exit_code = 1
