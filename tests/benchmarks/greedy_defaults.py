"""Which defaults should `GreedyLR` have? Measured on synthetic problems, one command:

    python tests/benchmarks/greedy_defaults.py

Sixteen problems made by formulas (none of them part of any reported benchmark), small networks
with SGD, momentum and Adam, 20 to 100 epochs. `usual` is the constant rate, on a half-decade grid,
with the lowest final validation loss; every candidate then starts at 0.01, 0.1, 1, 10 and 100
times `usual`, from the same weights and with the same batches as its rivals. `GreedyRule` itself
is driven with the mean training loss of each epoch, which is what `GreedyLR` sees by default.

The score of a run is the log of its final validation loss over that of the constant rate from the
same start, a loss counting as at most the untrained network's. Candidates are compared on eight
problems (`select`): the lowest geometric mean is chosen. It is then judged on the other eight
(`confirm`). A failure is a final validation loss above twice that of the best constant rate.
Intervals are 95 %, from resampling problems and, within them, seeds.

Only NumPy and scikit-learn are needed: all runs of a problem are one batched network.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from greedy_problems import PROBLEMS, Problem
from greedy_training import train

from keras_greedylr import GreedyRule

STARTS = (0.01, 0.1, 1.0, 10.0, 100.0)  # multiples of the usual rate


# Schedules. Each is a function (rate, epochs) -> (loss of an epoch -> next rate).


@dataclass(frozen=True)
class Candidate:
    """GreedyLR's choices; those of the shared names go to `GreedyRule`."""

    factor: float = 0.9
    patience: int = 3
    min_delta: float = 1e-4
    window: int = 1
    min_ratio: float = 1e-2
    max_ratio: float = 1e2

    def __call__(self, rate: float, epochs: int) -> Callable[[float], float]:
        """Starts a run at `rate`."""
        rule = GreedyRule(
            factor=self.factor,
            patience=self.patience,
            min_delta=self.min_delta,
            window=self.window,
            min_lr=self.min_ratio * rate,
            max_lr=self.max_ratio * rate,
        )
        state = rule.init(rate)

        def step(loss: float) -> float:
            nonlocal state
            state = rule.update(state, loss)
            return state.learning_rate

        return step

    def __str__(self) -> str:
        default = Candidate()
        return " ".join(
            f"{name}={value:g}"
            for name, value in asdict(self).items()
            if name in ("factor", "patience") or value != getattr(default, name)
        )


def constant(rate: float, epochs: int) -> Callable[[float], float]:
    """The rate that everything is measured against."""
    return lambda loss: rate


def cosine(rate: float, epochs: int) -> Callable[[float], float]:
    """Cosine decay to zero, a step an epoch."""
    done = 0

    def step(loss: float) -> float:
        nonlocal done
        done += 1
        return rate * 0.5 * (1 + math.cos(math.pi * done / epochs))

    return step


def plateau(rate: float, epochs: int) -> Callable[[float], float]:
    """Keras' ReduceLROnPlateau with its defaults, on the training loss."""
    best, wait = math.inf, 0

    def step(loss: float) -> float:
        nonlocal rate, best, wait
        if loss < best - 1e-4:
            best, wait = loss, 0
        elif math.isfinite(loss):
            wait += 1
            if wait >= 10:
                rate, wait = 0.1 * rate, 0
        return rate

    return step


# Statistics.


def usual_rates(problems: Sequence[Problem], seeds: int) -> dict[str, tuple[float, np.ndarray]]:
    """For each problem the best constant rate and its losses, [seeds]."""
    found = {}
    for problem in problems:
        low, high = (-4.5, -0.5) if problem.optimizer == "adam" else (-3.5, 0.5)
        grid = [10.0 ** (k / 2) for k in range(int(2 * low), int(2 * high) + 1)]
        losses = train(problem, [constant], grid, seeds)[:, 0]
        best = int(np.log(losses).mean(0).argmin())
        found[problem.name] = grid[best], losses[:, best]
    return found


def measure(problems: Sequence[Problem], schedules: Sequence, usual: dict, seeds: int) -> tuple:
    """Log ratios to the constant rate and to the best constant one.

    Returns:
        Two arrays [problems, seeds, schedules, starts] float64.
    """
    to_constant, to_best = [], []
    for problem in problems:
        rate, best = usual[problem.name]
        rates = [rate * start for start in STARTS]
        log = np.log(train(problem, [constant, *schedules], rates, seeds))
        to_constant.append(log[:, 1:] - log[:, :1])
        to_best.append(log[:, 1:] - np.log(best)[:, None, None])
    return np.stack(to_constant), np.stack(to_best)


def interval(logs: np.ndarray, statistic: Callable = np.mean, draws: int = 1000) -> tuple:
    """95 % interval of a statistic of [problems, seeds, ...], problems and seeds resampled."""
    rng = np.random.default_rng(0)
    problems, seeds = logs.shape[:2]
    values = []
    for _ in range(draws):
        p = rng.integers(problems, size=(problems, 1))
        s = rng.integers(seeds, size=(problems, seeds))
        values.append(statistic(logs[p, s]))
    return tuple(np.exp(np.quantile(values, (0.025, 0.975))).tolist())


def summary(name: str, to_constant: np.ndarray, to_best: np.ndarray) -> dict:
    """The figures of one schedule, from [problems, seeds, starts] log ratios."""
    low, high = interval(to_constant)
    median_low, median_high = interval(to_constant, np.median)
    return {
        "name": name,
        "ratio": math.exp(to_constant.mean()),
        "interval": [low, high],
        "median": math.exp(np.median(to_constant)),
        "median_interval": [median_low, median_high],
        "by_start": np.exp(to_constant.mean((0, 1))).tolist(),
        "failures": int((to_best > math.log(2)).sum()),
        "runs": to_best.size,
    }


# The study.

DESIGN = Candidate(factor=0.9, patience=3)  # to be changed only for a clear gain
GRID = [
    Candidate(factor=factor, patience=patience)
    for factor in (0.5, 0.7, 0.8, 0.9)
    for patience in (0, 1, 2, 3, 5)
]
ONE_CHANGE = [
    {"min_delta": 0.0},
    {"min_delta": 1e-3},
    {"min_delta": 1e-2},
    {"window": 2},
    {"window": 5},
    {"min_ratio": 1e-1},
    {"min_ratio": 1e-3},
    {"max_ratio": 1e1},
    {"max_ratio": 1e3},
]


def table(title: str, rows: list[dict]) -> None:
    """Prints the figures of several schedules."""
    print(f"\n{title}. Final validation loss over the constant rate's:\n")
    heads = "  ".join(f"x{start:<5g}" for start in STARTS)
    print(f"{'':35}  {'ratio':20}  {'median':20}  {'paired ratio':20}  {heads}  failed")
    for row in rows:
        cells = (
            (row["ratio"], *row["interval"]),
            (row["median"], *row["median_interval"]),
            row["paired"],
        )
        text = "  ".join(f"{a:.3f} [{b:.3f}, {c:.3f}]" for a, b, c in cells)
        starts = "  ".join(f"{value:6.3f}" for value in row["by_start"])
        failed = f"{row['failures']:3d}/{row['runs']}"
        print(f"{row['name']:35}  {text}  {starts}  {failed}", flush=True)


def main() -> None:
    """Selects on one half of the problems and confirms on the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6, help="data sets and weights a problem")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_suffix(".json"),
        help="where the figures go",
    )
    options = parser.parse_args()
    np.seterr(all="ignore")  # rates that diverge are part of the study
    began = time.perf_counter()

    def run(half: str, schedules: Sequence, reference: Candidate) -> list[dict]:
        problems = [problem for problem in PROBLEMS if problem.half == half]
        usual = usual_rates(problems, options.seeds)
        to_constant, to_best = measure(problems, schedules, usual, options.seeds)
        against = to_constant[:, :, schedules.index(reference)]
        rows = []
        for index, schedule in enumerate(schedules):
            name = getattr(schedule, "__name__", str(schedule))
            row = summary(name, to_constant[:, :, index], to_best[:, :, index])
            paired = to_constant[:, :, index] - against
            row["paired"] = [math.exp(paired.mean()), *interval(paired)]
            rows.append(row)
        return rows

    rows = run("select", [cosine, plateau, *GRID], DESIGN)
    table(f"To select on; paired with {DESIGN}", rows)
    chosen = GRID[int(np.argmin([row["ratio"] for row in rows[2:]]))]
    print(f"\nLowest: {chosen}")
    changes = [chosen, *(replace(chosen, **change) for change in ONE_CHANGE)]
    changed_rows = run("select", changes, chosen)
    table("One change at a time, on the same problems; paired with the chosen", changed_rows)
    confirmed = run("confirm", [cosine, plateau, DESIGN, chosen], DESIGN)
    table(f"To confirm on; paired with {DESIGN}", confirmed)
    print(f"\n{time.perf_counter() - began:.0f} s")
    result = {
        "command": "python tests/benchmarks/greedy_defaults.py",
        "seeds": options.seeds,
        "starts": STARTS,
        "before": asdict(DESIGN),
        "chosen": asdict(chosen),
        "select": rows,
        "one_change": changed_rows,
        "confirm": confirmed,
    }
    options.out.write_text(json.dumps(_rounded(result)).replace('{"name"', '\n{"name"') + "\n")


def _rounded(value: Any) -> Any:
    """The same with four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    main()
