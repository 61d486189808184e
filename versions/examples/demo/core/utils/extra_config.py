"""extra_model_paths.yaml: more folders for models and custom nodes."""

import logging
import os

import folder_paths

from utils import small_yaml


def load_extra_path_config(yaml_path: str) -> None:
    """Add the folders that a file names; relative ones start at the file's own folder."""
    with open(yaml_path, encoding="utf-8") as stream:
        config = small_yaml.load(stream.read())
    here = os.path.dirname(os.path.abspath(yaml_path))
    for section in config.values():
        if section is None:
            continue
        base = here
        if "base_path" in section:
            base = os.path.expandvars(os.path.expanduser(section.pop("base_path")))
            base = os.path.abspath(os.path.join(here, base))
        is_default = section.pop("is_default", False)
        for kind, value in section.items():
            for line in value.split("\n"):
                if line:
                    path = os.path.normpath(os.path.join(base, line))
                    logging.info(f"Adding extra search path {kind} {path}")
                    folder_paths.add_model_folder_path(kind, path, is_default)
