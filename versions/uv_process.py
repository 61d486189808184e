"""Running uv, which resolves: with none of the user's settings that would change what it chooses.

Credentials of indexes reach it through its environment, which other users cannot read.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence

from cvs.store.errors import CvsError

#: What of uv's own settings may pass: none of them changes which wheels are chosen.
_KEPT = frozenset(
    {
        "UV_CACHE_DIR",
        "UV_CONCURRENT_DOWNLOADS",
        "UV_HTTP_CONNECT_TIMEOUT",
        "UV_HTTP_RETRIES",
        "UV_HTTP_TIMEOUT",
        "UV_INSECURE_HOST",
        "UV_NATIVE_TLS",
        "UV_SYSTEM_CERTS",
    }
)
#: Variables of other tools that would change what uv or the interpreter does.
_DROPPED = ("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA_", "RUST_LOG")


def run(
    arguments: Sequence[str], *, folder: str, more: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs uv and returns how it ended and what it said.

    Args:
        folder: where it runs.
        more: variables beside those of this process that may pass.

    Raises:
        CvsError: it does not run at all.
    """
    import uv

    variables = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not name.startswith(_DROPPED)
    }
    # A bare date means the end of that day where the user is; a lock means one moment.
    variables["TZ"] = "UTC"
    try:
        return subprocess.run(
            [uv.find_uv_bin(), *arguments, "--color", "never", "--no-progress"],
            cwd=folder,
            env={**variables, **(more or {})},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise CvsError(f"uv does not run: {error.strerror}") from None
