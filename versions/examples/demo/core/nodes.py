"""The built-in nodes, under the names, inputs and outputs of the real ones."""

import hashlib
import json
import os
import random
import time
from typing import Any

import comfy.model_management
import comfy.samplers
import comfy.sd
import comfy.utils
import folder_paths
from comfy import png
from comfy.cli_args import args
from comfy.images import BYTE_LEVELS, Frame, Images, Mask

MAX_RESOLUTION = 16384
STEP_SECONDS = 0.01  # sampling takes its time, so that progress and interrupts can be seen


def before_node_execution() -> None:
    """Every call of a node begins here: a prompt that was told to stop does."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def interrupt_processing(value: bool = True) -> None:
    """Tell the running prompt to stop."""
    comfy.model_management.interrupt_current_processing(value)


class CheckpointLoaderSimple:
    """Loads a model file, as far as that goes without tensors."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = folder_paths.get_filename_list("checkpoints")
        return {"required": {"ckpt_name": (names, {"tooltip": "The file to load."})}}

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    OUTPUT_TOOLTIPS = (
        "The model used for denoising latents.",
        "The CLIP model used for encoding text prompts.",
        "The VAE model used for encoding and decoding images to and from latent space.",
    )
    FUNCTION = "load_checkpoint"
    CATEGORY = "loaders"
    DESCRIPTION = "Loads a checkpoint: the model, its text encoder and its image decoder."

    def load_checkpoint(self, ckpt_name: str) -> tuple[comfy.sd.Weights, ...]:
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        return (comfy.sd.load_checkpoint(path),) * 3


class CLIPTextEncode:
    """Ties a text to the model that reads it."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        text = ("STRING", {"multiline": True, "dynamicPrompts": True, "tooltip": "The text."})
        return {"required": {"text": text, "clip": ("CLIP", {"tooltip": "The text encoder."})}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "conditioning"
    DESCRIPTION = "Encodes a text that guides the sampling."

    def encode(self, clip: comfy.sd.Weights, text: str) -> tuple[Any]:
        return ([[clip.digest, {"text": text}]],)


class EmptyLatentImage:
    """Where sampling starts."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = ("INT", {"default": 512, "min": 16, "max": MAX_RESOLUTION, "step": 8})
        count = ("INT", {"default": 1, "min": 1, "max": 4096})
        return {"required": {"width": side, "height": side, "batch_size": count}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "generate"
    CATEGORY = "latent"
    DESCRIPTION = "Creates a batch of empty latent images."

    def generate(self, width: int, height: int, batch_size: int = 1) -> tuple[Any]:
        return ({"samples": comfy.sd.Latent(batch_size, height // 8, width // 8, b"")},)


class KSampler:
    """Takes its steps, reports each of them, and derives the result from its settings."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "seed": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 0xFFFFFFFFFFFFFFFF,
                        "control_after_generate": True,
                    },
                ),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
                "cfg": (
                    "FLOAT",
                    {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01},
                ),
                "sampler_name": (comfy.samplers.KSampler.SAMPLERS,),
                "scheduler": (comfy.samplers.KSampler.SCHEDULERS,),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
            }
        }

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"
    CATEGORY = "sampling"

    def sample(
        self, model: comfy.sd.Weights, steps: int, latent_image: dict[str, Any], **settings: Any
    ) -> tuple[Any]:
        progress = comfy.utils.ProgressBar(steps)
        for step in range(steps):
            time.sleep(STEP_SECONDS)
            progress.update_absolute(step + 1, steps)
        latent = comfy.sd.sample(
            latent_image["samples"], model.digest, steps, sorted(settings.items())
        )
        return ({**latent_image, "samples": latent},)


class VAEDecode:
    """Makes an image of a latent one."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",)}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"
    CATEGORY = "latent"
    DESCRIPTION = "Decodes latent images to pixels."

    def decode(self, vae: comfy.sd.Weights, samples: dict[str, Any]) -> tuple[Images]:
        return (comfy.sd.decode(vae, samples["samples"]),)


class VAEEncode:
    """Makes a latent image of one: that is, remembers which it was."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"
    CATEGORY = "latent"

    def encode(self, vae: comfy.sd.Weights, pixels: Images) -> tuple[Any]:
        return ({"samples": comfy.sd.encode(vae, pixels)},)


class SaveLatent:
    """Writes a latent image to a safetensors file."""

    def __init__(self) -> None:
        self.output_dir = folder_paths.get_output_directory()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT",),
                "filename_prefix": ("STRING", {"default": "latents/ComfyUI"}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = "_for_testing"

    def save(
        self,
        samples: dict[str, Any],
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, self.output_dir
        )
        metadata = {}
        if not args.disable_metadata:
            metadata["prompt"] = json.dumps(prompt) if prompt is not None else ""
            metadata |= {key: json.dumps(value) for key, value in (extra_pnginfo or {}).items()}
        file = f"{name}_{counter:05}_.latent"
        with open(os.path.join(folder, file), "wb") as stream:
            stream.write(comfy.sd.latent_file(samples["samples"], metadata))
        return {"ui": {"latents": [{"filename": file, "subfolder": subfolder, "type": "output"}]}}


class SaveImage:
    """Writes PNGs that hold the prompt they came from."""

    def __init__(self) -> None:
        self.output_dir = folder_paths.get_output_directory()
        self.type = "output"
        self.prefix_append = ""
        self.compress_level = 4

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The images to save."}),
                "filename_prefix": (
                    "STRING",
                    {"default": "ComfyUI", "tooltip": "How the names of the files begin."},
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    RETURN_TYPES: tuple[str, ...] = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "image"
    DESCRIPTION = "Saves the input images to your ComfyUI output directory."

    def save_images(
        self,
        images: Images,
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        height, width, _ = images[0].shape
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix + self.prefix_append, self.output_dir, width, height
        )
        text = {}
        if not args.disable_metadata:
            if prompt is not None:
                text["prompt"] = json.dumps(prompt)
            for key, value in (extra_pnginfo or {}).items():
                text[key] = json.dumps(value)
        results = []
        for number, frame in enumerate(images):
            file = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
            with open(os.path.join(folder, file), "wb") as stream:
                stream.write(frame_png(frame, text, self.compress_level))
            results.append({"filename": file, "subfolder": subfolder, "type": self.type})
        return {"ui": {"images": results}}


class PreviewImage(SaveImage):
    """As SaveImage, in the temp folder, under a name of this run."""

    def __init__(self) -> None:
        super().__init__()
        self.output_dir = folder_paths.get_temp_directory()
        self.type = "temp"
        letters = random.choices("abcdefghijklmnopqrstupvxyz", k=5)
        self.prefix_append = "_temp_" + "".join(letters)
        self.compress_level = 1

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE",)},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }


class LoadImage:
    """Reads a PNG of the input folder."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        folder = folder_paths.get_input_directory()
        files = [name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))]
        images = folder_paths.filter_files_content_types(files, ["image"])
        return {"required": {"image": (sorted(images), {"image_upload": True})}}

    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"

    def load_image(self, image: str) -> tuple[Images, Mask]:
        with open(folder_paths.get_annotated_filepath(image), "rb") as stream:
            picture = png.decode(stream.read())
        pixels = png.to_rgba(picture)
        colors = bytearray(picture.width * picture.height * 3)
        for channel in range(3):
            colors[channel::3] = pixels[channel::4]
        images = Images.from_bytes(picture.height, picture.width, 3, bytes(colors))
        if picture.channels in (2, 4):
            opposite = bytes(range(255, -1, -1))
            return images, Mask(picture.height, picture.width, pixels[3::4].translate(opposite))
        return images, Mask(64, 64, bytes(64 * 64))

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:
        with open(folder_paths.get_annotated_filepath(image), "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:
        if not folder_paths.exists_annotated_filepath(image):
            return f"Invalid image file: {image}"
        return True


class ImageScale:
    """Every method is the nearest one here."""

    upscale_methods = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
    crop_methods = ("disabled", "center")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = ("INT", {"default": 512, "min": 0, "max": MAX_RESOLUTION, "step": 1})
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (list(cls.upscale_methods),),
                "width": side,
                "height": side,
                "crop": (list(cls.crop_methods),),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    def upscale(
        self, image: Images, upscale_method: str, width: int, height: int, crop: str
    ) -> tuple[Images]:
        _, old_height, old_width, _ = image.shape
        if width == 0 and height == 0:
            return (image,)
        width = width or max(1, round(old_width * height / old_height))
        height = height or max(1, round(old_height * width / old_width))
        return (image.resized(width, height, crop == "center"),)


class ImageInvert:
    """The opposite of every colour."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "invert"
    CATEGORY = "image"

    def invert(self, image: Images) -> tuple[Images]:
        return (1.0 - image,)


class EmptyImage:
    """Images of one colour."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = ("INT", {"default": 512, "min": 1, "max": MAX_RESOLUTION, "step": 1})
        color = {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}
        return {
            "required": {
                "width": side,
                "height": side,
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
                "color": ("INT", color),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "generate"
    CATEGORY = "image"

    def generate(
        self, width: int, height: int, batch_size: int = 1, color: int = 0
    ) -> tuple[Images]:
        levels = [BYTE_LEVELS[color >> shift & 0xFF] for shift in (16, 8, 0)]
        return (Images.filled(batch_size, height, width, levels),)


def frame_png(frame: Frame, text: dict[str, str] | None = None, level: int = 4) -> bytes:
    """An image as a file."""
    height, width, channels = frame.shape
    return png.encode(width, height, channels, frame.to_bytes(), text, level)


NODE_CLASS_MAPPINGS: dict[str, Any] = {
    "KSampler": KSampler,
    "CheckpointLoaderSimple": CheckpointLoaderSimple,
    "CLIPTextEncode": CLIPTextEncode,
    "VAEDecode": VAEDecode,
    "VAEEncode": VAEEncode,
    "EmptyLatentImage": EmptyLatentImage,
    "SaveImage": SaveImage,
    "PreviewImage": PreviewImage,
    "LoadImage": LoadImage,
    "ImageScale": ImageScale,
    "ImageInvert": ImageInvert,
    "EmptyImage": EmptyImage,
    "SaveLatent": SaveLatent,
}

NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "KSampler": "KSampler",
    "CheckpointLoaderSimple": "Load Checkpoint",
    "CLIPTextEncode": "CLIP Text Encode (Prompt)",
    "VAEDecode": "VAE Decode",
    "VAEEncode": "VAE Encode",
    "EmptyLatentImage": "Empty Latent Image",
    "SaveImage": "Save Image",
    "PreviewImage": "Preview Image",
    "LoadImage": "Load Image",
    "ImageScale": "Upscale Image",
    "ImageInvert": "Invert Image",
    "SaveLatent": "SaveLatent",
}

EXTENSION_WEB_DIRS: dict[str, str] = {}
LOADED_MODULE_DIRS: dict[str, str] = {}
