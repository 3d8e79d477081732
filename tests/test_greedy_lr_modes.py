"""Which way a metric gets better."""

import keras
import pytest
from helpers import Spy, data, fit, linear

from keras_greedylr import GreedyLR


def surprise(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    "monitor, metric, mode",
    [
        ("loss", None, "min"),
        ("accuracy", "accuracy", "max"),
        ("mse", "mse", "min"),
        ("acc", "acc", "max"),
        ("auc", lambda: keras.metrics.AUC(name="auc"), "max"),
        ("quality", lambda: keras.metrics.AUC(name="quality"), "max"),
        ("quality", lambda: keras.metrics.MeanSquaredError(name="quality"), "min"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "val_"])
def test_auto_mode(prefix, monitor, metric, mode):
    metrics = [metric() if callable(metric) else metric] if metric else None
    model = linear(metrics=metrics, run_eagerly=True)  # one batch is not worth a graph
    x, y = data(16)
    y = (y > 0).astype("float32")
    model.layers[-1].activation = keras.activations.sigmoid
    greedy = GreedyLR(prefix + monitor)
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[greedy])
    assert greedy.rule.mode == mode


def acceleration(y_true, y_pred):
    return surprise(y_true, y_pred)


def inaccuracy(y_true, y_pred):
    return surprise(y_true, y_pred)


@pytest.mark.parametrize("metric", [surprise, acceleration, inaccuracy])
def test_auto_mode_does_not_guess(metric):
    with pytest.raises(ValueError) as error:
        fit(linear(metrics=[metric]), [GreedyLR(metric.__name__)])
    assert str(error.value) == (
        f"GreedyLR cannot tell whether `{metric.__name__}` gets better by growing or by shrinking. "
        "Pass mode='max' or mode='min' (received: mode='auto')."
    )


@pytest.mark.parametrize("mode, rate", [("min", 0.02), ("max", 0.01)])
def test_a_given_mode_is_used(mode, rate):
    spy = Spy("surprise", mode=mode, factor=0.5, patience=1)
    fit(linear(metrics=[surprise]), [spy], epochs=2)
    assert spy.looked[1] < spy.looked[0]
    assert spy.learning_rate == rate
