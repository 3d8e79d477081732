"""What the schedules that drive a model share: its rate, their state, who listens."""

from __future__ import annotations

import abc
import copy
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import keras
import numpy as np

from keras_greedylr.callbacks.live_scalar import JAX, LiveScalar, to_device
from keras_greedylr.state_file import KEPT_EPOCHS, SavedStates, read_states, write_states
from keras_greedylr.validation import check_choice

# Which schedules drive a model: those that show them find them here.
_SCHEDULES: WeakKeyDictionary[keras.Model, WeakSet[Schedule]] = WeakKeyDictionary()


class Decision(NamedTuple):
    """What a schedule tells those who listen each time it has looked at the run."""

    unit: str  # "epoch" or "batch": what `position` counts
    position: int  # of the epoch, or of the batch within its epoch
    old_rate: float
    new_rate: float
    reason: str  # why the rate moved, or ""
    values: dict[str, float]  # what the schedule goes by, finite numbers only
    begins: bool  # decided before the epoch's first batch, which trains at the new rate


class Schedule(keras.callbacks.Callback, abc.ABC):
    """Base of the callbacks that set the learning rate of one model.

    A subclass says in `_start`, `_snapshot` and `_restore` what its state is,
    moves it, and calls `_apply` to have the rate follow.

    The rate is kept as a Python number and assigned only when it changes: on
    JAX each use of `self.model` inside an epoch copies all variables.
    """

    def __init__(self, state_path: str | os.PathLike | None = None, verbose: int = 0):
        super().__init__()
        if state_path is not None and not isinstance(state_path, str | os.PathLike):
            raise ValueError(
                f"`state_path` must be a path or None. Received: state_path={state_path!r}"
            )
        if state_path is not None and os.path.isdir(state_path):
            raise ValueError(f"`state_path` must be a file. Received the folder {state_path!r}")
        check_choice("verbose", verbose, (0, 1))
        self.state_path = state_path
        self.verbose = verbose
        self._epoch: int | None = None
        self._listeners: list[Callable[[Decision], None]] = []

    # What a subclass fills in.

    @abc.abstractmethod
    def _start(self, learning_rate: float) -> None:
        """Begins a run at `learning_rate`."""

    @abc.abstractmethod
    def _snapshot(self) -> Any:
        """Returns the state as JSON values."""

    @abc.abstractmethod
    def _restore(self, snapshot: Any) -> float:
        """Takes a snapshot back; returns the rate in force."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """Makes a callback from `get_config`."""
        return cls(**config)

    def __copy__(self) -> Schedule:
        return copied(self)

    # The one model.

    def set_model(self, model: keras.Model) -> None:
        """Binds the callback to `model`, for good."""
        if self._model is not None and model is not None and model is not self._model:
            raise ValueError(
                f"This {type(self).__name__} already drives model '{self._model.name}' and cannot "
                f"drive another, '{model.name}', as well: its state belongs to one training run. "
                "Make a callback for each model."
            )
        super().set_model(model)
        if model is not None:
            _SCHEDULES.setdefault(model, WeakSet()).add(self)

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Begins a `fit`: Keras calls this before any callback's `on_train_begin`."""
        super().set_params(params)
        self._listeners = []

    def subscribe(self, listener: Callable[[Decision], None]) -> None:
        """Calls `listener` after every decision until the next `fit` begins."""
        self._listeners.append(listener)

    def catch_up(self) -> None:
        """At an epoch's end: takes decisions its batches led to, if there are any left."""

    # The rate.

    @property
    def by_batches(self) -> bool:
        """Whether it decides by batches; else by epochs."""
        return True

    @property
    def learning_rate(self) -> float:
        """The rate the model trains with."""
        return self._rate

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reads the rate training begins with."""
        for other in schedules_beside(self):
            if other is not self:
                names = sorted(type(schedule).__name__ for schedule in (self, other))
                raise ValueError(
                    f"{names[0]} and {names[1]} would both set the rate of model "
                    f"'{self._model.name}'. Give `fit` one of them."
                )
        self._epoch = None
        self._saved: dict[int, Any] = {}
        self._steps_before: int | None = None  # the first epoch
        self._read_rates()

    def _read_rates(self) -> None:
        self._optimizers = single_optimizers(self.model)
        check_free(self.model.optimizer, type(self).__name__)
        rates = [read_rate(optimizer, type(self).__name__) for optimizer in self._optimizers]
        self._ratios = [rate / rates[0] for rate in rates] if rates[0] else [1.0] * len(rates)
        self._rate = rates[0]
        self._start(rates[0])

    def _apply(
        self, unit: str, position: int, rate: float, reason: str, begins: bool = False
    ) -> None:
        """Makes `rate` the model's rate and tells the listeners."""
        old = self._rate
        if rate != old:
            self._assign(rate)
            if self.verbose and reason:
                where = f"Epoch {(self._epoch or 0) + 1}"
                if unit == "batch":  # of several in one execution it may run past the end
                    steps = (self.params or {}).get("steps") or position + 1
                    where += f", batch {min(position + 1, steps)}"
                print(f"\n{where}: {type(self).__name__} sets learning rate to {rate:g}: {reason}.")
        if self._listeners:
            decision = Decision(unit, position, old, rate, reason, self.values(), begins)
            for listener in self._listeners:
                listener(decision)

    def _assign(self, rate: float) -> None:
        # `self.model`, not a cached optimizer: on JAX what is assigned without it is lost.
        for optimizer, ratio in zip(single_optimizers(self.model), self._ratios, strict=True):
            optimizer.learning_rate = _tensor(rate * ratio)
        self._rate = rate

    def _assign_again(self, batches: int) -> None:
        """Makes the rate last beyond an epoch that ended after so many batches, unforeseen.

        On JAX Keras begins one batch more there, for which there is no data, and then goes back to
        the state before it: what was assigned after the last batch is undone.
        """
        steps = (self.params or {}).get("steps")
        if steps is None or batches < steps:
            self._assign(self._rate)

    @abc.abstractmethod
    def values(self) -> dict[str, float]:
        """Returns the numbers the schedule goes by, to be shown in TensorBoard."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Puts the rate the epoch ended with into its logs, as Keras' own callbacks do."""
        if logs is not None:
            logs["learning_rate"] = self._rate
            if len(self._optimizers) > 1:
                for optimizer, ratio in zip(self._optimizers, self._ratios, strict=True):
                    logs[f"learning_rate_{optimizer.name}"] = self._rate * ratio
        if self._steps_before is not None and self._steps_before == self._steps_made():
            warnings.warn(
                f"{type(self).__name__} sets the rate of optimizer '{self._optimizers[0].name}', "
                f"which made no step in epoch {epoch + 1}: if the `train_step` of model "
                f"'{self._model.name}' has optimizers of its own, their rates stay as they are.",
                stacklevel=2,
            )
        self._steps_before = None  # one epoch tells

    def _steps_made(self) -> int | None:
        """Steps of the optimizers so far; None where loss scaling may skip a whole epoch's."""
        if hasattr(self._model.optimizer, "dynamic_scale"):
            return None
        counts = [LiveScalar(self._model, optimizer._iterations) for optimizer in self._optimizers]
        return round(sum(count.read() for count in counts))

    # The state on disk.

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Goes on from the state on disk, if this `fit` has just begun."""
        begun, self._epoch = self._epoch is not None, epoch
        if begun:
            return
        self._read_rates()  # again: a callback after this one may have restored the model
        self._steps_before = self._steps_made()
        if self.state_path is None:
            return
        states = read_states(self.state_path, self._identity())
        if states is None:
            self._saved = {epoch: self._snapshot()}
            return
        try:
            rate = self._restore(states.after(epoch))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"State file '{self.state_path}' cannot be used: {error}") from error
        self._saved = (
            {} if states.finished else {e: s for e, s in states.epochs.items() if e < epoch}
        )
        self._saved[epoch] = self._snapshot()
        self._apply("epoch", epoch, rate, f"restored from {self.state_path}", begins=True)

    def _save(self, epochs_done: int, finished: bool = False) -> None:
        """Writes the state after `epochs_done` epochs."""
        if self.state_path is None:
            return
        snapshot = self._snapshot()
        if self._saved.get(epochs_done) == snapshot and not finished:
            return  # several hooks may save, each as early as it can
        self._saved[epochs_done] = snapshot
        self._saved = dict(sorted(self._saved.items())[-KEPT_EPOCHS:])
        write_states(self.state_path, self._identity(), SavedStates(finished, self._saved))

    def _identity(self) -> dict[str, Any]:
        """Whose state a file holds: the configuration less what does not bear on the rate."""
        config = self.get_config()
        config = {k: v for k, v in config.items() if k not in ("state_path", "verbose")}
        return {"schedule": type(self).__name__, **config}

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Marks the state as that of a `fit` that came to its end."""
        if self._epoch is not None:
            self._save(max(self._saved, default=self._epoch + 1), finished=True)


def copied(callback: keras.callbacks.Callback) -> Any:
    """A copy of a callback, of the same model, that shares nothing else: hooks know their owner."""
    return copy.deepcopy(callback, {id(callback._model): callback._model})


def schedules_beside(callback: keras.callbacks.Callback) -> list[Schedule]:
    """The schedules in the same `fit` as `callback`; none outside of one."""
    if callback.params is None:
        return []
    beside = _SCHEDULES.get(callback._model, ())
    # One `params` object is handed to all callbacks of a `fit`, a new one to the next.
    return [schedule for schedule in beside if schedule.params is callback.params]


def single_optimizers(model: keras.Model) -> list[Any]:
    """The optimizers that have a rate, inside loss scaling and `MultiOptimizer`."""
    if model.optimizer is None:
        raise ValueError("The model has no optimizer: compile it with one.")
    singles = _inside(model.optimizer)
    if not singles and model.built:  # made by a function, for each variable, when built
        model.optimizer.build(model.trainable_variables)
        singles = _inside(model.optimizer)
    if not singles:
        raise ValueError(
            f"Optimizer '{model.optimizer.name}' makes its optimizers when the model is built. "
            "Build the model before `fit`, or give MultiOptimizer an OptimizerMap."
        )
    return singles


def _inside(optimizer: Any) -> list[Any]:
    if hasattr(optimizer, "inner_optimizer"):
        return _inside(optimizer.inner_optimizer)
    if hasattr(optimizer, "optimizers"):
        return [single for part in optimizer.optimizers for single in _inside(part)]
    return [optimizer]


def check_free(optimizer: Any, asker: str) -> None:
    """Raises if an optimizer moves the rate by itself: what is assigned would not last."""
    if getattr(optimizer, "sets_learning_rate", False):
        raise ValueError(
            f"{asker} sets the learning rate, but {type(optimizer).__name__} sets it as well. "
            "Compile the model with an optimizer that leaves its rate alone."
        )
    if hasattr(optimizer, "inner_optimizer"):
        check_free(optimizer.inner_optimizer, asker)
    for part in getattr(optimizer, "optimizers", ()):
        check_free(part, asker)


def read_rate(optimizer: Any, asker: str) -> float:
    """The rate of a single optimizer; an error in the name of `asker` if it is no number."""
    rate = optimizer.learning_rate
    if not isinstance(rate, keras.Variable):
        raise ValueError(
            f"{asker} sets the learning rate itself, but optimizer '{optimizer.name}' was built "
            "with a LearningRateSchedule or a callable. Pass the initial rate as a float instead, "
            f"for example `keras.optimizers.{type(optimizer).__name__}(learning_rate=1e-3)`."
        )
    # The shortest number that is this float32: the 0.01 that was asked for and
    # not 0.009999999776, so that it meets bounds written the same way.
    return float(str(np.asarray(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(rate)))))


def _tensor(number: float) -> Any:
    """A number as a scalar tensor.

    Not handed to Keras as it is: TensorFlow would keep a tensor for each number it ever saw.
    """
    array = np.asarray(number, "float64" if keras.config.floatx() == "float64" else "float32")
    return to_device(array) if JAX else keras.ops.convert_to_tensor(array)
