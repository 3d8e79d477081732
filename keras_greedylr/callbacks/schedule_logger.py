"""Shows the learning rate, and what a schedule goes by, in TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras

from keras_greedylr.callbacks.batch_hooks import add_hook
from keras_greedylr.callbacks.batch_loss import BatchLoss
from keras_greedylr.callbacks.event_file import EventFile
from keras_greedylr.callbacks.live_scalar import LiveScalar
from keras_greedylr.callbacks.schedule import (
    Decision,
    copied,
    schedules_beside,
    single_optimizers,
)
from keras_greedylr.validation import check_choice, check_int

CHANGES_PER_CARD = 1_000  # memory stays bounded in the longest epoch


class ScheduleLogger(keras.callbacks.Callback):
    """Writes the rate and the schedule behind it to TensorBoard's event files.

    It works with the schedules of this package, with Keras' own and with none,
    on every backend, with TensorFlow or without. Written under
    `<log_dir>/train`, where Keras' `TensorBoard` callback writes too:

    | tag | step | value |
    | --- | --- | --- |
    | `batch_learning_rate` | batches trained, from 1 | the rate the batch was trained with |
    | `batch_loss` | the same | mean loss of the epoch's batches since the last entry |
    | `epoch_learning_rate` | epoch, from 0 | the rate the epoch ended with |
    | `schedule/...` | batches trained, or epochs if it goes by them | what it goes by |
    | `schedule/configuration` | first epoch | text: the schedule's or the optimizer's arguments |
    | `schedule/changes` | that of the last change in it | text: each change and its reason |

    `schedule/...` are, for `GreedyLR`, the smoothed `metric`, the `best` one, and
    the counters `good`, `bad`, `cooldown_left`, `warmup_left`, `floor_cuts`.

    The order among the callbacks does not matter. Entries are buffered, and on
    disk after ten seconds, at each epoch's end, and when training is interrupted.

    Example:

    >>> import tempfile
    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr import GreedyLR, ScheduleLogger
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    >>> with tempfile.TemporaryDirectory() as logs:
    ...     history = model.fit(
    ...         np.ones((32, 4)), np.ones((32, 1)), verbose=0,
    ...         callbacks=[GreedyLR(), ScheduleLogger(logs)],
    ...     )

    Args:
        log_dir: Path. Where `tensorboard --logdir` is pointed at.
        update_every: Integer, batches between the entries of the batch tags, or
            `"epoch"` to leave them out, which costs nothing per batch.

    Raises:
        ValueError: if `update_every` is neither.
    """

    def __init__(self, log_dir: str | os.PathLike, update_every: Literal["epoch"] | int = 1):
        super().__init__()
        if isinstance(update_every, str):
            check_choice("update_every", update_every, ("epoch",))
        else:
            check_int("update_every", update_every, least=1)
            add_hook(self, "on_train_batch_end", self._on_train_batch_end)
        self.log_dir = Path(log_dir)
        self.update_every: Any = update_every
        self._events: Any = None
        self._rate_of_step: Any = None

    def __copy__(self) -> ScheduleLogger:
        return copied(self)

    def __getstate__(self) -> dict[str, Any]:
        # An open file and compiled code cannot be copied, and each `fit` makes its own.
        return {**self.__dict__, "_events": None, "_rate_of_step": None}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the event file and finds the schedule."""
        if self._events is not None:  # of a `fit` that was interrupted
            self._events.close()
        self._events = EventFile(self.log_dir / "train")
        self._steps = (self.params or {}).get("steps")
        self._batch_loss = BatchLoss(self._model, self._steps)
        self._schedule = next(iter(schedules_beside(self)), None)
        if self._schedule is not None:
            self._schedule.subscribe(self._on_decision)
        self._by_batches = self._schedule is not None and self._schedule.by_batches
        self._optimizer = single_optimizers(self.model)[0]
        # Not `iterations`, which counts updates where gradients are accumulated.
        self._trained = LiveScalar(self._model, self._optimizer._iterations)
        # A GreedyOptimizer's rate is that of the step to come.
        self._ahead = getattr(self.model.optimizer, "rate_is_next", False)
        rate = self._optimizer._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            self._rate_of_step = _compiled(rate, self._model)
        self._together = getattr(self._model, "steps_per_execution", 1) or 1
        self._step_now = 0
        self._decision: Decision | None = None
        self._decided_at: tuple | None = None  # unit, position and epoch of the last decision
        self._rate_before = 0.0  # the rate until then
        self._changes: list[str] = []
        self._changes_at = 0
        self._shown = 0
        self._epoch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins to count the epoch's batches from the updates made so far."""
        first, self._epoch = self._epoch is None, epoch
        if first:
            self._events.text("schedule/configuration", self._configuration(), epoch)
        self._first_step = self._trained_now()
        if first:
            self._written = self._first_step
        self._batch_loss.begin_epoch()
        if self._ahead:
            self._rate_to_come = self._rate("epoch", epoch)

    def _on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = self._step(batch)
        if step - self._written >= self.update_every:
            self._written = step
            rate = self._rate_to_come if self._ahead else self._rate("batch", batch)
            self._events.scalar("batch_learning_rate", rate, step)
            if logs and "loss" in logs:
                [(loss, _)] = self._batch_loss.take([(batch, logs)])
                if loss is not None:
                    self._events.scalar("batch_loss", loss, step)
        if self._ahead and step + self._together - self._written >= self.update_every:
            self._rate_to_come = self._rate("batch", batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes what belongs to the epoch and flushes."""
        if self._schedule is not None:
            self._schedule.catch_up()
        rate = (logs or {}).get("learning_rate")
        if rate is None:
            rate = self._rate("epoch", epoch)
        self._events.scalar("epoch_learning_rate", rate, epoch)
        last = self._decision
        if self.update_every == "epoch" and last is not None and self._by_batches:
            self._write_values(last, epoch)
        self._write_changes()
        self._events.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file."""
        self._write_changes()
        self._events.close()

    def _on_decision(self, decision: Decision) -> None:
        """Takes note of what the schedule did; it may come before or after our own hook."""
        self._decision = decision
        at = (decision.unit, decision.position, self._epoch)
        if not decision.begins and at != self._decided_at:  # the first of several there
            self._decided_at, self._rate_before = at, decision.old_rate
        changed = decision.new_rate != decision.old_rate
        what, step = "step", decision.position
        if not self._by_batches:
            what = "epoch"
        elif decision.unit == "epoch":  # before its first batch, and maybe before our own hook
            step = self._trained_now()
        else:
            step = self._step(decision.position)
        if changed:
            self._changes_at = step
            self._changes.append(
                f"| {what} {step} | {decision.old_rate:.6g} | {decision.new_rate:.6g} "
                f"| {decision.reason} |"
            )
            if len(self._changes) >= CHANGES_PER_CARD:
                self._write_changes()
        if not self._by_batches:
            self._write_values(decision, step)
        elif self.update_every != "epoch" and (changed or step - self._shown >= self.update_every):
            self._shown = step
            self._write_values(decision, step)

    def _write_values(self, decision: Decision, step: int) -> None:
        for name, value in decision.values.items():
            self._events.scalar(f"schedule/{name}", value, step)

    def _write_changes(self) -> None:
        if self._changes:
            head = ["| when | from | to | why |", "| --- | --- | --- | --- |"]
            self._events.text("schedule/changes", "\n".join(head + self._changes), self._changes_at)
            self._changes = []

    def _step(self, batch: int) -> int:
        """Batches trained when the report with index `batch` comes."""
        step = self._first_step + self._batch_loss.trained(batch)
        self._step_now = max(self._step_now, step)
        return step

    def _trained_now(self) -> int:
        """Batches trained, between two epochs."""
        # A restored model goes on where its counter stands, which leaves out skipped steps.
        return max(int(self._trained.read()), self._step_now)

    def _rate(self, unit: str, position: int) -> float:
        """The rate in force before anything was decided at this position."""
        if self._decided_at == (unit, position, self._epoch):
            return self._rate_before
        if self._schedule is not None:
            return self._schedule.learning_rate
        rate = self._optimizer._learning_rate  # the public property computes, and copies on JAX
        if isinstance(rate, keras.Variable):
            return LiveScalar(self._model, rate).read()
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            # Of steps that loss scaling skipped the optimizer's count knows, ours does not.
            done = int(self._trained.read())
            return self._rate_of_step(max(done - 1, 0))
        return float(rate())

    def _configuration(self) -> str:
        """The card that says what drives the rate."""
        if self._schedule is not None:
            name, config = type(self._schedule).__name__, self._schedule.get_config()
        else:
            name, config = _optimizer_card(self._model.optimizer, self._optimizer)
        rows = [f"| {key} | {value} |" for key, value in config.items()]
        versions = f"Keras {keras.__version__} on {keras.backend.backend()}"
        return "\n".join(
            [f"**{name}**, {versions}", "", "| name | value |", "| --- | --- |", *rows]
        )


def _compiled(schedule: Any, model: keras.Model) -> Callable[[int], float]:
    """The schedule as a function of numbers: a dozen small operations take longer than a step."""
    # Where the training step is compiled: there a schedule has to bear it anyway.
    backend = "eager" if model.run_eagerly else keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        if not tf.config.functions_run_eagerly():
            signature = [tf.TensorSpec((), tf.int64)]
            function = tf.function(schedule, input_signature=signature, autograph=False)
            of_step = function.get_concrete_function()  # a third less than finding it at each call
            return lambda step: float(of_step(tf.constant(step, tf.int64)))
    if backend == "jax":
        import jax

        schedule = jax.jit(schedule)
    return lambda step: float(keras.ops.convert_to_numpy(schedule(step)))


def _optimizer_card(optimizer: Any, single: Any) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the optimizer that has the rate, after those of the ones around it."""
    nested = []
    while hasattr(optimizer, "inner_optimizer"):
        nested.append(optimizer)
        optimizer = optimizer.inner_optimizer
    nested.append(single)
    names = [type(part).__name__ for part in nested]
    rows: dict[str, Any] = {}
    for part, prefix in zip(nested, ["", *(f"{name}." for name in names[1:])], strict=True):
        try:
            config = part.get_config()
        except NotImplementedError as error:  # a schedule of the user's own may have none
            config = {"arguments": f"not known: {error}"}
        config.pop("inner_optimizer", None)
        config |= config.pop("rule", {})  # GreedyOptimizer's, shown as GreedyLR's arguments are
        rows |= {prefix + key: value for key, value in config.items()}
    return " of ".join(names), rows
