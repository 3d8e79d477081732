"""What `import keras_greedylr` costs over `import keras`: the ratio of the two in fresh processes.

The aim is a median of at most 1.05. Run it on an idle machine:

    KERAS_BACKEND=tensorflow .venv/bin/python tests/benchmarks/import_cost.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

TIMED = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def seconds(module: str) -> float:
    """Returns how long a fresh process takes for the import, the start of Python left out."""
    run = [sys.executable, "-c", TIMED.format(module)]
    return float(subprocess.check_output(run, text=True, stderr=subprocess.DEVNULL).split()[-1])


def main() -> None:
    """Times pairs, so that what slows the machine down slows both of a pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()
    pairs = arguments.pairs

    modules = ("keras", "keras_greedylr")
    for module in modules:
        seconds(module)  # fills the disk's cache, compiles what is not yet compiled

    ratios, taken = [], []
    for number in range(pairs):
        # Each goes first every other time: the second of a pair is never the luckier one.
        times = {module: seconds(module) for module in modules[:: 1 if number % 2 else -1]}
        ratios.append(times["keras_greedylr"] / times["keras"])
        taken.append(times)
        print(
            f"keras {times['keras']:.2f} s, keras_greedylr {times['keras_greedylr']:.2f} s, "
            f"ratio {ratios[-1]:.3f}"
        )
    low, middle, high = statistics.quantiles(ratios, n=4)
    if arguments.json:
        seconds_of = {name: statistics.median(times[name] for times in taken) for name in modules}
        figures = {"seconds": seconds_of, "ratio": (low, middle, high)}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(
        f"{os.environ.get('KERAS_BACKEND', 'default backend')}: median ratio "
        f"{statistics.median(ratios):.3f}, middle half {low:.3f} to {high:.3f}, {pairs} pairs"
    )


if __name__ == "__main__":
    main()
