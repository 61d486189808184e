#!/usr/bin/env python3
"""Checks and downloads models by hand: `cvs models verify` with the options that it always had.

scripts/verify_models.py --lock FILE --models-dir DIR [--cache-dir DIR] [--overwrite]
    [--timeout SEC] [--verbose]
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> int:
    """Runs the command of the cvs that is installed, or of the checkout that this lies in."""
    try:
        from cvs.main import main as run
    except ImportError:
        own = os.path.join(ROOT, ".venv", "bin", "python")
        if not os.path.exists(own) or os.path.samefile(sys.prefix, os.path.join(ROOT, ".venv")):
            sys.exit("error: cvs is not installed\nhint: `pip install .`, or run scripts/setup")
        os.execv(own, [own, *sys.argv])
    return run(["models", "verify", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
