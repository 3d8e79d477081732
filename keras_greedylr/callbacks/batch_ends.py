"""Hearing of each batch's end without waiting for what it reports.

A callback with a hook at each batch's end makes Keras wait for the batch's logs first, and a device
idles. So logs are taken as training returns them, on their way still, and waited for only where
somebody wants to look at one. On JAX, where the loop has the model's state, the model's train
function is wrapped for that, for the time of a `fit`; elsewhere the list of callbacks hands them
over. Where that cannot be it is Keras' hook.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_greedylr.callbacks.batch_hooks import (
    CALL,
    add_hook,
    leave_out_calls,
    list_of,
    listens,
    put_calls_back,
)
from keras_greedylr.callbacks.batch_loss import Report, mark
from keras_greedylr.callbacks.live_scalar import JAX, LiveScalar
from keras_greedylr.callbacks.schedule import single_optimizers

TENSORFLOW = keras.backend.backend() == "tensorflow"
STATE = (
    "trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables"
)  # fmt: skip


class BatchEnds:
    """Keeps what a `fit` reports at its batches' ends, until a callback has to look.

    Args:
        callback: The callback. It gets hooks at each batch's begin and, not on JAX, at its end.
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
        self._begun = 0.0  # the optimizer's count when the epoch began
        self.batch = -1  # index of the last one of this epoch
        self.kept: list[Report] = []
        self.wanted = 0
        self._tap: _Tap | None = None
        self._direct = False  # the list of callbacks has handed over reports in this epoch
        self._only_hook = None  # the hook it has, if no subclass or user gave it another
        add_hook(callback, "on_train_batch_begin", self._listen)
        if not JAX:
            hooked = listens(callback)
            add_hook(callback, CALL, self._hook)
            self._only_hook = None if hooked else vars(callback)[CALL]

    def begin_epoch(self) -> None:
        """To be called when an epoch begins."""
        self.batch, self.kept, self.wanted, self._direct = -1, [], 0, False
        self._mark = mark(self._callback._model)
        if JAX:
            self._begun = self._count()

    def _listen(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes its place before the first batch, when others have done so when the epoch began."""
        if self.batch >= 0:
            return
        callback = self._callback
        callbacks = list_of(callback)
        if JAX:
            self._tap_model(callback._model)
            if callbacks is not None:
                leave_out_calls(callbacks)
        elif callbacks is not None:
            replaced = vars(callback).get(CALL) is not self._only_hook
            leave_out_calls(callbacks, None if replaced else callback, self._hear_directly)

    def _tap_model(self, model: keras.Model) -> None:
        if self._tap is None or model.train_function is not self._tap:
            if self._tap is not None:  # another function may be around it
                self._tap.ends = None
            self._tap = _Tap(self, model)
        self._tap.begin_epoch()

    def _hear_directly(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._direct = True
        self.hear(batch, {name: _as_it_is(value) for name, value in (logs or {}).items()})

    def _hook(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._direct or batch > self.batch:  # the list may have changed since
            self.hear(batch, dict(logs or {}))  # other callbacks may change theirs

    def hear(self, batch: int, logs: dict[str, Any]) -> None:
        """Takes in a report, and keeps it, when what training has come to is there."""
        self.batch = batch
        self.kept.append((batch, logs))
        if self.due():
            self.look()

    def due(self) -> bool:
        """Whether to look at what there is: it is time, or the model has been evaluated."""
        return self.batch + 1 >= self.wanted or mark(self._callback._model) is not self._mark

    def look(self) -> None:
        """Has the callback look."""
        reports, self.kept = self.kept, []
        self._mark = mark(self._callback._model)  # who looks may evaluate it
        if _nested(reports[0][1]):
            reports = [(batch, _flat(logs)) for batch, logs in reports]
        self.wanted = self._look(reports)

    def end_epoch(self) -> None:
        """To be called when an epoch ends.

        Raises:
            RuntimeError: if nothing was heard of its batches.
        """
        if JAX and self.batch < 0 and self._count() > self._begun:
            raise RuntimeError(
                f"{type(self._callback).__name__} looks at batches and heard of none in this "
                "epoch. On the JAX backend it listens to `model.train_function`, which a training "
                "loop of your own has to call as Keras' `fit` does."
            )

    def _count(self) -> float:
        model = self._callback._model
        return LiveScalar(model, single_optimizers(model)[0]._iterations).read()

    def end(self) -> None:
        """To be called when training ends."""
        if self._tap is not None:
            self._tap.remove()
            self._tap = None
        if (callbacks := list_of(self._callback)) is not None:
            put_calls_back(callbacks)

    def put(self, variable: keras.Variable, number: float) -> bool:
        """Sets a variable of the optimizer for the batches to come, without what Keras copies.

        Returns:
            Whether it could: only during a look, on JAX.
        """
        return self._tap is not None and self._tap.put(variable, number)


class _Tap:
    """Takes the place of a model's train function on JAX."""

    def __init__(self, ends: BatchEnds, model: keras.Model):
        if isinstance(model.train_function, _Tap):  # of a `fit` that was broken off
            model.train_function.remove()
        model.make_train_function()  # where a loop of the user's own has not
        self.ends: BatchEnds | None = ends
        self._model = model
        self._function = model.train_function
        self._together = getattr(model, "steps_per_execution", 1) or 1
        self._iterations = single_optimizers(model)[0]._iterations
        self._looking = False
        self._scalars: dict[int, LiveScalar] = {}
        model.train_function = self

    def begin_epoch(self) -> None:
        """Remembers whose batches are to come."""
        self._fit = _fit_of(self._model)

    def remove(self) -> None:
        """Leaves the model as it was."""
        if self._model.train_function is self:
            self._model.train_function = self._function

    def __call__(self, state: Any, iterator: Any) -> Any:
        logs, state = self._function(state, iterator)
        ends = self.ends
        # Another `fit`, where this one was broken off so that nobody could remove this; or
        # `train_on_batch`, which lets the variables keep their values. `fit` has them in `state`.
        if (
            ends is None
            or self._iterations._value is not None
            or _fit_of(self._model) is not self._fit
        ):
            return logs, state
        ends.batch += self._together
        ends.kept.append((ends.batch, logs or {}))
        if ends.due():
            state = self._show(state, ends.look)
        return logs, state

    def _show(self, state: Any, look: Callable[[], None]) -> Any:
        """Lets somebody look; returns the state to go on with."""
        model = self._model
        # As the loop does after this, so that `Callback.model` and `LiveScalar` find it, and
        # nothing is lost if the look ends in an error. Of an attribute Keras would track all parts.
        vars(model)["_jax_state"] = {
            name: list(part) for name, part in zip(STATE, state, strict=True)
        }
        self._looking = True
        try:
            look()
        finally:
            self._looking = False
        if not self._loop_has_state():  # but goes on from the variables
            return state
        shown = model._jax_state
        return tuple(type(part)(shown[name]) for name, part in zip(STATE, state, strict=True))

    def _loop_has_state(self) -> bool:
        """Whether nobody has asked for the model since, or evaluated it."""
        return bool(self._model._jax_state) and not self._model._jax_state_synced

    def put(self, variable: keras.Variable, number: float) -> bool:
        """Sets a variable for the steps to come, during a look."""
        # With a distribution it is Keras that knows where a value belongs.
        distributed = keras.distribution.distribution() is not None
        if not self._looking or not self._loop_has_state() or distributed:
            return False
        scalar = self._scalars.setdefault(id(variable), LiveScalar(self._model, variable))
        return scalar.write(number)


def _fit_of(model: keras.Model) -> Any:
    """What each `fit` of a model has of its own."""
    return getattr(getattr(model, "history", None), "params", None)


def _nested(logs: dict[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in logs.values())


def _flat(logs: dict[str, Any]) -> dict[str, Any]:
    """Logs as Keras hands them to hooks."""
    flat: dict[str, Any] = {}
    for name, value in sorted(logs.items()):
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _as_it_is(value: Any) -> Any:
    """What a value of the logs is now, also when it is looked at later."""
    if isinstance(value, dict):
        return {name: _as_it_is(part) for name, part in value.items()}
    if TENSORFLOW and keras.ops.is_tensor(value) and not hasattr(value, "assign"):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # nor does Keras make a number of it
        return value
