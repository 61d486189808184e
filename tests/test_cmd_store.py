"""`cvs store` and its actions, and `cvs demo`."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import fail_at
from world import World

from cvs.cmd_store import ACTIONS
from cvs.store import damage
from cvs.store.digest import EntryId
from cvs.store.entries import Store

pytest_plugins = ["world_fixtures"]


@pytest.fixture
def store(world: World) -> Store:
    """The store of the world, for what a test puts into it itself."""
    world.volume.prepare()
    return world.store


def test_help_lists_the_actions(world: World) -> None:
    """`cvs store --help` names every action; the options of one are asked for with its name."""
    done = world.ok("store", "--help")

    for name, text in ACTIONS.items():
        assert f"  {name:<8} {text}\n" in done.out
    assert done == world.ok("store", "-h") == world.ok("help", "store")


@pytest.mark.parametrize("name", ACTIONS)
def test_help_of_an_action(world: World, name: str) -> None:
    """Every action has its own options and examples; nothing is made."""
    done = world.ok("store", name, "--help")

    assert done.out.startswith(f"usage: cvs store {name} ")
    assert f"examples:\n  cvs store {name}" in done.out
    assert "--json" in done.out
    assert done == world.ok("help", "store", name)
    assert not world.cache.exists()


def test_options_before_the_action(world: World) -> None:
    """Options may stand before the action too."""
    assert world.ok("store", "--json", "ls").json == []


# Naming entries


def alike(store: Store, entry: EntryId) -> EntryId:
    """A second entry whose hash begins with the same twelve digits."""
    twin = EntryId(entry[:12] + ("0" if entry[12] != "0" else "1") + entry[13:])
    shutil.copytree(store.path(entry), store.path(twin))
    return twin


@pytest.mark.parametrize("action", ["show", "path", "cat", "verify"])
def test_ambiguous_prefix(
    world: World, store: Store, small: Callable[..., EntryId], action: str
) -> None:
    """Every action shows what an ambiguous prefix may mean: kind, size and name of each."""
    entry = small("node\x1b[2J")
    twin = alike(store, entry)
    os.unlink(os.path.join(store.path(twin), "manifest.json"))
    done = world.cvs("store", action, entry[:12])

    told = {entry: "tree 6 B node%1B[2J", twin: "damaged ?"}
    first, second = sorted(told)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        f"error: {entry[:12]} is ambiguous: {first[:16]}, {second[:16]}",
        "hint: more digits name one of them: "
        f"{first[:16]} {told[first]}; {second[:16]} {told[second]}",
    ]


@pytest.mark.parametrize("action", ["ls", "show", "verify"])
def test_control_characters(
    world: World, store: Store, small: Callable[..., EntryId], action: str
) -> None:
    """No name reaches a terminal raw: text quotes it as manifests do, JSON escapes it."""
    name = "a\nb\x1b]0;x\x07\x7f\x9b%"
    entry = small(name, {"c\x1bd": b"1"})
    os.chmod(Path(store.path(entry), name, "c\x1bd"), 0o644)
    Path(store.path(entry), name, "c\x1bd").write_bytes(b"2")
    given = [] if action == "ls" else [entry]
    text = world.cvs("store", action, *given)
    document = world.cvs("store", action, *given, "--json")

    assert "a%0Ab%1B]0;x%07%7F%C2%9B%25" in text.out
    assert (text.out + document.out).replace("\n", "").isprintable()
    if action != "verify":
        assert [name] == [item["name"] for item in document.json]


def test_ls(realized: World) -> None:
    """Every entry with kind, size and name, in order; text and JSON agree."""
    found = realized.ok("store", "ls", "--json").json

    lock = realized.lock()
    assert sorted(realized.store.ids()) == [item["id"] for item in found]
    kinds = {item["id"]: (item["kind"], item["name"]) for item in found}
    assert kinds[lock["core"]["entry"]] == ("tree", "ComfyUI")
    assert kinds[lock["nodes"][0]["entry"]] == ("tree", "demo-node")
    assert kinds[lock["models"][0]["entry"]][0] == "file"
    assert sorted(kind for kind, _ in kinds.values()) == ["file", "set", "tree", "tree", "tree"]
    lines = realized.ok("store", "ls").out.splitlines()
    assert [item["id"][:16] for item in found] == [line[:16] for line in lines[1:-1]]
    assert lines[-1].startswith("5 entries, ")


def test_ls_of_nothing(world: World) -> None:
    """An empty store is told, and not made."""
    assert world.ok("store", "ls").out == "the store is empty\n"
    assert world.ok("store", "ls", "--json").json == []
    assert not world.cache.exists()


def test_ls_of_one_kind(realized: World) -> None:
    """--kind leaves out all others; nothing of a kind is told."""
    everything = realized.ok("store", "ls", "--json").json
    for kind in ("file", "tree", "set"):
        chosen = [item for item in everything if item["kind"] == kind]
        assert chosen == realized.ok("store", "ls", "--kind", kind, "--json").json
    lines = realized.ok("store", "ls", "--kind", "tree").out.splitlines()
    assert lines[-1].startswith("3 entries, ")
    none = realized.ok("store", "ls", "--kind", "damaged")
    assert none.out == "the store has no damaged entries\n"


def test_path(realized: World) -> None:
    """Where the content of each kind lies; of a set, which has none, the entry itself."""
    lock = realized.lock()
    core, model = lock["core"]["entry"], lock["models"][0]["entry"]
    (wheels,) = realized.ok("store", "ls", "--kind", "set", "--json").json
    given = [core, model[:8], wheels["id"]]

    found = realized.ok("store", "path", *given).out.splitlines()
    under = f"{realized.cache}/store"
    assert found == [
        f"{under}/{core}/ComfyUI",
        f"{under}/{model}/content.safetensors",
        f"{under}/{wheels['id']}",
    ]
    document = realized.ok("store", "path", *given, "--json").json
    expected = [
        {"id": entry, "path": path}
        for entry, path in zip((core, model, wheels["id"]), found, strict=True)
    ]
    assert expected == document


def test_path_that_a_terminal_would_obey(
    world: World, store: Store, small: Callable[..., EntryId]
) -> None:
    """A path with control characters is given exactly or not at all."""
    entry = small("a\x1bb")
    done = world.cvs("store", "path", entry)

    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: the path of {entry[:16]} has control characters in it: "
        f"{store.path(entry)}/a%1Bb\nhint: --json gives it\n"
    )
    (found,) = world.ok("store", "path", entry, "--json").json
    assert os.path.isdir(found["path"])


def test_show(realized: World) -> None:
    """An entry by a unique prefix: what its manifest says, and where it is."""
    model = realized.lock()["models"][0]
    out = realized.ok("store", "show", model["entry"][:8]).out

    for line in (
        model["entry"],
        "kind     file",
        f"path     {realized.cache}/store/{model['entry']}",
        f"sha256   {realized.material.sha256}",
    ):
        assert line in out.splitlines()
    node = realized.lock()["nodes"][0]["entry"]
    found = realized.ok("store", "show", node, model["entry"], "--json").json
    assert [node, model["entry"]] == [item["id"] for item in found]
    assert found[0]["name"] == "demo-node"


def test_verify(realized: World) -> None:
    """A store that is whole verifies, as a whole and by entry."""
    entry = realized.lock()["core"]["entry"]

    assert realized.ok("store", "verify").out == "5 entries, all well\n"
    assert realized.ok("store", "verify", entry[:8]).out == "1 entries, all well\n"
    assert realized.ok("store", "verify", "--json").json == {"entries": 5, "damaged": []}


@pytest.mark.parametrize("what", ["changed", "missing", "added"])
def test_verify_finds_damage(realized: World, what: str) -> None:
    """Damage is named with its entry and path, exit 1; the rest is well."""
    entry = realized.lock()["nodes"][0]["entry"]
    path = realized.cache / "store" / entry / "demo-node" / "__init__.py"
    if what == "changed":
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b"VERSION", b"NOISREV"))
    elif what == "missing":
        path.unlink()
    else:
        path = path.with_name("more.py")
        path.touch()
    done = realized.cvs("store", "verify", "--json")

    assert done.code == 1
    damaged = [(one["id"], one["path"].rpartition("/")[2]) for one in done.json["damaged"]]
    assert [(entry, path.name)] == damaged
    text = realized.cvs("store", "verify")
    assert (text.code, text.err) == (1, f"hint: cvs store repair {entry[:16]}\n")
    assert damage.marked(realized.volume) == {entry}
    assert text.out.startswith(entry[:16])
    assert text.out.endswith("1 of 5 entries are damaged\n")
    others = [other for other in realized.store.ids() if other != entry]
    assert realized.ok("store", "verify", *others).out == "4 entries, all well\n"
    assert damage.marked(realized.volume) == {entry}


def test_verify_takes_off_a_mark(realized: World) -> None:
    """What verifies whole is served again, however it became so."""
    entry = EntryId(realized.lock()["nodes"][0]["entry"])
    damage.mark(realized.volume, entry)
    assert realized.cvs("exec", "demo", "--", "true").code == 2
    realized.ok("store", "verify", entry)
    assert realized.ok("exec", "demo", "--", "true").code == 0


def test_verify_where_nothing_can_be_marked(realized: World) -> None:
    """On a volume that takes no mark, damage is found and told all the same."""
    entry = EntryId(realized.lock()["nodes"][0]["entry"])
    (realized.cache / "store" / entry / "more").touch()
    with fail_at(1, code=errno.EROFS):
        done = realized.cvs("store", "verify", entry)

    assert done.code == 1
    assert done.err.startswith("warning: 1 damaged entries could not be marked and may be served")


def test_verify_of_a_lost_manifest(realized: World) -> None:
    """An entry without its manifest is damaged, for ls too."""
    entry = EntryId(realized.lock()["nodes"][0]["entry"])
    os.unlink(os.path.join(realized.store.path(entry), "manifest.json"))

    assert realized.cvs("store", "verify").code == 1
    kinds = {item["id"]: item["kind"] for item in realized.ok("store", "ls", "--json").json}
    assert kinds[entry] == "damaged"


def test_repaired_by_realize(realized: World) -> None:
    """A damaged entry that is removed comes back by the next realize, and verifies."""
    entry = EntryId(realized.lock()["nodes"][0]["entry"])
    shutil.rmtree(realized.store.path(entry))
    realized.realize()

    assert realized.ok("store", "verify").out == "5 entries, all well\n"


# cat


def cat(world: World, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """`cvs store cat` as a process: what it prints is bytes."""
    return subprocess.run(
        [sys.executable, "-m", "cvs", "store", "cat", *arguments],
        env=world.environment,
        cwd=world.folder,
        capture_output=True,
        check=False,
    )


@pytest.fixture
def mixed(store: Store) -> EntryId:
    """A tree with a bit of everything."""
    with store.stage() as stage:
        writer = stage.tree("node")
        writer.write(b"main.py", b"print('hello')\n")
        writer.write(b"bin/run", b"#!/bin/sh\n", executable=True)
        writer.write(b"50%/\xff", bytes(range(256)))
        writer.folder(b"empty")
        writer.link(b"bin/start", b"run")
        writer.link(b"scripts", b"bin")
        return store.publish(writer.finish())[0]


def test_cat(world: World, mixed: EntryId) -> None:
    """The bytes of a file, through links, by its path as it is and as lists show it."""
    paths = {
        "main.py": b"print('hello')\n",
        "/bin/run": b"#!/bin/sh\n",
        "scripts/start": b"#!/bin/sh\n",
        "50%25/%FF": bytes(range(256)),
        os.fsdecode(b"50%/\xff"): bytes(range(256)),
    }
    for path, data in paths.items():
        done = cat(world, mixed[:8], path)
        assert (done.returncode, done.stdout, done.stderr) == (0, data, b""), path


def test_cat_of_a_file_entry(realized: World) -> None:
    """A model needs no path and has none."""
    model = realized.lock()["models"][0]["entry"]
    done = cat(realized, model[:8])

    assert (done.returncode, done.stdout, done.stderr) == (0, realized.model.read_bytes(), b"")
    done = cat(realized, model, "x")
    message = f"error: {model[:16]} is a file and has no 'x' in it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", message.encode())


def test_cat_of_a_folder(world: World, mixed: EntryId) -> None:
    """A folder, also the root, is listed: one line a node, and all of it as JSON."""
    root = world.ok("store", "cat", mixed).out
    assert root.splitlines() == [
        "folder  256 B  50%25/",
        "folder  10 B   bin/",
        "folder  0 B    empty/",
        "file    15 B   main.py",
        "link           scripts -> bin",
    ]
    assert root == world.ok("store", "cat", mixed, "bin/..").out
    assert world.ok("store", "cat", mixed, "scripts").out.splitlines() == [
        "executable  10 B  run",
        "link              start -> run",
    ]
    assert world.ok("store", "cat", mixed, "empty").out == ""
    found = world.ok("store", "cat", mixed, "scripts/", "--json").json
    assert (found["id"], found["path"], found["kind"]) == (mixed, "bin", "folder")
    run, start = found["nodes"]
    assert (run["path"], run["kind"], run["size"], run["executable"]) == (
        "bin/run",
        "file",
        10,
        True,
    )
    assert start == {"path": "bin/start", "kind": "link", "target": "run"}
    assert world.ok("store", "cat", mixed, "bin/start", "--json").json == {"id": mixed, **run}


def test_cat_of_what_is_not_there(world: World, mixed: EntryId) -> None:
    """A path that is missing is named, and one that may have been meant."""
    done = world.cvs("store", "cat", mixed, "main.pi")
    assert done == (2, "", "error: node has no 'main.pi'\nhint: did you mean 'main.py'?\n")
    # Nobody's quoted form, so the path as it is.
    assert world.cvs("store", "cat", mixed, "%zzz").err == "error: node has no '%25zzz'\n"


def test_cat_of_a_set(realized: World) -> None:
    """A set has no bytes."""
    (wheels,) = realized.ok("store", "ls", "--kind", "set", "--json").json
    short = wheels["id"][:16]

    assert realized.cvs("store", "cat", wheels["id"]) == (
        2,
        "",
        f"error: {short} is a set and has no content of its own\n"
        f"hint: `cvs store show {short}` lists its members\n",
    )


@pytest.mark.parametrize("what", ["changed", "longer", "missing", "link", "folder gone"])
def test_cat_checks(world: World, store: Store, mixed: EntryId, what: str) -> None:
    """What was printed is compared with the manifest: a difference is told at the end, exit 2."""
    path = Path(store.path(mixed), "node", "bin", "run")
    path.unlink()
    printed = b""
    if what == "changed":
        path.write_bytes(printed := b"#!/bin/no\n")
    elif what == "longer":
        path.write_bytes(printed := b"#!/bin/sh\n#")
    elif what == "link":
        path.symlink_to("/etc/hostname")
    elif what == "folder gone":
        path.with_name("start").unlink()
        path.parent.rmdir()
        path.parent.touch()
    done = cat(world, mixed, "scripts/start")

    assert (done.returncode, done.stdout) == (2, printed)
    why = {
        "link": "it is not a file",
        "missing": "it is missing",
        "folder gone": "it is missing",
    }.get(what, "what was printed is not what was stored")
    assert done.stderr.decode() == (
        f"error: {mixed[:16]}/bin/run is damaged: {why}\nhint: cvs store verify {mixed[:16]}\n"
    )


def test_cat_of_a_manifest_that_is_another(
    world: World, store: Store, mixed: EntryId, small: Callable[..., EntryId]
) -> None:
    """With a manifest that is not of its name nothing could be checked, so nothing is printed."""
    path = Path(store.path(mixed), "manifest.json")
    path.unlink()
    shutil.copy(Path(store.path(small("node", {"main.py": b"x"})), "manifest.json"), path)
    done = cat(world, mixed, "main.py")

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(f"error: {store.path(mixed)} is not what its name".encode())


def test_cat_into_a_closed_pipe(world: World, store: Store) -> None:
    """A reader that has seen enough is no error, although nothing could be compared."""
    with store.stage() as stage:
        (entry,) = store.publish(stage.file([bytes(1 << 20)] * 4))
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "cvs", "store", "cat", entry],
        env=world.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(writer)
        os.read(reader, 10)
        os.close(reader)
        _, err = process.communicate()

    assert (process.returncode, err) == (0, b"")


# diff


def test_diff_of_trees(world: World, store: Store) -> None:
    """Paths that came, went and changed, in bytes, mode, target and kind; exit 1."""

    def publish(name: str, data: bytes, *, executable: bool, more: bool) -> EntryId:
        with store.stage() as stage:
            writer = stage.tree(name)
            writer.write(b"same", b"same")
            writer.write(b"bytes", data)
            writer.write(b"mode", b"#!", executable=executable)
            writer.link(b"link", b"same" if more else b"bytes")
            if more:
                writer.write(b"more\n", b"new")
                writer.folder(b"kind")
            else:
                writer.write(b"kind", b"12")
                writer.write(b"less", b"old")
            return store.publish(writer.finish())[0]

    one = publish("node", b"short", executable=False, more=False)
    two = publish("node", b"longer", executable=True, more=True)
    done = world.cvs("store", "diff", one[:8], two[:8])

    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines() == [
        f"-  {one[:16]}  tree  node",
        f"+  {two[:16]}  tree  node",
        "~  bytes    5 B, now 6 B",
        "~  kind     file, 2 B, now folder",
        "-  less     file, 3 B",
        "~  link     to bytes, now to same",
        "~  mode     now executable",
        "+  more%0A  file, 3 B",
        "1 added, 1 removed, 4 changed",
    ]
    found = world.cvs("store", "diff", two, one, "--json").json
    assert (found["equal"], found["before"]["id"], found["after"]["id"]) == (False, two, one)
    changes = {change["path"]: change for change in found["changes"]}
    assert {path: change["what"] for path, change in changes.items()} == {
        "bytes": ["content"],
        "kind": ["kind"],
        "less": ["added"],
        "link": ["target"],
        "mode": ["mode"],
        "more%0A": ["removed"],
    }
    assert changes["less"]["before"] is None
    assert changes["link"]["before"]["target"] == "same"
    assert changes["bytes"]["after"]["size"] == 5


def test_diff_needs_no_content(world: World, store: Store, small: Callable[..., EntryId]) -> None:
    """Only manifests are read: content that is gone or damaged does not matter."""
    one, two = small("a"), small("b", {"file.txt": b"hallo\n"})
    for entry, name in ((one, "a"), (two, "b")):
        shutil.rmtree(os.path.join(store.path(entry), name))
    done = world.cvs("store", "diff", one, two)

    assert done.code == 1
    assert done.out.splitlines()[2:] == [
        "~  file.txt  other bytes, 6 B",
        "0 added, 0 removed, 1 changed, and the name is another",
    ]


def test_diff_of_the_same(world: World, small: Callable[..., EntryId]) -> None:
    """An entry is equal to itself: exit 0."""
    entry = small()

    assert world.ok("store", "diff", entry, entry[:8]).out == f"both are {entry}\n"
    found = world.ok("store", "diff", entry, entry, "--json").json
    assert (found["equal"], found["changes"]) == (True, [])


def test_diff_of_files(world: World, store: Store) -> None:
    """Files differ in size and digest."""
    entries = []
    for data in (b"abc", b"abcd"):
        with store.stage() as stage:
            entries += store.publish(stage.file([data], origin="https://example.org/x"))
    done = world.cvs("store", "diff", *entries)

    assert done.code == 1
    assert done.out.splitlines() == [
        f"-  {entries[0][:16]}  file  x",
        f"+  {entries[1][:16]}  file  x",
        f"-  3 B  {entries[0]}",
        f"+  4 B  {entries[1]}",
    ]
    (change,) = world.cvs("store", "diff", *entries, "--json").json["changes"]
    assert (change["what"], change["after"]["digest"]) == (["content"], entries[1])


def test_diff_of_sets(world: World, store: Store, small: Callable[..., EntryId]) -> None:
    """Sets differ in members, which are shown by name, two releases of one thing together."""
    members = [small(name) for name in ("torch-1", "numpy-1", "same-1", "torch-2", "more-1")]
    sets = []
    for chosen in (members[:3], members[2:]):
        with store.stage() as stage:
            sets += store.publish(stage.set(chosen))
    shutil.rmtree(store.path(members[1]))
    done = world.cvs("store", "diff", *sets)

    assert done.code == 1
    assert done.out.splitlines() == [
        f"-  {sets[0][:16]}  set  3 members",
        f"+  {sets[1][:16]}  set  3 members",
        f"-  {members[1][:16]}  damaged ?",
        f"+  {members[4][:16]}  tree 6 B more-1",
        f"-  {members[0][:16]}  tree 6 B torch-1",
        f"+  {members[3][:16]}  tree 6 B torch-2",
        "2 added, 2 removed, 0 changed",
    ]
    changes = world.cvs("store", "diff", *sets, "--json").json["changes"]
    assert [change["what"] for change in changes] == [["removed"], ["added"]] * 2
    assert changes[1]["after"]["name"] == "more-1"


def test_diff_across_kinds(world: World, store: Store, small: Callable[..., EntryId]) -> None:
    """A tree and a set differ, and more cannot be said."""
    tree = small()
    with store.stage() as stage:
        (group,) = store.publish(stage.set([tree]))
    done = world.cvs("store", "diff", tree, group)

    assert done.code == 1
    assert done.out.endswith("a tree and a set are not compared\n")
    found = world.cvs("store", "diff", tree, group, "--json").json
    assert (found["equal"], found["changes"]) == (False, [])


# du


def test_du(realized: World, small: Callable[..., EntryId]) -> None:
    """What there is by kind; what versions need together and alone; what none needs."""
    realized.ok("clone", "demo", "other")
    realized.spec("other", custom_nodes=[realized.node(realized.material.v2)])
    realized.realize("other", "--target", str(realized.folder / "other"))
    unused = small("left", {"file": b"x" * 70}, store=realized.store)
    everything = {item["id"]: item["size"] for item in realized.ok("store", "ls", "--json").json}
    nodes = [realized.lock(version)["nodes"][0]["entry"] for version in ("demo", "other")]
    before = realized.listing()
    found = realized.ok("store", "du", "--json").json

    assert before == realized.listing()
    assert [item["id"] for item in found["unused"]] == [unused]
    assert sum(item["size"] for item in found["kinds"]) == sum(everything.values())
    assert {item["kind"]: item["entries"] for item in found["kinds"]} == {
        "file": 1,
        "tree": 5,
        "set": 1,
    }
    shared = sum(everything.values()) - sum(everything[node] for node in nodes) - 70
    assert found["versions"] == [
        {
            "version": version,
            "entries": 5,
            "size": shared + everything[node],
            "shared": shared,
            "missing": 0,
            "unique": everything[node],
        }
        for version, node in zip(("demo", "other"), nodes, strict=True)
    ]
    lines = realized.ok("store", "du").out.splitlines()
    assert lines[0].split() == ["KIND", "ENTRIES", "SIZE"]
    assert lines[4].split()[:2] == ["all", "7"]
    assert [line.split()[0] for line in lines[6:9]] == ["VERSION", "demo", "other"]
    assert lines[10] == "1 entries are needed by no version, 70 B:"
    assert lines[11].split() == [unused[:16], "tree", "70", "B", "left"]
    assert "may be more" in lines[-1]


def test_du_counts_leases(realized: World) -> None:
    """What only a running process keeps, after its version was deleted, is needed."""
    lease = realized.profile().lease(1)
    realized.ok("delete", "demo", "--force")
    held = realized.ok("store", "du", "--json").json
    lease.drop()
    dropped = realized.ok("store", "du", "--json").json

    assert [(one["version"], one["entries"]) for one in held["versions"]] == [("demo", 5)]
    assert held["unused"] == []
    assert dropped["versions"] == []
    assert len(dropped["unused"]) == 5


def test_du_of_damage(realized: World) -> None:
    """Entries that are gone or damaged, and records that cannot be read, are told."""
    lock = realized.lock()
    shutil.rmtree(realized.cache / "store" / lock["core"]["entry"])
    (realized.cache / "store" / lock["nodes"][0]["entry"] / "manifest.json").unlink()
    broken = realized.cache / "profiles" / "demo" / "2.json"
    broken.write_text("{}")
    done = realized.ok("store", "du", "--json")

    text = f"{broken} cannot be read: what it alone needs counts as unused"
    assert json.loads(done.err.splitlines()[-1]) == {"event": "warning", "text": text}
    assert done.json["unreadable_roots"] == [str(broken)]
    (demo,) = done.json["versions"]
    assert (demo["entries"], demo["missing"]) == (5, 2)
    assert {item["kind"]: item["entries"] for item in done.json["kinds"]}["damaged"] == 1
    assert "2 missing" in realized.ok("store", "du").out


def test_du_of_nothing(world: World) -> None:
    """An empty store is told, and not made."""
    assert world.ok("store", "du").out == "the store is empty\n"
    assert not world.cache.exists()


# The demo


def test_demo(tmp_path: Path) -> None:
    """The demo goes the whole way without a network, and leaves what it says."""
    folder = tmp_path / "demo"
    environment = {**os.environ, "COMFY_HOME": "/nowhere", "MODELS_DIR": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "cvs", "demo", "--dir", str(folder), "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["dir"] == str(folder)
    commands = [step.split(" ")[1] for step in found["steps"]]
    expected = ["create", "validate", "realize", "realize", "run-handler", "realize"]
    expected += ["run-handler", "rollback", "run-handler", "history", "clone", "realize"]
    assert [*expected, "delete", "store", "store"] == commands
    first, second, third = (Path(path).read_bytes() for path in found["outputs"])
    assert first == third
    assert first != second
    assert (folder / "ComfyUI" / "main.py").is_file()
    assert not os.path.lexists(folder / "ComfyUI-copy")
    assert not Path("/nowhere").exists()


def test_demo_in_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    """A folder with anything in it is left alone."""
    (tmp_path / "mine").touch()
    done = subprocess.run(
        [sys.executable, "-m", "cvs", "demo", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --dir: {tmp_path} is not an empty folder\n"
    assert os.listdir(tmp_path) == ["mine"]


# verify --sample.


def test_a_sample_is_read(world: World) -> None:
    """Of the bytes a part; what is found so marks the entry, what is not takes no mark off."""
    world.spec()
    world.realize()
    entry = next(one for one in world.store.ids() if world.store.path(one))
    damage.mark(world.volume, entry)
    done = world.ok("store", "verify", "--sample", "0%")

    assert done.out.endswith(" entries, all well; 0% of the files were read\n")
    assert damage.marked(world.volume) == {entry}
    assert world.ok("store", "verify", "--sample", "100").out.endswith(" entries, all well\n")
    assert damage.marked(world.volume) == set()


@pytest.mark.parametrize("given", ["x", "-1", "101%", "nan", "5%%"])
def test_no_percentage(world: World, given: str) -> None:
    """Something else is refused by name."""
    done = world.cvs("store", "verify", f"--sample={given}")

    assert (done.code, done.out) == (2, "")
    assert f"{given!r} is not a percentage from 0 to 100" in done.err
