"""Batches of images without numpy: one byte per sample that points into a table of floats.

All images here come from 8-bit colours, so 256 float32 values describe a whole batch. An
operation on every pixel then changes the table alone, and the roundings of 32-bit arithmetic,
which decide the last bit of a saved pixel, are those of a tensor. A node reads `shape`, takes
`images[0]`, copies with `clone()` and paints `images[:, 0:8, :, 0] = 0.5` as with a tensor.
"""

import struct
from collections.abc import Iterator, Sequence


def f32(value: float) -> float:
    """Round to a 32-bit float."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def to_byte(value: float) -> int:
    """A sample as it is saved: scaled, clipped, and cut rather than rounded."""
    return int(min(max(f32(255.0 * value), 0.0), 255.0))


BYTE_LEVELS = tuple(f32(number / 255.0) for number in range(256))


class Frame:
    """One image of a batch."""

    def __init__(self, shape: tuple[int, int, int], samples: bytes) -> None:
        self.shape = shape
        self.samples = samples

    def to_bytes(self) -> bytes:
        """Rows of 8-bit samples, as a PNG holds them."""
        return self.samples


class Images:
    """A batch, with `shape` (images, height, width, channels)."""

    def __init__(
        self, shape: tuple[int, int, int, int], data: bytes | bytearray, levels: Sequence[float]
    ) -> None:
        if len(data) != shape[0] * shape[1] * shape[2] * shape[3]:
            raise ValueError(f"{len(data)} samples for the shape {shape}")
        self.shape = shape
        self.data = bytearray(data)
        self.levels = list(levels)

    @classmethod
    def filled(cls, count: int, height: int, width: int, color: Sequence[float]) -> "Images":
        """A batch of one colour."""
        samples = bytes(range(len(color))) * (count * height * width)
        return cls((count, height, width, len(color)), samples, [f32(value) for value in color])

    @classmethod
    def from_bytes(cls, height: int, width: int, channels: int, samples: bytes) -> "Images":
        """One image of 8-bit samples."""
        return cls((1, height, width, channels), samples, BYTE_LEVELS)

    def clone(self) -> "Images":
        """A copy that may be painted on: the results of a node belong to every node after it."""
        return Images(self.shape, self.data, self.levels)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Frame:
        count, height, width, channels = self.shape
        if not -count <= index < count:
            raise IndexError(index)
        size = height * width * channels
        start = index % count * size
        table = bytes(to_byte(value) for value in self.levels).ljust(256, b"\0")
        samples = bytes(self.data[start : start + size])
        return Frame((height, width, channels), samples.translate(table))

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    def __setitem__(
        self, key: tuple[slice | int, slice | int, slice | int, slice | int], value: float
    ) -> None:
        ranges = [_range(part, size) for part, size in zip(key, self.shape, strict=True)]
        images, rows, columns, channels = ranges
        level = bytes([self._level(f32(value))])
        _, height, width, depth = self.shape
        for image in images:
            for row in rows:
                start = (image * height + row) * width * depth
                for channel in channels:
                    span = slice(
                        start + columns.start * depth + channel,
                        start + columns.stop * depth,
                        columns.step * depth,
                    )
                    self.data[span] = level * len(columns)

    def _level(self, value: float) -> int:
        """The place of a float in the table, which is first cut to 8-bit values if it is full."""
        if value in self.levels:
            return self.levels.index(value)
        if len(self.levels) == 256:
            table = bytes(to_byte(level) for level in self.levels)
            self.data = self.data.translate(table)
            self.levels = list(BYTE_LEVELS)
            return to_byte(value)
        self.levels.append(value)
        return len(self.levels) - 1

    def __rsub__(self, number: float) -> "Images":
        return Images(self.shape, self.data, [f32(number - value) for value in self.levels])

    def resized(self, width: int, height: int, center_crop: bool) -> "Images":
        """Scaled by taking the nearest sample, after cutting the sides off if `center_crop`."""
        count, old_height, old_width, depth = self.shape
        left = top = 0
        if center_crop:
            old_aspect, new_aspect = old_width / old_height, width / height
            if old_aspect > new_aspect:
                left = round((old_width - old_width * (new_aspect / old_aspect)) / 2)
            elif old_aspect < new_aspect:
                top = round((old_height - old_height * (old_aspect / new_aspect)) / 2)
        columns = _nearest(old_width - 2 * left, width, left)
        rows = _nearest(old_height - 2 * top, height, top)
        out = bytearray()
        for image in range(count):
            for row in rows:
                start = (image * old_height + row) * old_width * depth
                line = self.data[start : start + old_width * depth]
                new = bytearray(width * depth)
                for channel in range(depth):
                    plane = line[channel::depth]
                    new[channel::depth] = bytes(plane[column] for column in columns)
                out += new
        return Images((count, height, width, depth), out, self.levels)


class Mask:
    """The opposite of an alpha channel, with `shape` (1, height, width)."""

    def __init__(self, height: int, width: int, samples: bytes) -> None:
        self.shape = (1, height, width)
        self.samples = samples


def _range(part: slice | int, size: int) -> range:
    """The indexes that one part of a subscript means."""
    return range(size)[part] if isinstance(part, slice) else range(size)[part : part + 1 or None]


def _nearest(old: int, new: int, offset: int) -> list[int]:
    """Which old sample each new one takes: the one under its middle."""
    return [offset + min(int((index + 0.5) * old / new), old - 1) for index in range(new)]
