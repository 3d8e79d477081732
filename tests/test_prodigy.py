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


def test_prodigy_counts_the_distance_from_where_each_weight_was_at_its_first_gradient():
    optimizer = Prodigy(d0=1e-3)
    near, far = (keras.Variable(np.array([start], "float32")) for start in (1.0, 100.0))
    optimizer.build([near, far])
    for step in range(30):
        gradients = [ops.sign(ops.convert_to_tensor(near)), ops.convert_to_tensor([0.01])]
        late = step == 0  # one head of a network is not used in the first batch
        optimizer.apply(gradients[: 2 - late], [near, far][: 2 - late])
    assert float(ops.convert_to_numpy(optimizer._d)) > 0.1
