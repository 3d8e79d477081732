"""The GreedyLR rule as arithmetic on one vector of floats, to be part of a training step.

The same rule as `keras_greedylr.rule.GreedyRule`, written without a branch, for a compiled
step has none. What the rule remembers is a vector that the optimizer keeps as a variable.

Single precision is enough for it:

- The rate is `anchor F^-steps` with a whole number of steps, taken as an exponential, so that no
  rounding error adds up, however often the rate moves. A bound, a reset and the end of the
  horizon set a new anchor. The error stays below 1e-7 times 2 + |log(rate / anchor)|.
- Counters are whole numbers and exact up to 2^24.
- The mean over the window is taken of differences from the newest value, so that equal values
  have exactly that mean.
- A comparison with the best value can come out otherwise than in double precision only where
  the two differ by less than a few units in the last place, 2e-7 of their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_greedylr.optimizers.scalars import maximum, minimum, select, split
from keras_greedylr.rule import ANNEAL, TINY, GreedyRule, GreedyState


class Head(NamedTuple):
    """What the vector begins with; what a rule does not need stays zero.

    Then come the values of the window, newest first. Values are those that get better by falling:
    with `mode="max"` the metric's negative.
    """

    rate: Any
    anchor: Any  # rate = anchor F^-steps
    steps: Any
    run: Any  # improvements running, or minus the failures running
    stage: Any  # values that the stage after a rise still lasts, or minus those after a cut
    floor_cuts: Any  # counted where there are resets
    ceiling: Any  # 0 until the end of the horizon comes near
    best: Any  # NONE before the first value
    initial: Any
    count: Any  # values in the window
    seen: Any  # counted where there is a horizon


HEAD = len(Head._fields)

NONE = float(np.finfo(np.float32).max)
MOST = 2**24  # the largest count that single precision holds exactly


class DeviceRule:
    """`GreedyRule` for a compiled step.

    Args:
        rule: The rule.

    Raises:
        ValueError: if one of its counts is larger than single precision can count.
    """

    def __init__(self, rule: GreedyRule):
        for name in ("patience", "window", "cooldown", "warmup", "reset_after", "horizon"):
            count = getattr(rule, name)
            if count is not None and count > MOST:
                raise ValueError(
                    f"On the device `{name}` is counted in single precision, up to {MOST}. "
                    f"Received: {name}={count}"
                )
        # Bounds as the device has them, so that a rate at a bound is not taken for one beside it.
        low, high = (float(np.float32(min(bound, NONE))) for bound in (rule.min_lr, rule.max_lr))
        self.rule = replace(rule, min_lr=max(low, TINY), max_lr=max(high, TINY))
        self._sign = 1.0 if rule.mode == "min" else -1.0
        self._log = -math.log(rule.factor)
        self._annealed_from = _annealed_from(rule.horizon)
        self._staged = rule.cooldown > 0 or rule.warmup > 0

    def init(self, learning_rate: float) -> list[float]:
        """Returns the vector before the first value."""
        head = Head(*[0.0] * HEAD)._replace(
            rate=learning_rate, anchor=learning_rate, initial=learning_rate, best=NONE
        )
        return [*head, *[0.0] * self.rule.window]

    def moved_to(self, vector: Sequence[float], learning_rate: float) -> list[float]:
        """Returns the vector after somebody else has set the rate."""
        return [learning_rate, learning_rate, 0.0, *vector[3:]]

    def update(self, vector: Any, metric: Any) -> tuple[Any, Any]:
        """Returns the vector after one more value, a scalar of its dtype, and the rate in it.

        On TensorFlow each operation costs some microseconds, those that broadcast or slice
        several, so that all of them are on scalars that can be.
        """
        rule = self.rule
        head, older, _ = split(vector, [HEAD, rule.window - 1, 1])
        now = Head(*ops.unstack(head))
        value = smooth = metric if rule.mode == "min" else -metric
        count, seen = ops.ones_like(now.count), now.seen
        if rule.window > 1:
            count = minimum(now.count + 1.0, float(rule.window))
            used = ops.arange(1, rule.window, dtype=vector.dtype) < count
            smooth = value + ops.sum(select(used, older - value, 0.0)) / count
        if rule.horizon is not None:
            seen = minimum(now.seen + 1.0, float(MOST))
        now = now._replace(count=count, seen=seen)

        after = self._moved(now, smooth, smooth < self._threshold(now.best))
        window = [ops.reshape(value, (1,)), older]
        finite = ops.isfinite(value)
        vector = select(finite, ops.concatenate([ops.stack(after), *window]), vector)
        return vector, select(finite, after.rate, now.rate)

    def _moved(self, now: Head, smooth: Any, improved: Any) -> Head:
        """Counts an improvement or a failure, and moves the rate if it is time."""
        rule, zero, one = self.rule, ops.zeros_like(now.rate), ops.ones_like(now.rate)
        staged, carries_on = self._staged, self._staged and rule.phases == "carry_on"
        way = select(improved, one, -one)
        length = maximum(way * now.run, 0.0) + 1.0
        acts, run, stage = length > rule.patience, way * length, now.stage
        if staged:
            waits, of_stage = stage != 0.0, ops.sign(stage)
            acts, run = acts & ~waits, select(waits, now.run, run)
            begun = select(improved, float(rule.warmup) * one, -float(rule.cooldown) * one)
            stage = select(acts, begun, stage - of_stage)
            if not carries_on:
                improved = improved & ~waits
        run, move = select(acts, zero, run), select(acts, way, zero)
        if carries_on:
            move = select(waits, of_stage, move)
        best, count = select(improved, smooth, now.best), now.count

        steps = now.steps + move
        target = now.anchor * ops.exp(steps * self._log)
        # A rate that starts outside the bounds stays where it is.
        low, high = minimum(now.rate, rule.min_lr), maximum(now.rate, rule.max_lr)
        rate, floor_cuts, ceiling = minimum(maximum(target, low), high), zero, zero
        if rule.reset_after is not None:
            at_floor = (move < 0.0) & (target <= rule.min_lr)
            floor_cuts = select(move > 0.0, zero, now.floor_cuts + ops.cast(at_floor, rate.dtype))
            afresh = floor_cuts >= rule.reset_after
            rate, best = select(afresh, now.initial, rate), select(afresh, NONE, best)
            run, floor_cuts, count = (select(afresh, zero, x) for x in (run, floor_cuts, count))
            if carries_on:  # cutting on would undo the reset
                stage = select(afresh, zero, stage)
        if rule.horizon is not None:
            ending = now.seen >= self._annealed_from
            ceiling = select(ending & (now.ceiling <= 0.0), rate, now.ceiling)
            left = maximum(rule.horizon - now.seen, 0.0) / (ANNEAL * rule.horizon)
            # sin^2(x / 2) = (1 - cos x) / 2, without the difference of two numbers near one
            bound = ceiling * ops.square(ops.sin(0.5 * math.pi * left))
            rate = select(ending, minimum(maximum(bound, rule.min_lr), rate), rate)
        kept = rate == target
        anchor, steps = select(kept, now.anchor, rate), select(kept, steps, zero)
        return Head(
            rate, anchor, steps, run, stage, floor_cuts, ceiling, best, now.initial, count, now.seen
        )

    def _threshold(self, best: Any) -> Any:
        """What a value has to be below, to be an improvement."""
        rule = self.rule
        if rule.min_delta == 0.0:
            return best
        if rule.min_delta_mode == "abs":
            return best - rule.min_delta
        threshold = best - rule.min_delta * ops.abs(best)
        # Below that of NONE is any loss there is, unless `min_delta` is large.
        return select(best >= NONE, best, threshold) if rule.min_delta > 0.5 else threshold

    def update_on_host(
        self, vector: Sequence[float], metrics: Sequence[float]
    ) -> tuple[list[float], int]:
        """`update` in Python's numbers, by the rule itself.

        Args:
            vector: The vector.
            metrics: Values in their order, of which only the last can move the rate.

        Returns:
            The vector after them, and how many values more cannot move the rate.
        """
        before = self.to_state(vector)
        if len(metrics) > 1:
            before = self.rule.update(before, *metrics[:-1])
        after = self.rule.update(before, metrics[-1])
        _, anchor, steps = vector[:3]
        if after.event != "none" and after.event != "skipped":
            if after.learning_rate == before.learning_rate / self.rule.factor:
                steps += 1
            elif after.learning_rate == before.learning_rate * self.rule.factor:
                steps -= 1
            else:
                anchor, steps = after.learning_rate, 0.0
        values = [self._sign * value for value in reversed(after.window)]
        vector = [
            after.learning_rate,
            anchor,
            steps,
            after.good - after.bad,
            after.warmup_left - after.cooldown_left,
            after.floor_cuts if self.rule.reset_after is not None else 0,
            after.ceiling or 0.0,
            NONE if after.best is None else self._sign * after.best,
            after.initial_learning_rate,
            len(values),
            after.seen,
            *values,
            *[0.0] * (self.rule.window - len(values)),
        ]
        return vector, self.rule.idle(after)

    def to_state(self, vector: Sequence[float]) -> GreedyState:
        """Returns what the vector says, with no event: the device keeps none."""
        _, anchor, steps, run, stage, floor_cuts, ceiling, best, initial, count, seen = vector[
            :HEAD
        ]
        window = tuple(vector[HEAD : HEAD + int(count)][::-1])
        if self._sign < 0:
            window = tuple(-value for value in window)
        return GreedyState(
            learning_rate=anchor / self.rule.factor**steps,
            initial_learning_rate=initial,
            metric=math.fsum(window) / len(window) if window else None,
            best=None if best >= NONE else self._sign * best,
            window=window,
            good=int(max(run, 0)),
            bad=int(max(-run, 0)),
            cooldown_left=int(max(-stage, 0)),
            warmup_left=int(max(stage, 0)),
            floor_cuts=int(floor_cuts),
            seen=int(seen),
            ceiling=ceiling or None,
            event="none",
        )


def _annealed_from(horizon: int | None) -> int:
    """The count of values from which on the rule's upper bound falls."""
    if horizon is None:
        return 0
    seen = math.floor((1.0 - ANNEAL) * horizon)
    while max(1.0 - seen / horizon, 0.0) / ANNEAL >= 1.0:  # as the rule itself has it
        seen += 1
    return seen
