"""What custom nodes take from `comfy.utils`: the progress bar and the safetensors header."""

import struct
from collections.abc import Callable
from typing import Any

PROGRESS_BAR_HOOK: Callable[..., None] | None = None


def set_progress_bar_global_hook(function: Callable[..., None] | None) -> None:
    """Where every progress bar reports; main.py sends it to the clients."""
    global PROGRESS_BAR_HOOK
    PROGRESS_BAR_HOOK = function


class ProgressBar:
    """Counts the steps of a node; every step may also be where an interrupt stops it."""

    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total = total
        self.current = 0
        self.hook = PROGRESS_BAR_HOOK
        self.node_id = node_id

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        """Report a step, with an image as ("PNG", image, largest side or None) if there is one."""
        if total is not None:
            self.total = total
        self.current = min(value, self.total)
        if self.hook is not None:
            self.hook(self.current, self.total, preview, node_id=self.node_id)

    def update(self, value: int) -> None:
        """Report `value` more steps."""
        self.update_absolute(self.current + value)


def safetensors_header(path: str, max_size: int = 100 * 1024 * 1024) -> bytes | None:
    """The JSON at the start of a safetensors file; None if it claims more than `max_size`."""
    with open(path, "rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            return None
        length = int(struct.unpack("<Q", prefix)[0])
        return stream.read(length) if length <= max_size else None
