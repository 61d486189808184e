"""State: what users and ComfyUI write at run time, kept per version across every switch.

    state/<version>/input  output  temp  user      ComfyUI's own folders
    state/<version>/web                            scripts that nodes copy there
    state/<version>/custom_nodes                   nodes added at run time (ComfyUI-Manager)
    state/<version>/private/<name>-<hash>          copies of nodes that write into their folder, and
                                                   of an older core's web/, into which nodes do
    state/<version>/models → models/               the user's loose models, MODELS_DIR

Nothing of it is ever part of an entry.
"""

import errno
import os

from cvs.store import fs, scratch
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import StoreError
from cvs.store.ingest import chunks
from cvs.store.manifest import TreeManifest
from cvs.store.record import Place, Record
from cvs.store.tree import Folder, Link, unquote
from cvs.store.volume import Volume

#: The folders that the view links to, so that ComfyUI finds them where it expects them.
LINKED = ("input", "output", "temp", "user")

WEB = "web"
CUSTOM_NODES = "custom_nodes"
PRIVATE = "private"
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

    Raises:
        StoreError: something else lies where that link belongs.
    """
    root = folder(volume, version)
    if examples is not None and not os.path.isdir(os.path.join(root, "input")):
        _seed(examples, os.path.join(root, "input"), volume)
    for name in (*LINKED, WEB, CUSTOM_NODES):
        fs.makedirs(os.path.join(root, name))
    link = os.path.join(root, MODELS)
    target = link_target(models_dir, root, volume)
    try:
        there: str | None = os.readlink(link)
    except FileNotFoundError:
        there = None
    except OSError as error:
        raise StoreError(
            f"{link} is not a link to the loose models: {error.strerror}",
            hint=f"move what is in it to {models_dir}, and it away",
        ) from None
    if there != target:
        scratch.replace_symlink(target, link, volume.tmp)
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


def _seed(examples: str, target: str, volume: Volume) -> None:
    """Makes an input folder with copies of the core's example files, whole or not at all."""
    try:
        with os.scandir(examples) as items:
            files = [item.name for item in items if item.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        # A core without examples: the folder is made empty.
        return
    with scratch.Scratch(volume.tmp) as staged:
        for name in files:
            with open(os.path.join(examples, name), "rb") as file:
                fs.write_file(os.path.join(staged.folder, name), file.read())
        fs.sync_tree(staged.folder, volume.syncs_at_once)
        fs.makedirs(os.path.dirname(target))
        try:
            fs.rename(staged.folder, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def private_name(place: Place) -> str:
    """What the private copy of a node is called: another commit has another copy."""
    entry, _, name = place.target.partition("/")
    return f"{name}-{entry[:16]}"


def private_web(core: Place) -> str:
    """What the private copy of a core's web/ is called."""
    return f"{WEB}-{core.target[:16]}"


def ensure_private(store: Store, record: Record) -> None:
    """Makes the private copies of a record where they are missing; keeps what is there.

    These are its `writable` nodes and, where the core has one, its web/: nodes of old habits put
    their scripts in there, and cores before March 2025 serve nothing that a link leads out to.

    Raises:
        EntryMissing, IntegrityError: an entry is not usable.
    """
    for place in record.links:
        if place.private:
            _ensure_copy(store, record.version, place, private_name(place))
        elif not place.path:
            _ensure_copy(store, record.version, place, private_web(place), WEB + "/")


def _ensure_copy(store: Store, version: str, place: Place, name: str, below: str = "") -> None:
    """Makes one private copy, of a tree or of what is below a folder of it, if there is any."""
    target = os.path.join(folder(store.volume, version), PRIVATE, name)
    if os.path.isdir(target):
        return
    document = store.manifest(EntryId(place.target.partition("/")[0]))
    assert isinstance(document, TreeManifest)  # Cores and nodes are trees.
    prefix = os.fsencode(below)
    if below and not any(unquote(node.path).startswith(prefix) for node in document.nodes):
        return
    with scratch.Scratch(store.volume.tmp) as staged:
        _copy_tree(store, place, document, staged.folder, prefix)
        fs.sync_tree(staged.folder, store.volume.syncs_at_once)
        fs.makedirs(os.path.dirname(target))
        try:
            fs.rename(staged.folder, target)
        except OSError:
            # Another host was first: its copy is as good.
            if not os.path.isdir(target):
                raise


def _copy_tree(
    store: Store, place: Place, document: TreeManifest, staged: str, below: bytes
) -> None:
    """Copies what a tree entry has below a folder as its manifest says; modes come from there,
    never from stat."""
    source = os.fsencode(os.path.join(store.volume.store, place.target)) + b"/"
    root = os.fsencode(staged) + b"/"
    # Ascending by path: a folder comes before what is in it.
    for node in document.nodes:
        path = unquote(node.path)
        if not path.startswith(below):
            continue
        target = root + path.removeprefix(below)
        if isinstance(node, Folder):
            fs.mkdir(target)
        elif isinstance(node, Link):
            fs.symlink(unquote(node.target), target)
        else:
            descriptor = fs.create(target, 0o755 if node.executable else 0o644)
            try:
                for chunk in chunks(source + path):
                    fs.write(descriptor, chunk)
            finally:
                fs.close(descriptor)
