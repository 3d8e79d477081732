"""Schedule-Free: the weights of its average, and which of its points the model holds."""

import keras
import numpy as np
import pytest
from helpers import descend
from keras import ops

from keras_greedylr import GreedyRule
from keras_greedylr.optimizers import (
    GreedyOptimizer,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    SwapScheduleFreeWeights,
)


def test_schedule_free_weighs_its_average_by_the_squared_rate(float64):
    weights = []
    optimizer = ScheduleFreeSGD(0.4, warmup_steps=4)
    descend(
        optimizer,
        lambda w: w,
        [np.ones(2)],
        5,
        lambda _: weights.append(float(ops.convert_to_numpy(optimizer._weight))),
    )
    np.testing.assert_allclose(weights, [1, 4 / 5, 9 / 14, 16 / 30, 16 / 46], rtol=1e-12)


def test_schedule_free_goes_on_from_the_average(float64):
    # A step that meets the model at x, as after a `fit`, takes it to y first.
    path = descend(ScheduleFreeAdamW(0.1), lambda w: np.ones(2), [np.ones(2)], 6)
    optimizer = ScheduleFreeAdamW(0.1)
    left = descend(
        optimizer,
        lambda w: np.ones(2),
        [np.ones(2)],
        6,
        optimizer.finalize_variable_values,
    )
    np.testing.assert_allclose(left, path, rtol=1e-12)


@pytest.mark.parametrize("make", [ScheduleFreeSGD, ScheduleFreeAdamW])
def test_schedule_free_keeps_its_average_to_the_constraint(make):
    rng = np.random.default_rng(0)
    bound, free = keras.Variable(np.ones(20)), keras.Variable(np.ones(20))
    bound.constraint = keras.constraints.NonNeg()  # as a layer sets it
    optimizer, lowest = make(0.3), []
    for _ in range(40):
        gradient = ops.convert_to_tensor(rng.normal(size=20) + 0.3, "float32")
        optimizer.apply([gradient, gradient], [bound, free])
        for move in (optimizer.finalize_variable_values, optimizer.resume_variable_values):
            move([bound, free])
            lowest.append([ops.convert_to_numpy(v.value).min() for v in (bound, free)])
    assert np.min(lowest, axis=0)[0] >= 0 > np.min(lowest, axis=0)[1]


def test_schedule_free_validates_and_ends_at_the_average(make_model, regression):
    x, y = regression
    model = make_model()
    model.compile(ScheduleFreeSGD(0.05), loss="mse")
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            at_average = self.model.get_weights()
            loss = float(np.mean((self.model.predict_on_batch(x) - y) ** 2))
            self.model.optimizer.resume_variable_values(self.model.trainable_variables)
            differs = [
                np.abs(a - b).max()
                for a, b in zip(at_average, self.model.get_weights(), strict=True)
            ]
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            seen.append((logs["val_loss"], loss, max(differs), at_average))

    history = model.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=2,
        batch_size=32,
        verbose=0,
        callbacks=[Spy(), SwapScheduleFreeWeights()],
    )
    for val_loss, loss, differs, _ in seen:
        assert val_loss == pytest.approx(loss, rel=1e-5)
        assert differs > 1e-4
    for last, final in zip(seen[-1][3], model.get_weights(), strict=True):
        np.testing.assert_allclose(last, final, rtol=1e-6, atol=1e-7)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(history.history["val_loss"][-1], 1e-5)


def test_schedule_free_inside_other_optimizers(make_model, regression, dtype_policy):
    dtype_policy("mixed_float16")
    model = make_model()
    inner = ScheduleFreeSGD(0.05)
    model.compile(GreedyOptimizer(inner, GreedyRule()), loss="mse")
    assert type(model.optimizer.inner_optimizer) is keras.optimizers.LossScaleOptimizer
    model.fit(*regression, verbose=0, callbacks=[SwapScheduleFreeWeights()])
    assert bool(ops.convert_to_numpy(inner._at_average))


def test_schedule_free_in_two_fits_is_as_in_one(make_model, regression):
    x, y = regression
    weights = []
    for fits in ([2], [1, 1]):
        model = make_model()
        model.compile(ScheduleFreeAdamW(0.01), loss="mse")
        for epochs in fits:
            model.fit(
                x, y, epochs=epochs, shuffle=False, verbose=0, callbacks=[SwapScheduleFreeWeights()]
            )
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
