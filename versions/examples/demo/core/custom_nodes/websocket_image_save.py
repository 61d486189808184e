"""A node that sends its images over the websocket instead of saving them."""

import time
from typing import Any

import comfy.utils


class SaveImageWebsocket:
    """Each image goes out as a binary message: kind, format, the bytes of a PNG."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",)}}

    RETURN_TYPES = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "api/image"

    def save_images(self, images: Any) -> dict[str, Any]:
        progress = comfy.utils.ProgressBar(len(images))
        for step, image in enumerate(images):
            progress.update_absolute(step, len(images), ("PNG", image, None))
        return {}

    @classmethod
    def IS_CHANGED(cls, images: Any) -> float:
        return time.time()


NODE_CLASS_MAPPINGS = {"SaveImageWebsocket": SaveImageWebsocket}
