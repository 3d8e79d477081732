"""LearnedLR under `model.fit`: a trained policy sets the rate."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from keras_greedylr import observation
from keras_greedylr.callbacks.batch_loss import BatchLoss
from keras_greedylr.callbacks.learned_state import CARRIED, LearnedState
from keras_greedylr.callbacks.loss_guard import LossGuard
from keras_greedylr.callbacks.metric_direction import known_direction
from keras_greedylr.callbacks.schedule import Schedule
from keras_greedylr.callbacks.weight_sample import WeightSample
from keras_greedylr.policy import Policy, load_policy
from keras_greedylr.validation import check_float, check_int

TAKE_BACK = 3.0  # log2, by how much the guard takes the rate back
SHORT = 5  # batches an interval, on average, below which a policy has too little to go by


class LearnedLR(Schedule):
    """Lets a policy, trained by reinforcement learning, set the learning rate.

    Training is cut into intervals of equal length. Before each, the policy sees
    how the loss, the validation loss if there is one, and the weights moved, and
    multiplies a cosine schedule that ends at zero by a power of two of its
    choice (`keras_greedylr.observation` has the details). The rate the optimizer
    was built with is only where it starts from: it may be decades off.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr import LearnedLR
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    >>> x = np.ones((256, 4)); y = np.ones((256, 1))
    >>> history = model.fit(
    ...     x, y, batch_size=8, epochs=5, validation_split=0.2, verbose=0, callbacks=[LearnedLR()]
    ... )
    >>> history.history["loss"][-1] < history.history["loss"][0]
    True

    Args:
        policy: Path of a folder written by `train-agent`, or `"default"`, the
            policy this package ships.
        monitor: String. `"loss"` (the true loss of the batches) or another metric
            of the batch logs; it must get better by shrinking and be positive, or the
            policy sees little of it. Its validation counterpart, `val_` before the
            name, is seen when there is one.
        decide_every: Integer, batches in an interval, or None for as many as the
            policy was trained with make up the whole training (40 intervals).
        total_steps: Integer, batches in the whole training, or None for those
            `fit` will make (epochs x steps). Where that many is not known to Keras, a
            decision due at an epoch's end comes before the epoch's validation.
        min_lr, max_lr: Float or None. Bounds of the rate; None: 2^-20 and 2^14
            times the initial rate, or the other bound, where that is beyond.
        state_path: Path or None. As in `GreedyLR`: a `fit` that finds the file
            goes on where it stopped; if it counts its epochs anew, training is
            longer by as many.
        verbose: 0 or 1. 1 prints each change of the rate and the action behind it.

    Raises:
        ValueError: at construction for arguments out of range and folders that
            are not a policy this version knows, at the start of training for an
            optimizer with a `LearningRateSchedule`, an unknown number of steps, no
            more of them than `decide_every`, a metric that gets better by growing, or
            a state file that cannot be used, at the first batch for a metric that is
            not in the logs.

    Reference:
        "Learned learning rate schedules for deep neural network training using
        reinforcement learning" (ICLR 2023, openreview 0Zhwu1VaOs).
    """

    def __init__(
        self,
        policy: str | os.PathLike = "default",
        monitor: str = "loss",
        decide_every: int | None = None,
        total_steps: int | None = None,
        min_lr: float | None = None,
        max_lr: float | None = None,
        state_path: str | os.PathLike | None = None,
        verbose: int = 0,
    ):
        super().__init__(state_path=state_path, verbose=verbose)
        if not isinstance(monitor, str) or monitor.startswith("val_"):
            raise ValueError(
                "`monitor` must name a training metric, whose validation counterpart is seen as "
                f"well. Received: monitor={monitor!r}"
            )
        for name, steps in (("decide_every", decide_every), ("total_steps", total_steps)):
            if steps is not None:
                check_int(name, steps, least=1)
        for name, bound in (("min_lr", min_lr), ("max_lr", max_lr)):
            if bound is not None:
                check_float(name, bound, above=0.0)
        if min_lr is not None and max_lr is not None and max_lr < min_lr:
            raise ValueError(
                f"`max_lr` must not be below `min_lr`. Received: min_lr={min_lr}, max_lr={max_lr}"
            )
        if not isinstance(policy, str | os.PathLike):
            raise ValueError(f"`policy` must be a path or 'default'. Received: policy={policy!r}")
        self.policy = os.fspath(policy)
        self.monitor = monitor
        # Python's own numbers, for the state file; NumPy's would do else.
        self.decide_every = None if decide_every is None else int(decide_every)
        self.total_steps = None if total_steps is None else int(total_steps)
        self.min_lr = None if min_lr is None else float(min_lr)
        self.max_lr = None if max_lr is None else float(max_lr)
        self._policy: Policy = load_policy(self.policy if policy == "default" else Path(policy))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "policy": self.policy,
            "monitor": self.monitor,
            "decide_every": self.decide_every,
            "total_steps": self.total_steps,
            "min_lr": self.min_lr,
            "max_lr": self.max_lr,
            "state_path": None if self.state_path is None else os.fspath(self.state_path),
            "verbose": self.verbose,
        }

    def values(self) -> dict[str, float]:
        """Returns the policy's last action, what it made of the rate, and the losses seen."""
        shown = {"action": self._history.action, "log2_multiplier": self._history.multiplier}
        if self._history.seen[0]:
            shown |= {"metric": self._history.fast_loss, "best": self._history.best_loss}
        return {name: float(value[0]) for name, value in shown.items()}

    # State of one `fit`.

    def _start(self, learning_rate: float) -> None:
        check_float("learning_rate", learning_rate, above=0.0)
        params = self.params or {}
        steps, epochs = params.get("steps"), params.get("epochs")
        if epochs == 0:  # nothing is trained: any length will do
            epochs = 1
        total = self.total_steps or (steps or 0) * (epochs or 0)
        if not total:
            raise ValueError(
                "LearnedLR must know how long training will be, and the number of batches in an "
                f"epoch is unknown here (steps={steps}, epochs={epochs}). Pass total_steps=."
            )
        if (self.decide_every or 0) >= total:
            raise ValueError(
                "`decide_every` must be below the number of batches in the whole training, or the "
                "rate would stay at the small one that is tried first. Received: "
                f"decide_every={self.decide_every} in a training of {total} batches."
            )
        self._steps = steps
        self._epochs = epochs or 1
        self._total = total
        self._interval = self.decide_every or self._total / self._policy.decisions
        self._batch_loss = BatchLoss(self._model, steps)
        self._history = observation.init(
            np,
            _array(learning_rate),
            *(b if b is None else _array(b) for b in (self.min_lr, self.max_lr)),
        )
        self._begun = False
        self._sample: WeightSample | None = None
        self._weights = self._movement = np.zeros(0, np.float32)
        self._done = 0  # batches of the whole training
        self._decisions = 0
        self._due = False  # a decision, at the next epoch's begin
        self._trained: np.ndarray | None = None  # the weights' sample for it
        self._validation = math.nan
        self._guard = LossGuard()
        self._warned = False  # of a loss that is not positive
        self._begin_interval()

    def _begin_interval(self) -> None:
        self._losses = 0  # reports in this interval
        self._sum = self._sum_of_squares = 0.0
        self._guard.begin_interval()

    def _snapshot(self) -> Any:
        carried = {name: getattr(self, f"_{name}") for name in CARRIED}
        return LearnedState(
            self._history, self._weights, self._movement, self._guard, self._steps, carried
        ).to_dict()

    def _restore(self, snapshot: Any) -> float:
        state = LearnedState.from_dict(snapshot)
        self._history, self._weights, self._movement, self._guard, steps, carried = state
        for name, value in carried.items():
            setattr(self, f"_{name}", value)
        if steps is not None and self._steps is not None:  # now of another size?
            self._done = round(self._done * self._steps / steps)
        if self._epoch == 0 and self.total_steps is None:  # epochs count anew, batches go on
            self._total += self._done
            self._interval = self.decide_every or self._total / self._policy.decisions
        # Where training has become longer fewer were due by now.
        self._decisions = min(self._decisions, math.floor(self._done / self._interval))
        progress = _array(min(self._done / self._total, 1.0))
        self._history = observation.prolong(np, self._history, progress)
        rate = float(observation.rate(np, self._history)[0])
        check_float("learning_rate", rate, above=0.0)
        return rate

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reads the rate training begins with; warns if it will be short."""
        super().on_train_begin(logs)
        if known_direction(self.monitor, self._model) == "max":
            raise ValueError(
                "LearnedLR was trained on losses, which get better by falling; `monitor` must name "
                f"a metric that does, too. Received: monitor={self.monitor!r}"
            )
        decisions = self._policy.decisions
        every = max(self._interval, getattr(self._model, "steps_per_execution", 1) or 1)
        if self._total < max(SHORT, every / 2) * decisions:
            warnings.warn(
                f"LearnedLR decides some {decisions} times in a training. This one has "
                f"{self._total} batches, of which at least {every:g} lie between two decisions: "
                f"below {SHORT * decisions} batches, or {decisions // 2} decisions, it has too "
                "little to go by, and may do worse than GreedyLR or a fixed schedule.",
                stacklevel=2,
            )

    # When the policy looks.

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins an epoch, the first at the rate of the first interval."""
        super().on_epoch_begin(epoch, logs)
        self._batch_loss.begin_epoch()
        self._broken = False  # a loss was not finite, and so is Keras' mean until the epoch's end
        if not self._begun:
            self._begun, restored = True, len(self._weights) > 0
            if self._model.trainable_variables:  # TensorFlow may build a model in its first batch
                self._begin_sample()
            if not restored:
                steps = self._total / self._epochs if self._steps is None else self._steps
                self._done = round(epoch * steps)
                self._decisions = math.floor(self._done / self._interval)
                first = float(observation.rate(np, self._history)[0])
                self._apply(
                    "epoch", epoch, first, "the first interval tries a small rate", begins=True
                )
            elif self._done >= self._total:
                raise ValueError(
                    f"State file '{self.state_path}' is that of a training whose {self._total} "
                    "steps are done. Delete it to begin another."
                )
        if self._due:
            self._decide("epoch", epoch)

    def _begin_sample(self) -> None:
        self._sample = WeightSample(self.model)
        weights = self._sample(self.model)
        if len(self._weights) != len(weights):  # others may be trained since then
            self._weights, self._movement = weights, np.zeros_like(weights)

    def _look_at_weights(self) -> np.ndarray:
        assert self._sample is not None  # made by the first batch's end
        return self._sample(self.model)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes in a batch's loss; at an interval's end asks the policy."""
        logs = logs or {}
        if self._sample is None:
            self._begin_sample()
        if self.monitor not in logs:
            raise ValueError(
                f"LearnedLR monitors `{self.monitor}`, which is not among the metrics of this "
                f"training: {sorted(logs)}."
            )
        [(loss, batches)] = self._batch_loss.take([(batch, logs)], self.monitor)
        self._done += batches
        if loss is not None and not self._broken:  # else it tells nothing
            self._broken = not math.isfinite(loss)
            if loss <= 0.0 and not self._warned:
                self._warned = True
                warnings.warn(
                    "LearnedLR was trained on losses above zero, and takes others for very small "
                    "ones: of this training it sees little, and its guard nothing. Received: "
                    f"{self.monitor}={loss:.6g}",
                    stacklevel=2,
                )
            self._losses += 1
            self._sum += loss
            self._sum_of_squares += loss * loss
            if self._guard.trips(loss):
                self._take_back(batch, loss)
        self._due = (self._decisions + 1) * self._interval <= self._done < self._total
        if self._steps is not None and batch + 1 >= self._steps:
            # A decision due here waits for the next epoch, and so for the validation. Meanwhile
            # others may put averages in the weights' place.
            self._trained = self._look_at_weights() if self._due else None
            self._save((self._epoch or 0) + 1)
        elif self._due:
            self._decide("batch", batch)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Keeps a validation of this `fit` for the next decision."""
        if self._epoch is not None and logs and self.monitor in logs:
            self._validation = float(logs[self.monitor])
            self._save(self._epoch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs the rate and keeps the state."""
        super().on_epoch_end(epoch, logs)
        self._assign_again(self._batch_loss.batches)
        self._save(epoch + 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Marks the state as final."""
        super().on_train_end(logs)
        self._epoch = None

    def _decide(self, unit: str, position: int) -> None:
        """Shows the policy the interval and applies its action."""
        self._due = False
        # More than one interval may be over where a report covers several batches.
        self._decisions = max(self._decisions + 1, math.floor(self._done / self._interval))
        progress = _array(min(self._done / self._total, 1.0))
        if not self._losses:  # nothing to show: what the policy said last goes on
            self._history = self._history._replace(progress=progress)
            rate = observation.rate(np, self._history)
            self._apply(unit, position, float(rate[0]), "no loss is known", unit == "epoch")
            return
        weights = self._look_at_weights() if self._trained is None else self._trained
        self._trained = None
        with np.errstate(all="ignore"):  # weights that blew up overflow
            movement, alignment, norm, step = observation.weight_signals(
                np, weights[None], self._weights[None], self._movement[None]
            )
        self._weights, self._movement = weights, step[0]
        mean = self._sum / self._losses
        variance = self._sum_of_squares / self._losses - mean * mean
        interval = observation.Interval(
            loss=_array(mean),
            loss_std=_array(math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan),
            validation_loss=_array(self._validation),
            progress=progress,
            movement=movement,
            alignment=alignment,
            norm=norm,
        )
        with np.errstate(all="ignore"):  # what is not finite is expected there
            self._history, seen = observation.observe(np, self._history, interval)
            action = self._policy(seen)
            self._history, rate = observation.apply_action(np, self._history, action)
        self._validation = math.nan
        self._begin_interval()
        self._apply(
            unit,
            position,
            float(rate[0]),
            f"the policy's action is {action[0]:+.3f}",
            begins=unit == "epoch",
        )

    def _take_back(self, batch: int, loss: float) -> None:
        self._history = observation.lower(np, self._history, TAKE_BACK)
        rate = float(observation.rate(np, self._history)[0])
        what = "is not finite" if not math.isfinite(loss) else "jumped far above its average"
        self._apply("batch", batch, rate, f"the guard takes it back, the {self.monitor} {what}")


def _array(value: float) -> np.ndarray:
    return np.array([value], np.float32)
