"""A node that shows any value as text."""

import json
from typing import Any


class AnyType(str):
    """A type that every other one fits."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False


class PreviewAny:
    """Shows what it gets."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"source": (AnyType("*"), {})}}

    RETURN_TYPES = ()
    FUNCTION = "main"
    OUTPUT_NODE = True
    CATEGORY = "utils"

    def main(self, source: Any = None) -> dict[str, Any]:
        if isinstance(source, str):
            text = source
        elif source is None or isinstance(source, int | float):
            text = str(source)
        else:
            try:
                text = json.dumps(source)
            except (TypeError, ValueError):
                text = str(source)
        return {"ui": {"text": (text,)}}


NODE_CLASS_MAPPINGS = {"PreviewAny": PreviewAny}
NODE_DISPLAY_NAME_MAPPINGS = {"PreviewAny": "Preview Any"}
