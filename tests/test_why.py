"""Who needs a package: every chain, the shortest first, and no circle is walked twice."""

import tracemalloc
from collections.abc import Mapping, Sequence

import locks
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cvs.versions import why
from cvs.versions.lock import Lock
from cvs.versions.why import Kind, Reason


def lock(required_by: Mapping[str, Sequence[str]], nodes: Sequence[str] = ("node",)) -> Lock:
    """A lock whose packages are required by these."""
    wheels = tuple(
        locks.wheel(name, required_by=tuple(by), version=f"1.{number}")
        for number, (name, by) in enumerate(required_by.items())
    )
    whole = locks.lock(nodes=tuple(map(locks.commit, nodes)))
    return msgspec.structs.replace(
        whole, python=msgspec.structs.replace(whole.python, wheels=wheels)
    )


def reason(locked: Lock, package: str) -> Reason:
    found = why.why(locked, package)
    assert found is not None
    return found


def names(found: Reason) -> list[str]:
    """The chains as text."""
    return [" ".join(link.name for link in chain) for chain in found.chains]


def test_every_chain_the_shortest_first() -> None:
    """Directly, through one package, through two; of one length in the order of names."""
    found = reason(
        lock(
            {
                "numpy": ["torch", "scipy", "node", "ComfyUI"],
                "scipy": ["torch", "python_packages"],
                "torch": ["ComfyUI"],
            }
        ),
        "numpy",
    )

    assert names(found) == [
        "ComfyUI numpy",
        "node numpy",
        "ComfyUI torch numpy",
        "python_packages scipy numpy",
        "ComfyUI torch scipy numpy",
    ]
    assert found.complete


def test_links_say_what_they_are() -> None:
    """The first is the core, a node or python_packages; all others have the locked version."""
    locked = lock({"a": ["ComfyUI", "node", "python_packages", "b"], "b": ["node"]})
    found = reason(locked, "a")

    expected: list[tuple[tuple[Kind, str, str | None], ...]] = [
        (("core", "ComfyUI", None), ("package", "a", "1.0")),
        (("node", "node", None), ("package", "a", "1.0")),
        (("python_packages", "python_packages", None), ("package", "a", "1.0")),
        (("node", "node", None), ("package", "b", "1.1"), ("package", "a", "1.0")),
    ]
    assert expected == [
        tuple((link.kind, link.name, link.version) for link in chain) for chain in found.chains
    ]
    assert found.wheel == locked.python.wheels[0]


def test_names_are_canonical() -> None:
    """However a package is spelt by people, by the lock and by who requires it."""
    locked = lock({"Pillow_SIMD": ["Torch.Vision"], "torch-vision": ["ComfyUI"]})

    assert names(reason(locked, "pillow.simd")) == ["ComfyUI torch-vision pillow-simd"]


def test_unknown_package() -> None:
    """A package that is not in the lock has no reason to be."""
    assert why.why(lock({"numpy": ["ComfyUI"]}), "nump") is None


def test_circles_end() -> None:
    """Packages that require one another are walked through once."""
    found = reason(lock({"a": ["b", "a"], "b": ["c"], "c": ["a", "b", "node"]}), "a")

    assert names(found) == ["node c b a"]


def test_what_nobody_needs() -> None:
    """A circle that nothing leads to, a requirer that is gone, and no requirer give no chain."""
    locked = lock({"a": ["b"], "b": ["a"], "c": ["a node that is gone"], "d": []})

    for name in "abcd":
        assert (reason(locked, name).chains, reason(locked, name).complete) == ((), True)


def test_a_node_that_is_called_like_a_package() -> None:
    """What the lock says of it may mean both: the node is what counts, for it is in the spec."""
    locked = lock({"rembg": ["rembg"], "onnx": ["rembg"]}, nodes=["rembg"])

    assert names(reason(locked, "onnx")) == ["rembg onnx"]
    assert names(reason(locked, "rembg")) == ["rembg rembg"]


def test_more_chains_than_anybody_reads() -> None:
    """Packages that all require one another have a limit, the shortest chains are told."""
    everybody = [f"p{number}" for number in range(30)]
    found = reason(lock({name: [*everybody, "ComfyUI"] for name in everybody}), "p0")

    assert names(found)[:2] == ["ComfyUI p0", "ComfyUI p1 p0"]
    assert len(found.chains) == why.LIMIT
    assert not found.complete


def test_circles_that_lead_nowhere() -> None:
    """One entrance to a great circle: it gives up and says so, with what it has found."""
    everybody = [f"p{number}" for number in range(30)]
    circle = dict.fromkeys(everybody, everybody)
    found = reason(lock({**circle, "p29": [*everybody, "ComfyUI"]}), "p0")

    assert names(found)[0] == "ComfyUI p29 p0"
    assert not found.complete


def test_memory_has_an_end() -> None:
    """Any lock is answered with little memory, however many packages ask for one another."""
    everybody = [f"p{number}" for number in range(300)]
    far = {f"q{number}": [f"q{number + 1}"] for number in range(1000)}
    circle = {name: [*everybody, "node"] for name in everybody}
    locked = lock({**far, "q1000": ["p0"], **circle})
    tracemalloc.start()
    try:
        found = reason(locked, "q0")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert not found.complete
    assert len(found.chains[0]) == 1003
    assert peak < 64 << 20


_ROOTS = ["ComfyUI", "node", "python_packages"]
_GRAPHS = st.dictionaries(
    st.sampled_from("abcde"), st.lists(st.sampled_from([*"abcde", *_ROOTS, "gone"]), max_size=4)
)


def walked(required_by: Mapping[str, Sequence[str]], path: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Every chain, found in the plainest way."""
    if path[0] in _ROOTS:
        return {path}
    found: set[tuple[str, ...]] = set()
    for requirer in required_by.get(path[0], ()):
        if requirer not in path:
            found |= walked(required_by, (requirer, *path))
    return found


@given(_GRAPHS)
def test_all_chains_and_no_other(required_by: dict[str, list[str]]) -> None:
    """For any packages: each chain once, none is missing, none is longer than the next."""
    locked = lock(required_by)
    for name in required_by:
        found = reason(locked, name)
        chains = [tuple(link.name for link in chain) for chain in found.chains]

        assert found.complete
        assert set(chains) == walked(required_by, (name,))
        assert len(chains) == len(set(chains))
        assert chains == sorted(chains, key=lambda chain: (len(chain), chain))
