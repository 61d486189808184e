"""The kinds of model folders this version knows: one table, so that an older core differs here."""

WEIGHTS = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}

# kind -> (folders under models/, endings); no endings: every file counts
MODEL_FOLDERS: dict[str, tuple[list[str], set[str]]] = {
    "checkpoints": (["checkpoints"], WEIGHTS),
    "configs": (["configs"], {".yaml"}),
    "loras": (["loras"], WEIGHTS),
    "vae": (["vae"], WEIGHTS),
    "text_encoders": (["text_encoders", "clip"], WEIGHTS),
    "diffusion_models": (["unet", "diffusion_models"], WEIGHTS),
    "clip_vision": (["clip_vision"], WEIGHTS),
    "style_models": (["style_models"], WEIGHTS),
    "embeddings": (["embeddings"], WEIGHTS),
    "diffusers": (["diffusers"], {"folder"}),
    "vae_approx": (["vae_approx"], WEIGHTS),
    "controlnet": (["controlnet", "t2i_adapter"], WEIGHTS),
    "gligen": (["gligen"], WEIGHTS),
    "upscale_models": (["upscale_models"], WEIGHTS),
    "custom_nodes": ([], set()),  # its place in the list that GET /models answers; not a model
    "hypernetworks": (["hypernetworks"], WEIGHTS),
    "photomaker": (["photomaker"], WEIGHTS),
    "classifiers": (["classifiers"], {""}),
    "model_patches": (["model_patches"], WEIGHTS),
    "audio_encoders": (["audio_encoders"], WEIGHTS),
}

# names of earlier versions that an extra_model_paths.yaml may still use
LEGACY = {"unet": "diffusion_models", "clip": "text_encoders"}
