"""Which GreedyLR parameters do best over the training families and all initial rates."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_greedylr import observation
from keras_greedylr.validation import check_int
from keras_greedylr_agents.evaluate import bounded, rollout
from keras_greedylr_agents.greedy import GreedyParameters
from keras_greedylr_agents.problems.base import Problem, start
from keras_greedylr_agents.rivals import AsShipped, Greedy

RATES = (0.01, 0.1, 1.0, 10.0, 100.0)  # multiples of the usual rate


def draw(count: int, seed: int) -> list[dict[str, Any]]:
    """Returns settings: GreedyLR's defaults, the same with a horizon, then random ones."""
    rng = np.random.default_rng(seed)
    defaults = (AsShipped(), AsShipped(observation.DECISIONS))
    found = [shipped.parameters._asdict() for shipped in defaults][:count]
    while len(found) < count:
        found.append(
            GreedyParameters(
                factor=round(float(rng.choice([0.3, 0.5, 0.65, 0.8, 0.9, 0.95])), 2),
                patience=int(rng.choice([0, 1, 2, 3, 5])),
                min_delta=float(rng.choice([1e-4, 1e-3, 1e-2])),
                window=int(rng.choice([1, 2, 3, 5, 10])),
                cooldown=int(rng.choice([0, 0, 1, 2])),
                warmup=int(rng.choice([0, 0, 1, 2])),
                carry_on=bool(rng.integers(2)),
                horizon=int(rng.choice([0, observation.DECISIONS])),
            )._asdict()
        )
    return [{k: v for k, v in c.items() if k not in ("min_lr", "max_lr")} for c in found]


def tune_greedy(
    problems: tuple[Problem, ...],
    candidates: int = 48,
    seeds: int = 2,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Returns the candidates, as arguments of `GreedyLR`, with their scores, best first.

    The score is the geometric mean of final validation losses over families, seeds and initial
    rates, relative to that of `GreedyLR`'s defaults, which are the first candidate.

    Args:
        problems: The families.
        candidates: How many settings; all of them are run together.
        seeds: Runs per family and initial rate.
        seed: Of everything random.
        report: Told what has been done.
    """
    check_int("candidates", candidates, least=1)
    check_int("seeds", seeds, least=1)
    check_int("seed", seed, least=0)
    tried = draw(candidates, seed)
    arrays = {name: np.array([c[name] for c in tried]) for name in tried[0]}
    logs = []
    for problem in problems:
        runs = start(problem, tf.constant([seed, 2]), seeds)
        cells = len(RATES) * candidates
        runs = runs._replace(
            state=tf.nest.map_structure(lambda x, n=cells: tf.repeat(x, n, axis=0), runs.state),
            movement=tf.repeat(runs.movement, cells, axis=0),
        )
        usual = problem.usual_rate(runs.state).numpy()
        rates = usual * np.tile(np.repeat(np.array(RATES, np.float32), candidates), seeds)
        own = {k: np.tile(v, seeds * len(RATES)) for k, v in arrays.items()}
        done, _ = rollout(problem, runs, rates, Greedy(GreedyParameters(**own)))
        first = problem.validation_loss(runs.state).numpy()
        last = bounded(problem.validation_loss(done.state).numpy(), first)
        logs.append(np.log(last).reshape(-1, candidates).mean(axis=0))
        report(problem.name)
    score = np.exp(np.mean(logs, axis=0) - np.mean(logs, axis=0)[0])
    order = np.argsort(score, kind="stable")
    return [{**_arguments(tried[i]), "score": float(score[i])} for i in order]


def _arguments(candidate: dict[str, Any]) -> dict[str, Any]:
    """A candidate as arguments of `GreedyLR`."""
    named = {k: v for k, v in candidate.items() if k != "carry_on"}
    phases = "carry_on" if candidate["carry_on"] else "hold"
    return {**named, "phases": phases, "horizon": "fit" if candidate["horizon"] else None}


def to_json(result: list[dict[str, Any]]) -> str:
    """Returns the candidates as strict JSON."""
    return json.dumps({"rates": RATES, "candidates": result}, indent=2, allow_nan=False) + "\n"
