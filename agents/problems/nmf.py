"""Stochastic non-negative matrix factorisation under its stability bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from keras_greedylr_agents.problems import bounds
from keras_greedylr_agents.problems import data as datasets
from keras_greedylr_agents.problems.base import Problem

ENTRIES: dict[str, Callable[[tuple[int, ...], tf.Tensor], tf.Tensor]] = {
    "gamma": lambda shape, seed: tf.random.stateless_gamma(shape, seed, _flatness(shape, seed)),
    "half normal": lambda shape, seed: tf.abs(tf.random.stateless_normal(shape, seed)),
    "uniform": tf.random.stateless_uniform,
    "log normal": lambda shape, seed: tf.exp(tf.random.stateless_normal(shape, seed)),
}
FLATNESS = (0.3, 10.0)  # of the gamma distributions: entries mostly small, and nearly equal
SQUARINGS = 3  # of the norms in every step: safe, and within some per cent of non-negative ones


class Factors(NamedTuple):
    """One batch of a factorisation, or many."""

    w: tf.Tensor  # [P, m, r]
    h: tf.Tensor  # [P, r, b]


class NMFState(NamedTuple):
    """P factorisations on their way; the columns lie in blocks, which are the mini-batches."""

    w: tf.Tensor  # [P, m, r]
    h: tf.Tensor  # [P, blocks, r, b]
    v: tf.Tensor  # [P, blocks, m, b], what is to be factorised
    clean: tf.Tensor  # the same without its noise
    noise_w: tf.Tensor  # [P], standard deviation of the noise on an entry of the gradient
    noise_h: tf.Tensor


@dataclass(frozen=True, eq=False)
class NMF(Problem):
    """A family of factorisations by projected SGD on column mini-batches, loss the batch's MSE.

    Args:
        name: Unique among the families.
        data: Random factors of a random rank plus noise, and then how their entries are
            distributed, one of `ENTRIES`; or the name of a real matrix, of which each run takes
            some columns.
        update: `"alternating"` moves H, then W; `"simultaneous"` both at once.
        rank: Of the factorisation.
        rows, columns: Size of a random matrix; for a real one, the columns of a run.
        blocks: Number of mini-batches the columns are cut into.
        most_noise: On the data, of its mean; the runs draw up to it.
        most_background: Added to all entries, of their mean; the runs draw up to it. Images have
            one, and a rate that is right without it may be four times too high.
        most_gradient_noise: On the gradient, of its first root mean square.
        stable: Hold the rate under the bound of `bounds`.
        steps: Training steps in an interval.
        validate_every: Intervals between two validation losses.
    """

    name: str
    data: str
    update: Literal["alternating", "simultaneous"] = "alternating"
    rank: int = 5
    rows: int = 32
    columns: int = 64
    blocks: int = 4
    most_noise: float = 0.5
    most_background: float = 0.0
    most_gradient_noise: float = 0.0
    stable: bool = True
    steps: int = 10
    validate_every: int = 4

    @property
    def kind(self) -> str:
        """The algorithm and its size."""
        noisy = ", noisy gradient" if self.most_gradient_noise else ""
        return f"NMF, {self.update}, rank {self.rank}, {self.blocks} blocks{noisy}"

    def sample(self, seed: tf.Tensor, runs: int) -> NMFState:
        """Returns factorisations with random factors."""
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 8))
        clean = self._matrix(seeds[0], runs)
        clean /= tf.reduce_mean(clean, axis=(1, 2), keepdims=True)
        ground = tf.random.stateless_uniform((runs, 1, 1), seeds[6], maxval=self.most_background)
        clean = (clean + ground) / (1.0 + ground)
        level = tf.random.stateless_uniform((runs, 1, 1), seeds[1], maxval=self.most_noise)
        v = clean + level * tf.random.stateless_normal(clean.shape, seeds[2])
        scale = (1.0 / self.rank) ** 0.5  # of entries whose product has mean about one
        m, b = clean.shape[1], self.columns // self.blocks
        w = tf.abs(tf.random.stateless_normal((runs, m, self.rank), seeds[3])) * scale
        h = tf.random.stateless_normal((runs, self.blocks, self.rank, b), seeds[4])
        state = NMFState(
            w=w,
            h=tf.abs(h) * scale,
            v=_in_blocks(tf.nn.relu(v), self.blocks),
            clean=_in_blocks(clean, self.blocks),
            noise_w=tf.zeros(runs),
            noise_h=tf.zeros(runs),
        )
        if not self.most_gradient_noise:
            return state
        d_w, d_h = _gradients(Factors(state.w, state.h[:, 0]), state.v[:, 0])
        level = tf.random.stateless_uniform((runs,), seeds[5], maxval=self.most_gradient_noise)
        return state._replace(noise_w=level * _rms(d_w), noise_h=level * _rms(d_h))

    def _matrix(self, seed: tf.Tensor, runs: int) -> tf.Tensor:
        """Non-negative matrices [P, m, n] without noise."""
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        if self.data not in ENTRIES:
            matrix = tf.constant(_real_matrix(self.data))
            chosen = tf.argsort(tf.random.stateless_uniform((runs, matrix.shape[1]), seeds[0]))
            return tf.transpose(
                tf.gather(tf.transpose(matrix), chosen[:, : self.columns]), [0, 2, 1]
            )
        shapes = (runs, self.rows, 8), (runs, 8, self.columns)
        # factors beyond a run's own rank count for nothing
        own = tf.random.stateless_uniform((runs, 1), seeds[2], 2.0, 9.0)
        used = tf.cast(tf.range(8, dtype=tf.float32)[None] < own - 1.0, tf.float32)
        draw = ENTRIES[self.data]
        a, b = (draw(shape, part) for shape, part in zip(shapes, seeds, strict=False))
        return tf.matmul(a * used[:, None], b) + 1e-3

    def usual_rate(self, state: NMFState) -> tf.Tensor:
        """About the first step's limit, see `bounds.initial_rate`."""
        m, b = state.v.shape[2:]
        mean = tf.reduce_mean(state.v, axis=(1, 2, 3))
        return bounds.initial_rate(mean, max(m, b), 2.0 / (m * b))

    def batches(self, state: NMFState, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Draws blocks [steps], and the gradient's noise if there is any, the same for all runs."""
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        block = tf.random.stateless_uniform(
            (self.steps,), seeds[0], maxval=self.blocks, dtype=tf.int32
        )
        if not self.most_gradient_noise:
            return (block,)
        shapes = (self.steps, 1, *state.w.shape[1:]), (self.steps, 1, *state.h.shape[2:])
        noise = (
            tf.random.stateless_normal(shape, part)
            for shape, part in zip(shapes, seeds[1:], strict=True)
        )
        return (block, *noise)

    def train(
        self, state: NMFState, batches: tuple[tf.Tensor, ...], rates: tf.Tensor
    ) -> tuple[NMFState, tf.Tensor]:
        """Takes `steps` projected steps."""
        block, *noise = batches
        losses = tf.TensorArray(tf.float32, self.steps, element_shape=rates.shape)

        def step(i: tf.Tensor, w: tf.Tensor, h: tf.Tensor, losses: tf.TensorArray) -> tuple:
            chosen = tf.one_hot(block[i], self.blocks)[None, :, None, None]
            part = Factors(w, tf.reduce_sum(h * chosen, axis=1))
            v = tf.gather(state.v, block[i], axis=1)
            loss = batch_loss(part, v)
            extra = None
            if noise:
                extra = (noise[0][i] * _wide(state.noise_w), noise[1][i] * _wide(state.noise_h))
            part = project_step(part, v, rates, self.update, self.stable, extra)
            h = tf.where(chosen > 0, part.h[:, None], h)
            return i + 1, part.w, h, losses.write(i, loss)

        _, w, h, losses = tf.while_loop(
            lambda i, *_: i < self.steps,
            step,
            (0, state.w, state.h, losses),
            maximum_iterations=self.steps,
        )
        return state._replace(w=w, h=h), losses.stack()

    def bound(self, state: NMFState) -> tf.Tensor | None:
        """The rate above which every step of either factor is held at its own limit."""
        if not self.stable:
            return None
        c = 2.0 / float(state.v.shape[2] * state.v.shape[3])
        of_h = bounds.descent_limit(tf.linalg.matrix_transpose(state.w), c)
        of_w = tf.reduce_max(bounds.descent_limit(state.h, c), axis=1)
        return bounds.KAPPA * tf.maximum(of_h, of_w)

    def weights(self, state: NMFState) -> tf.Tensor:
        """Both factors' entries side by side."""
        runs = state.w.shape[0]
        return tf.concat([tf.reshape(f, (runs, -1)) for f in (state.w, state.h)], axis=1)

    def training_loss(self, state: NMFState) -> tf.Tensor:
        """Mean squared error over all blocks."""
        return tf.reduce_mean((tf.matmul(state.w[:, None], state.h) - state.v) ** 2, axis=(1, 2, 3))

    def validation_loss(self, state: NMFState) -> tf.Tensor:
        """Mean squared error against the matrix without its noise."""
        residual = tf.matmul(state.w[:, None], state.h) - state.clean
        return tf.reduce_mean(residual**2, axis=(1, 2, 3))


def batch_loss(factors: Factors, v: tf.Tensor) -> tf.Tensor:
    """Returns the mean squared errors [P] of a batch."""
    residual = tf.matmul(factors.w, factors.h) - v
    return bounds.squared_norm(residual) / float(v.shape[-1] * v.shape[-2])


def project_step(
    factors: Factors,
    v: tf.Tensor,
    rates: tf.Tensor,
    update: Literal["alternating", "simultaneous"],
    stable: bool = True,
    noise: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> Factors:
    """Returns the factors after one projected step on one batch.

    Args:
        factors: W and the batch's columns of H.
        v: The batch's columns of V, [P, m, b].
        rates: The rates asked for, [P].
        update: See `NMF`.
        stable: Hold the rate under the batch's limit: without `noise`, the batch's loss cannot
            rise then, whatever the rates.
        noise: What is added to the gradients of W and of H.
    """
    w, h = factors
    c = 2.0 / float(v.shape[-1] * v.shape[-2])
    noise_w, noise_h = noise or (0.0, 0.0)

    def held(limit: tf.Tensor) -> tf.Tensor:
        return _wide(bounds.clip_rate(rates, limit) if stable else rates)

    if update == "simultaneous":
        rate = held(bounds.simultaneous_limit(w, h, v, c, SQUARINGS) if stable else rates)
        d_w, d_h = _gradients(factors, v)
        return Factors(
            tf.nn.relu(w - rate * (d_w + noise_w)), tf.nn.relu(h - rate * (d_h + noise_h))
        )
    rate = held(bounds.descent_limit(tf.linalg.matrix_transpose(w), c, SQUARINGS))
    h = tf.nn.relu(h - rate * (_gradients(Factors(w, h), v)[1] + noise_h))
    rate = held(bounds.descent_limit(h, c, SQUARINGS))
    return Factors(tf.nn.relu(w - rate * (_gradients(Factors(w, h), v)[0] + noise_w)), h)


def _gradients(factors: Factors, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    w, h = factors
    c = 2.0 / float(v.shape[-1] * v.shape[-2])
    return bounds.gradients(w, h, tf.matmul(w, h) - v, c)


def _real_matrix(name: str) -> np.ndarray:
    """A real non-negative matrix [m, n]; its columns are images or documents."""
    if name == "digits":
        from sklearn.datasets import load_digits

        return load_digits().data.T.astype(np.float32)
    if name in datasets.COUNTED:
        return datasets.word_counts(name).T
    return datasets.image_patches(name).reshape(-1, 64).T


def _flatness(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Each run's own shape of the gamma distribution, as many as there are entries."""
    own = tf.random.experimental.stateless_fold_in(seed, 1)
    drawn = tf.random.stateless_uniform((shape[0], 1, 1), own)
    least, most = FLATNESS
    return tf.broadcast_to(least * (most / least) ** drawn, shape)


def _in_blocks(matrix: tf.Tensor, blocks: int) -> tf.Tensor:
    return tf.stack(tf.split(matrix, blocks, axis=2), axis=1)


def _rms(x: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(bounds.squared_norm(x) / float(x.shape[1] * x.shape[2]))


def _wide(per_run: tf.Tensor) -> tf.Tensor:
    return per_run[:, None, None]
