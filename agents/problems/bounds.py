"""Learning rates at which non-negative matrix factorisation provably does not diverge.

With f = (c/2) |V - W H|^2 (Frobenius), V [m, n], W [m, r], H [r, n], R = W H - V:

    dW = c R H',   dH = c W' R

and c = 1 for half the squared norm, 2 / (m n) for the mean squared error. Each block alone is a
quadratic with the curvatures L_W = c |H H'|_2 and L_H = c |W' W|_2.

That a bound on the rate keeps stochastic NMF stable is the idea of "Efficient learning rate
schedules for stochastic non-negative matrix factorization via reinforcement learning" (ICLR 2023
Tiny Papers). Its formula is not public: what is here is an independent derivation, checked by
tests, and may differ from the paper's. None of it holds for Adam or momentum.

Every function takes leading batch axes.
"""

from __future__ import annotations

import math

import tensorflow as tf

KAPPA = 0.9  # part of a limit that is used: float32 and noise need the rest


def squared_norm(matrix: tf.Tensor) -> tf.Tensor:
    """Returns the squared Frobenius norms [...] of matrices [..., m, n].

    The columns are summed by a matrix product: XLA would add entry after entry on a CPU.
    """
    ones = tf.ones((*matrix.shape[:-2], 1, matrix.shape[-2]))
    return tf.reduce_sum(tf.matmul(ones, matrix * matrix), axis=(-2, -1))


def gradients(
    w: tf.Tensor, h: tf.Tensor, residual: tf.Tensor, c: tf.Tensor | float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns dW and dH."""
    return (
        c * tf.matmul(residual, h, transpose_b=True),
        c * tf.matmul(w, residual, transpose_a=True),
    )


def spectral_norm(gram: tf.Tensor, squarings: int = 6) -> tf.Tensor:
    """Returns the largest eigenvalue of positive semi-definite matrices, from above.

    With s squarings, |G^(2^s)|_F^(1 / 2^s): never below the eigenvalue, and above it by a factor
    of at most r^(1 / 2^(s+1)). Power iteration would come from below, and break the limits.

    Example:

    >>> import tensorflow as tf
    >>> from keras_greedylr_agents.problems import bounds
    >>> round(float(bounds.spectral_norm(tf.constant([[2.0, 1.0], [1.0, 2.0]]))), 3)
    3.0

    Args:
        gram: [..., r, r] float32.
        squarings: How often the matrix is squared.
    """
    logarithm = tf.zeros(gram.shape[:-2])
    for i in range(squarings):
        scale = tf.maximum(tf.sqrt(squared_norm(gram)), 1e-30)
        logarithm += tf.math.log(scale) / 2.0**i
        gram *= (1.0 / scale)[..., None, None]
        gram = tf.matmul(gram, gram)
    last = tf.maximum(tf.sqrt(squared_norm(gram)), 1e-30)
    return tf.exp(logarithm + tf.math.log(last) / 2.0**squarings)


def descent_limit(other: tf.Tensor, c: tf.Tensor | float, squarings: int = 6) -> tf.Tensor:
    """Returns 2 / L for a step on one factor, the other being fixed.

    Below it the loss falls (projected onto the non-negative or not), above it the loss can rise.

    Example:

    >>> import tensorflow as tf
    >>> from keras_greedylr_agents.problems import bounds
    >>> round(float(bounds.descent_limit(tf.constant([[3.0, 4.0]]), c=1.0)), 3)  # L = 25
    0.08

    Args:
        other: H [..., r, n] for a step on W; for a step on H, the transpose of W, [..., r, m].
        c: The loss's factor, see the module.
        squarings: See `spectral_norm`; fewer are quicker, and safe.
    """
    return 2.0 / (c * spectral_norm(tf.matmul(other, other, transpose_b=True), squarings))


def noisy_descent_limit(limit: tf.Tensor, gradient: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Returns the rate below which a step on a noisy gradient lowers the expected loss.

    For additive noise of mean zero, unprojected; half of it lowers the loss fastest. Any rate
    below `limit` stays stable in mean square: noise sets the floor, not the limit.

    Args:
        limit: `descent_limit`, [...].
        gradient: The exact gradient's squared norm, [...].
        noise: The noise's expected squared norm, [...].
    """
    return limit * gradient / tf.maximum(gradient + noise, 1e-30)


def minibatch_limit(h: tf.Tensor, batch: int, c: tf.Tensor | float) -> tf.Tensor:
    """Returns the limit for steps on W whose gradient is estimated from `batch` random columns.

    The gradient is scaled by n / batch. Below the limit the iteration is stable in mean square:
    L_b = L_W + k (c n max_j |h_j|^2 - L_W), with k = (n - b) / (b (n - 1)).

    Args:
        h: H [..., r, n].
        batch: Columns in a batch.
        c: The whole loss's factor.
    """
    n = h.shape[-1]
    k = (n - batch) / (batch * max(n - 1, 1))
    exact = 2.0 / descent_limit(h, c)
    worst = 2.0 / every_batch_limit(h, c)
    return 2.0 / (exact + k * (worst - exact))


def batch_limit(h_batch: tf.Tensor, columns: int, c: tf.Tensor | float) -> tf.Tensor:
    """Returns the rate below which a step on W never raises the loss of this batch.

    Args:
        h_batch: The batch's part of H, [..., r, b].
        columns: n, the columns of V; the gradient is scaled by n / b.
        c: The whole loss's factor. For a batch-mean squared error c n / b is 2 / (m b).
    """
    return descent_limit(h_batch, c * columns / h_batch.shape[-1])


def every_batch_limit(h: tf.Tensor, c: tf.Tensor | float) -> tf.Tensor:
    """Returns a rate that is below `batch_limit` for every batch: 2 / (c n max_j |h_j|^2)."""
    longest = tf.reduce_max(tf.reduce_sum(h * h, axis=-2), axis=-1)
    return 2.0 / (c * h.shape[-1] * tf.maximum(longest, 1e-30))


def simultaneous_limit(
    w: tf.Tensor, h: tf.Tensor, v: tf.Tensor, c: tf.Tensor | float, squarings: int = 6
) -> tf.Tensor:
    """Returns a rate below which a step on both factors at once lowers the loss.

    With g = |(dW, dH)| and s^2 = |W|_2^2 + |H|_2^2, it is the root of

        rate c ((s + rate g / 2)^2 + |R|_2) = 2,

    which is sufficient, projected too, and about half of the exact limit.

    Args:
        w: [..., m, r].
        h: [..., r, n].
        v: [..., m, n].
        c: The loss's factor.
        squarings: See `spectral_norm`; fewer are quicker, and safe.
    """
    residual = tf.matmul(w, h) - v
    d_w, d_h = gradients(w, h, residual, c)
    g = tf.sqrt(squared_norm(d_w) + squared_norm(d_h))
    s = tf.sqrt(
        spectral_norm(tf.matmul(w, w, transpose_a=True), squarings)
        + spectral_norm(tf.matmul(h, h, transpose_b=True), squarings)
    )
    wide = residual.shape[-1] > residual.shape[-2]
    gram = tf.matmul(residual, residual, transpose_a=not wide, transpose_b=wide)
    size = tf.sqrt(spectral_norm(gram, min(squarings, 3)))
    rate = 2.0 / (c * (s**2 + size))  # too large: it leaves the step's own length out
    for _ in range(4):  # Newton on a convex, rising function stays above the root
        half = s + rate * g / 2.0
        value = rate * c * (half**2 + size) - 2.0
        slope = c * (half**2 + size) + rate * c * half * g
        rate = rate - value / slope
    return 2.0 / (c * ((s + rate * g / 2.0) ** 2 + size))  # of a rate above, one below the root


def clip_rate(
    rate: tf.Tensor, limit: tf.Tensor, min_rate: tf.Tensor | float = 0.0, kappa: float = KAPPA
) -> tf.Tensor:
    """Returns the rate, held between `min_rate` and `kappa * limit`; the limit wins.

    Clipping the rate, not the weights or the gradient: a clipped iterate stays bounded but
    settles into a cycle. With the limit of the current batch and factors no schedule whatever
    can raise the batch's loss.
    """
    return tf.minimum(tf.maximum(rate, min_rate), kappa * limit)


def initial_rate(
    mean: tf.Tensor, columns: int, c: tf.Tensor | float, kappa: float = KAPPA
) -> tf.Tensor:
    """Returns about `kappa` times the limit of the first step: kappa pi / (c n mean(V)).

    Holds for factors whose entries start as |N(0, 1)| sqrt(mean(V) / r), since then
    |H|_2^2 is about (2 / pi) n mean(V).

    Args:
        mean: The mean entry of V, [...].
        columns: n for a step on W (m for a step on H).
        c: The loss's factor.
        kappa: Part of the limit that is used.
    """
    return kappa * math.pi / (c * columns * mean)
