"""Noise that reaches a training: the gradient of every step, and the loss its schedule sees.

The nine kinds, none among them, of GreedyLR's robustness study. There a number was added to the
loss, which leaves its gradient as it is, and the schedule was shown the loss before that. Here, at
each step,

    gradient = turn * clean gradient + push * unit * vector
    seen     = clean loss * exp(metric + rising)

with a random vector whose entries have variance one, drawn anew or held; `unit` is a usual size of
the run's gradient (`robustness.compare` says which); `rising` counts only where the clean loss has
just fallen. Strength multiplies all of it; it is 0.1, 0.5 or 1.

Everything is drawn beforehand, so that every contestant meets the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

STEPS = 200
EPOCH = 5  # steps
STRENGTHS = (0.1, 0.5, 1.0)
SPIKE = 3  # steps it lasts


class Noise(NamedTuple):
    """What one run meets, arrays [STEPS]; for G of them [STEPS, G]."""

    metric: np.ndarray
    rising: np.ndarray
    turn: np.ndarray
    push: np.ndarray
    held: np.ndarray  # bool: the vector is that of the step before
    spike: np.ndarray  # bool: a spike begins


def _noise(**given: np.ndarray | float) -> Noise:
    usual = {"metric": 0.0, "rising": 0.0, "turn": 1.0, "push": 0.0, "held": False, "spike": False}
    return Noise(*(np.broadcast_to(given.get(name, usual[name]), STEPS) for name in Noise._fields))


def none(rng: np.random.Generator, strength: float) -> Noise:
    """Nothing."""
    return _noise()


def gaussian(rng: np.random.Generator, strength: float) -> Noise:
    """Independent normal noise at every step."""
    return _noise(metric=strength * rng.normal(size=STEPS), push=strength)


def periodic_spike(rng: np.random.Generator, strength: float) -> Noise:
    """Every 40 steps three bad ones: the loss up to ten times as high, ten units one way."""
    return _spikes(np.arange(STEPS) % 40 == 0, np.ones(STEPS), strength)


def random_spike(rng: np.random.Generator, strength: float) -> Noise:
    """The same after any step with a chance of 2 %, half as large to twice as large."""
    return _spikes(rng.random(STEPS) < 0.02, rng.uniform(0.5, 2.0, STEPS), strength)


def _spikes(begins: np.ndarray, sizes: np.ndarray, strength: float) -> Noise:
    begins = begins & (np.arange(STEPS) >= 10)  # there is nothing to spoil yet
    since, last = np.full(STEPS, STEPS), np.full(STEPS, 0)
    for i in np.flatnonzero(begins):
        since[i:], last[i:] = np.arange(STEPS - i), i
    size = strength * sizes[last] * (since < SPIKE)
    return _noise(
        metric=np.log(10.0) * size, push=10.0 * size, held=(since > 0) & (since < SPIKE),
        spike=begins,
    )  # fmt: skip


def plateau(rng: np.random.Generator, strength: float) -> Noise:
    """For 40 steps of every 80 less gradient, a tenth at full strength, and a flickering metric."""
    flat = np.arange(STEPS) % 80 >= 40
    flicker = 0.05 * strength * rng.normal(size=STEPS)
    return _noise(metric=flicker * flat, turn=1.0 - 0.9 * strength * flat)


def oscillatory(rng: np.random.Generator, strength: float) -> Noise:
    """A wave of 20 steps, to and fro along one direction."""
    wave = strength * np.sin(2.0 * np.pi * np.arange(STEPS) / 20)
    return _noise(metric=wave, push=np.sqrt(2.0) * wave, held=np.arange(STEPS) > 0)


def drift(rng: np.random.Generator, strength: float) -> Noise:
    """A bias in one direction that grows from nothing."""
    bias = strength * np.arange(STEPS) / STEPS
    return _noise(metric=bias, push=bias, held=np.arange(STEPS) > 0)


def burst(rng: np.random.Generator, strength: float) -> Noise:
    """Twenty steps of strong normal noise, a tenth of the usual before and after."""
    begin = rng.integers(40, 140)
    inside = (np.arange(STEPS) >= begin) & (np.arange(STEPS) < begin + 20)
    size = strength * np.where(inside, 3.0, 0.1)
    return _noise(metric=size * rng.normal(size=STEPS), push=size)


def adversarial(rng: np.random.Generator, strength: float) -> Noise:
    """Up to three gradients of ten point the other way, and the loss looks worse as it falls."""
    turned = rng.random(STEPS) < 0.3 * strength
    return _noise(rising=0.5 * strength, turn=np.where(turned, -1.0, 1.0))


NOISES: dict[str, Callable[[np.random.Generator, float], Noise]] = {
    "none": none,
    "gaussian": gaussian,
    "periodic spike": periodic_spike,
    "random spike": random_spike,
    "plateau": plateau,
    "oscillatory": oscillatory,
    "drift": drift,
    "burst": burst,
    "adversarial": adversarial,
}
CONDITIONS = (
    ("none", 0),
    *((noise, strength) for noise in list(NOISES)[1:] for strength in STRENGTHS),
)


def draw(conditions: Sequence[tuple[str, float]], seeds: int, seed: int) -> Noise:
    """Returns the noise of `seeds` runs under each condition, [STEPS, conditions * seeds].

    A seed's noises of one kind differ in nothing but strength.
    """
    drawn = [
        NOISES[name](np.random.default_rng([seed, i, list(NOISES).index(name)]), strength)
        for name, strength in conditions
        for i in range(seeds)
    ]
    return Noise(*(np.stack(fields, axis=1) for fields in zip(*drawn, strict=True)))
