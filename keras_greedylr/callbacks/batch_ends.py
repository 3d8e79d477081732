"""Hearing of each batch's end; on JAX without waiting for what it reports.

On JAX the training loop goes on when a step is dispatched, not when it is done. A callback with a
hook at each batch's end makes Keras wait for the batch's logs first, and the device idles. So
there the model's train function is wrapped for the time of a `fit`: it returns the same logs, on
their way still, and they are waited for only where somebody wants to look at one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_greedylr.callbacks.batch_loss import Report
from keras_greedylr.callbacks.live_scalar import JAX, LiveScalar
from keras_greedylr.callbacks.schedule import single_optimizers

STATE = (
    "trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables"
)  # fmt: skip


class BatchEnds:
    """Keeps what a `fit` reports at its batches' ends, until a callback has to look.

    Args:
        callback: The callback. It gets a hook, where Keras has one that costs nothing.
        look: Called, when it is time, with the reports since it was called last: the index of a
            batch, of several in one execution the last, and its logs, numbers or what will be
            some. What training has come to is there, and `put` works. Returns how many batches
            of the epoch are to be done when it is called next; of the first it is called in any
            case.

    Attributes:
        kept: The reports it was not called with yet.
    """

    def __init__(self, callback: keras.callbacks.Callback, look: Callable[[list[Report]], int]):
        self._callback = callback
        self._look = look
        self.batch = -1  # index of the last one of this epoch
        self.kept: list[Report] = []
        self.wanted = 0
        self._tap: _Tap | None = None
        if not JAX:
            callback.on_train_batch_end = self.hear

    def hear(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes in a report when what training has come to is there."""
        self.batch = batch
        self.kept.append((batch, dict(logs or {})))  # other callbacks may change theirs
        if batch + 1 >= self.wanted:
            self.look()

    def look(self) -> None:
        """Has the callback look."""
        self.wanted = self._look(self.take())

    def take(self) -> list[Report]:
        """Returns the reports kept, which are kept no longer."""
        reports, self.kept = self.kept, []
        return reports

    def begin_epoch(self) -> None:
        """To be called when an epoch begins."""
        self.batch, self.kept, self.wanted = -1, [], 0
        if JAX:
            model, params = self._callback._model, self._callback.params
            if self._tap is None or not self._tap.serves(model, params):
                self._tap = _Tap(self, model, params)

    def end_epoch(self) -> None:
        """To be called when an epoch ends.

        Raises:
            RuntimeError: if nothing was heard of its batches.
        """
        if JAX and self.batch < 0:
            raise RuntimeError(
                f"{type(self._callback).__name__} looks at batches and heard of none in this "
                "epoch. On the JAX backend it listens to `model.train_function`, which a training "
                "loop of your own has to call as Keras' `fit` does."
            )

    def end(self) -> None:
        """To be called when training ends."""
        if self._tap is not None:
            self._tap.remove()
            self._tap = None

    def put(self, variable: keras.Variable, number: float) -> bool:
        """Sets a variable of the optimizer for the batches to come, without what Keras copies.

        Returns:
            Whether it could: only during `look`, on JAX.
        """
        return self._tap is not None and self._tap.put(variable, number)


class _Tap:
    """Takes the place of a model's train function on JAX, for one `fit`."""

    def __init__(self, ends: BatchEnds, model: keras.Model, params: dict[str, Any] | None):
        if isinstance(model.train_function, _Tap):  # of a `fit` that was broken off
            model.train_function.remove()
        model.make_train_function()  # where a loop of the user's own has not
        self._ends = ends
        self._model = model
        self._params = params
        self._function = model.train_function
        self._together = getattr(model, "steps_per_execution", 1) or 1
        self._iterations = single_optimizers(model)[0]._iterations
        self._looking = False
        self._scalars: dict[int, LiveScalar] = {}
        model.train_function = self

    def serves(self, model: keras.Model, params: dict[str, Any] | None) -> bool:
        """Whether it is in place there, in the `fit` that has these parameters."""
        # Another callback may have had the function made anew.
        return model.train_function is self and self._params is params

    def remove(self) -> None:
        """Leaves the model as it was."""
        if self._model.train_function is self:
            self._model.train_function = self._function

    def __call__(self, state: Any, iterator: Any) -> Any:
        logs, state = self._function(state, iterator)
        ends = self._ends
        ends.batch += self._together
        ends.kept.append((ends.batch, logs))
        if ends.batch + 1 >= ends.wanted:
            if self._left_over():
                ends.batch = -1  # nothing was heard of the epoch that is meant
                self.remove()
            else:
                state = self._show(state)
        return logs, state

    def _left_over(self) -> bool:
        """Whether this is not the `fit`: that was broken off, and nobody could remove this."""
        history = getattr(self._model, "history", None)  # of the last `fit`
        # `train_on_batch` lets the variables keep their values; `fit` has them in `state` only.
        return getattr(history, "params", None) is not self._params or (
            self._iterations._value is not None
        )

    def _show(self, state: Any) -> Any:
        """Lets somebody look; returns the state to go on with."""
        model = self._model
        # As the loop does after this, so that `Callback.model` and `LiveScalar` find it.
        model._jax_state = dict(zip(STATE, state, strict=True))
        self._looking = True
        try:
            self._ends.look()
        finally:
            self._looking = False
        return tuple(list(model._jax_state[name]) for name in STATE)

    def put(self, variable: keras.Variable, number: float) -> bool:
        """Sets a variable for the steps to come, during a look."""
        # Once somebody has asked for the model, the loop takes everything from the variables; and
        # with a distribution it is Keras that knows where a value belongs.
        distributed = keras.distribution.distribution() is not None
        if not self._looking or self._model._jax_state_synced or distributed:
            return False
        scalar = self._scalars.setdefault(id(variable), LiveScalar(self._model, variable))
        return scalar.write(number)
