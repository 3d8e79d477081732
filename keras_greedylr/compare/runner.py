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
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_greedylr.callbacks.schedule import Decision, schedules_beside, single_optimizers
from keras_greedylr.compare.contestants import Contestant, equip, resolve
from keras_greedylr.compare.data import fit_arguments, is_in_arrays, is_validated, steps_per_epoch
from keras_greedylr.compare.identity import describe_model, has_code_that_may_remember
from keras_greedylr.compare.names import rename
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
        # The last ones, without and with a graph of their own, and what each may be used for.
        self._compiled: dict[bool, tuple[Any, keras.Model]] = {}

    def run(self, task: Task) -> Run:
        """Trains once, and stores what came of it."""
        plan, own = self.plan, self.plan.own.get(task.contestant)
        if callable(plan.data) and not is_in_arrays(self.arguments):
            # A dataset that shuffles goes on from run to run: each has to begin with a new one.
            self.arguments = fit_arguments(plan.data, plan.batch_size)
        keras.utils.set_random_seed(task.seed)
        model = plan.build_model()
        kind, sound = describe_model(model), own is None and not has_code_that_may_remember(model)
        model, callbacks, own_graph = equip(
            model,
            own or resolve(task.contestant),
            task.multiple,
            steps=self.steps * plan.epochs,
            epochs=plan.epochs,
            validated=self.validated,
        )
        if sound:  # callbacks of the user's own may set more than the rate
            use = (kind, *task[:2]) if own_graph else kind
            model = self._compiled_before(own_graph, use, model)
        trace, clock = _RateTrace(self.steps), _Clock()
        # Again: what building the model and its contestant drew must not shift the batches.
        keras.utils.set_random_seed(task.seed)
        history = model.fit(
            **self.arguments,
            epochs=plan.epochs,
            callbacks=[*callbacks, trace, clock, _Seed(task.seed)],
            verbose=0,
        ).history
        curves = {
            name: [float(value) for value in values]
            for name, values in rename(history, model).items()
            if not name.startswith("learning_rate")
            and not np.ndim(values[0])  # one for all classes
        }
        run = Run(task, curves, trace.points, self.steps, clock.seconds)
        if self.plan.store is not None:
            self.plan.store.add(run)
        return run

    def _compiled_before(self, own_graph: bool, use: Any, fresh: keras.Model) -> keras.Model:
        """Returns a model that does what `fresh` does and whose functions are compiled, if any.

        What differs between two runs of a contestant at one rate are the values of variables,
        those of random generators among them, and those of all runs of callbacks also in the
        rate. So these are copied.
        """
        kept_for, kept = self._compiled.get(own_graph, (None, fresh))
        built = fresh.built and fresh.variables  # one that was only told its input has none
        if built and not fresh.optimizer.built:
            fresh.optimizer.build(fresh.trainable_variables)
        if kept_for != use or not built or _shapes(kept) != _shapes(fresh):
            self._compiled[own_graph] = use, fresh
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


class _Clock(keras.callbacks.Callback):
    """Tells how long training took, without what the first epoch takes to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._begun, self._timed = 0.0, 0  # epochs since

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch <= 1:  # where there is but one, all of it counts
            self._begun, self._timed = time.perf_counter(), 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._timed += 1
        self.seconds = (time.perf_counter() - self._begun) / self._timed * (epoch + 1)


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
    config = keras.config  # which a script may have set where the others do not come by
    settings = config.floatx(), config.dtype_policy().name, config.image_data_format()
    with ProcessPoolExecutor(jobs, context, _begin_process, (plan, *settings)) as pool:
        try:
            for done in as_completed([pool.submit(_run_group, group) for group in groups]):
                yield from done.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "A process of the comparison has ended. With `jobs` above 1 each imports the "
                "program anew: a script has to call `compare` under "
                '`if __name__ == "__main__":`. There may also have been too little memory.'
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def hush() -> None:
    """Keeps TensorFlow from warning of each model that is compiled: there are meant to be many."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


_TRAINER: list[Trainer] = []  # that of a process of `run_all`


def _begin_process(plan: Plan, floatx: str, policy: str, image_data_format: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is the parent's to explain
    hush()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(image_data_format)
    _TRAINER.append(Trainer(plan))


def _run_group(tasks: list[Task]) -> list[Run]:
    try:
        return [_TRAINER[0].run(task) for task in tasks]
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error of the user's own may not go between processes
            raise RuntimeError("".join(traceback.format_exception(error))) from None
        raise
