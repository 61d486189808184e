"""Refs: which commit a branch, a tag or an abbreviated commit is."""

import difflib
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from cvs.store.errors import InputError
from cvs.versions import git_errors
from cvs.versions.git_objects import local_folder
from cvs.versions.git_process import Failed, Git
from cvs.versions.repository import Repository, is_commit

#: What a ref turned out to be.
Kind = Literal["head", "branch", "tag", "ref", "commit"]

SHORT = re.compile(r"[0-9a-fA-F]{7,39}")


class Resolved(NamedTuple):
    """The commit that a ref names now."""

    commit: str
    kind: Kind


def tips_of(git: Git, *, only_branches_and_tags: bool = False) -> dict[str, str]:
    """The refs of a repository by their full names; a tag's peeled commit under `<name>^{}`."""
    repository = git.repository
    try:
        if repository.is_local:
            local_folder(git)
            with git.process("-C", git.local, "show-ref", "--head", "-d") as process:
                listing, errors = process.communicate()
            # Status 1: there is no ref at all.
            git.check(0 if process.returncode == 1 else process.returncode, errors)
        else:
            narrow = ("--heads", "--tags") if only_branches_and_tags else ()
            listing = git.output("ls-remote", *narrow, "--", repository.url)
    except Failed as failed:
        raise git_errors.explain(failed.stderr, repository) from failed
    tips = {}
    for line in listing.decode("utf-8", "surrogateescape").splitlines():
        commit, _, name = line.replace("\t", " ", 1).partition(" ")
        if is_commit(commit):
            tips[name] = commit
    return tips


def named(
    tips: Mapping[str, str], ref: str | None, where: str, repository: Repository
) -> Resolved | None:
    def peeled(name: str) -> str | None:
        return tips.get(f"{name}^{{}}", tips.get(name))

    if ref is None or ref == "HEAD":
        head = tips.get("HEAD")
        return None if head is None else Resolved(head, "head")
    if ref.startswith("refs/"):
        kind: Kind = "ref"
        if ref.startswith(("refs/heads/", "refs/tags/")):
            kind = "branch" if ref.startswith("refs/heads/") else "tag"
        commit = peeled(ref)
        return None if commit is None else Resolved(commit, kind)
    branch, tag = peeled(f"refs/heads/{ref}"), peeled(f"refs/tags/{ref}")
    if branch is not None and tag is not None and branch != tag:
        raise InputError(
            f"ref {ref!r} is a branch and another tag of {repository.shown} ({where}.ref)",
            hint=f"write refs/heads/{ref} or refs/tags/{ref}",
        )
    if tag is not None:
        return Resolved(tag, "tag")
    return None if branch is None else Resolved(branch, "branch")


def unknown(
    tips: Mapping[str, str], ref: str | None, where: str, repository: Repository
) -> InputError:
    names = [
        name.removeprefix("refs/heads/").removeprefix("refs/tags/")
        for name in tips
        if name.startswith(("refs/heads/", "refs/tags/")) and not name.endswith("^{}")
    ]
    printable = sorted({name for name in names if name.isprintable()})
    if ref is None or ref == "HEAD":
        if not tips:
            return InputError(f"{repository.shown} has no commit yet ({where})")
        hint = f"name one of its branches: {', '.join(printable[:5])}" if printable else None
        return InputError(f"{repository.shown} has no HEAD ({where})", hint=hint)
    near = difflib.get_close_matches(ref, printable, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else None
    if not near and 0 < len(printable) <= 5:
        hint = f"it has {', '.join(printable)}"
    return InputError(f"ref {ref!r} is not in {repository.shown} ({where}.ref)", hint=hint)


def abbreviated(git: Git, tips: Mapping[str, str], short: str, where: str) -> Resolved | None:
    """The commit that begins with `short`: one that a ref names, else any of the history."""
    peeled = {
        commit
        for name, commit in tips.items()
        if commit.startswith(short) and f"{name}^{{}}" not in tips
    }
    if not peeled:
        peeled = set(_history(git, tips, short))
    if len(peeled) > 1:
        raise InputError(
            f"ref {short!r} is the beginning of several commits of {git.repository.shown} "
            f"({where}.ref)",
            hint=", ".join(sorted(commit[:16] for commit in peeled)[:4]),
        )
    return Resolved(peeled.pop(), "commit") if peeled else None


def _history(git: Git, tips: Mapping[str, str], short: str) -> list[str]:
    """The commits of the whole history that begin with `short`; no trees are fetched."""
    if not tips:
        return []
    try:
        place = [git.inside]
        if git.repository.is_local:
            place = ["-C", git.local]
        else:
            git.init(next(iter(tips.values())))
            git.output(
                *place,
                "fetch",
                "--quiet",
                "--no-tags",
                "--filter=tree:0",
                "--",
                git.repository.url,
                "+refs/heads/*:refs/heads/*",
                "+refs/tags/*:refs/tags/*",
            )
        found = git.output(*place, "rev-parse", f"--disambiguate={short}")
        with git.listed(found.decode().split()) as wanted:
            kinds = git.output(*place, "cat-file", "--batch-check", stdin=wanted)
    except Failed as failed:
        raise git_errors.explain(failed.stderr, git.repository) from failed
    lines = (line.split() for line in kinds.decode().splitlines())
    return [words[0] for words in lines if words[1:2] == ["commit"]]
