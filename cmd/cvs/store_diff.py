"""`cvs store diff`: what differs between two entries, from their manifests alone."""

from typing import Any

from cvs import entry as entries
from cvs.cli import Parser, Session, size, table
from cvs.store import difference, manifest, tree
from cvs.store.entries import Store

EXAMPLES = """\
  cvs store diff 971c8d44 7795520a
  cvs store diff da792c26 e5c452d2 --json
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "store diff",
        "Show what differs between two entries: paths, bytes, modes and targets of trees, members "
        "of sets. No file is read, only manifests. Ends with 0 if the entries are the same, with "
        "1 if they differ.",
        EXAMPLES,
    )
    entries.argument(found, "before")
    entries.argument(found, "after")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    store = session.store
    one = entries.find(store, session.options.before)
    two = entries.find(store, session.options.after)
    before, after = store.manifest(one), store.manifest(two)
    found = _changes(store, before, after)
    data = {
        "equal": one == two,
        "before": entries.described(one, before),
        "after": entries.described(two, after),
        "changes": found.data,
    }
    heads = [
        (mark, entry[: entries.DIGITS], entries.kind(document), entries.shown_name(document))
        for mark, entry, document in (("-", one, before), ("+", two, after))
    ]
    parts = [table(heads), table(found.rows), found.summary]
    text = "\n".join(part for part in parts if part)
    session.result(data, f"both are {one}" if one == two else text)
    return 0 if one == two else 1


class _Found:
    """What differs, for JSON and as lines with a mark: + came, - went, ~ changed."""

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []
        self.rows: list[tuple[str, str, str]] = []
        self.summary = ""

    def add(self, path: str, what: list[str], before: Any, after: Any, text: str) -> None:
        """Adds one change; `text` says it, behind its path."""
        self.data.append({"path": path, "what": what, "before": before, "after": after})
        mark = {"added": "+", "removed": "-"}.get(what[0], "~")
        self.rows.append((mark, path, text))

    def count(self) -> None:
        """Sums up what was added."""
        marks = [mark for mark, _, _ in self.rows]
        self.summary = (
            f"{marks.count('+')} added, {marks.count('-')} removed, {marks.count('~')} changed"
        )


def _changes(store: Store, before: manifest.Manifest, after: manifest.Manifest) -> _Found:
    found = _Found()
    if isinstance(before, manifest.TreeManifest) and isinstance(after, manifest.TreeManifest):
        for change in difference.of_nodes(before.nodes, after.nodes):
            old, new = (node and entries.node(node) for node in (change.before, change.after))
            found.add(change.path, list(change.aspects), old, new, _said(change))
        found.count()
        if before.name != after.name:
            found.summary += ", and the name is another"
    elif isinstance(before, manifest.SetManifest) and isinstance(after, manifest.SetManifest):
        _members(store, before, after, found)
        found.count()
    elif isinstance(before, manifest.FileManifest) and isinstance(after, manifest.FileManifest):
        if before.digest != after.digest:
            old, new = (
                {"size": one.size, "digest": one.digest, "sha256": one.sha256}
                for one in (before, after)
            )
            found.data = [{"path": "", "what": ["content"], "before": old, "after": new}]
            found.rows = [
                ("-", size(before.size), before.digest),
                ("+", size(after.size), after.digest),
            ]
    else:
        found.summary = f"a {entries.kind(before)} and a {entries.kind(after)} are not compared"
    return found


def _members(
    store: Store, before: manifest.SetManifest, after: manifest.SetManifest, found: _Found
) -> None:
    gone, new = difference.of_members(before.members, after.members)
    # By name, so that two releases of one package stand together.
    changed = [(entries.read(store, one), "removed", one) for one in gone]
    changed += [(entries.read(store, one), "added", one) for one in new]
    changed.sort(key=lambda item: (entries.row(item[2], item[0])[3], item[1] == "added"))
    for document, what, one in changed:
        member = entries.described(one, document)
        old, now = (member, None) if what == "removed" else (None, member)
        _, kind, count, name = entries.row(one, document)
        found.data.append({"path": one, "what": [what], "before": old, "after": now})
        found.rows.append(("-" if old else "+", one[: entries.DIGITS], f"{kind} {count} {name}"))


def _said(change: difference.Change) -> str:
    before, after = change.before, change.after
    if before is None or after is None:
        return _node(before or after)
    said = []
    for aspect in change.aspects:
        if aspect == "content":
            assert isinstance(before, tree.File) and isinstance(after, tree.File)
            old, new = size(before.size), size(after.size)
            said.append(f"{old}, now {new}" if old != new else f"other bytes, {new}")
        elif aspect == "mode":
            assert isinstance(after, tree.File)
            said.append("now executable" if after.executable else "no more executable")
        elif aspect == "target":
            assert isinstance(before, tree.Link) and isinstance(after, tree.Link)
            said.append(f"to {before.target}, now to {after.target}")
        else:
            said.append(f"{_node(before)}, now {_node(after)}")
    return "; ".join(said)


def _node(node: tree.Node | None) -> str:
    if isinstance(node, tree.File):
        return f"{'executable' if node.executable else 'file'}, {size(node.size)}"
    return f"link to {node.target}" if isinstance(node, tree.Link) else "folder"
