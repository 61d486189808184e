"""`pip` in a version's environment: answers what is installed, refuses to change it.

Copied into environments whose wheels bring no pip, and run there by their interpreter: standard
library alone. Nodes (ComfyUI-Manager among them) ask `python -m pip freeze` at every start; an
install would be lost at the next assembly, or land in the Python of the image.
"""

import importlib.metadata
import json
import re
import sys

REFUSED = (
    "cvs: this environment is locked and shared, nothing is installed into it. Write the package "
    'into "python_packages" of the spec, then `cvs realize`'
)


def packages() -> list[tuple[str, str]]:
    """Name and version of every package that is installed, by name."""
    found = {
        re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version
        for found in importlib.metadata.distributions()
    }
    return sorted(found.items())


def show(names: list[str]) -> int:
    """`pip show`: 1 if one of the packages is not there."""
    known = dict(packages())
    missing = False
    for name in names:
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in known:
            print(f"Name: {name}\nVersion: {known[key]}")
        else:
            missing = True
            print(f"WARNING: Package(s) not found: {name}", file=sys.stderr)
    return int(missing)


def main(arguments: list[str]) -> int:
    """Runs `pip ARGUMENTS`."""
    words = [word for word in arguments if not word.startswith("-")]
    command = words[0] if words else ""
    if "--version" in arguments or "-V" in arguments:
        print(f"pip 0 (cvs, read-only) (python {sys.version_info[0]}.{sys.version_info[1]})")
        return 0
    if command == "freeze":
        print("\n".join(f"{name}=={version}" for name, version in packages()))
        return 0
    if command == "list":
        if "--format=json" in arguments or "json" in words:
            print(json.dumps([{"name": name, "version": version} for name, version in packages()]))
        elif "--format=freeze" in arguments or "freeze" in words:
            return main(["freeze"])
        else:
            print("Package Version\n------- -------")
            print("\n".join(f"{name} {version}" for name, version in packages()))
        return 0
    if command == "show":
        return show(words[1:])
    if command == "check":
        return 0
    print(REFUSED, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
