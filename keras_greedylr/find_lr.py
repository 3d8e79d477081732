"""A range test: which learning rates a model bears, in a hundred batches."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_greedylr.callbacks.batch_loss import BatchLoss
from keras_greedylr.callbacks.schedule import Schedule, check_free, read_rate, single_optimizers
from keras_greedylr.validation import check_float, check_int

SMOOTHING = 0.9  # decay of the losses' average
BLOWN_UP = 4.0  # the test ends where the average is so many times its lowest value
SETTLE = 10  # losses before their average is one: the first alone may be a lucky batch's
NOT_OURS = {"epochs", "initial_epoch", "validation_data", "validation_split", "verbose"}
MARGIN = 10.0  # the suggestion is so many times below the rate of the lowest average


class RangeTest(NamedTuple):
    """What a range test showed. Example: see `find_lr`."""

    rates: np.ndarray  # [n] float64, of the batches, or groups of them, in order
    losses: np.ndarray  # [n], of those batches alone
    smoothed: np.ndarray  # [n], their exponential average
    suggestion: float  # a tenth of the rate at which the average was lowest
    blew_up: bool = False  # whether the loss did, which ended the test

    @property
    def doubt(self) -> str:
        """Why not to trust the suggestion, or an empty string: the lowest loss was at an end."""
        lowest, doubts = _lowest(self.smoothed), []
        if self.suggestion < self.rates[0]:
            doubts.append("The suggestion is below the rates tried: try a smaller min_lr.")
        if lowest == len(self.rates) - 1 and not self.blew_up:
            doubts.append("The loss was lowest at the highest rate: try a larger max_lr.")
        return " ".join(doubts)


def find_lr(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    min_lr: float = 1e-6,
    max_lr: float = 10.0,
    steps: int = 100,
    **fit_arguments: Any,
) -> RangeTest:
    """Trains at rates that grow from batch to batch until the loss blows up.

    Weights, the optimizer's state, its rate and the states of random generators are put back
    afterwards, whatever happens in between. Nothing is restored that Keras does not know of,
    such as counters of a model of your own.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr.find_lr import find_lr
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    >>> x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    >>> test = find_lr(model, x, x.sum(axis=1, keepdims=True), steps=60)
    >>> 1e-3 < test.suggestion < 1.0
    True

    Args:
        model: Compiled, with a float for its rate.
        x, y: As in `fit`.
        min_lr, max_lr: Floats > 0. The first rate and the last.
        steps: Integer >= 3. Batches the test takes at most.
        **fit_arguments: Of `fit`: `batch_size`, `sample_weight`, `callbacks`, ...

    Returns:
        A `RangeTest`.

    Raises:
        ValueError: if the model is not compiled, an argument is out of its range,
            the optimizer has a `LearningRateSchedule`, or no batch had a finite loss.

    Reference:
        [Smith, 2017](https://arxiv.org/abs/1506.01186), section 3.3.
    """
    check_float("min_lr", min_lr, above=0.0)
    check_float("max_lr", max_lr, above=0.0)
    if max_lr <= min_lr:
        raise ValueError(
            f"`max_lr` must be above `min_lr`. Received: min_lr={min_lr}, max_lr={max_lr}"
        )
    check_int("steps", steps, least=3)
    if wrong := NOT_OURS & set(fit_arguments):
        raise ValueError(
            f"A range test has no epochs, no validation and no output. Received: {sorted(wrong)}"
        )
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ValueError(f"`model` must be a compiled keras.Model. Received: {type(model)}")
    ramp = _Ramp(min_lr, max_lr, steps)
    callbacks = [*keras.tree.flatten(fit_arguments.pop("callbacks", None) or []), ramp]
    _build(model, x)
    check_free(model.optimizer, "find_lr")
    for optimizer in single_optimizers(model):
        read_rate(optimizer, "find_lr")
    with _generators_put_back():
        try:
            # As many epochs as it takes: the ramp stops training.
            model.fit(x, y, epochs=steps, callbacks=callbacks, verbose=0, **fit_arguments)
        finally:
            ramp.put_back()
    if len(ramp.losses) < 2:
        raise ValueError(
            f"There was a loss at {len(ramp.losses)} rate only. Pass a smaller min_lr (received: "
            f"{min_lr:g}) if it was not finite from the second on, or more steps (received: "
            f"{steps}) if one execution covers them all."
        )
    return analyse(np.array(ramp.rates), np.array(ramp.losses))._replace(blew_up=ramp.blew_up)


def _build(model: keras.Model, x: Any) -> None:
    """Makes all there is to be put back: `fit` itself may do so in its first step only."""
    if not model.built:
        arrays = keras.tree.flatten(x)
        if not all(hasattr(array, "shape") for array in arrays):
            raise ValueError(
                "The model is not built, and `x` is no array to build it for. Call `model.build` "
                f"first. Received: x of {type(x)}"
            )
        model(keras.tree.map_structure(lambda array: array[:1], x))
    if not model.optimizer.built:  # a LossScaleOptimizer would make its variables once more
        model.optimizer.build(model.trainable_variables)


@contextlib.contextmanager
def _generators_put_back() -> Iterator[None]:
    """Keeps the global generators, by which data is shuffled and PyTorch drops out."""
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002, Keras uses it
        if keras.backend.backend() == "torch":
            import torch

            stack.enter_context(torch.random.fork_rng())
        yield


def analyse(rates: np.ndarray, losses: np.ndarray) -> RangeTest:
    """Returns what losses [n] at rising rates [n] suggest."""
    average, smoothed = 0.0, []
    for i, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1.0 - SMOOTHING) * loss
        smoothed.append(average / (1.0 - SMOOTHING**i))  # the first average starts from zero
    curve = np.array(smoothed)
    return RangeTest(rates, losses, curve, float(rates[_lowest(curve)]) / MARGIN)


def _lowest(curve: np.ndarray) -> int:
    """Where an average is lowest, once it is settled if it comes to that."""
    settled = SETTLE if len(curve) > SETTLE else 0
    return settled + int(curve[settled:].argmin())


class _Ramp(Schedule):
    """Raises the rate after each report and keeps the losses."""

    def __init__(self, min_lr: float, max_lr: float, steps: int):
        super().__init__()
        self.min_lr, self.max_lr, self.steps = min_lr, max_lr, steps
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._before: list[tuple[keras.Variable, np.ndarray]] = []
        self._taken = 0
        self._average, self._lowest = 0.0, math.inf
        self.blew_up = False

    def get_config(self) -> dict[str, Any]:
        return {"min_lr": self.min_lr, "max_lr": self.max_lr, "steps": self.steps}

    def values(self) -> dict[str, float]:
        return {}

    def _start(self, learning_rate: float) -> None:
        pass  # it sets out from `min_lr`, wherever the optimizer stands

    def _snapshot(self) -> None:
        return None  # a range test is over within minutes and leaves no state

    def _restore(self, snapshot: None) -> float:
        return self.min_lr

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Copies: training may write into the memory of the variables themselves.
        self._before = [
            (variable, np.array(keras.ops.convert_to_numpy(variable)))
            for variable in [*self.model.variables, *self.model.optimizer.variables]
        ]
        super().on_train_begin(logs)
        self._batch_loss = BatchLoss(self._model, (self.params or {}).get("steps"))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        first = self._epoch is None
        super().on_epoch_begin(epoch, logs)
        self._batch_loss.begin_epoch()
        if first:
            self._apply("epoch", epoch, self.min_lr, "", begins=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        [(loss, batches)] = self._batch_loss.take([(batch, logs or {})])
        if loss is None:  # another callback has evaluated the model: this rate once more
            return
        self.blew_up = not math.isfinite(loss)
        if self.blew_up:
            self._model.stop_training = True
            return
        self.rates.append(self.learning_rate)
        self.losses.append(loss)
        self._taken += batches
        self._average = SMOOTHING * self._average + (1.0 - SMOOTHING) * loss
        smoothed = self._average / (1.0 - SMOOTHING ** len(self.losses))
        if len(self.losses) > SETTLE:
            self._lowest = min(self._lowest, smoothed)
            self.blew_up = smoothed > BLOWN_UP * self._lowest > 0.0
        if self.blew_up or self._taken >= self.steps:
            self._model.stop_training = True
            return
        done = self._taken / max(self.steps - 1, 1)
        rate = self.min_lr * (self.max_lr / self.min_lr) ** min(done, 1.0)
        self._apply("batch", batch, rate, "")

    def put_back(self) -> None:
        """Restores what `on_train_begin` found."""
        if not self._before:
            return
        model = self.model  # on JAX this takes the variables back from a loop that was cut off
        for variable, value in self._before:
            variable.assign(keras.ops.convert_to_tensor(value))
        model.stop_training = False
