"""Models as locks and lists have them."""

from pathlib import Path

import locks as made
import pytest

from cvs.store.errors import InputError
from cvs.versions import lock, model_list


def listed(tmp_path: Path, *models: lock.Model) -> list[model_list.Listed]:
    """The models of a lock with these, from its file."""
    path = tmp_path / "x.lock.json"
    path.write_bytes(lock.encode(made.lock(models=models)))
    return model_list.read(str(path))


def test_a_lock(tmp_path: Path) -> None:
    """What it knows is kept; one from a local file is wanted by its hash."""
    web, local = made.model("a/x.bin"), made.model("b/y.bin", source="", entry=made.entry(7))
    first, second = listed(tmp_path, web, local)
    assert (first.locked, second.locked) == (web, local)
    assert first.wanted.source == web.source
    assert first.wanted.sha256 == web.sha256
    assert second.wanted.source == f"cvs:{made.entry(7)}"
    assert second.wanted.path == "b/y.bin"


def test_names(tmp_path: Path) -> None:
    """By name or place, each once; of another one near ones are told."""
    known = listed(tmp_path, made.model("a/x.bin"), made.model("b/x.bin"), made.model("c/z.bin"))
    chosen = model_list.named(known, ["x.bin", "a/x.bin"], "it")
    assert [one.wanted.path for one in chosen] == ["a/x.bin", "b/x.bin"]
    assert model_list.named(known, [], "it") == known
    with pytest.raises(InputError, match=r"it has no model 'c/y\.bin'") as caught:
        model_list.named(known, ["c/y.bin"], "it")
    assert caught.value.hint is not None and "c/z.bin" in caught.value.hint
    with pytest.raises(InputError) as caught:
        model_list.named([], ["c/y.bin"], "it")
    assert caught.value.hint is None
