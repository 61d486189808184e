"""Numbers that start a binary websocket message."""


class BinaryEventTypes:
    """What the bytes after the first four are."""

    PREVIEW_IMAGE = 1
    UNENCODED_PREVIEW_IMAGE = 2
    TEXT = 3
    PREVIEW_IMAGE_WITH_METADATA = 4
