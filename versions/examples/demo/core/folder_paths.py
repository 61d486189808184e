"""Where this core reads and writes. Custom nodes use it under this name.

The base folder is the *real* folder of this file, so a linked main.py finds its models and
custom nodes where the link leads; --base-directory names another.
"""

import logging
import mimetypes
import os
import time
from collections.abc import Collection, Iterable

from comfy.cli_args import args
from comfy.model_folders import LEGACY, MODEL_FOLDERS, WEIGHTS

supported_pt_extensions = WEIGHTS

if args.base_directory:
    base_path = os.path.abspath(args.base_directory)
else:
    base_path = os.path.dirname(os.path.realpath(__file__))

models_dir = os.path.join(base_path, "models")
output_directory = os.path.join(base_path, "output")
temp_directory = os.path.join(base_path, "temp")
input_directory = os.path.join(base_path, "input")
user_directory = os.path.join(base_path, "user")

folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {
    kind: ([os.path.join(models_dir, name) for name in names], endings)
    for kind, (names, endings) in MODEL_FOLDERS.items()
}
folder_names_and_paths["custom_nodes"][0].append(os.path.join(base_path, "custom_nodes"))

# kind -> (files, the mtime of every folder that was walked)
filename_list_cache: dict[str, tuple[list[str], dict[str, float]]] = {}

if not os.path.exists(input_directory):
    try:
        os.makedirs(input_directory)
    except OSError:
        logging.error("Failed to create input directory")


def map_legacy(folder_name: str) -> str:
    """The present name of a kind of model."""
    return LEGACY.get(folder_name, folder_name)


def set_output_directory(output_dir: str) -> None:
    """Set by --output-directory."""
    global output_directory
    output_directory = output_dir


def set_temp_directory(temp_dir: str) -> None:
    """Set by --temp-directory."""
    global temp_directory
    temp_directory = temp_dir


def set_input_directory(input_dir: str) -> None:
    """Set by --input-directory."""
    global input_directory
    input_directory = input_dir


def set_user_directory(user_dir: str) -> None:
    """Set by --user-directory."""
    global user_directory
    user_directory = user_dir


def get_output_directory() -> str:
    """Where saved images go."""
    return output_directory


def get_temp_directory() -> str:
    """Where previews go; emptied at start, removed at a clean exit."""
    return temp_directory


def get_input_directory() -> str:
    """Where uploads go and LoadImage looks."""
    return input_directory


def get_user_directory() -> str:
    """Settings, and the database of newer versions."""
    return user_directory


def get_directory_by_type(type_name: str) -> str | None:
    """The folder that a `type` in a request or an output means; only these are served."""
    folders = {"output": output_directory, "temp": temp_directory, "input": input_directory}
    return folders.get(type_name)


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """Split `a.png [output]` into the name and its folder; None without such an ending."""
    for type_name in ("output", "input", "temp"):
        mark = f"[{type_name}]"
        if name.endswith(mark):
            return name[: -len(mark) - 1], get_directory_by_type(type_name)
    return name, None


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    """The path that an image name in a prompt means."""
    name, folder = annotated_filepath(name)
    return os.path.join(folder or default_dir or input_directory, name)


def exists_annotated_filepath(name: str) -> bool:
    """Whether that path exists."""
    return os.path.exists(get_annotated_filepath(name))


def filter_files_content_types(files: Iterable[str], content_types: list[str]) -> list[str]:
    """Those whose name tells one of these main MIME types, such as `image`."""
    known = {"webp": "image", "fbx": "model"}
    result = []
    for file in files:
        kind = known.get(file.rsplit(".", 1)[-1])
        kind = kind or (mimetypes.guess_type(file, strict=False)[0] or "").split("/")[0]
        if kind in content_types:
            result.append(file)
    return result


def add_model_folder_path(
    folder_name: str, full_folder_path: str, is_default: bool = False
) -> None:
    """Search one more folder for a kind of model, first of all if `is_default`."""
    paths = folder_names_and_paths.setdefault(map_legacy(folder_name), ([], set()))[0]
    if full_folder_path in paths:
        if not is_default:
            return
        paths.remove(full_folder_path)
    paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    """The folders of a kind of model, in the order they are searched."""
    return list(folder_names_and_paths[map_legacy(folder_name)][0])


def recursive_search(
    directory: str, excluded_dir_names: Collection[str] = ()
) -> tuple[list[str], dict[str, float]]:
    """Every file below, through linked folders too, and each folder's mtime.

    A dangling link to a file is listed as well, as the real one does: it fails when loaded.
    """
    files: list[str] = []
    folders: dict[str, float] = {}
    if not os.path.isdir(directory):
        return files, folders
    for path, subfolders, names in os.walk(directory, followlinks=True):
        subfolders[:] = [name for name in subfolders if name not in excluded_dir_names]
        try:
            folders[path] = os.path.getmtime(path)
        except FileNotFoundError:
            logging.warning(f"Warning: Unable to access {path}. Skipping this path.")
        files += [os.path.relpath(os.path.join(path, name), directory) for name in names]
    return files, folders


def filter_files_extensions(files: Iterable[str], extensions: Collection[str]) -> list[str]:
    """Those with one of these endings, sorted; all of them if there are none."""
    return sorted(
        file for file in files if not extensions or os.path.splitext(file)[-1].lower() in extensions
    )


def get_full_path(folder_name: str, filename: str) -> str | None:
    """The first existing file of that name in a kind's folders; it cannot climb out of them."""
    kind = map_legacy(folder_name)
    if kind not in folder_names_and_paths:
        return None
    filename = os.path.relpath(os.path.join("/", filename), "/")
    for folder in folder_names_and_paths[kind][0]:
        path = os.path.join(folder, filename)
        if os.path.isfile(path):
            return path
        if os.path.islink(path):
            logging.warning(f"WARNING path {path} exists but doesn't link anywhere, skipping.")
    return None


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    """As above; FileNotFoundError where there is none."""
    path = get_full_path(folder_name, filename)
    if path is None:
        raise FileNotFoundError(
            f"Model in folder '{folder_name}' with filename '{filename}' not found."
        )
    return path


def _is_fresh(kind: str, folders: dict[str, float]) -> bool:
    """Whether a remembered list still holds: no walked folder changed, none was added."""
    try:
        unchanged = all(os.path.getmtime(path) == mtime for path, mtime in folders.items())
    except FileNotFoundError:
        return False
    return unchanged and all(
        path in folders for path in folder_names_and_paths[kind][0] if os.path.isdir(path)
    )


def get_filename_list(folder_name: str) -> list[str]:
    """The model files of a kind, as the lists in /object_info and /models show them."""
    kind = map_legacy(folder_name)
    cached = filename_list_cache.get(kind)
    if cached is None or not _is_fresh(kind, cached[1]):
        paths, endings = folder_names_and_paths[kind]
        found: set[str] = set()
        folders: dict[str, float] = {}
        for path in paths:
            files, walked = recursive_search(path, [".git"])
            found.update(filter_files_extensions(files, endings))
            folders.update(walked)
        cached = filename_list_cache[kind] = (sorted(found), folders)
    return list(cached[0])


def _fill_in(prefix: str, width: int, height: int) -> str:
    """Replace %width%, %year% and the like in a file name."""
    now = time.localtime()
    values = {
        "width": str(width),
        "height": str(height),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


def _counter_of(name: str, prefix: str) -> int | None:
    """The number in `prefix_00001_.png`; None for another prefix, 0 for no number."""
    if not name.startswith(prefix + "_"):
        return None
    digits = name[len(prefix) + 1 :].split("_")[0]
    try:
        return int(digits)
    except ValueError:
        return 0


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """The folder, name, next counter and subfolder for a prefix such as `sub/name`."""
    filename_prefix = _fill_in(filename_prefix, image_width, image_height)
    subfolder, filename = os.path.split(os.path.normpath(filename_prefix))
    folder = os.path.join(output_dir, subfolder)
    common = os.path.commonpath((output_dir, os.path.abspath(folder)))
    if common != output_dir:
        message = (
            "**** ERROR: Saving image outside the output folder is not allowed."
            f"\n full_output_folder: {os.path.abspath(folder)}"
            f"\n         output_dir: {output_dir}"
            f"\n         commonpath: {common}"
        )
        logging.error(message)
        raise Exception(message)
    os.makedirs(folder, exist_ok=True)
    counters = (_counter_of(name, filename) for name in os.listdir(folder))
    highest = max((number for number in counters if number is not None), default=0)
    return folder, filename, highest + 1, subfolder, filename_prefix
