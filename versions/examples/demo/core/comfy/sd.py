"""Checkpoints, as far as they go without arithmetic on tensors: their header and their size.

A picture is made of a hash over the model, the prompt and the seed: the same inputs give the
same pixels, and another model, prompt or seed gives others.
"""

import hashlib
import json
import math
import os
import struct
from dataclasses import dataclass

import comfy.utils
from comfy.images import Images


class CheckpointError(ValueError):
    """A file that is no whole safetensors file."""


@dataclass(frozen=True)
class Weights:
    """MODEL, CLIP or VAE: which file it came from, and a digest that stands for its numbers."""

    path: str
    tensors: int
    digest: str


@dataclass(frozen=True)
class Latent:
    """Samples of a latent image: an eighth of its width and height, and what shaped them."""

    count: int
    height: int
    width: int
    seed: bytes


def load_checkpoint(path: str) -> Weights:
    """Read the header of a safetensors file and check that all of its data is there."""
    raw = comfy.utils.safetensors_header(path)
    if raw is None:
        raise CheckpointError(f"Error while deserializing header: not a safetensors file: {path}")
    try:
        header = json.loads(raw)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"Error while deserializing header: invalid header in {path}: {error}"
        ) from error
    if os.path.getsize(path) != 8 + len(raw) + end:
        raise CheckpointError(
            f"Error while deserializing header: incomplete metadata, {path} has "
            f"{os.path.getsize(path)} bytes and its header tells of {8 + len(raw) + end}"
        )
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return Weights(path, len(tensors), digest.hexdigest())


def sample(latent: Latent, *parts: object) -> Latent:
    """The latent image that these settings lead to."""
    text = json.dumps([repr(part) for part in parts]).encode()
    seed = hashlib.sha256(latent.seed + text).digest()
    return Latent(latent.count, latent.height, latent.width, seed)


def encode(weights: Weights, images: Images) -> Latent:
    """The latent image of these pixels."""
    count, height, width, _ = images.shape
    digest = hashlib.sha256(weights.digest.encode())
    for frame in images:
        digest.update(frame.to_bytes())
    return Latent(count, height // 8, width // 8, digest.digest())


def latent_file(latent: Latent, metadata: dict[str, str]) -> bytes:
    """A safetensors file of a latent image, four numbers a sample."""
    shape = [latent.count, 4, latent.height, latent.width]
    data = hashlib.shake_256(latent.seed).digest(math.prod(shape))
    entry = {"dtype": "U8", "shape": shape, "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": metadata, "latent_tensor": entry}).encode()
    return struct.pack("<Q", len(header)) + header + data


def decode(weights: Weights, latent: Latent) -> Images:
    """Squares of 8 by 8 pixels, one colour each."""
    cells = latent.count * latent.height * latent.width * 3
    key = latent.seed + bytes.fromhex(weights.digest)
    small = Images(
        (latent.count, latent.height, latent.width, 3),
        hashlib.shake_256(key).digest(cells),
        [index / 255 for index in range(256)],
    )
    return small.resized(latent.width * 8, latent.height * 8, center_crop=False)
