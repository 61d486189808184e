"""Bytes: entries, publishing, verifying and roots. Knows nothing of ComfyUI.

Usable by itself (docs/library.md):

    from cvs import store

    mine = store.open("/srv/cache")
    entry = mine.add("model.safetensors")
    print(mine.get(entry))
    assert mine.verify(entry) == []
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cvs.store.entries import Store


def open(root: str) -> "Store":
    """The store of the volume at `root`, which is set up if it is not one yet.

    Raises:
        StoreError: what lies there is no volume that this code knows.
        OSError: it cannot be set up.
    """
    # Whoever wants one module of this package pays for that module alone.
    from cvs.store.entries import Store
    from cvs.store.volume import Volume

    volume = Volume(root)
    volume.prepare()
    return Store(volume)
