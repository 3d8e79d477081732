"""All that is measured of speed, in one report: `make bench`.

    python tests/benchmarks/bench.py [--python BACKEND=PATH ...] [--gpu] [--quick] [--out FOLDER]

Runs the other benchmarks of this folder, each in a process of its own with the interpreter of its
backend's environment, one after the other, and writes `report.json` and `report.md`. A backend
without an environment is left out, and the report says so. Nine minutes on two cores: where they
are slow there are fewer rounds. `--quick` takes few rounds, to see that all of it runs.

With `--gpu` all backends are this interpreter's, those that find no GPU are left out, and what is
measured is the two costs of a step; that goes to `gpu_report.json` and `gpu_report.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENTS = {"tensorflow": ".venv", "jax": ".venv-jax", "torch": ".venv-torch"}

# What is run: the arguments, those of `--quick`, and whether on TensorFlow only.
BENCHMARKS = {
    "callback_cost": (
        ("--sets", "3", "--seconds", "3"),
        ("--sets", "1", "--seconds", "0.3"),
        False,
    ),
    "optimizer_cost": (
        ("--sets", "3", "--seconds", "3"),
        ("--sets", "1", "--seconds", "0.3"),
        False,
    ),
    "import_cost": (("--pairs", "3"), ("--pairs", "2"), False),
    "policy_call": (("--rounds", "30"), ("--rounds", "3"), False),
    "environment_speed": (("--rounds", "3"), ("--rounds", "2"), True),
}

ON_GPU = ("callback_cost", "optimizer_cost")


def finds_gpu(backend):
    """Whether this interpreter has the backend, with what is measured, and that a GPU."""
    code = "import sys, callback_cost, machine; sys.exit(not machine.gpu())"
    environment = {**os.environ, "KERAS_BACKEND": backend}
    return not subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, env=environment, capture_output=True
    ).returncode


def run(name, python, backend, arguments):
    """Returns a benchmark's figures, or the last line it said before it failed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figures.json")
        done = subprocess.run(
            [python, HERE / f"{name}.py", *arguments, "--json", path],
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            return {"failed": (done.stderr.strip() or "no message").splitlines()[-1]}
        figures = json.loads(path.read_text())
    return figures


def measure(pythons, names, quick):
    """Runs those of the names; returns what each benchmark found on each backend."""
    figures = {}
    for backend, python in pythons.items():
        figures[backend] = {}
        for name in names:
            arguments, few, tensorflow_only = BENCHMARKS[name]
            if tensorflow_only and backend != "tensorflow":
                continue
            begun = time.monotonic()
            figures[backend][name] = run(name, python, backend, few if quick else arguments)
            outcome = figures[backend][name].get("failed", "done")
            print(f"{backend}, {name}: {outcome}, {time.monotonic() - begun:.0f} s", flush=True)
    return figures


# The report.


def table(head, rows):
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def spread(values, digits=1):
    """Median and quartiles."""
    low, middle, high = values
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def interval(values):
    """Median and 95 % interval."""
    low, middle, high = values
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def costs(figures, name):
    """A table of what contestants took: of `callback_cost` or `optimizer_cost`."""
    rows = []
    for backend, results in figures.items():
        for model, measured in results[name].get("models", {}).items():
            rows += [
                (
                    backend,
                    model,
                    contestant,
                    spread(taken["microseconds_a_step"]),
                    interval(taken["ratio"]),
                )
                for contestant, taken in measured["contestants"].items()
            ]
    return table(("backend", "model", "", "microseconds (quartiles)", "ratio [95 %]"), rows)


def environment(result):
    """The inner training of the agent's environment."""
    compared, everything = result["digits-sgd"], result["all families"]
    ours = compared["steps_a_second"]
    rows = [
        ("all families", spread(everything["steps_a_second"], 0), ""),
        ("one family, digits-sgd", spread(ours, 0), "1"),
        *(
            (f"Keras `{name}`, same network", spread(compared[name], 0), f"1/{ratio:,.0f}")
            for name in ("fit", "train_on_batch")
            for ratio in [ours[1] / compared[name][1]]
        ),
    ]
    peak = result["peak_operations_a_second"] / 1e9
    return [
        *table(("", "training steps a second (quartiles)", "ratio"), rows),
        f"{result['runs']} runs at once. The matrix products of the networks run at "
        f"{everything['share_of_peak']:.1%} of this machine's {peak:,.0f} billion float32 "
        "operations a second, those of the one family at "
        f"{compared['share_of_peak']:.1%}: they are small.",
        "",
    ]


def calls(figures):
    """Microseconds of a decision."""
    rows, left_out = [], []
    for backend, results in figures.items():
        result = results["policy_call"]
        for name, taken in result.get("microseconds_a_call", {}).items():
            loaded = result["seconds_to_load"].get(name)
            rows.append((backend, name, spread(taken), "" if loaded is None else f"{loaded:.2f}"))
        left_out += [f"{backend}: {what}" for what in result.get("left_out", [])]
    head = ("backend", "", "microseconds a call (quartiles)", "seconds to load")
    return [*table(head, rows), *(f"Left out: {what}." for what in left_out), ""]


def imports(figures):
    """Start-up."""
    rows = [
        (
            backend,
            f"{result['seconds']['keras']:.2f}",
            f"{result['seconds']['keras_greedylr']:.2f}",
            spread(result["ratio"], 3),
        )
        for backend, results in figures.items()
        if "seconds" in (result := results["import_cost"])
    ]
    head = ("backend", "keras, seconds", "keras_greedylr, seconds", "ratio (quartiles)")
    return table(head, rows)


def report(result):
    """The figures as Markdown."""
    figures = result["figures"]
    lines = [
        "# What it costs",
        "",
        f"By `{result['command']}`, {result['date']}, in {result['minutes']:.1f} minutes. Each "
        "ratio is to what ran beside it in the same rounds.",
        "",
    ]
    if result["quick"]:
        lines += ["**With `--quick`: too few rounds to go by.**", ""]
    for backend, results in figures.items():
        told = results["callback_cost"].get("machine", {})
        lines.append(f"- {backend}: " + ", ".join(f"{key} {value}" for key, value in told.items()))
    missing = "not there, or without a GPU" if result["gpu"] else "no environment"
    lines += [f"- {backend}: left out, {missing}" for backend in result["left_out"]]
    lines += [
        f"- {backend}, {name}: failed: {found['failed']}"
        for backend, results in figures.items()
        for name, found in results.items()
        if "failed" in found
    ]
    lines += ["", "## A batch with a callback, against `fit` with none", ""]
    lines += costs(figures, "callback_cost")
    lines += ["## A step with GreedyOptimizer, against the optimizer inside it alone", ""]
    lines += costs(figures, "optimizer_cost")
    if result["gpu"]:
        return finished(lines)
    lines += ["## One decision", "", *calls(figures)]
    found = figures.get("tensorflow", {}).get("environment_speed", {})
    if "runs" in found:
        lines += ["## The agent's environment, against Keras", "", *environment(found)]
    lines += ["## `import keras_greedylr`, against `import keras`", "", *imports(figures)]
    return finished(lines)


def finished(lines):
    """The report's text."""
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def main():
    """Measures and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", action="append", default=[], metavar="BACKEND=PATH",
        help="an interpreter with this backend, in place of the environment's of the Makefile",
    )  # fmt: skip
    parser.add_argument("--gpu", action="store_true", help="on this interpreter's GPU")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the report")
    arguments = parser.parse_args()
    named = dict(item.split("=", 1) for item in arguments.python)
    if unknown := set(named) - set(ENVIRONMENTS):
        parser.error(f"--python takes {list(ENVIRONMENTS)}. Received: {sorted(unknown)}")
    pythons = {
        backend: Path(named.get(backend, ROOT / folder / "bin/python"))
        for backend, folder in ENVIRONMENTS.items()
    }
    if arguments.gpu:
        pythons = dict.fromkeys(ENVIRONMENTS, sys.executable)
        found = {backend: python for backend, python in pythons.items() if finds_gpu(backend)}
        if not found:
            sys.exit(f"None of {list(ENVIRONMENTS)} finds a GPU under {sys.executable}.")
    else:
        found = {backend: python for backend, python in pythons.items() if python.exists()}
        if not found:
            sys.exit("No backend's environment was found: `make test` builds that of TensorFlow.")
    begun = time.monotonic()
    figures = measure(found, ON_GPU if arguments.gpu else BENCHMARKS, arguments.quick)
    result = {
        "command": "make test-gpu" if arguments.gpu else "make bench",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "minutes": (time.monotonic() - begun) / 60,
        "gpu": arguments.gpu,
        "quick": arguments.quick,
        "left_out": [backend for backend in pythons if backend not in found],
        "figures": figures,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / ("gpu_report.md" if arguments.gpu else "report.md")
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    text = report(result)
    path.write_text(text, encoding="utf-8")
    print(f"\n{text}\nWritten to {path} and {path.stem}.json.")


if __name__ == "__main__":
    main()
