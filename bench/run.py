"""Runs every benchmark of this folder, one after the other.

python bench/run.py
"""

import pathlib
import subprocess
import sys


def main() -> int:
    """Runs them; the exit code is 1 if one failed."""
    failed = 0
    for file in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        if file.name not in ("run.py", "measure.py"):
            print(f"\n== {file.stem} ==", flush=True)
            failed |= subprocess.run([sys.executable, str(file)], check=False).returncode
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
