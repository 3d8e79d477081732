"""The GreedyLR rule: a pure function from a metric's history to a learning rate.

With `F` the factor, a run of more than `patience` improving values raises the
rate, a run of more than `patience` values without improvement cuts it:

    raise:  lr <- min(lr / F, max_lr)
    cut:    lr <- max(lr * F, min_lr)

The rule is that of "Zeroth order GreedyLR" (PRML 2023) and arXiv 2512.14527. It
never brings the rate down for the end of training alone; with a `horizon`, which
is ours, the upper bound falls to `min_lr` over the last `ANNEAL` of it.
Nothing here knows Keras: the rule is frozen, its state is a value that goes in
and comes out, and a value never depends on anything but the values before it.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any, Literal, NamedTuple

from keras_greedylr.validation import check_choice, check_float, check_int

Event = Literal["none", "raised", "cut", "reset", "skipped"]

EVENTS = ("none", "raised", "cut", "reset", "skipped")

ANNEAL = 0.3  # part of a horizon over which the upper bound falls
TINY = 2.0**-126  # a rate below is zero in the optimizer's single precision, and that for ever


class GreedyState(NamedTuple):
    """What the rule remembers between two values.

    Example:

    >>> from keras_greedylr import GreedyRule, GreedyState
    >>> state = GreedyRule().init(0.01)
    >>> GreedyState.from_json(state.to_json()) == state
    True
    """

    learning_rate: float  # the rate in force from now on
    initial_learning_rate: float  # where a reset returns to
    metric: float | None  # the last smoothed value, None before the first
    best: float | None  # best smoothed value so far, None before the first
    window: tuple[float, ...]  # the last finite values, oldest first
    good: int  # length of the current run of improvements
    bad: int  # length of the current run without improvement
    cooldown_left: int  # values the stage after a cut still lasts
    warmup_left: int  # values the stage after a rise still lasts
    floor_cuts: int  # cuts that met `min_lr` since the last rise
    seen: int  # finite values so far, counted where there is a horizon
    ceiling: float | None  # the rate when the end of the horizon came near
    event: Event  # what the last value did to the rate

    def to_json(self) -> str:
        """Returns the state as strict JSON (every number in it is finite)."""
        return json.dumps(self._asdict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> GreedyState:
        """Rebuilds a state from `to_json`.

        Raises:
            ValueError: if `text` is not JSON, or not a state.
        """
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, fields: Any) -> GreedyState:
        """Rebuilds a state from the decoded JSON of `to_json`.

        Raises:
            ValueError: if a field is missing, unknown, or of a wrong kind.
        """
        if not isinstance(fields, dict) or set(fields) != set(cls._fields):
            raise ValueError(
                f"A GreedyState has exactly the fields {list(cls._fields)}. Received: {fields!r}"
            )
        for name in ("learning_rate", "initial_learning_rate"):
            check_float(name, fields[name], above=0.0)
        for name in ("metric", "best", "ceiling"):
            if fields[name] is not None:
                check_float(name, fields[name])
        if not isinstance(fields["window"], list | tuple):
            raise ValueError(f"`window` must be a list. Received: window={fields['window']!r}")
        for value in fields["window"]:
            check_float("window", value)
        for name in ("good", "bad", "cooldown_left", "warmup_left", "floor_cuts", "seen"):
            check_int(name, fields[name], least=0)
        check_choice("event", fields["event"], EVENTS)
        return cls(**{**fields, "window": tuple(fields["window"])})


@dataclass(frozen=True)
class GreedyRule:
    """Raises the learning rate while a metric improves, cuts it when it stops.

    Example:

    >>> from keras_greedylr import GreedyRule
    >>> rule = GreedyRule(factor=0.5, patience=1)
    >>> state = rule.init(learning_rate=0.01)
    >>> for loss in (3.0, 2.0, 1.0):
    ...     state = rule.update(state, loss)
    ...     print(state.learning_rate, state.event)
    0.01 none
    0.02 raised
    0.02 none

    Args:
        factor: Float in (0, 1). A cut multiplies the rate by it, a rise divides.
        patience: Integer >= 0. The rule acts when a run of improvements (or of
            failures) is longer than this.
        min_delta: Float >= 0. An improvement must be larger than this.
        min_delta_mode: `"rel"`: `min_delta` is a fraction of the size of the
            best value, on both sides of zero. `"abs"`: in the metric's units.
        window: Integer >= 1. Values are compared as means over the last
            `window` of them; 1 compares them as they come.
        cooldown: Integer >= 0. Length of the stage that follows a cut.
        warmup: Integer >= 0. Length of the stage that follows a rise.
        phases: What those stages do. `"carry_on"` (the article): each value of
            the stage cuts (raises) once more, whatever it is, and the best
            value goes on being tracked. `"hold"` (the Hugging Face port):
            nothing is counted and the best value stays as it is. Runs start
            from zero when a stage ends.
        min_lr: Float >= 0. Cuts stop here.
        max_lr: Float >= `min_lr`. Rises stop here. A rate that starts outside
            the bounds is never moved away from them, nor pulled to them.
        reset_after: `None`, or after so many cuts that met `min_lr` with no
            rise between them the rule starts afresh at the initial rate.
        horizon: `None`, or the number of values there will be. Over the last 30 %
            of them the upper bound falls, as half a cosine, from the rate in force
            then to `min_lr`; it may take the rate down by more than `factor` a value.
        mode: `"min"` if smaller values are better, `"max"` if larger.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        "Zeroth order GreedyLR" (PRML 2023); arXiv 2512.14527.
    """

    factor: float = 0.9
    patience: int = 3
    min_delta: float = 1e-4
    min_delta_mode: Literal["rel", "abs"] = "rel"
    window: int = 1
    cooldown: int = 0
    warmup: int = 0
    phases: Literal["carry_on", "hold"] = "carry_on"
    min_lr: float = 1e-5
    max_lr: float = 1.0
    reset_after: int | None = None
    horizon: int | None = None
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        check_float("factor", self.factor, above=0.0, below=1.0)
        check_int("patience", self.patience, least=0)
        check_float("min_delta", self.min_delta, least=0.0)
        check_choice("min_delta_mode", self.min_delta_mode, ("rel", "abs"))
        check_int("window", self.window, least=1)
        check_int("cooldown", self.cooldown, least=0)
        check_int("warmup", self.warmup, least=0)
        check_choice("phases", self.phases, ("carry_on", "hold"))
        check_float("min_lr", self.min_lr, least=0.0)
        check_float("max_lr", self.max_lr, above=0.0)
        if self.max_lr < self.min_lr:
            raise ValueError(
                "`max_lr` must not be below `min_lr`. "
                f"Received: min_lr={self.min_lr}, max_lr={self.max_lr}"
            )
        if self.reset_after is not None:
            check_int("reset_after", self.reset_after, least=1)
        if self.horizon is not None:
            check_int("horizon", self.horizon, least=1)
        check_choice("mode", self.mode, ("min", "max"))
        # Python's own numbers: a state goes into JSON, and a single-precision factor would make
        # the rate single.
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if value is not None and not isinstance(value, str):
                value = float(value) if "float" in str(field.type) else int(value)
                object.__setattr__(self, field.name, value)

    def init(self, learning_rate: float) -> GreedyState:
        """Returns the state before the first value.

        Args:
            learning_rate: Float > 0, the rate training starts with.

        Raises:
            ValueError: if `learning_rate` is not finite and positive.
        """
        check_float("learning_rate", learning_rate, above=0.0)
        rate = float(learning_rate)
        return GreedyState(rate, rate, None, None, (), 0, 0, 0, 0, 0, 0, None, "none")

    def update(self, state: GreedyState, metric: float, *more: float) -> GreedyState:
        """Returns the state after one more value of the metric, or several in their order.

        Args:
            state: The state `init` or the last `update` returned.
            metric: The new value. One that is not finite is skipped: it
                changes nothing but `event`.
            *more: Those after it; `event` is what the last one did.

        Raises:
            ValueError: if `state` is no `GreedyState`, or a value is no number.
        """
        if not isinstance(state, GreedyState):
            raise ValueError(
                f"`state` must be a GreedyState, as `init` returns it. Received: state={state!r}"
            )
        (
            rate, initial, smooth, best, window, good, bad, cooling, warming,
            floor_cuts, seen, ceiling, event,
        ) = state  # fmt: skip
        for value in (metric, *more):
            try:
                value = float(value)
            except OverflowError:  # an integer too large for a float
                value = math.inf
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"`metric` must be a number. Received: metric={value!r}"
                ) from error
            if not math.isfinite(value):
                event = "skipped"
                continue
            event = "none"
            seen += self.horizon is not None
            window = (*window, value)[-self.window :]
            smooth = _mean(window)
            improved = self._improves(smooth, best)
            move = 0  # 1 raises the rate, -1 cuts it
            if cooling or warming:
                if self.phases == "carry_on":
                    move = -1 if cooling else 1
                else:
                    improved = False  # what a holding stage sees is not remembered
                cooling, warming = max(cooling - 1, 0), max(warming - 1, 0)
            elif improved:
                good, bad = good + 1, 0
            else:
                good, bad = 0, bad + 1
            if improved:
                best = smooth
            if good > self.patience:
                move, good, warming = 1, 0, self.warmup
            elif bad > self.patience:
                move, bad, cooling = -1, 0, self.cooldown

            old = rate
            if move > 0:
                floor_cuts = 0
                # min before max: a rate above `max_lr` stays where it is.
                rate = max(rate, min(rate / self.factor, self.max_lr))
            elif move < 0:
                rate = min(rate, max(rate * self.factor, self._floor))
                floor_cuts += rate <= self._floor
                if self.reset_after is not None and floor_cuts >= self.reset_after:
                    # Waiting after the cut still holds; cutting on would undo the reset.
                    cooling = cooling if self.phases == "hold" else 0
                    rate, smooth, best, window = initial, None, None, ()
                    good = bad = warming = floor_cuts = 0
                    event = "reset"
            if self.horizon is not None:
                rate, ceiling = self._anneal(rate, seen, ceiling)
            if rate != old and event != "reset":
                event = "raised" if rate > old else "cut"
        return GreedyState(
            rate, initial, smooth, best, window, good, bad, cooling, warming,
            floor_cuts, seen, ceiling, event,
        )  # fmt: skip

    def idle(self, state: GreedyState) -> int:
        """Returns how many values more, whatever they are, cannot move the rate."""
        if state.cooldown_left or state.warmup_left:
            return 0
        quiet = self.patience - max(state.good, state.bad)
        if self.horizon is not None:
            quiet = min(quiet, math.floor((1.0 - ANNEAL) * self.horizon) - state.seen)
        return max(quiet, 0)

    def bound(self, state: GreedyState) -> float | None:
        """Returns the upper bound that falls towards the horizon's end; None before that."""
        if state.ceiling is None:
            return None
        return self._anneal(math.inf, state.seen, state.ceiling)[0]

    @property
    def _floor(self) -> float:
        # Zero would be for ever: no division brings the rate back from it.
        return self.min_lr or sys.float_info.min

    def _anneal(self, rate: float, seen: int, ceiling: float | None) -> tuple[float, float | None]:
        """The rate under the bound that falls as the horizon's end comes near."""
        left = 1.0 if self.horizon is None else max(1.0 - seen / self.horizon, 0.0) / ANNEAL
        if left >= 1.0:
            return rate, None
        ceiling = rate if ceiling is None else ceiling
        bound = ceiling * 0.5 * (1.0 - math.cos(math.pi * left))
        return min(rate, max(bound, self._floor)), ceiling

    def _improves(self, value: float, best: float | None) -> bool:
        if best is None:
            return True
        delta = self.min_delta * (abs(best) if self.min_delta_mode == "rel" else 1.0)
        return value < best - delta if self.mode == "min" else value > best + delta


def _mean(values: tuple[float, ...]) -> float:
    """The mean, finite for any finite values."""
    if len(values) == 1:
        return values[0]
    try:
        return fmean(values)
    except OverflowError:  # the sum alone is too large for a float
        mean = math.fsum(value / len(values) for value in values[1:])
        return max(-sys.float_info.max, min(mean + values[0] / len(values), sys.float_info.max))
