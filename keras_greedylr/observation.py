"""What a learned schedule sees of a training run, and what its action does to the rate.

A run is cut into `DECISIONS` intervals of equal length. After each but the last, the policy sees
`observe`'s vector and answers with an action `a` in [-1, 1]; the rate of the next interval is

    multiplier <- clip(multiplier + STRIDE * a * |a|)                    (log2)
    rate        = initial * 2^multiplier * (1 + cos(pi * progress)) / 2

so that doing nothing is a cosine schedule ending at zero. The multiplier begins at `START`: far
below the initial rate, because no policy could undo a first interval that blew the weights up.
Where a bound is known below which training is stable, that cannot happen: the initial rate is
`UNDER_BOUND` of the bound then, whatever was asked for, and the multiplier begins at zero.

Nothing here depends on the scale of the loss or of the rate: only ratios are seen. Everything is
written against the array functions NumPy, `tensorflow.experimental.numpy` and `jax.numpy` share,
handed in as `xp`: NumPy in a callback (B = 1), TensorFlow inside a compiled environment (B runs).
Arrays are float32 of shape [B] unless stated.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

Array = Any  # whatever `xp` calls an array

VERSION = 5  # of everything in this module a policy depends on; any change of meaning is a new one
DECISIONS = 40  # intervals a run is cut into
STRIDE = 3.0  # log2: the most one action moves the multiplier; a|a| keeps small actions fine
START = -7.0  # log2 of the first interval's rate against the initial rate
UNDER_BOUND = 1 / 16  # the initial rate's part of a stability bound; noise may forbid a quarter
NO_BOUND = 1e30  # stands for infinity, which JSON does not have
MAX_RISE = 2.0**14  # default bounds of the rate, as multiples of the initial one
MIN_FALL = 2.0**-20

LIMIT = 4.0  # features are clipped to [-LIMIT, LIMIT]; what is unknown or not finite sits there
FAST, SLOW = 0.5, 0.9  # decays of the two averages of the loss, per interval

NAMES: tuple[str, ...] = (
    "progress",  # 2 * fraction of the run that is over - 1
    "multiplier",  # log2 of the rate against the initial one, the cosine aside, / 7
    "action",  # the last action
    "loss_total",  # log(loss / first loss) / 2
    "loss_best",  # log(loss / lowest so far)
    "loss_stale",  # progress since the loss was lowest, * 4
    "loss_change",  # 4 * log(loss / fast average before it)
    "loss_trend",  # 4 * log(fast average / slow average)
    "loss_noise",  # log of (standard deviation / mean) of the interval's batch losses, + 2
    "loss_broken",  # 1 if the interval's loss was not finite
    "validated",  # 1 once there was a validation loss
    "validation_total",  # log(validation loss / first validation loss) / 2
    "validation_best",  # 4 * log(validation loss / lowest so far)
    "validation_stale",  # progress since the validation loss was lowest, * 4
    "validation_gap",  # log(validation loss / loss)
    "validation_age",  # progress since the last validation loss, * 8
    "movement",  # (log(relative movement of the weights in the interval) + 4) / 2
    "movement_change",  # log(movement / movement of the interval before)
    "alignment",  # cosine between the interval's movement and the one before
    "norm",  # log(norm of the weights / norm after the first interval)
    "bounded",  # 1 where a stability bound is known
    "room",  # log2(bound / rate, were it not held under the bound) / 4, 0 where none is known
)


class Interval(NamedTuple):
    """What was measured since the last decision; the weights' part comes from `weight_signals`."""

    loss: Array  # mean of the batch losses; not finite if any of them was not
    loss_std: Array  # their standard deviation, 0 if there was one batch
    validation_loss: Array  # the last one of the interval, NaN if there was none
    progress: Array  # fraction of the run that is over, in [0, 1]
    movement: Array  # |now - then| / |then|
    alignment: Array  # cosine of (now - then) with the movement of the interval before, 0 at first
    norm: Array  # |now|


class History(NamedTuple):
    """What is remembered between decisions."""

    initial_rate: Array  # the rate the user asked for, or a part of the bound
    min_rate: Array  # bounds of the rate
    max_rate: Array
    multiplier: Array  # log2, see the module's docstring
    action: Array  # the last action
    seen: Array  # intervals with a finite loss
    progress: Array
    first_loss: Array  # the losses hold 1 until there was a finite one
    best_loss: Array
    best_at: Array  # progress then
    fast_loss: Array  # moving averages
    slow_loss: Array
    validations: Array  # number of finite validation losses
    first_validation: Array
    best_validation: Array
    best_validation_at: Array  # progress then
    validation: Array  # the last one
    validated_at: Array  # progress then
    log_movement: Array
    first_norm: Array
    bound: Array  # rates above which training is not stable, `NO_BOUND` where none is known


def init(
    xp: Any,
    learning_rate: Array,
    min_rate: Array | None = None,
    max_rate: Array | None = None,
    bound: Array | None = None,
) -> History:
    """Returns the history before the first interval.

    Example:

    >>> import numpy as np
    >>> from keras_greedylr import observation
    >>> history = observation.init(np, np.array([0.128], np.float32))
    >>> observation.rate(np, history)
    array([0.001], dtype=float32)

    Args:
        xp: The array namespace.
        learning_rate: Array [B] float32 > 0, the initial rates.
        min_rate: Array [B] float32 > 0 or `None` for `MIN_FALL * learning_rate`, or
            `max_rate` where that is less.
        max_rate: Array [B] float32 or `None` for `MAX_RISE * learning_rate`, or
            `min_rate` where that is more.
        bound: Array [B] float32, rates above which the first interval is not stable; `NO_BOUND`
            or above, or `None` for all, where none is known.
    """
    one, zero = xp.ones_like(learning_rate), xp.zeros_like(learning_rate)
    bound = one * NO_BOUND if bound is None else xp.minimum(bound, NO_BOUND)
    known = bound < NO_BOUND
    learning_rate = xp.where(known, UNDER_BOUND * bound, learning_rate)
    multiplier = xp.where(known, zero, zero + START)
    low = learning_rate * MIN_FALL if min_rate is None else min_rate
    high = learning_rate * MAX_RISE if max_rate is None else max_rate
    # A bound that is given may lie beyond the other's default.
    low = xp.minimum(low, high) if min_rate is None else low
    high = xp.maximum(low, high) if max_rate is None else high
    history = History(
        initial_rate=learning_rate,
        min_rate=low,
        max_rate=high,
        **dict.fromkeys(("action", "seen", "progress", "best_at", "validations"), zero),
        **dict.fromkeys(("best_validation_at", "validated_at"), zero),
        **dict.fromkeys(("first_loss", "best_loss", "fast_loss", "slow_loss"), one),
        **dict.fromkeys(("first_validation", "best_validation", "validation"), one),
        log_movement=zero,
        first_norm=one,
        multiplier=zero,
        bound=bound,
    )
    return history._replace(multiplier=_bounded(xp, history, multiplier))


def observe(
    xp: Any, history: History, interval: Interval, bound: Array | None = None
) -> tuple[History, Array]:
    """Returns the history after an interval, and what the policy sees.

    A loss that is not finite enters no average; it shows as `loss_broken`, with the other features
    of the loss at their limit. Losses are meant to be positive: those that are not are seen as
    very small.

    Args:
        xp: The array namespace.
        history: What `init`, or the last `apply_action`, returned.
        interval: The measurements, arrays [B] float32.
        bound: As in `init`, for the next interval; `None` if it is the same.

    Returns:
        `(history, observation)`, the observation [B, len(NAMES)] float32, all finite.
    """
    old, now = history, interval
    bound = old.bound if bound is None else xp.minimum(bound, NO_BOUND)
    sound = _finite(xp, now.loss) & _finite(xp, now.loss_std)
    loss = xp.where(sound, now.loss, old.fast_loss)
    first = sound & (old.seen == 0.0)

    def remember(value: Array, later: Array) -> Array:
        return xp.where(first, loss, xp.where(sound, later, value))

    fast = remember(old.fast_loss, _mix(FAST, old.fast_loss, loss))
    slow = remember(old.slow_loss, _mix(SLOW, old.slow_loss, loss))
    best = remember(old.best_loss, xp.minimum(old.best_loss, loss))
    best_at = xp.where(first | (sound & (loss < old.best_loss)), now.progress, old.best_at)
    first_loss = remember(old.first_loss, old.first_loss)
    before = remember(old.fast_loss, old.fast_loss)

    fresh = _finite(xp, now.validation_loss)
    first_fresh = fresh & (old.validations == 0.0)
    validation = xp.where(fresh, now.validation_loss, old.validation)
    first_validation = xp.where(first_fresh, validation, old.first_validation)
    better = first_fresh | (fresh & (validation < old.best_validation))
    best_validation = xp.where(better, validation, old.best_validation)
    best_validation_at = xp.where(better, now.progress, old.best_validation_at)
    one, zero = xp.ones_like(old.seen), xp.zeros_like(old.seen)
    validations = old.validations + xp.where(fresh, one, zero)
    validated_at = xp.where(fresh, now.progress, old.validated_at)
    validated = xp.where(validations > 0.0, one, zero)

    moved = _finite(xp, now.movement)
    log_movement = xp.log(xp.maximum(xp.where(moved, now.movement, 1e8), 1e-12))
    started = old.seen > 0.0
    norm = xp.where(_finite(xp, now.norm), xp.maximum(now.norm, 1e-12), old.first_norm)
    first_norm = xp.where(started, old.first_norm, norm)
    noise = xp.log(_positive(xp, xp.where(sound, now.loss_std, 0.0) / _positive(xp, loss)))

    history = old._replace(
        seen=old.seen + xp.where(sound, one, zero),
        progress=now.progress,
        first_loss=first_loss,
        best_loss=best,
        best_at=best_at,
        fast_loss=fast,
        slow_loss=slow,
        validations=validations,
        first_validation=first_validation,
        best_validation=best_validation,
        best_validation_at=best_validation_at,
        validation=validation,
        validated_at=validated_at,
        log_movement=log_movement,
        first_norm=first_norm,
        bound=bound,
    )
    broken = xp.where(sound, zero, one)
    features = {
        "progress": 2.0 * now.progress - 1.0,
        "multiplier": old.multiplier / 7.0,
        "action": old.action,
        "loss_total": 0.5 * _log_ratio(xp, loss, first_loss) + broken * LIMIT,
        "loss_best": _log_ratio(xp, loss, best) + broken * LIMIT,
        "loss_stale": 4.0 * (now.progress - best_at),
        "loss_change": 4.0 * _log_ratio(xp, loss, before) + broken * LIMIT,
        "loss_trend": 4.0 * _log_ratio(xp, fast, slow),
        "loss_noise": noise + 2.0,
        "loss_broken": broken,
        "validated": validated,
        "validation_total": validated * 0.5 * _log_ratio(xp, validation, first_validation),
        "validation_best": validated * 4.0 * _log_ratio(xp, validation, best_validation),
        "validation_stale": validated * 4.0 * (now.progress - best_validation_at),
        "validation_gap": validated * _log_ratio(xp, validation, loss),
        "validation_age": validated * 8.0 * (now.progress - validated_at),
        "movement": (log_movement + 4.0) / 2.0,
        "movement_change": xp.where(started, log_movement - old.log_movement, 0.0),
        "alignment": xp.where(_finite(xp, now.alignment), now.alignment, 0.0),
        "norm": xp.log(norm / first_norm),
        "bounded": xp.where(bound < NO_BOUND, one, zero),
        "room": xp.where(bound < NO_BOUND, 0.25 * (_under(xp, history) - old.multiplier), zero),
    }
    observation = xp.stack([features[name] for name in NAMES], axis=-1)
    return history, xp.clip(observation, -LIMIT, LIMIT)


def apply_action(xp: Any, history: History, action: Array) -> tuple[History, Array]:
    """Returns the history after an action, and the rate of the next interval.

    Args:
        xp: The array namespace.
        history: What `observe` returned.
        action: Array [B] float32; clipped to [-1, 1].
    """
    action = xp.clip(action, -1.0, 1.0)
    multiplier = history.multiplier + STRIDE * action * xp.abs(action)
    # Above the bound it winds up by as much as one cut undoes: the rate is held at the bound then,
    # until the cosine has come down so far.
    multiplier = xp.minimum(multiplier, _under(xp, history) + STRIDE)
    history = history._replace(action=action, multiplier=_bounded(xp, history, multiplier))
    return history, rate(xp, history)


def lower(xp: Any, history: History, steps: float | Array) -> History:
    """Returns the history with the multiplier taken back by so many powers of two."""
    return history._replace(multiplier=_bounded(xp, history, history.multiplier - steps))


def prolong(xp: Any, history: History, progress: Array) -> History:
    """Returns the history of a training that has become longer: the rate stays what it was.

    Args:
        xp: The array namespace.
        history: At its last decision.
        progress: Array [B] float32, the part of training that is done now.
    """
    after = {
        name: xp.minimum(getattr(history, name), progress)
        for name in ("progress", "best_at", "best_validation_at", "validated_at")
    }
    longer = history._replace(**after)
    return lower(xp, longer, _log2(xp, _cosine(xp, longer) / _cosine(xp, history)))


def rate(xp: Any, history: History) -> Array:
    """Returns the rate in force: before the first interval, this is where training starts."""
    value = history.initial_rate * xp.exp(math.log(2.0) * history.multiplier)
    value = value * _anchor(xp, history)
    value = xp.minimum(xp.maximum(value, history.min_rate), history.max_rate)
    return xp.minimum(value, history.bound)


def weight_signals(
    xp: Any, now: Array, then: Array, movement: Array
) -> tuple[Array, Array, Array, Array]:
    """Returns how the weights moved in an interval.

    Args:
        xp: The array namespace.
        now: Array [B, n] float32, the weights (or a fixed sample of their entries).
        then: The same at the interval's start.
        movement: `now - then` of the interval before, zeros in the first.

    Returns:
        `(relative movement, alignment, norm)` as `Interval` has them, arrays [B], and this
        interval's `now - then`, [B, n], to hand in next time.
    """

    def dot(a: Array, b: Array) -> Array:
        # as a matrix product: XLA would add the entries one after another on a CPU
        return xp.matmul(a * b, xp.ones_like(a[0]))

    step = now - then
    size, size_before, norm_then, norm = (xp.sqrt(dot(x, x)) for x in (step, movement, then, now))
    alignment = dot(step, movement) / xp.maximum(size * size_before, 1e-30)
    return size / xp.maximum(norm_then, 1e-12), alignment, norm, step


def _bounded(xp: Any, history: History, multiplier: Array) -> Array:
    """Keeps the multiplier where the rate without the cosine lies within its bounds."""
    low = _log2(xp, history.min_rate / history.initial_rate)
    high = _log2(xp, history.max_rate / history.initial_rate)
    return xp.minimum(xp.maximum(multiplier, low), high)


def _under(xp: Any, history: History) -> Array:
    """The multiplier at which the rate meets its bound, `NO_BOUND` where none is known."""
    known = history.bound < NO_BOUND
    above = xp.where(known, history.bound, 1.0) / history.initial_rate
    meets = _log2(xp, above / _cosine(xp, history))
    return xp.where(known, meets, NO_BOUND)


def _anchor(xp: Any, history: History) -> Array:
    return 0.5 * (1.0 + xp.cos(math.pi * history.progress))


def _cosine(xp: Any, history: History) -> Array:
    return xp.maximum(_anchor(xp, history), 1e-6)  # of which there is a logarithm


def _log2(xp: Any, value: Array) -> Array:
    return xp.log(value) / math.log(2.0)


def _log_ratio(xp: Any, a: Array, b: Array) -> Array:
    return xp.log(_positive(xp, a)) - xp.log(_positive(xp, b))


def _positive(xp: Any, value: Array) -> Array:
    return xp.maximum(value, 1e-30)


def _mix(decay: float, old: Array, new: Array) -> Array:
    return decay * old + (1.0 - decay) * new


def _finite(xp: Any, value: Array) -> Array:
    return xp.abs(value) < math.inf  # false for NaN too; every namespace has it
