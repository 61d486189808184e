"""The kinds of model folders of 2024: text encoders are `clip`."""

WEIGHTS = {".ckpt", ".pt", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}

MODEL_FOLDERS: dict[str, tuple[list[str], set[str]]] = {
    "checkpoints": (["checkpoints"], WEIGHTS),
    "configs": (["configs"], {".yaml"}),
    "loras": (["loras"], WEIGHTS),
    "vae": (["vae"], WEIGHTS),
    "clip": (["clip"], WEIGHTS),
    "diffusion_models": (["unet", "diffusion_models"], WEIGHTS),
    "clip_vision": (["clip_vision"], WEIGHTS),
    "style_models": (["style_models"], WEIGHTS),
    "embeddings": (["embeddings"], WEIGHTS),
    "diffusers": (["diffusers"], {"folder"}),
    "vae_approx": (["vae_approx"], WEIGHTS),
    "controlnet": (["controlnet", "t2i_adapter"], WEIGHTS),
    "gligen": (["gligen"], WEIGHTS),
    "upscale_models": (["upscale_models"], WEIGHTS),
    "custom_nodes": ([], set()),
    "hypernetworks": (["hypernetworks"], WEIGHTS),
    "photomaker": (["photomaker"], WEIGHTS),
    "classifiers": (["classifiers"], {""}),
}

LEGACY = {"unet": "diffusion_models"}
