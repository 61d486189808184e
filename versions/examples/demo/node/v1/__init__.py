"""The demo node, version 1: writes a line on an image and draws a frame around it."""

from typing import Any

import cvs_demo_palette as palette

VERSION = "1"
FRAME = "leaf"
FRAME_WIDTH = 4


class DemoCaption:
    """Takes and gives images; works on a tensor as on the batches of the demo core."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "text": ("STRING", {"default": "cvs"}),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "caption"
    CATEGORY = "cvs"
    DESCRIPTION = "Writes a line on an image and frames it."

    def caption(self, image: Any, text: str) -> dict[str, Any]:
        image = image.clone()
        _, height, width, _ = image.shape
        edge = min(FRAME_WIDTH, height, width)
        for rows, columns in (
            (slice(0, edge), slice(None)),
            (slice(height - edge, height), slice(None)),
            (slice(None), slice(0, edge)),
            (slice(None), slice(width - edge, width)),
        ):
            paint(image, rows, columns, FRAME)
        line = f"{text} v{VERSION}"
        size = max(1, min(width - 4 * edge, height) // (4 * len(line)))
        top, left = height - 2 * edge - 5 * size, 2 * edge
        for row, column in palette.dots(line):
            y, x = top + row * size, left + column * size
            if y >= 0:
                paint(image, slice(y, y + size), slice(x, x + size), "ink")
        return {"ui": {"text": [line]}, "result": (image,)}


def paint(image: Any, rows: slice, columns: slice, name: str) -> None:
    """Fill a rectangle of every image of a batch."""
    for channel, value in enumerate(palette.color(name)):
        image[:, rows, columns, channel] = value


NODE_CLASS_MAPPINGS = {"DemoCaption": DemoCaption}
NODE_DISPLAY_NAME_MAPPINGS = {"DemoCaption": "Demo Caption"}
WEB_DIRECTORY = "./web"
