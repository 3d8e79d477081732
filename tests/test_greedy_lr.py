"""When GreedyLR looks, and at what, under a real `fit` on the running backend."""

import math

import keras
import numpy as np
import pytest
from helpers import EAGER, NEVER, Probe, Spy, data, fit, linear, rates_of_rule

from keras_greedylr import GreedyLR, GreedyRule


def test_per_epoch_the_rates_are_those_of_the_rule():
    probe = Probe()
    history = fit(linear(), [GreedyLR(factor=0.7, patience=1, window=2), probe], epochs=12)
    rule = GreedyRule(factor=0.7, patience=1, window=2, min_lr=1e-4, max_lr=1.0)
    rates = rates_of_rule(rule, 0.01, history["loss"])
    assert history["learning_rate"] == rates
    assert len(set(rates)) > 4
    np.testing.assert_array_equal(probe.epochs, np.float32(rates))
    np.testing.assert_array_equal(probe.batches, np.float32(np.repeat(rates, 5)))


def test_per_batch_the_rates_are_those_of_the_rule():
    spy, probe = Spy(factor=0.7, patience=1, warmup=1, update_every=1), Probe()
    history = fit(linear(), [spy, probe], epochs=4)
    rule = GreedyRule(factor=0.7, patience=1, warmup=1, min_lr=1e-4, max_lr=1.0)
    rates = rates_of_rule(rule, 0.01, spy.looked)
    assert len(rates) == 20
    assert len(set(rates)) > 4
    np.testing.assert_array_equal(probe.batches, np.float32(rates))
    assert history["learning_rate"][-1] == spy.learning_rate == spy.state.learning_rate


@pytest.mark.parametrize(
    "monitor, update_every",
    [("val_loss", "epoch"), ("val_loss", "validation"), ("loss", "validation")],
)
def test_per_validation(monitor, update_every, tmp_path):
    arguments = {"epochs": 5, "validation_data": data(16, seed=1), "validation_freq": 2}
    spy = Spy(monitor, update_every=update_every, **EAGER)
    history = fit(linear(), [spy], **arguments)
    expected = history["val_loss"] if monitor == "val_loss" else history["loss"][1::2]
    assert spy.looked == expected
    assert len(spy.looked) == 2
    rates = history["learning_rate"]
    assert rates == [0.01, 0.01, 0.02, 0.02, 0.04]

    # With a state file it is no different.
    kept = Spy(monitor, update_every=update_every, state_path=tmp_path / "state", **EAGER)
    assert fit(linear(), [kept], **arguments) == history
    assert kept.looked == spy.looked


def test_another_metric():
    spy = Spy("mean_absolute_error", **EAGER)
    metrics = [keras.metrics.MeanAbsoluteError()]
    history = fit(linear(metrics=metrics), [spy], epochs=3)
    assert spy.looked == history["mean_absolute_error"]


def test_another_metric_per_batch_is_taken_as_keras_shows_it():
    spy = Spy("mean_absolute_error", update_every=2, patience=NEVER)
    shown = []

    class Shown(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            shown.append(logs["mean_absolute_error"])

    metrics = [keras.metrics.MeanAbsoluteError()]
    fit(linear(metrics=metrics), [spy, Shown()], epochs=2)
    assert spy.looked == shown[1::2]
    assert len(shown) == 10


def test_a_callback_that_evaluates_changes_no_value(make_model, regression):
    """On JAX the epoch's last loss is looked at in `on_epoch_end`, after that callback's."""

    class Evaluate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(*(part[:44] for part in regression), verbose=0)

    looked = []
    for others in ([], [Evaluate()]):
        spy = Spy(update_every=1, patience=NEVER)
        make_model().fit(
            *regression, batch_size=16, epochs=3, shuffle=False, verbose=0, callbacks=[*others, spy]
        )
        looked.append(spy.looked)
    np.testing.assert_allclose(*looked, rtol=1e-4)


@pytest.mark.parametrize("first_epoch", [0, 1])
def test_an_evaluation_as_an_epoch_begins_changes_no_value(first_epoch):
    class Evaluate(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch >= first_epoch:
                self.model.evaluate(*data(24, seed=1), verbose=0)

    looked = []
    for others in ([], [Evaluate()]):
        spy = Spy(update_every=1, patience=NEVER)
        fit(linear(), [*others, spy], samples=80, epochs=3)
        looked.append(spy.looked)
    np.testing.assert_allclose(*looked, rtol=1e-4)


def test_losses_that_are_nan_are_skipped():
    # A loss that is NaN where the target says so, with a gradient that is not.
    def loss(y_true, y_pred):
        bad = y_true > 1e5
        error = keras.ops.square(keras.ops.where(bad, 0.0, y_true) - y_pred)
        return error + keras.ops.stop_gradient(keras.ops.where(bad, math.nan, 0.0))

    x, y = data(40)
    y[19] = 1e6  # in the third batch of five
    spy = Spy(update_every=1, **EAGER)
    events = []
    look = spy._look
    spy._look = lambda value: (look(value), events.append(spy.state.event))
    model = linear(loss=loss)
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[spy])
    # Keras' running mean is NaN from there to the end of the epoch.
    assert [math.isnan(value) for value in spy.looked] == [False, False, True, True, True] * 2
    assert [event == "skipped" for event in events] == [False, False, True, True, True] * 2
    assert math.isfinite(spy.state.best)
    finite = [value for value in spy.looked if math.isfinite(value)]
    rule = GreedyRule(min_lr=1e-4, max_lr=1.0, **EAGER)
    assert spy.state.learning_rate == rates_of_rule(rule, 0.01, [*finite, 0.0])[-1]


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("patience", [0, NEVER])
def test_an_evaluation_inside_an_epoch_costs_one_value(first, patience):
    class Evaluate(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch in (3, 6):
                self.model.evaluate(*data(24, seed=1), verbose=0)

    def looked(others):
        spy = Spy(update_every=1, factor=0.999999, patience=patience)
        fit(linear(), [*others, spy] if first else [spy, *others], samples=80, epochs=2)
        return np.array(spy.looked)

    told, true = looked([Evaluate()]), looked([])
    # Which one it is hangs on who comes first, and on JAX it is the next in any case.
    lost = {True: [3, 6, 13, 16], False: [4, 7, 14, 17]}
    late = keras.backend.backend() == "jax" or not first
    np.testing.assert_allclose(told, np.delete(true, lost[not late]), rtol=1e-3)
