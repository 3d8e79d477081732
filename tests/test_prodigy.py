"""Prodigy's estimate of the distance."""

import keras
import numpy as np
from helpers import descend
from keras import ops

from keras_greedylr.optimizers import Prodigy


def test_prodigy_finds_the_distance_and_never_lowers_its_estimate(float64):
    estimates = []
    optimizer = Prodigy(d0=1e-3)
    descend(
        optimizer,
        lambda w: np.sign(w - 30.0),
        [np.zeros(1)],
        60,
        lambda _: estimates.append(float(ops.convert_to_numpy(optimizer._d))),
    )
    assert np.all(np.diff(estimates) >= 0)
    assert 30 / 20 < estimates[-1] <= 30  # a lower bound of the distance


def test_prodigy_passes_over_steps_at_rate_zero_and_zero_gradients(float64):
    start = [np.array([1.0, -2.0])]
    plain = descend(Prodigy(1.0), lambda w: w, start, 4)
    late = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 1.0])
    waited = descend(Prodigy(late), lambda w: w, start, 6)
    np.testing.assert_allclose(waited[2:], plain, rtol=1e-12)
