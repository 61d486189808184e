"""State: what users and ComfyUI write at run time, kept per version across every switch.

    state/<version>/input  output  temp  user      ComfyUI's own folders
    state/<version>/custom_nodes                   nodes added at run time (ComfyUI-Manager)
    state/<version>/models → models/               the user's loose models, MODELS_DIR

Nothing of it is ever part of an entry.
"""

import errno
import os

from cvs.store import fs
from cvs.store.volume import Volume

#: The folders that the view links to, so that ComfyUI finds them where it expects them.
LINKED = ("input", "output", "temp", "user")

CUSTOM_NODES = "custom_nodes"
MODELS = "models"


def folder(volume: Volume, version: str) -> str:
    """The state folder of a version."""
    return os.path.join(volume.state, version)


def prepare(volume: Volume, version: str, models_dir: str, *, examples: str | None = None) -> str:
    """Makes the state folders of a version and points `models` at the loose models.

    Args:
        examples: the core's own input folder, whose files a new input folder begins with.
        models_dir: MODELS_DIR; need not exist. Kept as a relative link where it lies on the
            volume's file system, which is mounted at different places.
    """
    root = folder(volume, version)
    if examples is not None and not os.path.isdir(os.path.join(root, "input")):
        _seed(examples, os.path.join(root, "input"), volume.tmp)
    for name in (*LINKED, CUSTOM_NODES):
        fs.makedirs(os.path.join(root, name))
    link = os.path.join(root, MODELS)
    target = link_target(models_dir, root, volume)
    try:
        there: str | None = os.readlink(link)
    except FileNotFoundError:
        there = None
    if there != target:
        fs.replace_symlink(target, link)
    return root


def link_target(path: str, folder: str, volume: Volume) -> str:
    """What a link in `folder` must say to lead to `path`.

    Relative where both lie on the volume, absolute elsewhere.
    """
    parent, name = os.path.split(os.path.abspath(path))
    if same_volume(parent, volume) and same_volume(folder, volume):
        return os.path.relpath(
            os.path.join(os.path.realpath(parent), name), os.path.realpath(folder)
        )
    return os.path.join(parent, name)


def same_volume(path: str, volume: Volume) -> bool:
    """Whether a path, or its nearest parent that exists, is on the volume's file system and
    below the folder that the volume is mounted at."""
    root = os.path.realpath(volume.root)
    path = os.path.realpath(path)
    mount = mount_point(root)
    if mount == "/":
        # The disk of this host: only what lies in the cache root itself moves with it.
        return path == root or path.startswith(root + "/")
    return mount_point(path) == mount


def mount_point(path: str) -> str:
    """The mount point that holds a path, which need not exist."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _seed(examples: str, target: str, tmp: str) -> None:
    """Makes an input folder with copies of the core's example files, whole or not at all."""
    staged = os.path.join(tmp, fs.unique())
    fs.mkdir(staged)
    try:
        with os.scandir(examples) as items:
            files = [item.name for item in items if item.is_file(follow_symlinks=False)]
        for name in files:
            with open(os.path.join(examples, name), "rb") as file:
                fs.write_file(os.path.join(staged, name), file.read())
        fs.makedirs(os.path.dirname(target))
        fs.rename(staged, target)
    except FileNotFoundError:
        # A core without examples: the folder is made empty.
        fs.remove_tree(staged)
    except OSError as error:
        fs.remove_tree(staged)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
