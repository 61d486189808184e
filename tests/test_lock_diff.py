"""What differs between locks: all of it, nothing else, and the same from both sides."""

from typing import Any

import locks
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvs.versions import lock_diff
from cvs.versions.lock import Lock, ModelFile, Wheel
from cvs.versions.lock_diff import Change, Contents, Difference

replace = msgspec.structs.replace

#: Few of everything, so that two locks have much in common.
_name = st.sampled_from(["a", "b", "A", "c-c", "c_c"])
_text = st.sampled_from(["", "x", "y"])
_digest = st.sampled_from(["1" * 64, "2" * 64])
_some = st.none() | _digest

_commits = st.builds(
    locks.commit,
    name=_name,
    request=_digest,
    repo=_text,
    ref=st.none() | _text,
    entry=_digest,
    size=st.integers(0, 2),
    lfs=st.lists(_text, max_size=2).map(tuple),
)
_wheels = st.builds(
    locks.wheel,
    _name,
    version=_text,
    sha256=_digest,
    url=_text,
    uploaded=st.none() | _text,
    required_by=st.lists(_text, max_size=2).map(tuple),
)
_models = st.builds(
    locks.model,
    st.sampled_from(["a", "b", "c", "d"]),
    name=_text,
    request=_digest,
    sha256=_some,
    entry=_some,
)


def _lists(inner: st.SearchStrategy[Any], key: str) -> st.SearchStrategy[tuple[Any, ...]]:
    unique = st.lists(inner, max_size=3, unique_by=lambda one: getattr(one, key))
    return unique.map(tuple)


@st.composite
def _locks(draw: st.DrawFn) -> Lock:
    interpreter = replace(locks.CPYTHON, version=draw(_text), abi=draw(_text))
    whole = locks.lock(
        core=draw(_commits),
        nodes=draw(_lists(_commits, "name")),
        models=draw(_lists(_models, "path")),
    )
    python = replace(
        whole.python,
        interpreter=interpreter,
        exclude_newer=draw(st.none() | _text),
        # A lock that was made by hand may have two of one name.
        wheels=draw(st.lists(_wheels, max_size=3).map(tuple)),
    )
    return replace(whole, python=python)


def mirrored(change: Change | None) -> Change | None:
    return None if change is None else Change(change.after, change.before)


def mirror(found: Difference) -> Difference:
    """The same difference, seen from the other side."""
    sides = {
        name: tuple(map(mirrored, getattr(found, name))) for name in ("nodes", "packages", "models")
    }
    alone = {name: mirrored(getattr(found, name)) for name in ("core", "interpreter", "python")}
    return Difference(**sides, **alone)


def only(found: Difference) -> Change:
    """The one change that there is."""
    (change,) = found.changes
    return change


# Laws.


@given(_locks())
def test_nothing_differs_from_itself(lock: Lock) -> None:
    """A lock and itself have no difference, whatever its order of wheels and models."""
    turned = replace(lock, models=lock.models[::-1], nodes=lock.nodes[::-1])

    assert lock_diff.of_locks(lock, lock).changes == ()
    assert lock_diff.of_locks(lock, turned).changes == ()


@given(_locks(), _locks())
def test_both_sides_see_the_same(one: Lock, other: Lock) -> None:
    """Turned round, a difference is the same with its sides exchanged."""
    assert mirror(lock_diff.of_locks(one, other)) == lock_diff.of_locks(other, one)


@given(_locks(), _locks())
def test_nothing_is_left_out_or_told_twice(one: Lock, other: Lock) -> None:
    """What no change tells of is the same on both sides; what one tells of is there, and once."""
    before, after = lock_diff.of_lock(one), lock_diff.of_lock(other)
    found = lock_diff.compare(before, after)

    for name in ("nodes", "packages", "models"):
        changes = getattr(found, name)
        assert all(change.before != change.after for change in changes)
        old, new = list(getattr(before, name)), list(getattr(after, name))
        for change in changes:
            if change.before is not None:
                old.remove(change.before)
            if change.after is not None:
                new.remove(change.after)
        assert sorted(map(repr, old)) == sorted(map(repr, new))
    for name in ("core", "interpreter", "python"):
        same = getattr(before, name) == getattr(after, name)
        assert same == (getattr(found, name) is None)


# Fields.

_WHOLE = locks.lock()


def _fields(thing: Any, *but: str) -> list[Any]:
    kind = type(thing)
    names = [field.name for field in msgspec.structs.fields(kind) if field.name not in but]
    return [pytest.param(thing, name, id=f"{kind.__name__}.{name}") for name in names]


def test_the_files_of_a_folder() -> None:
    """A folder may have a thousand: how many there are, and whether they are the same, is told."""
    one = ModelFile(path="a", source="https://h/a", size=1)
    model = locks.model(sha256=None, files=(one,))
    other = replace(model, files=(one, replace(one, path="b")))
    change = only(
        lock_diff.of_locks(replace(_WHOLE, models=(model,)), replace(_WHOLE, models=(other,)))
    )

    assert change.fields == ("files",)
    assert change.before is not None
    assert change.before["files"].startswith("1 files, ")


@pytest.mark.parametrize(
    ("thing", "field"),
    [
        *_fields(_WHOLE.core, "name", "request"),
        *_fields(_WHOLE.python.interpreter),
        *_fields(_WHOLE.python.wheels[0], "name", "entry"),
        *_fields(_WHOLE.python, "interpreter", "wheels", "requirements", "layout"),
        *_fields(_WHOLE.models[0], "request"),
    ],
)
def test_every_field_counts(thing: Any, field: str) -> None:
    """A field that differs is named, and it alone: also one that comes to locks some day."""
    other = replace(thing, **{field: "another"})

    def whole(one: Any) -> Lock:
        if isinstance(one, Wheel):
            return replace(_WHOLE, python=replace(_WHOLE.python, wheels=(one,)))
        places = {
            "Commit": {"core": one},
            "Model": {"models": (one,)},
            "Python": {"python": one},
            "Interpreter": {"python": replace(_WHOLE.python, interpreter=one)},
        }
        return replace(_WHOLE, **places[type(one).__name__])

    found = only(lock_diff.of_locks(whole(thing), whole(other)))
    assert (found.what, found.fields) == ("changed", (field,))


def test_what_the_spec_asks_for_does_not_count() -> None:
    """Digests of the spec's parts, of requests and requirements, and the version's name."""
    other = replace(
        _WHOLE,
        version_id="y",
        parts=replace(_WHOLE.parts, core="0" * 64),
        core=replace(_WHOLE.core, request="0" * 64),
        nodes=(replace(_WHOLE.nodes[0], request="0" * 64),),
        python=replace(_WHOLE.python, requirements="0" * 64),
        models=(replace(_WHOLE.models[0], request="0" * 64),),
    )

    assert lock_diff.of_locks(_WHOLE, other).changes == ()
    before, after = map(msgspec.to_builtins, (_WHOLE.parts, other.parts))
    assert lock_diff.asked_otherwise(before, after) == ["core"]
    assert lock_diff.asked_otherwise(before, before) == []


# Cases.


def test_came_and_went() -> None:
    """What one side has not: from nothing at all everything is new."""
    found = lock_diff.of_locks(None, _WHOLE)

    assert {change.what for change in found.changes} == {"added"}
    assert len(found.changes) == 6
    back = lock_diff.compare(lock_diff.of_lock(_WHOLE), Contents())
    assert {change.what for change in back.changes} == {"removed"}
    assert lock_diff.compare(Contents(), Contents()).changes == ()


def test_packages_meet_by_their_canonical_names() -> None:
    """A package that another resolver spells otherwise is another spelling, not another package."""
    pythons = [
        replace(_WHOLE.python, wheels=(locks.wheel(name, file="a.whl", url=""),))
        for name in ("Pillow_SIMD", "pillow-simd")
    ]
    found = only(lock_diff.of_locks(*(replace(_WHOLE, python=one) for one in pythons)))

    assert (found.name, found.fields) == ("pillow-simd", ("name",))


def models(*found: Any) -> Lock:
    return replace(_WHOLE, models=found)


def test_a_model_that_moved() -> None:
    """The same bytes in another place are one change, known by their entry or their SHA-256."""
    old = locks.model("a/x.safetensors")
    new = locks.model("b/y.safetensors")
    unknown = replace(new, entry=None)

    for after, fields in ((new, ("name", "path")), (unknown, ("name", "path", "entry"))):
        found = only(lock_diff.of_locks(models(old), models(after)))
        assert (found.what, found.name, found.fields) == ("changed", "b/y.safetensors", fields)


def test_a_model_with_other_bytes() -> None:
    """Other bytes in the same place are no move, although another place has the old ones."""
    old = locks.model("a")
    new = replace(old, sha256="9" * 64, entry=locks.entry(9))
    found = lock_diff.of_locks(models(old), models(new, replace(old, path="b")))

    assert [(one.what, one.name) for one in found.models] == [("changed", "a"), ("added", "b")]


def test_models_without_digests_do_not_move() -> None:
    """What is not known of two models does not make them one."""
    before, after = (locks.model(path, sha256=None, entry=None) for path in "ab")
    found = lock_diff.of_locks(models(before), models(after))

    assert [(one.what, one.name) for one in found.models] == [("removed", "a"), ("added", "b")]


def test_two_models_of_one_content() -> None:
    """Each place is told once, and they are paired in their order."""
    old = [locks.model(path) for path in ("a", "b")]
    new = [locks.model(path) for path in ("d", "c", "e")]
    found = lock_diff.of_locks(models(*old), models(*new))

    told = [
        (one.before and one.before["path"], one.after and one.after["path"]) for one in found.models
    ]
    assert told == [("a", "c"), ("b", "d"), (None, "e")]


# What is realized.


def test_a_generation_of_the_same_lock() -> None:
    """Entries, places and interpreter of a record are those of the lock that it is of."""
    wheels = (locks.wheel("cvs-demo", file="cvs_demo-1.0-py3-none-any.whl"),)
    model = locks.model(entry=locks.entry(3))
    lock = replace(
        _WHOLE,
        nodes=(locks.commit("node", entry=locks.entry(2)),),
        python=replace(_WHOLE.python, wheels=wheels),
        models=(model,),
    )
    record = locks.record()
    realized = lock_diff.realized(record, {locks.entry(7): "cvs-demo-1.0-cp311"})
    stored = {wheels[0].sha256: locks.entry(7)}

    same = lock_diff.as_realized(lock, record, stored)
    assert lock_diff.compare(realized, same).changes == ()
    for other in ({}, {wheels[0].sha256: locks.entry(8)}):
        found = only(lock_diff.compare(realized, lock_diff.as_realized(lock, record, other)))
        assert (found.name, found.fields) == ("cvs-demo", ("entry",))
    provided = replace(lock, python=replace(lock.python, provided=("torch",)))
    found = only(lock_diff.compare(realized, lock_diff.as_realized(provided, record, stored)))
    assert found.fields == ("provided",)
    without = lock_diff.as_realized(lock, record, stored, models=False)
    gone = only(lock_diff.compare(realized, without))
    assert (gone.what, gone.name) == ("removed", model.path)


def test_a_generation_of_before_a_field_of_the_interpreter() -> None:
    """What a record says nothing of does not differ; what it says does."""
    old = {"implementation": "cpython", "version": "3.11.6"}
    record = locks.record(interpreter=old)
    realized = lock_diff.realized(record, {})
    found = lock_diff.compare(realized, lock_diff.as_realized(_WHOLE, record, {})).interpreter

    assert found is not None
    assert found.fields == ("version",)


def test_a_wheel_whose_manifest_cannot_be_read() -> None:
    """It is called by its entry: nothing else is known."""
    (package,) = lock_diff.realized(locks.record(), {locks.entry(7): None}).packages

    assert package == {"name": locks.entry(7), "version": "", "entry": locks.entry(7)}
