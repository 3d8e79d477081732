"""Up and down once, then far below."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_greedylr.schedules.arithmetic import as_float, half_cosine
from keras_greedylr.validation import check_bool, check_choice, check_float, check_int


@keras.saving.register_keras_serializable(package="keras_greedylr")
class OneCycle(LearningRateSchedule):
    """One cycle up and down, then a fall far below where it began.

    With `T` the decay steps, `p` the warmup fraction, `low = maximal /
    initial_divisor` and `last = low / final_divisor`, the rate goes

        low -> maximal   from t = 0   to t = pT
        maximal -> low   from t = pT  to t = 2pT
        low -> last      from t = 2pT to t = T, and stays there

    in straight lines, or in half cosine waves. With `three_phase=False` it goes
    straight from `maximal` at `pT` to `last` at `T`, as in fastai.

    Example:

    >>> from keras_greedylr.schedules import OneCycle
    >>> schedule = OneCycle(1.0, 10, warmup_fraction=0.4, initial_divisor=10)
    >>> [round(float(schedule(step)), 3) for step in (0, 2, 4, 6, 8, 10)]
    [0.1, 0.55, 1.0, 0.55, 0.1, 0.0]

    Args:
        maximal_learning_rate: Float > 0. The peak.
        decay_steps: Integer >= 1. Steps until the last rate is reached: those
            of the whole training.
        warmup_fraction: Float in (0, 1), with three phases at most 0.5. The
            part of the steps that the rise takes.
        initial_divisor: Float >= 1. The peak is so many times the first rate.
        final_divisor: Float >= 1. The first rate is so many times the last.
        anneal: `"linear"` (the paper) or `"cosine"` (fastai).
        three_phase: Boolean. Whether the rate comes down as it went up before
            the final fall.
        name: String. A name for the schedule.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Smith and Topin, 2018](https://arxiv.org/abs/1708.07120).
    """

    def __init__(
        self,
        maximal_learning_rate: float,
        decay_steps: int,
        warmup_fraction: float = 0.45,
        initial_divisor: float = 10.0,
        final_divisor: float = 1e4,
        anneal: str = "linear",
        three_phase: bool = True,
        name: str = "OneCycle",
    ):
        check_float("maximal_learning_rate", maximal_learning_rate, above=0.0)
        check_int("decay_steps", decay_steps, least=1)
        check_float("warmup_fraction", warmup_fraction, above=0.0, below=1.0)
        check_bool("three_phase", three_phase)
        if three_phase and warmup_fraction > 0.5:
            raise ValueError(
                "`warmup_fraction` must be at most 0.5 with `three_phase=True`: coming down "
                f"takes as long as going up. Received: warmup_fraction={warmup_fraction!r}"
            )
        check_float("initial_divisor", initial_divisor, least=1.0)
        check_float("final_divisor", final_divisor, least=1.0)
        check_choice("anneal", anneal, ("linear", "cosine"))
        self.maximal_learning_rate = float(maximal_learning_rate)
        self.decay_steps = int(decay_steps)
        self.warmup_fraction = float(warmup_fraction)
        self.initial_divisor = float(initial_divisor)
        self.final_divisor = float(final_divisor)
        self.anneal = anneal
        self.three_phase = bool(three_phase)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """Returns the rate at `step`, a scalar."""
        t = as_float(step)
        total, peak = self.decay_steps, self.maximal_learning_rate
        low = peak / self.initial_divisor
        last = low / self.final_divisor
        up = self.warmup_fraction * total
        rate = self._between(t, 0.0, low, up, peak)
        if not self.three_phase:
            return ops.where(t < up, rate, self._between(t, up, peak, total, last))
        rate = ops.where(t < up, rate, self._between(t, up, peak, 2 * up, low))
        if self.warmup_fraction == 0.5:  # no time is left for the fall
            return ops.where(t < total, rate, last)
        return ops.where(t < 2 * up, rate, self._between(t, 2 * up, low, total, last))

    def _between(self, t: Any, start: float, first: float, end: float, last: float) -> Any:
        """The rate at `t` on the way from `first` at `start` to `last` at `end`."""
        x = ops.clip((t - start) / (end - start), 0.0, 1.0)
        if self.anneal == "cosine":
            x = half_cosine(x)
        # Exact at both ends, which `first + x (last - first)` is not.
        return first * (1.0 - x) + last * x

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "maximal_learning_rate": self.maximal_learning_rate,
            "decay_steps": self.decay_steps,
            "warmup_fraction": self.warmup_fraction,
            "initial_divisor": self.initial_divisor,
            "final_divisor": self.final_divisor,
            "anneal": self.anneal,
            "three_phase": self.three_phase,
            "name": self.name,
        }
