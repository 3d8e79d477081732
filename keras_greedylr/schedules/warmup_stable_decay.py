"""Warmup, a long constant phase, a short decay."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_greedylr.schedules.arithmetic import as_float, half_cosine
from keras_greedylr.validation import check_choice, check_float, check_int


@keras.saving.register_keras_serializable(package="keras_greedylr")
class WarmupStableDecay(LearningRateSchedule):
    """Linear warmup, then a constant rate, then a short decay.

    With `W`, `S` and `D` the steps of the three phases and
    `x = (t - W - S) / D`,

        lr(t) = rate t / W                            t < W
        lr(t) = rate                                  W <= t < W + S
        lr(t) = rate (alpha + (1 - alpha) f(x))       W + S <= t <= W + S + D
        lr(t) = rate alpha                            after that

    where `f(x)` is `1 - x` (`"linear"`), `1 - sqrt(x)` (`"sqrt"`) or
    `(1 + cos(pi x)) / 2` (`"cosine"`).

    Example:

    >>> from keras_greedylr.schedules import WarmupStableDecay
    >>> schedule = WarmupStableDecay(0.4, warmup_steps=2, stable_steps=3, decay_steps=4)
    >>> [round(float(schedule(step)), 4) for step in range(10)]
    [0.0, 0.2, 0.4, 0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0.0]

    Args:
        learning_rate: Float > 0. The rate of the stable phase.
        warmup_steps: Integer >= 0.
        stable_steps: Integer >= 0.
        decay_steps: Integer >= 1. The papers give the decay 10 % to 20 % of
            all steps.
        alpha: Float in [0, 1]. The last rate as a fraction of `learning_rate`.
        decay: `"linear"`, `"sqrt"` or `"cosine"`.
        name: String. A name for the schedule.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Hu et al., 2024](https://arxiv.org/abs/2404.06395);
        [Hägele et al., 2024](https://arxiv.org/abs/2405.18392) for the decays.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int,
        stable_steps: int,
        decay_steps: int,
        alpha: float = 0.0,
        decay: str = "linear",
        name: str = "WarmupStableDecay",
    ):
        check_float("learning_rate", learning_rate, above=0.0)
        check_int("warmup_steps", warmup_steps, least=0)
        check_int("stable_steps", stable_steps, least=0)
        check_int("decay_steps", decay_steps, least=1)
        check_float("alpha", alpha, least=0.0)
        if alpha > 1:
            raise ValueError(f"`alpha` must not be above 1. Received: alpha={alpha!r}")
        check_choice("decay", decay, ("linear", "sqrt", "cosine"))
        self.learning_rate = float(learning_rate)
        self.warmup_steps = int(warmup_steps)
        self.stable_steps = int(stable_steps)
        self.decay_steps = int(decay_steps)
        self.alpha = float(alpha)
        self.decay = decay
        self.name = name

    def __call__(self, step: Any) -> Any:
        """Returns the rate at `step`, a scalar."""
        t = as_float(step)
        x = ops.clip((t - self.warmup_steps - self.stable_steps) / self.decay_steps, 0.0, 1.0)
        if self.decay == "sqrt":
            x = ops.sqrt(x)
        elif self.decay == "cosine":
            x = half_cosine(x)
        rate = self.learning_rate * ((1.0 - x) + self.alpha * x)
        if self.warmup_steps:
            rate = rate * ops.minimum(t / self.warmup_steps, 1.0)
        return rate

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "stable_steps": self.stable_steps,
            "decay_steps": self.decay_steps,
            "alpha": self.alpha,
            "decay": self.decay,
            "name": self.name,
        }
