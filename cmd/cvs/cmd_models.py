"""`cvs models`: the models of the store, of folders and of versions."""

from cvs import actions
from cvs.cli import Parser

#: The actions in the order of the help, with one line each.
ACTIONS = {
    "ls": "list the models of the store, with their formats and who uses them",
    "add": "put models into the store, from anywhere, without a version",
    "fetch": "put the models of a version into the store, without realizing it",
    "adopt": "take a folder of models into the store; links stay in their places",
    "verify": "compare the models of a lock or list with their checksums",
    "where": "which versions use a model",
}

EXAMPLES = """\
  cvs models ls --unused
  cvs models adopt /workspace/ComfyUI/models --dry-run
  cvs models verify wan-demo --models-dir /workspace/ComfyUI/models
  cvs models where loras/detail.safetensors
"""


def parser() -> Parser:
    """What all actions have in common, for the help."""
    return actions.parser(
        "models",
        "Look at the models of the store, add some, fetch those of a version, take over a folder "
        "of them, verify one, and see who uses them.",
        ACTIONS,
        EXAMPLES,
    )


def run(arguments: list[str]) -> int:
    """Runs an action."""
    return actions.run("models", parser(), ACTIONS, arguments)
