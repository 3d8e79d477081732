"""`compare`: every schedule on one model, seed by seed, and what came of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np

from keras_greedylr.callbacks.metric_direction import metric_direction
from keras_greedylr.compare import statistics
from keras_greedylr.compare.contestants import Contestant, resolve
from keras_greedylr.compare.identity import describe_contestants, describe_problem
from keras_greedylr.compare.progress import watched
from keras_greedylr.compare.runner import Plan, run_all
from keras_greedylr.compare.store import Run, Store, Task
from keras_greedylr.validation import check_choice, check_float, check_int

TUNING_GRID = tuple(10.0 ** (k / 2) for k in range(-3, 4))  # multiples of the model's rate
TUNING_SEEDS = 2
FIRST_TUNING_SEED = 100_000  # far from the others
DEFAULT_SCHEDULES = ("greedy", "learned", "cosine", "constant")


def compare(
    build_model: Callable[[], keras.Model],
    data: Any,
    schedules: Sequence[str] | Mapping[str, Contestant | None] = DEFAULT_SCHEDULES,
    seeds: int = 6,
    epochs: int = 10,
    batch_size: int = 32,
    metric: str | None = None,
    mode: Literal["auto", "min", "max"] = "auto",
    rates: Sequence[float] = (1.0,),
    tune: bool = False,
    target: float | None = None,
    reference: str | None = None,
    jobs: int = 1,
    out: str | os.PathLike | None = None,
    verbose: int = 1,
) -> Comparison:
    """Trains a model under several schedules and compares what comes of it.

    For a seed every schedule meets the same initial weights and the same batches in the same
    order. So that a dataset that shuffles begins anew in each run, have `data` be a function that
    makes it. What `build_model` draws at random has to be in the model's variables or in its
    configuration.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr.compare import compare
    >>> def build_model():
    ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    ...     model.compile(keras.optimizers.SGD(0.01), loss="mse")
    ...     return model
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> y = x.sum(axis=1, keepdims=True)
    >>> comparison = compare(
    ...     build_model, (x, y), ["constant", "cosine"], seeds=2, epochs=2, verbose=0
    ... )
    >>> [row["contestant"] for row in comparison.rows]
    ['constant', 'cosine']
    >>> comparison.rows[0]["median"] < comparison.rows[1]["median"]
    True

    Args:
        build_model: Function that returns a compiled model, untrained, whose optimizer has a
            float for its rate.
        data: `(x, y)`, `(x, y, x_val, y_val)`, `((x, y), (x_val, y_val))`, the last also with
            sample weights behind each `y`, a dict of arguments of `fit`, or a function that
            returns one of these.
        schedules: Names (`keras_greedylr.compare.CONTESTANTS`, `"+warmup"` after a fixed one),
            or a dict from names to functions of a `Setting` that return a
            `LearningRateSchedule`, a callback, an optimizer, a list of these, or None; to None
            for what the name stands for.
        seeds: Integer >= 1. Runs of each schedule at each rate. Six are the fewest with which
            a sign test can get below 0.05; three are a first look, whose intervals hold the
            truth in some 75 %, not 95.
        epochs: Integer >= 1.
        batch_size: Integer >= 1, where `data` holds arrays and does not say.
        metric: Name in the logs of `fit`, of which the last epoch's value counts. None:
            `"val_loss"` with validation data, else `"loss"`.
        mode: `"min"`, `"max"`, or `"auto"`: by the metric's name.
        rates: Multiples of the model's rate at which each schedule is run as well, for the
            curve of how it bears a rate that is off.
        tune: Whether each schedule is given the rate that is best for it on two other seeds, of
            seven half a decade apart around the model's. Otherwise the model's.
        target: The value of the metric to be reached. None: the median the reference ended with.
        reference: Whom the others are paired with. None: the first of `schedules`.
        jobs: Integer >= 1, processes. Above 1 the arguments must be picklable, and a script
            needs its `if __name__ == "__main__":`.
        out: Folder where each finished run is kept, and from where a comparison that was
            interrupted goes on; None keeps nothing. Another model, other data or another
            budget is refused there, and a schedule that was edited is run anew. What cannot
            be seen: batches after a dataset's first, the content of a dataset that shuffles
            or augments, and what functions and layers of your own call elsewhere.
        verbose: 0, or 1 for progress on the terminal.

    Returns:
        A `Comparison`.

    Raises:
        ValueError: if an argument is of a wrong kind or out of its range, the metric is not in
            the logs, or `out` holds a comparison of other settings.
    """
    if isinstance(build_model, keras.Model) or not callable(build_model):
        raise ValueError(
            "`build_model` must be a function that returns a compiled model. "
            f"Received: {type(build_model)}"
        )
    for name, count in (("seeds", seeds), ("epochs", epochs), ("batch_size", batch_size)):
        check_int(name, count, least=1)
    check_int("jobs", jobs, least=1)
    check_choice("mode", mode, ("auto", "min", "max"))
    if not isinstance(rates, Iterable):
        raise ValueError(f"`rates` must be a list of numbers. Received: rates={rates!r}")
    for rate in rates:
        check_float("rates", rate, above=0.0)
    if target is not None:
        check_float("target", target)
        target = float(target)  # NumPy's are no JSON
    own = _own(schedules)
    names = list(schedules)
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"`schedules` must be different names. Received: {names}")
    # A folder each in the logs, of that name but for slashes.
    if len({name.replace("/", "_") for name in names}) < len(names) or {".", ".."} & set(names):
        raise ValueError(f"`schedules` must be names for different folders. Received: {names}")
    reference = names[0] if reference is None else reference
    check_choice("reference", reference, names)
    epochs, batch_size = int(epochs), int(batch_size)  # NumPy's are no JSON
    problem = describe_problem(build_model, data, epochs, batch_size)
    if metric is None:
        metric = "val_loss" if problem["validated"] else "loss"
    if mode == "auto":
        mode = metric_direction(metric, build_model(), "compare")
    store = None if out is None else Store(out, problem)
    contestants = {name: own.get(name) or resolve(name) for name in names}
    made = describe_contestants(build_model, contestants, problem)
    plan = Plan(build_model, data, own, epochs, batch_size, store)
    done = {} if store is None else store.read()

    def train(tasks: list[Task], what: str) -> list[Run]:
        missing = [task for task in tasks if task not in done]
        for run in watched(run_all(plan, missing, jobs), tasks, len(missing), what, verbose):
            done[run.task] = run
            _check_metric(run, metric)
        return [done[task] for task in tasks]

    own_rates = dict.fromkeys(names, 1.0)
    if tune:
        seeds_of_tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS)
        tasks = [
            Task(name, multiple, seed, True, made[name])
            for name in names
            for multiple in TUNING_GRID
            for seed in seeds_of_tuning
        ]
        own_rates = _best_rates(train(tasks, "tuning"), metric, mode)
    tasks = [
        Task(name, multiple, seed, made=made[name])
        for name in names
        for multiple in dict.fromkeys((own_rates[name], *map(float, rates)))
        for seed in range(seeds)
    ]
    runs = train(tasks, "comparing")
    for run in runs:
        _check_metric(run, metric)
    return Comparison(runs, own_rates, metric, mode, reference, target, problem, tuned=tune)


def _own(schedules: Sequence[str] | Mapping[str, Contestant | None]) -> dict[str, Contestant]:
    """The contestants that are not known by their names."""
    if isinstance(schedules, str):
        raise ValueError(f"`schedules` must be a list of names. Received: {schedules!r}")
    makers = schedules if isinstance(schedules, Mapping) else dict.fromkeys(schedules)
    own = {}
    if not all(isinstance(name, str) for name in makers):
        raise ValueError(f"`schedules` must be names. Received: {list(makers)}")
    for name, make in makers.items():
        if make is None:
            resolve(name)
        elif callable(make):
            own[name] = make
        else:
            raise ValueError(
                f"Schedule '{name}' must be a function of a Setting, or None. Received: {make!r}"
            )
    return own


def _check_metric(run: Run, metric: str) -> None:
    if metric not in run.history:
        raise ValueError(
            f"`metric` must be one of {sorted(run.history)}, the logs of this training with one "
            "value an epoch; others come from `metrics=` in `model.compile`. "
            f"Received: metric={metric!r}"
        )


def _best_rates(runs: list[Run], metric: str, mode: str) -> dict[str, float]:
    """For each contestant the multiple whose mean over the seeds is best.

    Of equals, as where all are right or all diverge, the nearest to the model's own rate.
    """
    results: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        loss = float(_curve(run, metric, mode)[-1])
        results.setdefault(run.task.contestant, {}).setdefault(run.task.multiple, []).append(loss)
    return {
        name: min(by_rate, key=lambda m: (float(np.mean(by_rate[m])), abs(math.log(m))))
        for name, by_rate in results.items()
    }


def _curve(run: Run, metric: str, mode: str) -> np.ndarray:
    """The metric after each epoch [epochs], so that smaller is better.

    Infinite where the loss was not finite: of NaN an accuracy makes a class like any other.
    """
    curve = statistics.as_losses(np.array(run.history[metric]), mode)
    for loss in (run.history.get("val_loss", []), run.history.get("loss", [])):
        if len(loss) == len(curve):  # with `validation_freq` there are fewer
            return np.where(np.isfinite(loss), curve, np.inf)
    return curve


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison, and the figures made of them.

    Example:

    >>> from keras_greedylr.compare import compare
    >>> from keras_greedylr.compare.problems import get_problem
    >>> model, data, *_ = get_problem("wine")
    >>> comparison = compare(model, data, ["constant"], seeds=1, epochs=1, verbose=0)
    >>> comparison.metric, comparison.mode, len(comparison.at("constant"))
    ('val_loss', 'min', 1)
    >>> comparison.rows[0]["median"] == comparison.losses("constant").item() == comparison.goal
    True

    Attributes:
        runs: Every run but those that tuned.
        own_rates: For each contestant the multiple of the model's rate that the table is about.
        metric, mode, reference, target: As `compare` took them.
        problem: What was compared on.
        tuned: Whether `own_rates` are tuned.
        rows: One dict for each contestant: `median`, `iqm` (interquartile mean) with their 95 %
            bootstrap intervals `..._low`, `..._high`; `win_rate` against the reference seed by
            seed and the `p` of a sign test; `steps_to_target` (median, infinite if most runs do
            not get there) and `reached`, the part that does; `diverged`, the runs that ended
            without a finite value or loss; `seconds` of the median run, if its first epoch, which
            may have to compile, took as long as the later ones (of a single one all counts).
    """

    runs: list[Run]
    own_rates: dict[str, float]
    metric: str
    mode: str
    reference: str
    target: float | None
    problem: dict[str, Any]
    tuned: bool = False
    rows: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", [self._row(name) for name in self.own_rates])

    def at(self, contestant: str, multiple: float | None = None) -> list[Run]:
        """Returns a contestant's runs at a multiple of the rate, at its own one by default."""
        wanted = self.own_rates[contestant] if multiple is None else multiple
        return [run for run in self.runs if run.task[:2] == (contestant, wanted)]

    def losses(self, contestant: str, multiple: float | None = None) -> np.ndarray:
        """Returns what `at`'s runs ended with [seeds], so that smaller is better."""
        runs = self.at(contestant, multiple)
        return np.array([_curve(run, self.metric, self.mode)[-1] for run in runs])

    @property
    def goal(self) -> float:
        """The value of the metric to be reached."""
        if self.target is not None:
            return self.target
        return self._shown(float(statistics.median(self.losses(self.reference))))

    @property
    def multiples(self) -> list[float]:
        """The multiples of the rate at which every contestant was run, in order."""
        multiples = sorted({run.task.multiple for run in self.runs})
        return [m for m in multiples if all(self.at(name, m) for name in self.own_rates)]

    def _shown(self, loss: float) -> float:
        return loss if self.mode == "min" else -loss

    def _row(self, name: str) -> dict[str, Any]:
        runs, losses = self.at(name), self.losses(name)
        row: dict[str, Any] = {"contestant": name, "multiple": self.own_rates[name]}
        row |= {"runs": len(runs), "diverged": int(np.sum(np.isinf(losses)))}
        for key, statistic in (
            ("median", statistics.median),
            ("iqm", statistics.interquartile_mean),
        ):
            value, *ends = map(self._shown, statistics.estimate(losses, statistic))
            row |= {key: value, f"{key}_low": min(ends), f"{key}_high": max(ends)}
        theirs = self.losses(self.reference)
        row["win_rate"] = statistics.win_rate(losses, theirs)
        row["p"] = statistics.sign_test(losses, theirs)
        goal = self.goal if self.mode == "min" else -self.goal
        if not math.isfinite(goal):  # the reference diverged: that is no goal
            goal = math.nan
        steps = np.array(
            [
                run.steps * statistics.first_reached(_curve(run, self.metric, self.mode), goal)
                for run in runs
            ]
        )
        # Of an even number not the mean of the middle two, of which one may be infinite.
        row["steps_to_target"] = float(np.sort(steps)[(len(steps) - 1) // 2])
        row["reached"] = float(np.mean(np.isfinite(steps)))
        row["seconds"] = float(np.median([run.seconds for run in runs]))
        return row
