"""GreedyLR under `model.fit`: feeds the rule and moves the rate."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from keras_greedylr.callbacks.batch_ends import BatchEnds
from keras_greedylr.callbacks.batch_groups import MOST, BatchGroups
from keras_greedylr.callbacks.batch_loss import Report
from keras_greedylr.callbacks.metric_direction import metric_direction
from keras_greedylr.callbacks.reason import absence, reason
from keras_greedylr.callbacks.schedule import Schedule
from keras_greedylr.rule import TINY, GreedyRule, GreedyState
from keras_greedylr.validation import check_choice, check_float, check_int

# Bounds left out, as multiples of the initial rate.
MIN_LR_RATIO = 1e-2
MAX_LR_RATIO = 1e2


class GreedyLR(Schedule):
    """Raises the learning rate while a metric improves, cuts it when it stops.

    The arguments of the rule are those of `keras_greedylr.GreedyRule`, which
    says what each does to the rate.

    The defaults of `factor` and `patience` (0.9 and 3 in `GreedyRule`) had the
    lowest final validation loss over initial rates from 0.01 to 100 times the usual
    one on eight synthetic problems; on eight others it is 0.70 [0.55, 0.88] times
    the constant rate's, but 1.15 times from the usual rate itself
    (`python tests/benchmarks/greedy_defaults.py`). 0.9 and 3, slower both ways, have
    0.86 and 1.01: take them when the rate is about right.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr import GreedyLR
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    >>> x = np.ones((32, 4)); y = np.ones((32, 1))
    >>> history = model.fit(
    ...     x, y, epochs=3, verbose=0, callbacks=[GreedyLR(factor=0.5, patience=0)]
    ... )
    >>> [round(rate, 4) for rate in history.history["learning_rate"]]
    [0.01, 0.02, 0.04]

    Args:
        monitor: String. Name of the metric in the logs of `fit`. With
            `update_every` a number of batches, `"loss"` is the loss of those
            batches, not the mean since the epoch began that Keras shows; any
            other metric is taken as Keras shows it.
        mode: `"min"`, `"max"`, or `"auto"`: by the metric's name and Keras' own
            knowledge of its direction.
        factor, patience, min_delta, min_delta_mode, window, cooldown, warmup,
            phases, reset_after: See `GreedyRule`. Counts are of evaluations:
            epochs, validations, or groups of `update_every` batches.
        min_lr: Float or None. None: 0.01 times the initial rate, or `max_lr` if that is lower.
        max_lr: Float or None. None: 100 times the initial rate, or `min_lr` if that is higher.
        horizon: Integer, None, or `"fit"`: the evaluations this `fit` will make. Over the
            last 30 % of them the upper bound falls to `min_lr`. A validation is
            reckoned at each epoch; an evaluation that is not finite does not count.
        update_every: When the rule looks: `"epoch"`, `"validation"` (epochs that
            end with one), or an integer, every so many batches. With several
            steps per execution, at the first report that completes them. Losses that
            cannot move the rate yet are looked at together with the one that can:
            until then `state` and `values()` are those of the last look.
        state_path: Path or None. The state is kept in this file at each epoch's
            end, and a `fit` that finds it goes on where it stopped, at the epoch
            the weights are restored to. Without it each `fit` starts afresh.
        verbose: 0 or 1. 1 prints each change of the rate and why.

    Raises:
        ValueError: at construction for arguments out of range, at the start of
            training for an optimizer with a `LearningRateSchedule` or a state
            file that cannot be used, at the first evaluation for a metric that
            is not in the logs, after the last epoch if no validation ever came
            (a warning after the first says so; `model.history` has what was trained).
        RuntimeError: on JAX, if batches are looked at in a training loop of your own
            that does not call `model.train_function`.

    Reference:
        "Zeroth order GreedyLR" (PRML 2023); arXiv 2512.14527.
    """

    def __init__(
        self,
        monitor: str = "loss",
        mode: Literal["auto", "min", "max"] = "auto",
        factor: float = 0.7,
        patience: int = 1,
        min_delta: float = 1e-4,
        min_delta_mode: Literal["rel", "abs"] = "rel",
        window: int = 1,
        cooldown: int = 0,
        warmup: int = 0,
        phases: Literal["carry_on", "hold"] = "carry_on",
        min_lr: float | None = None,
        max_lr: float | None = None,
        reset_after: int | None = None,
        horizon: Literal["fit"] | int | None = None,
        update_every: Literal["epoch", "validation"] | int = "epoch",
        state_path: str | os.PathLike | None = None,
        verbose: int = 0,
    ):
        super().__init__(state_path=state_path, verbose=verbose)
        if not isinstance(monitor, str):
            raise ValueError(f"`monitor` must be a string. Received: monitor={monitor!r}")
        check_choice("mode", mode, ("auto", "min", "max"))
        if isinstance(horizon, str):
            check_choice("horizon", horizon, ("fit",))
        if isinstance(update_every, str):
            check_choice("update_every", update_every, ("epoch", "validation"))
        else:
            check_int("update_every", update_every, least=1)
            update_every = int(update_every)
            if monitor.startswith("val_"):
                raise ValueError(
                    f"`{monitor}` is known at validation only, not after every {update_every} "
                    "batches. Pass update_every='validation', or monitor a training metric."
                )
        self.monitor = monitor
        self.mode = mode
        self.update_every: Any = update_every
        arguments: dict[str, Any] = {
            "factor": factor,
            "patience": patience,
            "min_delta": min_delta,
            "min_delta_mode": min_delta_mode,
            "window": window,
            "cooldown": cooldown,
            "warmup": warmup,
            "phases": phases,
            "min_lr": min_lr,
            "max_lr": max_lr,
            "reset_after": reset_after,
            "horizon": horizon,
        }
        # NumPy's numbers are welcome, but the state on disk is JSON.
        self._rule_arguments = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in arguments.items()
        }
        self._horizon = 1
        self._make_rule(1.0, "min")  # so that bad arguments raise here and not in `fit`
        self._validated = update_every == "validation" or monitor.startswith("val_")
        self._ends: BatchEnds | None = None  # only if it must: on PyTorch each batch then waits
        if not isinstance(update_every, str):
            self._ends = BatchEnds(self, self._look_at_batches)
        elif state_path is not None and not monitor.startswith("val_"):
            # What the epoch decides is on disk before any other callback's `on_epoch_end`.
            self._ends = BatchEnds(self, self._look_at_last)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "monitor": self.monitor,
            "mode": self.mode,
            **self._rule_arguments,
            "update_every": self.update_every,
            "state_path": None if self.state_path is None else os.fspath(self.state_path),
            "verbose": self.verbose,
        }

    def values(self) -> dict[str, float]:
        """Returns the smoothed metric, the best one, and the rule's counters."""
        fields = self.state._asdict()
        names = ("metric", "best", "good", "bad", "cooldown_left", "warmup_left", "floor_cuts")
        return {name: fields[name] for name in names if fields[name] is not None}

    @property
    def by_batches(self) -> bool:
        """Whether `update_every` is a number of batches."""
        return not isinstance(self.update_every, str)

    def _make_rule(self, initial: float, mode: Literal["min", "max"]) -> GreedyRule:
        arguments: dict[str, Any] = dict(self._rule_arguments)
        if arguments["horizon"] == "fit":
            arguments["horizon"] = self._horizon
        low, high = arguments["min_lr"], arguments["max_lr"]
        if low is None:
            low = MIN_LR_RATIO * (initial if high is None else min(initial, high))
        if high is None:
            high = MAX_LR_RATIO * max(initial, low)
        rule = GreedyRule(**{**arguments, "min_lr": low, "max_lr": high}, mode=mode)
        return replace(rule, min_lr=max(rule.min_lr, TINY))

    def _evaluations(self) -> int:
        """How many values the rule will see in this `fit`."""
        epochs = (self.params or {}).get("epochs")
        if epochs is None or (self.by_batches and self._steps is None):
            unknown = "epochs" if epochs is None else "batches in an epoch"
            raise ValueError(
                f"GreedyLR(horizon='fit') must know the number of {unknown}, and it is unknown "
                "here. Pass the number of evaluations there will be as `horizon`."
            )
        left = epochs - (self._epoch or 0)
        return max(self._groups.in_epochs(left) if self.by_batches else left, 1)

    # State of one `fit`.

    def _start(self, learning_rate: float) -> None:
        check_float("learning_rate", learning_rate, least=TINY)
        self._steps = (self.params or {}).get("steps")
        size = self.update_every if self.by_batches else 1
        self._groups = BatchGroups(self._model, self._steps, self.monitor, size, self._absent)
        self._horizon = self._evaluations() if self._rule_arguments["horizon"] == "fit" else 1
        self.rule = self._make_rule(learning_rate, "min" if self.mode == "auto" else self.mode)
        self.state = self.rule.init(learning_rate)
        self._mode_known = self.mode != "auto"
        self._seen = False  # the metric, at least once
        self._settled = False  # the rule has looked at the epoch under way
        self._reason = ""
        self._names: set[str] = set()
        self._training_logs: dict[str, Any] = {}

    def _snapshot(self) -> Any:
        return {
            "rule": self.state._asdict(),
            "horizon": self._horizon,
            "epochs": (self.params or {}).get("epochs"),
            **self._groups.snapshot(),
        }

    def _restore(self, snapshot: Any) -> float:
        state = GreedyState.from_dict(snapshot["rule"])
        check_int("horizon", snapshot["horizon"], least=1)
        self._groups.restore(snapshot)
        # All of it is sound: now it is taken.
        self.state = state
        # A `fit` that counts its epochs anew, or makes it more, has a horizon of its own; else it
        # is the one that was cut off.
        anew = self._epoch == 0 and state.seen > 0
        if anew or snapshot["epochs"] != (self.params or {}).get("epochs"):
            self._horizon += state.seen
        else:
            self._horizon = snapshot["horizon"]
        self._seen = self.state.metric is not None  # no validation may be left to be seen
        self.rule = self._make_rule(self.state.initial_learning_rate, self.rule.mode)
        return self.state.learning_rate

    # When the rule looks.

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins an epoch."""
        super().on_epoch_begin(epoch, logs)
        self._settled = False
        self._groups.begin_epoch()
        if self._ends is not None:
            self._ends.begin_epoch()
        if self._validated:
            self._save(epoch + 1)  # holds if the epoch ends without a validation

    def _look_at_batches(self, reports: list[Report]) -> int:
        """Looks at the groups they complete, of which only the last can move the rate."""
        completed = self._groups.take(reports)
        # Only who listens wants to hear of those at which nothing happens.
        looks = [[group] for group in completed] if self._listeners else [completed]
        for groups in filter(None, looks):
            self._look(*(value for _, value in groups))
            if self._reason or self._listeners:
                self._apply("batch", groups[-1][0], self.state.learning_rate, self._reason)
        if self.state_path is not None and self._is_last(reports[-1][0]):
            self._save((self._epoch or 0) + 1)
        return self._groups.needed_at(self.rule.idle(self.state) + 1)

    def catch_up(self) -> None:
        """Looks at the reports kept."""
        if self._ends is not None and self._ends.kept:
            self._ends.look()

    def _look_at_last(self, reports: list[Report]) -> int:
        """Looks at the epoch's last report; a validation, if one is to come, looks at it later."""
        batch, self._training_logs = reports[-1]
        if not self._validated and self._is_last(batch):
            self._settle(self._training_logs)
        return min(batch + 1 + MOST, self._steps or sys.maxsize)

    def _assign(self, rate: float) -> None:
        pairs = zip(self._optimizers, self._ratios, strict=True)
        if self._ends is not None and all(
            [self._ends.put(optimizer._learning_rate, rate * ratio) for optimizer, ratio in pairs]
        ):
            self._rate = rate
        else:
            super()._assign(rate)

    def _is_last(self, batch: int) -> bool:
        """Whether the epoch ends with this batch; false where nobody can know."""
        return self._steps is not None and batch + 1 >= self._steps

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keeps what batches reported late are to be reckoned with."""
        if self._epoch is not None and self._ends is not None and self._ends.kept:
            self._groups.losses.hold_count()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Looks at a validation of this `fit` as soon as its result is there."""
        if self._epoch is not None and self.state_path is not None:
            if not self.by_batches:
                self.catch_up()
            validation = {f"val_{name}": value for name, value in (logs or {}).items()}
            self._settle({**self._training_logs, **validation})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the epoch's metric and moves the rate."""
        logs = {} if logs is None else logs
        self.catch_up()
        super().on_epoch_end(epoch, logs)
        if self.by_batches:
            assert self._ends is not None
            self._ends.end_epoch()
            self._assign_again(self._groups.losses.batches)
        else:
            self._settle(logs)
            if not self._seen:
                self._miss(logs)
            self._names |= set(logs)
            if self._settled:
                self._apply("epoch", epoch, self.state.learning_rate, self._reason)
        self._save(epoch + 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Raises if there never was a validation to look at, else marks the state as final."""
        waited = self._epoch is not None and not self.by_batches and not self._seen
        if waited and not self.model.stop_training:
            raise ValueError(self._absent(dict.fromkeys(self._names)))
        super().on_train_end(logs)
        self._epoch = None
        if self._ends is not None:
            self._ends.end()

    def _settle(self, logs: dict[str, Any]) -> None:
        """Lets the rule look at the epoch once, as early as its metric is there."""
        if self._settled or not self._due(logs) or self.monitor not in logs:
            return
        self._settled = True
        self._look(logs[self.monitor])
        self._save((self._epoch or 0) + 1)

    def _due(self, logs: dict[str, Any]) -> bool:
        """Whether the epoch is one the rule looks at: not each has to end with a validation."""
        if self.update_every == "epoch" and not self.monitor.startswith("val_"):
            return True
        return any(name.startswith("val_") for name in logs)

    def _look(self, *values: float) -> None:
        """Values for the rule, of which only the last can move the rate."""
        self._seen = True
        if not self._mode_known:
            mode = metric_direction(self.monitor, self._model)
            self.rule = self._make_rule(self.state.initial_learning_rate, mode)
            self._mode_known = True
        before = self.rule.update(self.state, *values[:-1]) if len(values) > 1 else self.state
        self.state = self.rule.update(before, values[-1])
        quiet = self.state.event in ("none", "skipped")
        self._reason = "" if quiet else reason(self.monitor, self.rule, before, self.state)

    def _miss(self, logs: dict[str, Any]) -> None:
        """Raises where the metric should be there; of a validation it can be too early to say."""
        if self._due(logs):
            raise ValueError(self._absent(logs))
        if not self._names:  # the first epoch: a long training should not end with the error
            waits = " Until one does, the rate stays as it is."
            warnings.warn(self._absent(logs) + waits, stacklevel=3)

    def _absent(self, logs: dict[str, Any]) -> str:
        return absence(self.monitor, self.update_every, logs)
