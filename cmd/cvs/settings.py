"""Every environment variable that cvs reads, in one table, and the default paths.

Nothing else in the package reads `os.environ` for a setting. Imports nothing but `os`: it is on
the path of a realize that has nothing to do.
"""

from __future__ import annotations

import os

# Not from typing, and collections.abc for the checker alone: both cost more than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Name, meaning (the table of docs/guide.md is made from this).
VARIABLES = (
    ("COMFY_CACHE_ROOT", "the volume: store, profiles, state and locks"),
    ("COMFY_HOME", "the link that leads to the realized version"),
    ("MODELS_DIR", "the user's own loose models"),
    ("COMFY_OFFLINE", "true: make no connection at all"),
    ("COMFY_PYTHON", "the Python that versions run on"),
    ("COMFY_USE_SYSTEM_PYTHON", "true: versions run on the `python3` of `PATH`"),
    ("COMFY_VERSION_NAME", "the version that an image runs"),
    ("COMFY_BUILDS_ROOT", "where a RunPod volume has its comfy-<id> links"),
    ("CVS_VERSIONS_DIR", "the folder of specs"),
    ("CVS_HOME", "where specs are when no project is found: $CVS_HOME/versions"),
    ("CVS_WHEELS", "how a new volume keeps wheels: tree or pack"),
    ("CVS_CONNECTIONS", "connections of one download"),
    ("CVS_LOCAL_ROOT", "disposable files on this host's own disk: environments"),
    ("HF_TOKEN", "the token for HuggingFace"),
    ("HF_ENDPOINT", "where HuggingFace is asked, instead of https://huggingface.co"),
    ("CIVITAI_TOKEN", "the API key for Civitai"),
    ("CIVITAI_ENDPOINT", "where Civitai is asked, instead of https://civitai.com"),
    ("OUTPUT_MODE", "the handler's output: base64 or gcs"),
    ("NO_COLOR", "no colour in the output"),
)

#: Where RunPod mounts a network volume: on serverless workers, and on pods.
VOLUMES = ("/runpod-volume", "/workspace")

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"", "0", "false", "no", "off"})


class Settings:
    """The settings of one run, from its environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.user_home = environment.get("HOME") or os.path.expanduser("~")

    def get(self, name: str) -> str | None:
        """A variable's value; None if unset or empty."""
        return self._environment.get(name) or None

    def flag(self, name: str) -> bool:
        """A variable that is true or false.

        Raises:
            ValueError: neither; the message is a sentence.
        """
        value = (self._environment.get(name) or "").strip().lower()
        if value not in TRUE | FALSE:
            raise ValueError(f"{name} is {value!r}, neither true nor false")
        return value in TRUE

    @property
    def runpod_volume(self) -> str | None:
        """Where a RunPod network volume is mounted, if one is."""
        if os.path.isdir(VOLUMES[0]):
            return VOLUMES[0]
        return VOLUMES[1] if os.path.ismount(VOLUMES[1]) else None

    @property
    def cache_root(self) -> str:
        """The volume's root folder."""
        if given := self.get("COMFY_CACHE_ROOT"):
            return self._absolute(given)
        if self.runpod_volume:
            return f"{self.runpod_volume}/cache"
        return f"{self.user_home}/.cache/runpod-comfy"

    @property
    def python(self) -> tuple[str, str] | None:
        """The command of the Python that versions run on, and the variable that says so.

        Raises:
            ValueError: COMFY_USE_SYSTEM_PYTHON is neither true nor false.
        """
        if self.flag("COMFY_USE_SYSTEM_PYTHON"):
            return "python3", "COMFY_USE_SYSTEM_PYTHON"
        given = self.get("COMFY_PYTHON")
        return (given, "COMFY_PYTHON") if given else None

    @property
    def wheels(self) -> str | None:
        """How a new volume keeps wheels; None for what suits its file system.

        Raises:
            ValueError: there is no such way; the message is a sentence.
        """
        given = self.get("CVS_WHEELS")
        if given not in (None, "tree", "pack"):
            raise ValueError(f"CVS_WHEELS is {given!r}, neither tree nor pack")
        return given

    def connections(self, given: str | None) -> int | None:
        """How many connections a download has; None for as many as make it quicker.

        Raises:
            ValueError: that is no such number; the message is a sentence.
        """
        text, name = given, "--connections"
        if text is None:
            text, name = self.get("CVS_CONNECTIONS"), "CVS_CONNECTIONS"
        if text is None:
            return None
        if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:4]) <= 64:
            raise ValueError(f"{name} is {text!r}, no number from 1 to 64")
        return int(text)

    @property
    def models_dir(self) -> str:
        """The user's own loose models."""
        given = self.get("MODELS_DIR")
        return self._absolute(given) if given else f"{self.cache_root}/models"

    def comfy_home(self, version: str, target: str | None = None) -> str:
        """The link that leads to a version."""
        if given := target or self.get("COMFY_HOME"):
            return self._absolute(given)
        if self.get("COMFY_VERSION_NAME") == version:
            return "/runpod-volume/ComfyUI"
        builds = self.get("COMFY_BUILDS_ROOT")
        if builds or self.runpod_volume:
            return f"{self._absolute(builds or f'{self.runpod_volume}/builds')}/comfy-{version}"
        return f"{self.user_home}/comfy-{version}"

    @property
    def local_root(self) -> str:
        """Disposable files on this host's own disk."""
        if given := self.get("CVS_LOCAL_ROOT"):
            return self._absolute(given)
        if base := self.get("XDG_CACHE_HOME"):
            return f"{self._absolute(base)}/cvs"
        if self.runpod_volume:
            # The container's own disk, outside of HOME: the seal lies around the environments,
            # and nothing new could be made right beside a folder on the way to them.
            return "/var/cache/cvs"
        return f"{self.user_home}/.cache/cvs"

    @property
    def config_file(self) -> str:
        """The user's own settings."""
        base = self.get("XDG_CONFIG_HOME")
        return f"{self._absolute(base) if base else self.user_home + '/.config'}/cvs/config.toml"

    def versions_dir(self, given: str | None = None) -> str:
        """The folder of specs: given, CVS_VERSIONS_DIR, `versions/` here or in a parent, else
        `$CVS_HOME/versions`."""
        if named := given or self.get("CVS_VERSIONS_DIR"):
            return self._absolute(named)
        folder = os.getcwd()
        while True:
            candidate = os.path.join(folder, "versions")
            if os.path.isdir(candidate):
                return candidate
            parent = os.path.dirname(folder)
            if parent == folder:
                break
            folder = parent
        home = self.get("CVS_HOME")
        return f"{self._absolute(home) if home else self.user_home + '/.local/share/cvs'}/versions"

    def spec_file(self, version: str, versions_dir: str | None = None) -> str:
        """The file of a spec: a path if `version` looks like one, else `<versions>/<id>.json`."""
        if "/" in version or version.endswith(".json"):
            return version
        return f"{self.versions_dir(versions_dir)}/{version}.json"

    def _absolute(self, path: str) -> str:
        if path == "~" or path.startswith("~/"):
            path = self.user_home + path[1:]
        return os.path.abspath(path)
