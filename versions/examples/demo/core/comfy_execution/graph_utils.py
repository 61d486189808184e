"""Small things about graphs that nodes use too."""

from typing import Any


def is_link(value: Any) -> bool:
    """Whether an input is `[node id, output number]` rather than a value."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


class ExecutionBlocker:
    """Returned by a node instead of a value: the nodes that need it do not run."""

    def __init__(self, message: str | None) -> None:
        self.message = message
