"""A linear warmup before any schedule."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_greedylr.schedules.arithmetic import as_float
from keras_greedylr.validation import check_float, check_int


@keras.saving.register_keras_serializable(package="keras_greedylr")
class Warmup(LearningRateSchedule):
    """A linear warmup before any schedule.

    With `W` the warmup steps,

        lr(t) = initial + (schedule(0) - initial) t / W     t < W
        lr(t) = schedule(t - W)                             t >= W

    which is what `CosineDecay` does with its own `warmup_steps`.

    Example:

    >>> import keras
    >>> from keras_greedylr.schedules import Warmup
    >>> halving = keras.optimizers.schedules.ExponentialDecay(0.8, 1, 0.5)
    >>> schedule = Warmup(halving, warmup_steps=4)
    >>> [round(float(schedule(step)), 4) for step in range(7)]
    [0.0, 0.2, 0.4, 0.6, 0.8, 0.4, 0.2]

    Args:
        schedule: A `LearningRateSchedule`, or a float for a constant rate.
        warmup_steps: Integer >= 0. Steps before `schedule` begins.
        initial_learning_rate: Float >= 0. The rate of the first step.
        name: String. A name for the schedule.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Goyal et al., 2017](https://arxiv.org/abs/1706.02677).
    """

    def __init__(
        self,
        schedule: LearningRateSchedule | float,
        warmup_steps: int,
        initial_learning_rate: float = 0.0,
        name: str = "Warmup",
    ):
        if not isinstance(schedule, LearningRateSchedule):
            try:
                check_float("schedule", schedule, above=0.0)
            except ValueError as error:
                raise ValueError(
                    "`schedule` must be a keras.optimizers.schedules.LearningRateSchedule or a "
                    f"positive float. Received: schedule={schedule!r}"
                ) from error
            schedule = float(schedule)
        check_int("warmup_steps", warmup_steps, least=0)
        check_float("initial_learning_rate", initial_learning_rate, least=0.0)
        self.schedule = schedule
        self.warmup_steps = int(warmup_steps)
        self.initial_learning_rate = float(initial_learning_rate)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """Returns the rate at `step`, a scalar."""
        step = ops.convert_to_tensor(step)
        rate = self.schedule
        if isinstance(rate, LearningRateSchedule):
            # Before the warmup's end this is where the schedule will begin.
            rate = rate(ops.maximum(step, self.warmup_steps) - self.warmup_steps)
        rate = as_float(rate)
        if not self.warmup_steps:
            return rate
        x = ops.minimum(as_float(step) / self.warmup_steps, 1.0)
        return self.initial_learning_rate * (1.0 - x) + rate * x

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "warmup_steps": self.warmup_steps,
            "initial_learning_rate": self.initial_learning_rate,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Warmup:
        """Makes a schedule from `get_config`."""
        return cls(**keras.saving.deserialize_keras_object(config))
