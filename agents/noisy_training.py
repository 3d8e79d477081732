"""Training under noise: many runs at once, step by step, and how they come back from a spike."""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from keras_greedylr.observation import Interval, weight_signals
from keras_greedylr_agents.noises import EPOCH, STEPS, Noise
from keras_greedylr_agents.problems import optimizers
from keras_greedylr_agents.problems.landscapes import Landscape
from keras_greedylr_agents.rivals import Controller

LEAST = 20  # steps to watch a spike for
BACK = 1.1  # times the loss before a spike


class State(NamedTuple):
    """P runs on their way, G = P / cells of them with noise of their own."""

    weights: tf.Tensor  # [P, n]
    slots: list[tf.Tensor]  # Adam's
    vectors: tf.Tensor  # [G, n], the noise's


@functools.cache
def _compiled(landscape: Landscape) -> Any:
    """One training step of all runs."""

    @tf.function(jit_compile=landscape.compiled, autograph=False)
    def step(
        state: State, instances: tf.Tensor, units: tf.Tensor, now: Noise, drawn: tf.Tensor,
        updates: tf.Tensor, rates: tf.Tensor,
    ) -> tuple[State, tf.Tensor, tf.Tensor]:  # fmt: skip
        with tf.GradientTape() as tape:
            tape.watch(state.weights)
            loss = landscape.loss(state.weights, instances)
            total = tf.reduce_sum(loss)  # one run's weights touch its own loss only
        gradient = tape.gradient(total, state.weights)
        size = tf.sqrt(tf.reduce_mean(gradient**2, axis=1))
        groups, width = state.vectors.shape
        again = tf.tile(drawn, (groups // drawn.shape[0], 1))
        vectors = tf.where(now.held[:, None], state.vectors, again)
        cells = tf.reshape(gradient, (groups, -1, width)) * now.turn[:, None, None]
        cells += ((now.push * units)[:, None] * vectors)[:, None]
        gradient = tf.reshape(cells, state.weights.shape)
        weights, slots = optimizers.update(
            "adam", state.weights, state.slots, updates, gradient, rates
        )
        return State(weights, slots, vectors), loss, size

    return step


@tf.function(autograph=False)
def _signals(now: tf.Tensor, then: tf.Tensor, movement: tf.Tensor) -> tuple:
    return weight_signals(tnp, now, then, movement)


class Curves(NamedTuple):
    """What P runs showed at each step, [STEPS, P]."""

    clean: np.ndarray  # [STEPS + 1, P], the true loss before each step, and after the last
    seen: np.ndarray  # the loss the schedules saw
    sizes: np.ndarray  # root mean square of the clean gradient


def train(
    landscape: Landscape,
    begin: tuple[tf.Tensor, tf.Tensor],
    noise: Noise,
    units: np.ndarray,
    controller: Controller,
    rates: np.ndarray,
    seed: int,
) -> Curves:
    """Trains P runs, the same number of cells for each of G noises.

    Args:
        landscape: What on.
        begin: Weights and instances [seeds, ...]; the noises are tiled over them.
        noise: [STEPS, G].
        units: [seeds], the size of a push of one.
        controller: Sets the rates.
        rates: [P], what it is given; the cells of a noise lie side by side.
        seed: Of the noise's vectors.
    """
    groups, seeds = noise.push.shape[1], len(units)
    of = np.repeat(np.tile(np.arange(seeds), groups // seeds), len(rates) // groups)
    weights, instances = (tf.gather(part, of) for part in begin)
    state = State(
        weights, optimizers.init_slots("adam", weights), tf.zeros((groups, weights.shape[1]))
    )
    as_floats = Noise(*(field if field.dtype == bool else np.float32(field) for field in noise))
    unit = tf.constant(np.tile(units, groups // seeds), tf.float32)
    signals = (np.zeros(len(rates), np.float32),) * 3
    then, movement = weights, tf.zeros_like(weights)
    used, clean, shown, sizes = np.float32(controller.first(rates, None)), [], [], []
    for i in range(STEPS):
        # Not (seed, 0): of that a function draws where its runs start.
        drawn = tf.random.stateless_normal((seeds, weights.shape[1]), (seed, i + 1))
        now = Noise(*(tf.constant(field[i]) for field in as_floats))
        state, loss, size = _compiled(landscape)(
            state, instances, unit, now, drawn, tf.constant(i + 1.0), tf.constant(used)
        )
        clean.append(loss.numpy())
        sizes.append(size.numpy())
        shown.append(_seen(clean, noise, i))
        if (i + 1) % EPOCH == 0:
            *signals, movement = _signals(state.weights, then, movement)
            signals, then = [signal.numpy() for signal in signals], state.weights
        nothing = np.zeros_like(used)
        told = Interval(shown[-1], nothing, nothing * np.nan, nothing + (i + 1) / STEPS, *signals)
        if i + 1 < STEPS:
            used = np.float32(controller.next(told, None))
    clean.append(landscape.loss(state.weights, instances).numpy())
    return Curves(*(np.stack(parts) for parts in (clean, shown, sizes)))


def _seen(clean: list[np.ndarray], noise: Noise, i: int) -> np.ndarray:
    """What step i shows, [P]."""
    cells = len(clean[i]) // noise.push.shape[1]
    with np.errstate(all="ignore"):  # diverged runs are part of the study
        fell = clean[i] < clean[i - 1] if i else np.zeros_like(clean[i], bool)
        log = np.repeat(noise.metric[i], cells) + np.repeat(noise.rising[i], cells) * fell
        return np.float32(clean[i] * np.exp(log))


def recoveries(clean: np.ndarray, spike: np.ndarray, first: float) -> np.ndarray:
    """How many steps after the begin of each spike the clean loss is back, [spikes, ...].

    Back is under `BACK` times the loss before the spike, or a thousandth of the first loss if
    that was more. 0 where the spike did not raise the loss above that, infinity where it is not
    back by the next spike or the end. Spikes with fewer than `LEAST` steps to go are left out.

    Args:
        clean: Losses of runs with the same noise, [STEPS + 1, ...].
        spike: [STEPS] bool, where one begins.
        first: The loss before the first step.
    """
    found = []
    for begin, end in itertools.pairwise([*np.flatnonzero(spike), len(spike)]):
        if end - begin < LEAST:
            continue
        limit = BACK * np.maximum(clean[begin], 1e-3 * first)
        high = ~(clean[begin + 1 : end + 1] <= limit)  # NaN is high
        back = ~high & (np.cumsum(high, axis=0) > 0)
        steps = np.where(back.any(axis=0), back.argmax(axis=0) + 1.0, np.inf)
        found.append(np.where(high.any(axis=0), steps, 0.0))
    return np.array(found).reshape(-1, *clean.shape[1:])
