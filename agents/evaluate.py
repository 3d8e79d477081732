"""Policies against tuned and untuned rivals on families they have not seen.

Each problem is run for several seeds at several initial rates around the usual one. A rival runs
at the given rate, and again at a rate tuned for it and the problem: the best, by validation loss
over seeds of their own, of a grid half a decade apart. The policy is never tuned. Every ratio is
the policy's final loss by the rival's on the same problem, seed and initial rate; below 1 the
policy is better.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_greedylr import observation
from keras_greedylr.policy import Act
from keras_greedylr.validation import check_int
from keras_greedylr_agents.problems.base import Problem, Runs, advance, start
from keras_greedylr_agents.rivals import RIVALS, Controller, Fixed, Learned

LOSSES = ("validation", "training")
FAILURE = 1.5  # a run is a failure if its loss is this many times the constant rate's
STUCK = 0.99  # a run is stuck if its training loss ends above this part of where it began


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Args:
        seeds: Runs per problem and initial rate.
        rates: Initial rates, as multiples of the usual one.
        tuning_seeds: Other seeds, for tuning the rivals' rates.
        grid: Rates tried, as multiples of the usual one.
        seed: Of everything random, and of the bootstrap.
        bootstrap: Resamples for the intervals.
    """

    seeds: int = 10
    rates: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    tuning_seeds: int = 5
    grid: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-5, 5))
    seed: int = 1
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        for name in ("seeds", "tuning_seeds", "bootstrap"):
            check_int(name, getattr(self, name), least=1)


class Outcome(NamedTuple):
    """How runs ended; [seeds, rates] float32 unless stated."""

    validation: np.ndarray
    training: np.ndarray
    started: np.ndarray  # training loss of the untrained weights
    rates: np.ndarray  # [intervals, seeds, rates], the learning rates


class Evaluation(NamedTuple):
    """Outcomes by problem, then by contestant; `"... tuned"` are those at their tuned rate."""

    outcomes: dict[str, dict[str, Outcome]]
    tuned_rates: dict[str, dict[str, float]]  # multiples of the usual rate
    plan: Plan


def rollout(
    problem: Problem,
    runs: Runs,
    rates: np.ndarray,
    controller: Controller,
    validated: bool = True,
    watch: Callable[[int, Runs], None] = lambda intervals, runs: None,
) -> tuple[Runs, np.ndarray]:
    """Trains runs to their end under a controller.

    Args:
        problem: Whose runs they are.
        runs: Untrained runs, P of them.
        rates: [P], what the controller is given.
        controller: Sets the rates.
        validated: Whether it sees validation losses.
        watch: Told after each interval how many are done, and the runs.

    Returns:
        The trained runs, and the rates [intervals, P] that were used.
    """

    def bound() -> np.ndarray | None:
        rates = _bound(problem)(runs.state)
        return None if rates is None else rates.numpy()

    used = [np.asarray(controller.first(rates, bound()), np.float32)]
    for i in range(observation.DECISIONS):
        runs, report = advance(problem, runs, tf.constant(used[-1]), observation.DECISIONS)
        watch(i + 1, runs)
        if i + 1 == observation.DECISIONS:
            break
        seen = observation.Interval(*(field.numpy() for field in report.interval))
        if not validated:
            seen = seen._replace(validation_loss=np.full_like(seen.loss, np.nan))
        used.append(np.asarray(controller.next(seen, bound()), np.float32))
    return runs, np.stack(used)


@functools.cache
def _bound(problem: Problem) -> Any:
    """One graph for a problem's bound: its power iterations are many small steps."""
    return tf.function(problem.bound, autograph=False)


def evaluate(
    policies: dict[str, Act],
    problems: Iterable[Problem],
    plan: Plan | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Runs every policy, with and without validation losses, and every rival.

    The controls are run as well: the replay of the first policy's mean schedule, at the given and
    at a tuned rate; an untrained policy is one of `policies`; the best single rate is
    `"constant tuned"`.

    Args:
        policies: By name.
        problems: The families.
        plan: How much is run.
        report: Told what has been done.
    """
    plan = plan or Plan()
    problems = tuple(problems)
    spread = np.tile(np.array(plan.rates, np.float32), plan.seeds)
    outcomes: dict[str, dict[str, Outcome]] = {problem.name: {} for problem in problems}
    tuned_rates: dict[str, dict[str, float]] = {problem.name: {} for problem in problems}
    held_out = {p.name: _begin(p, (plan.seed, 0), plan.seeds, len(plan.rates)) for p in problems}
    for problem in problems:
        runs, usual = held_out[problem.name]
        for name, act in policies.items():
            for label, validated in ((name, True), (f"{name}, no validation", False)):
                done = rollout(problem, runs, usual * spread, Learned(act), validated)
                outcomes[problem.name][label] = _outcome(problem, runs, *done, plan)
        report(f"{problem.name}: policies")

    contestants = dict(RIVALS)
    if policies:
        replay = _mean_schedule(next(iter(policies)), outcomes, held_out, spread)
        contestants["replay"] = lambda: Fixed(replay)
    for problem in problems:
        runs, usual = held_out[problem.name]
        tuning = _begin(problem, (plan.seed, 1), plan.tuning_seeds, len(plan.grid))
        for name, make in contestants.items():
            best = tuned_rates[problem.name][name] = _tune(problem, *tuning, make, plan)
            for label, multiple in ((name, spread), (f"{name} tuned", best)):
                done = rollout(problem, runs, usual * multiple, make())
                outcomes[problem.name][label] = _outcome(problem, runs, *done, plan)
        report(f"{problem.name}: rivals")
    return Evaluation(outcomes, tuned_rates, plan)


def _begin(
    problem: Problem, seed: tuple[int, int], seeds: int, repeats: int
) -> tuple[Runs, np.ndarray]:
    """Untrained runs [seeds * repeats], each repeated, and their usual rates."""
    runs = start(problem, tf.constant(seed), seeds)
    runs = runs._replace(
        state=tf.nest.map_structure(lambda x: tf.repeat(x, repeats, axis=0), runs.state),
        movement=tf.repeat(runs.movement, repeats, axis=0),
    )
    return runs, problem.usual_rate(runs.state).numpy()


def _outcome(problem: Problem, before: Runs, after: Runs, rates: np.ndarray, plan: Plan) -> Outcome:
    """What is kept of a rollout; a loss that is not finite counts as e times the first one."""
    shape = (plan.seeds, len(plan.rates))
    started = problem.training_loss(before.state).numpy()
    validation = problem.validation_loss(after.state).numpy()
    first_validation = problem.validation_loss(before.state).numpy()
    training = problem.training_loss(after.state).numpy()
    return Outcome(
        bounded(validation, first_validation).reshape(shape),
        bounded(training, started).reshape(shape),
        started.reshape(shape),
        rates.reshape(-1, *shape),
    )


def bounded(loss: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Keeps one diverged run from deciding a geometric mean."""
    worst = np.e * first
    return np.where(np.isfinite(loss), np.clip(loss, 1e-6 * first, worst), worst)


def _tune(
    problem: Problem, runs: Runs, usual: np.ndarray, make: Callable[[], Controller], plan: Plan
) -> float:
    """The grid's rate with the lowest geometric mean of validation losses."""
    grid = np.tile(np.array(plan.grid, np.float32), plan.tuning_seeds)
    done, _ = rollout(problem, runs, usual * grid, make())
    first = problem.validation_loss(runs.state).numpy()
    losses = bounded(problem.validation_loss(done.state).numpy(), first)
    means = np.log(losses).reshape(plan.tuning_seeds, -1).mean(axis=0)
    return float(plan.grid[int(means.argmin())])


def _mean_schedule(
    name: str,
    outcomes: dict[str, dict[str, Outcome]],
    held_out: dict[str, tuple[Runs, np.ndarray]],
    spread: np.ndarray,
) -> Callable[[float], float]:
    """The policy's geometric-mean rate over all runs, relative to the initial rate."""
    logs = [
        np.log(mine[name].rates.reshape(observation.DECISIONS, -1) / (held_out[p][1] * spread))
        for p, mine in outcomes.items()
    ]
    mean = np.exp(np.concatenate(logs, axis=1).mean(axis=1))
    return lambda progress: float(mean[round(progress * observation.DECISIONS)])


def summarise(evaluation: Evaluation, policy: str) -> dict[str, Any]:
    """Returns the table of a policy against everyone else, ready for JSON.

    Per contestant and loss: the median of final losses, the geometric mean and the median of the
    ratios policy by contestant, the part of pairs the policy wins (ties count half), with 95 %
    bootstrap intervals over the seeds on these problems (what others would bring they do not
    tell), and the part of the contestant's runs that failed or stuck.
    """
    table: dict[str, Any] = {}
    problems = evaluation.outcomes
    for name in next(iter(problems.values())):
        row = table[name] = {}
        for loss in LOSSES:
            mine, theirs, constant = (
                np.stack([getattr(outcomes[who], loss) for outcomes in problems.values()])
                for who in (policy, name, "constant")
            )
            ratio = np.log(mine / theirs)  # [problems, seeds, rates]
            win = (mine < theirs) + 0.5 * (mine == theirs)
            row[loss] = {
                "median": float(np.median(theirs)),
                "ratio": _interval(ratio, evaluation.plan, np.exp),
                "median_ratio": float(np.exp(np.median(ratio))),
                "win_rate": _interval(win, evaluation.plan, lambda x: x),
                "failures": float(np.mean(theirs > FAILURE * constant)),
                "ratio_by_problem": {
                    p: float(np.exp(r.mean())) for p, r in zip(problems, ratio, strict=True)
                },
                "win_rate_by_problem": {
                    p: float(w.mean()) for p, w in zip(problems, win, strict=True)
                },
                "ratio_by_rate": [float(r) for r in np.exp(ratio.mean(axis=(0, 1)))],
            }
        stuck = [o[name].training > STUCK * o[name].started for o in problems.values()]
        row["stuck"] = float(np.mean(stuck))
    return {
        "policy": policy,
        "plan": asdict(evaluation.plan),
        "problems": list(problems),
        "tuned_rates": evaluation.tuned_rates,
        "table": table,
    }


def _interval(
    values: np.ndarray, plan: Plan, transform: Callable[[Any], Any]
) -> tuple[float, float, float]:
    """Mean with its 95 % interval, resampling seeds within problems; rates stay together."""
    cells = values.mean(axis=2)  # [problems, seeds]
    rng = np.random.default_rng(plan.seed)
    drawn = rng.integers(0, plan.seeds, (plan.bootstrap, *cells.shape))
    means = np.take_along_axis(cells[None], drawn, axis=2).mean(axis=(1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return tuple(float(transform(x)) for x in (cells.mean(), low, high))


def markdown(summary: dict[str, Any]) -> str:
    """Returns a summary as a Markdown table, a row per contestant."""
    few = ", too narrow with fewer than five" if summary["plan"]["seeds"] < 5 else ""
    lines = [
        f"Final losses of `{summary['policy']}` relative to each contestant's over "
        f"{len(summary['problems'])} problems, {summary['plan']['seeds']} seeds and initial rates "
        f"x {', '.join(f'{r:g}' for r in summary['plan']['rates'])}; below 1 the policy is "
        f"better. 95 % bootstrap intervals over the seeds, on these problems, in brackets{few}.",
        *_at_the_end_of_the_grid(summary),
        "",
        "| contestant | validation ratio | median ratio | wins | training ratio | median ratio | "
        "wins | failures, by validation and training loss | stuck |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in summary["table"].items():
        cells = [name]
        for loss in LOSSES:
            cells.append("{:.2f} [{:.2f}, {:.2f}]".format(*row[loss]["ratio"]))
            cells.append(f"{row[loss]['median_ratio']:.2f}")
            cells.append("{:.0%} [{:.0%}, {:.0%}]".format(*row[loss]["win_rate"]))
        failures = ", ".join(f"{row[loss]['failures']:.1%}" for loss in LOSSES)
        cells += [failures, f"{row['stuck']:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _at_the_end_of_the_grid(summary: dict[str, Any]) -> list[str]:
    """Says where a rival's rate was tuned as far as the grid goes."""
    ends = summary["plan"]["grid"][0], summary["plan"]["grid"][-1]
    places = [
        f"{name} on {problem}"
        for problem, rates in summary["tuned_rates"].items()
        for name, rate in rates.items()
        if rate in ends
    ]
    told = "Tuned to the end of the grid, a rate beyond may be better: "
    return ["", told + "; ".join(places) + "."] if places else []


def to_json(summary: dict[str, Any]) -> str:
    """Returns a summary as strict JSON."""
    return json.dumps(summary, indent=2, allow_nan=False) + "\n"
