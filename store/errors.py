"""The one exception family of cvs.

    CvsError                 a sentence for the user, exit code 2
    ├── InputError           a file, field or flag that cannot be used
    ├── SourceError          a repository, index or server that did not give what was asked
    ├── OfflineError         something is missing and no connection may be made
    ├── StoreError           the volume cannot do what is needed
    │   ├── EntryMissing     no entry of that name
    │   └── IntegrityError   bytes differ from the digest they were promised under
    └── RunError             ComfyUI did not start, stopped, or refused a workflow, or what a node
                             brings along failed; exit code 1

Whatever is not a CvsError is a defect and keeps its traceback.
"""

#: Characters of the longest message: one that names every wheel of a large lock is shorter, a
#: longer one was made so by its input. Of a text that is quoted in a message so many are shown.
LONGEST = 20_000
SHOWN = 200


class CvsError(Exception):
    """An error that is explained to the user: one sentence, and a hint where there is a cure.

    Messages have no final period and name the place (file, field, URL without credentials). What
    they quote was written by others: whatever that is, a message is one line that a terminal can
    show, of at most LONGEST characters.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = one_line(message)
        self.hint = None if hint is None else one_line(hint)
        super().__init__(self.message)


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
    """ComfyUI did not start, stopped, or refused the workflow; or code of a node failed.

    Below the sentence there may be lines of a log.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.message = "\n".join(one_line(line.expandtabs()) for line in message.split("\n"))
        self.args = (self.message,)


def one_line(text: str) -> str:
    """A text as one line of at most LONGEST characters, with nothing that steers a terminal.

    Line ends, control characters and whatever else cannot be seen are written as Python does.
    """
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    if text.isprintable():
        return text
    whole = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
    return whole if len(whole) <= LONGEST else whole[: LONGEST - 1] + "…"


def shown(text: str) -> str:
    """A text in quotes for a message about it, cut where it is long."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
