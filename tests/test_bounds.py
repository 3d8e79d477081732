"""The stability bounds of NMF, on hundreds of random problems at once."""

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("tf_agents")
import keras_greedylr_agents  # noqa: F401, I001
import tensorflow as tf

from keras_greedylr_agents.problems import bounds, nmf

PROBLEMS, ROWS, RANK, COLUMNS = 300, 12, 4, 20
C = 2.0 / (ROWS * COLUMNS)


def problems(seed=0):
    """W, H, V of random problems of very different scales."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(0, 1, (3, PROBLEMS, 1, 1)))
    w = np.abs(rng.normal(size=(PROBLEMS, ROWS, RANK))) * scale[0]
    h = np.abs(rng.normal(size=(PROBLEMS, RANK, COLUMNS))) * scale[1]
    v = np.abs(rng.normal(size=(PROBLEMS, ROWS, COLUMNS))) * scale[2] * scale[0] * scale[1]
    return w, h, v


def loss(w, h, v):
    return C / 2 * np.square(w @ h - v).sum(axis=(1, 2))


def gradients(w, h, v):
    residual = C * (w @ h - v)
    return residual @ h.swapaxes(1, 2), w.swapaxes(1, 2) @ residual


def f32(x):
    return tf.constant(x, tf.float32)


def limit(function, *arrays, **options):
    return function(*map(f32, arrays), **options).numpy().astype(float)[:, None, None]


def aligned(w, h):
    """V such that the whole error lies along the steepest direction of the loss in W."""
    vectors = np.linalg.eigh(h @ h.swapaxes(1, 2))[1][:, :, -1:]
    return w @ h - np.ones((ROWS, 1)) * (vectors.swapaxes(1, 2) @ h)


def test_spectral_norm_is_from_above_and_close():
    h = problems()[1]
    gram = h @ h.swapaxes(1, 2)
    exact = np.linalg.norm(gram, 2, axis=(1, 2))
    ratio = bounds.spectral_norm(f32(gram)).numpy() / exact
    assert ratio.min() > 1 - 1e-5 and ratio.max() < RANK ** (1 / 2**7) + 1e-5


def test_exact_limit_is_where_descent_ends():
    w, h, v = problems()
    eta = limit(bounds.descent_limit, h, c=C)
    step = gradients(w, h, v)[0]
    assert (loss(w - 0.99 * eta * step, h, v) < loss(w, h, v)).all()
    assert (loss(np.maximum(w - 0.99 * eta * step, 0), h, v) < loss(w, h, v)).all()
    worst = aligned(w, h)
    step = gradients(w, h, worst)[0]
    assert (loss(w - 0.97 * eta * step, h, worst) < loss(w, h, worst)).all()
    assert (loss(w - 1.03 * eta * step, h, worst) > loss(w, h, worst)).all()


def test_noisy_limit_is_where_expected_descent_ends():
    w, h, _ = problems()
    v = aligned(w, h)
    step = gradients(w, h, v)[0]
    squared = np.square(step).sum(axis=(1, 2))
    # noise along the steepest direction, either sign: the expectation is exact
    noise = step * 1.5
    eta = bounds.noisy_descent_limit(
        bounds.descent_limit(f32(h), c=C), f32(squared), f32(2.25 * squared)
    ).numpy()[:, None, None]

    def expected(rate):
        return sum(loss(w - rate * (step + sign * noise), h, v) for sign in (1, -1)) / 2

    now = loss(w, h, v)
    assert (expected(0.97 * eta) < now).all() and (expected(1.03 * eta) > now).all()
    assert (expected(0.5 * eta) < expected(0.9 * eta)).all()


def test_batch_limits():
    w, h, _ = problems()
    v = aligned(w, h)  # of which a batch's error is not along its own steepest direction
    batch = 5
    every = limit(bounds.every_batch_limit, h, c=C)
    for begin in range(0, COLUMNS, batch):
        part = slice(begin, begin + batch)
        own = limit(bounds.batch_limit, h[:, :, part], columns=COLUMNS, c=C)
        assert (every <= own * (1 + 1e-5)).all()
        scaled = COLUMNS / batch
        step = gradients(w, h[:, :, part], v[:, :, part])[0] * scaled
        now = loss(w, h[:, :, part], v[:, :, part])
        assert (loss(w - 0.99 * own * step, h[:, :, part], v[:, :, part]) <= now).all()
        worst = aligned(w, h[:, :, part])
        step = gradients(w, h[:, :, part], worst)[0] * scaled
        now = loss(w, h[:, :, part], worst)
        assert (loss(w - 1.03 * own * step, h[:, :, part], worst) > now).all()


def test_minibatch_limit_is_between_exact_and_every_batch():
    h = problems()[1]
    of = {b: limit(bounds.minibatch_limit, h, batch=b, c=C) for b in (1, 5, COLUMNS)}
    np.testing.assert_allclose(of[COLUMNS], limit(bounds.descent_limit, h, c=C), rtol=1e-5)
    np.testing.assert_allclose(of[1], limit(bounds.every_batch_limit, h, c=C), rtol=1e-5)
    assert (of[1] < of[5]).all() and (of[5] < of[COLUMNS]).all()


def test_minibatch_limit_keeps_the_second_moment_bounded():
    """The recursion of the mean squared error, exact over all batches, contracts below it."""
    rng = np.random.default_rng(0)
    columns, batch = 6, 2
    for _ in range(30):
        h = rng.normal(size=(3, columns)) * np.exp(rng.normal(size=columns))
        eta = 0.98 * float(bounds.minibatch_limit(f32(h), batch=batch, c=1.0))
        total = np.zeros((9, 9))
        batches = list(combinations(range(columns), batch))
        for chosen in batches:
            part = h[:, chosen]
            matrix = np.eye(3) - eta * columns / batch * part @ part.T
            total += np.kron(matrix, matrix) / len(batches)
        assert np.abs(np.linalg.eigvals(total)).max() < 1


def test_simultaneous_limit_implies_descent():
    w, h, v = problems()
    eta = limit(bounds.simultaneous_limit, w, h, v, c=C)
    d_w, d_h = gradients(w, h, v)
    now = loss(w, h, v)
    for part in (0.1, 0.5, 0.99):
        new_w, new_h = w - part * eta * d_w, h - part * eta * d_h
        assert (loss(new_w, new_h, v) < now).all()
        assert (loss(np.maximum(new_w, 0), np.maximum(new_h, 0), v) < now).all()
    # and it is not far too careful: some rates a few times larger make the loss rise
    risen = loss(w - 6 * eta * d_w, h - 6 * eta * d_h, v) > now
    assert risen.mean() > 0.3


def test_clip_rate():
    clipped = bounds.clip_rate(f32([1e9, 1.0, 1e-9, 1.0]), f32([2.0, 2.0, 2.0, 0.1]), 0.5)
    np.testing.assert_allclose(clipped, [1.8, 1.0, 0.5, 0.09], rtol=1e-6)  # the limit wins


def test_initial_rate_is_near_the_first_limit():
    rng = np.random.default_rng(0)
    v = rng.gamma(0.5, size=(200, 64, 256)) * 3
    mean = v.mean(axis=(1, 2))
    h = np.abs(rng.normal(size=(200, 6, 256))) * np.sqrt(mean / 6)[:, None, None]
    first = bounds.descent_limit(f32(h), c=0.1).numpy()
    guess = bounds.initial_rate(f32(mean), 256, c=0.1, kappa=1.0).numpy()
    assert 0.7 < np.median(guess / first) < 1.1


@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("asked", [1e-3, 1e6])
def test_greedy_adversary_never_raises_a_batch_loss(update, asked):
    """Whatever is asked for: with the bound on, no step makes its batch's loss rise."""
    w, h, v = map(f32, problems(1))
    factors = nmf.Factors(w, h)
    rates = tf.fill([PROBLEMS], asked)
    before = nmf.batch_loss(factors, v).numpy()
    for _ in range(50):
        factors = nmf.project_step(factors, v, rates, update)
        after = nmf.batch_loss(factors, v).numpy()
        assert (after <= before * (1 + 1e-5)).all()  # float32
        before = after
    if asked > 1:
        loose = nmf.project_step(nmf.Factors(w, h), v, rates, update, stable=False)
        first = nmf.batch_loss(nmf.Factors(w, h), v).numpy()
        assert (nmf.batch_loss(loose, v).numpy() > first).any()
