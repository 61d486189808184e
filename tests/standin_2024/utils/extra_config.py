"""extra_model_paths.yaml as in 2024: paths are joined as they stand, `is_default` is a kind."""

import logging
import os

import folder_paths
from utils import small_yaml


def load_extra_path_config(yaml_path: str) -> None:
    """Add the folders that a file names; relative ones start at the current directory."""
    with open(yaml_path, encoding="utf-8") as stream:
        config = small_yaml.load(stream.read())
    for section in config.values():
        if section is None:
            continue
        base_path = section.pop("base_path", None)
        for kind, value in section.items():
            for line in value.split("\n"):
                if line:
                    path = line if base_path is None else os.path.join(base_path, line)
                    logging.info(f"Adding extra search path {kind} {path}")
                    folder_paths.add_model_folder_path(kind, path)
