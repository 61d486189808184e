"""How long the command line takes to start, as ratios to `python -c pass` in one run.

    python bench/startup.py [--rounds N]

Makes a small version in a temporary folder, then times, interleaved: `--version`, `--help`, a
realize with nothing to do, and `nix-store --realise` of a path that is there, where Nix is
installed. Prints medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

GOALS = {"cvs --version": 1.7, "cvs --help": 2.0, "cvs realize ID, nothing to do": 3.0}


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    cvs = os.path.join(os.path.dirname(sys.executable), "cvs")
    with tempfile.TemporaryDirectory(prefix="cvs-bench-") as folder:
        environment = realized(cvs, folder)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "cvs --version": [cvs, "--version"],
            "cvs --help": [cvs, "--help"],
            "cvs realize ID, nothing to do": [cvs, "realize", "demo"],
        }
        nix = nix_path(folder)
        if nix:
            commands["nix-store --realise"] = ["nix-store", "--realise", nix]
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(rounds + 1):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, env=environment, check=True, capture_output=True)
                if turn:
                    times[name].append(time.perf_counter() - started)
    base = statistics.median(times["python -c pass"])
    print(f"{'':32} {'median':>9} {'ratio':>6} {'goal':>6}")
    for name, found in times.items():
        median = statistics.median(found)
        goal = f"{GOALS[name]:.1f}" if name in GOALS else ""
        print(f"{name:32} {median * 1000:7.1f}ms {median / base:6.2f} {goal:>6}")
    if not nix:
        print("not found, so not measured: nix-store (Debian: nix-bin)")


def realized(cvs: str, folder: str) -> dict[str, str]:
    """A realized version in `folder`; the environment in which it is found."""
    demo = os.path.join(folder, "demo")
    subprocess.run([cvs, "demo", "--dir", demo, "--quiet"], check=True, capture_output=True)
    environment = {
        **os.environ,
        "HOME": folder,
        "COMFY_CACHE_ROOT": f"{demo}/volume",
        "COMFY_HOME": f"{demo}/ComfyUI",
        "CVS_VERSIONS_DIR": f"{demo}/versions",
        "CVS_LOCAL_ROOT": f"{demo}/local",
    }
    local = ["--allow-local", "--offline", "--wheels-dir", f"{demo}/wheels"]
    subprocess.run([cvs, "realize", "demo", *local], env=environment, check=True)
    subprocess.run([cvs, "realize", "demo"], env=environment, check=True)
    return environment


def nix_path(folder: str) -> str | None:
    """A path in a Nix store, if Nix is installed."""
    if shutil.which("nix-store") is None:
        return None
    file = os.path.join(folder, "file")
    with open(file, "w", encoding="ascii") as output:
        output.write("cvs")
    done = subprocess.run(["nix-store", "--add", file], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


if __name__ == "__main__":
    main()
