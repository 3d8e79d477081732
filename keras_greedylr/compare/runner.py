"""The runs of a comparison: one after the other, or in several processes.

Every contestant meets, for a seed, the same initial weights and the same batches in the same
order: all random numbers are seeded before the model is built, before `fit`, and within it.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, NamedTuple

import keras

from keras_greedylr.callbacks.schedule import Decision, schedules_beside, single_optimizers
from keras_greedylr.compare.contestants import Contestant, equip, resolve
from keras_greedylr.compare.data import fit_arguments, is_validated, steps_per_epoch
from keras_greedylr.compare.store import Run, Store, Task

POINTS = 60  # of a fixed schedule, to draw it


class Plan(NamedTuple):
    """What every run of a comparison has in common; goes to other processes."""

    build_model: Callable[[], keras.Model]
    data: Any  # see `compare`
    own: dict[str, Contestant]  # contestants that are not known by name
    epochs: int
    batch_size: int
    store: Store | None


class Trainer:
    """Makes the runs of one process."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.arguments = fit_arguments(plan.data, plan.batch_size)
        self.steps = steps_per_epoch(self.arguments)
        self.validated = is_validated(self.arguments)
        self._compiled: dict[Any, keras.Model] = {}

    def run(self, task: Task) -> Run:
        """Trains once, and stores what came of it."""
        keras.utils.set_random_seed(task.seed)
        model, callbacks, own_graph = equip(
            self.plan.build_model(),
            self.plan.own.get(task.contestant) or resolve(task.contestant),
            task.multiple,
            steps=self.steps * self.plan.epochs,
            epochs=self.plan.epochs,
            validated=self.validated,
        )
        model = self._compiled_before(task[:2] if own_graph else None, model)
        trace = _RateTrace(self.steps)
        # Again: what building the model and its contestant drew must not shift the batches.
        keras.utils.set_random_seed(task.seed)
        begin = time.perf_counter()
        history = model.fit(
            **self.arguments,
            epochs=self.plan.epochs,
            callbacks=[*callbacks, trace, _Seed(task.seed)],
            verbose=0,
        ).history
        seconds = time.perf_counter() - begin
        curves = {
            name: [float(value) for value in values]
            for name, values in history.items()
            if not name.startswith("learning_rate")
        }
        run = Run(task, curves, trace.points, self.steps, seconds)
        if self.plan.store is not None:
            self.plan.store.add(run)
        return run

    def _compiled_before(self, key: Any, fresh: keras.Model) -> keras.Model:
        """Returns a model that does what `fresh` does and whose functions are compiled, if any.

        What differs between two runs of a contestant at one rate are the values of variables,
        those of random generators among them, and those of all runs of callbacks also in the
        rate. So these are copied.
        """
        kept = self._compiled.get(key)
        if fresh.built and not fresh.optimizer.built:
            fresh.optimizer.build(fresh.trainable_variables)
        if kept is None or not fresh.built or _shapes(kept) != _shapes(fresh):
            # Kept are one for all callbacks and the last one with a graph of its own.
            self._compiled = {k: m for k, m in self._compiled.items() if k is None} | {key: fresh}
            return fresh
        for variable, new in zip(_state(kept), _state(fresh), strict=True):
            variable.assign(keras.ops.convert_to_tensor(new))
        return kept


def _state(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def _shapes(model: keras.Model) -> list[tuple]:
    return [(tuple(variable.shape), str(variable.dtype)) for variable in _state(model)]


class _Seed(keras.callbacks.Callback):
    """Seeds once more when `fit` has built what was not.

    For that it takes a batch, on JAX and PyTorch out of the order that is drawn; a model that
    has been trained before needs none.
    """

    def __init__(self, seed: int):
        super().__init__()
        self._seed = seed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        keras.utils.set_random_seed(self._seed)


class _RateTrace(keras.callbacks.Callback):
    """Keeps the rate at each epoch's begin and wherever a callback moves it in between.

    Of a `LearningRateSchedule` it is known anyway, and asked for afterwards.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.points: list[list[float]] = []  # [step, rate]
        self._steps = steps
        self._done = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for schedule in schedules_beside(self):
            schedule.subscribe(self._on_decision)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._done = epoch * self._steps
        self._note(self._done)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        total = self._done + self._steps
        self._note(total)
        rate = single_optimizers(self.model)[0]._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            steps = sorted({total * i // POINTS for i in range(POINTS + 1)})
            self.points = [[step, float(keras.ops.convert_to_numpy(rate(step)))] for step in steps]

    def _note(self, step: int) -> None:
        rate = single_optimizers(self.model)[0].learning_rate
        self.points.append([step, float(keras.ops.convert_to_numpy(rate))])

    def _on_decision(self, decision: Decision) -> None:
        if decision.unit == "batch" and decision.new_rate != decision.old_rate:
            self.points.append([self._done + decision.position + 1, decision.new_rate])


# Processes.


def run_all(plan: Plan, tasks: Sequence[Task], jobs: int) -> Iterator[Run]:
    """Makes the runs of `tasks` and yields each when it is done."""
    if not tasks:
        return
    if jobs == 1:
        trainer = Trainer(plan)
        yield from map(trainer.run, tasks)
        return
    try:
        pickle.dumps(plan)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise ValueError(
            "With `jobs` above 1 the model's function, the data and the schedules go to other "
            "processes: they must be functions of a module, not lambdas or functions in "
            f"functions. {error}"
        ) from error
    # The runs of a contestant at one rate stay together: they share what is compiled.
    groups = [list(group) for _, group in itertools.groupby(tasks, key=lambda task: task[:2])]
    context = multiprocessing.get_context("spawn")  # a fork would inherit the framework's threads
    with ProcessPoolExecutor(jobs, context, _begin_process, (plan,)) as pool:
        try:
            for done in as_completed([pool.submit(_run_group, group) for group in groups]):
                yield from done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def hush() -> None:
    """Keeps TensorFlow from warning of each model that is compiled: there are meant to be many."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


_TRAINER: list[Trainer] = []  # that of a process of `run_all`


def _begin_process(plan: Plan) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is the parent's to explain
    hush()
    _TRAINER.append(Trainer(plan))


def _run_group(tasks: list[Task]) -> list[Run]:
    return [_TRAINER[0].run(task) for task in tasks]
