"""The fixed schedules that Keras lacks.

Each is a pure function of the step `t`, counted from 0 and trained with the
rate `schedule(t)`. Keras has the others, and they are not written again:

| schedule | in `keras.optimizers.schedules` |
| --- | --- |
| step | `ExponentialDecay(..., staircase=True)`, `PiecewiseConstantDecay` |
| exponential | `ExponentialDecay` |
| linear, polynomial | `PolynomialDecay` (linear is its default, `power=1.0`) |
| cosine, with restarts | `CosineDecay`, `CosineDecayRestarts` |

`Warmup` puts a linear warmup before any schedule, or before a constant rate.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_greedylr.validation import check_choice, check_float, check_int


@keras.saving.register_keras_serializable(package="keras_greedylr")
class Cyclic(LearningRateSchedule):
    """The rate goes up and down between two bounds, in straight lines.

    With `s` the step size, `n = 1 + floor(t / 2s)` the number of the cycle and
    `x = |t / s - 2n + 1|` the distance from its peak,

        lr(t) = initial + (maximal - initial) (1 - x) scale

    where `scale` is 1 in mode `"triangular"`, `2^(1 - n)` in mode
    `"triangular2"` (each cycle half as high as the last) and `gamma^t` in mode
    `"exp_range"`.

    Example:

    >>> from keras_greedylr.schedules import Cyclic
    >>> schedule = Cyclic(0.1, 0.5, step_size=2, mode="triangular2")
    >>> [round(float(schedule(step)), 4) for step in range(9)]
    [0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3, 0.2, 0.1]

    Args:
        initial_learning_rate: Float > 0. The lower bound, where cycles begin.
        maximal_learning_rate: Float >= `initial_learning_rate`. The first peak.
        step_size: Integer >= 1. Steps from the bottom to the peak, half a
            cycle. The paper recommends 2 to 10 epochs.
        mode: `"triangular"`, `"triangular2"` or `"exp_range"`.
        gamma: Float in (0, 1]. What `"exp_range"` multiplies the height by at
            each step; not used in the other modes.
        name: String. A name for the schedule.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Smith, 2017](https://arxiv.org/abs/1506.01186).
    """

    def __init__(
        self,
        initial_learning_rate: float,
        maximal_learning_rate: float,
        step_size: int,
        mode: str = "triangular",
        gamma: float = 1.0,
        name: str = "Cyclic",
    ):
        check_float("initial_learning_rate", initial_learning_rate, above=0.0)
        check_float("maximal_learning_rate", maximal_learning_rate, above=0.0)
        if maximal_learning_rate < initial_learning_rate:
            raise ValueError(
                "`maximal_learning_rate` must not be below `initial_learning_rate`. Received: "
                f"initial_learning_rate={initial_learning_rate}, "
                f"maximal_learning_rate={maximal_learning_rate}"
            )
        check_int("step_size", step_size, least=1)
        check_choice("mode", mode, ("triangular", "triangular2", "exp_range"))
        check_float("gamma", gamma, above=0.0)
        if gamma > 1:
            raise ValueError(f"`gamma` must not be above 1. Received: gamma={gamma!r}")
        self.initial_learning_rate = float(initial_learning_rate)
        self.maximal_learning_rate = float(maximal_learning_rate)
        self.step_size = int(step_size)
        self.mode = mode
        self.gamma = float(gamma)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """Returns the rate at `step`, a scalar."""
        step = ops.convert_to_tensor(step)
        period = 2 * self.step_size
        # Remainders are taken of whole numbers: float32 knows no step beyond 2^24.
        x = ops.abs(_float(ops.mod(step, period)) / self.step_size - 1.0)
        height = (self.maximal_learning_rate - self.initial_learning_rate) * (1.0 - x)
        if self.mode == "triangular2":
            height = height * _power(0.5, _float(ops.floor_divide(step, period)))
        elif self.mode == "exp_range":
            height = height * _power(self.gamma, _float(step))
        return self.initial_learning_rate + height

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "maximal_learning_rate": self.maximal_learning_rate,
            "step_size": self.step_size,
            "mode": self.mode,
            "gamma": self.gamma,
            "name": self.name,
        }


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
        t = _float(step)
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
            x = _half_cosine(x)
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
        t = _float(step)
        x = ops.clip((t - self.warmup_steps - self.stable_steps) / self.decay_steps, 0.0, 1.0)
        if self.decay == "sqrt":
            x = ops.sqrt(x)
        elif self.decay == "cosine":
            x = _half_cosine(x)
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


@keras.saving.register_keras_serializable(package="keras_greedylr")
class InverseSquareRoot(LearningRateSchedule):
    """The rate falls with the square root of the steps, and never needs an end.

        lr(t) = initial / sqrt(1 + t / timescale)

    After a warmup of `timescale` steps this is the Transformer's schedule: with
    `W = timescale` both ways, `Warmup(InverseSquareRoot(initial, W), W)` is
    `initial min(t / W, sqrt(W / t))`.

    Example:

    >>> from keras_greedylr.schedules import InverseSquareRoot
    >>> schedule = InverseSquareRoot(0.6, timescale=10)
    >>> [round(float(schedule(step)), 4) for step in (0, 30, 80)]
    [0.6, 0.3, 0.2]

    Args:
        initial_learning_rate: Float > 0.
        timescale: Integer >= 1. The rate has halved after three times as many
            steps.
        name: String. A name for the schedule.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762);
        [Zhai et al., 2022](https://arxiv.org/abs/2106.04560) for the timescale.
    """

    def __init__(
        self, initial_learning_rate: float, timescale: int, name: str = "InverseSquareRoot"
    ):
        check_float("initial_learning_rate", initial_learning_rate, above=0.0)
        check_int("timescale", timescale, least=1)
        self.initial_learning_rate = float(initial_learning_rate)
        self.timescale = int(timescale)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """Returns the rate at `step`, a scalar."""
        return self.initial_learning_rate * ops.rsqrt(1.0 + _float(step) / self.timescale)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "timescale": self.timescale,
            "name": self.name,
        }


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
            rate = rate(ops.maximum(step - self.warmup_steps, 0))
        rate = _float(rate)
        if not self.warmup_steps:
            return rate
        x = ops.minimum(_float(step) / self.warmup_steps, 1.0)
        return self.initial_learning_rate * (1.0 - x) + rate * x

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        schedule = self.schedule
        if isinstance(schedule, LearningRateSchedule):
            schedule = keras.saving.serialize_keras_object(schedule)
        return {
            "schedule": schedule,
            "warmup_steps": self.warmup_steps,
            "initial_learning_rate": self.initial_learning_rate,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Warmup:
        """Makes a schedule from `get_config`."""
        config = dict(config)
        if isinstance(config["schedule"], dict):
            config["schedule"] = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(**config)


def _float(value: Any) -> Any:
    return ops.cast(value, keras.config.floatx())


def _power(base: float, exponent: Any) -> Any:
    """`base ** exponent` for a positive base."""
    return ops.exp(exponent * math.log(base))


def _half_cosine(x: Any) -> Any:
    """From 0 to 1 as `x` does, along half a wave."""
    return 0.5 * (1.0 - ops.cos(math.pi * x))
