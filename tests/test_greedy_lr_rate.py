"""The rate that GreedyLR sets: its bounds, the optimizers that hold it, who else sees it."""

import math

import keras
import numpy as np
import pytest
from helpers import EAGER, Probe, Spy, data, fit, linear, rate_in, rate_of, rates_of_rule

from keras_greedylr import GreedyLR, GreedyRule


@pytest.mark.parametrize(
    "bounds, expected",
    [
        ({}, (0.01 * 0.03, 100 * 0.03)),
        ({"min_lr": 0.02}, (0.02, 100 * 0.03)),
        ({"min_lr": 0.5}, (0.5, 100 * 0.5)),
        ({"max_lr": 0.05}, (0.01 * 0.03, 0.05)),
        ({"max_lr": 0.01}, (0.01 * 0.01, 0.01)),
        ({"min_lr": 0.0, "max_lr": 1.0}, (float(np.finfo("float32").tiny), 1.0)),
    ],
)
def test_bounds_left_out_are_relative_to_the_initial_rate(bounds, expected):
    greedy = GreedyLR(**bounds)
    fit(linear(rate=0.03), [greedy])
    assert (greedy.rule.min_lr, greedy.rule.max_lr) == expected


def test_a_rate_that_is_its_bound_in_float32_meets_it():
    # float32(1e-5) is below 1e-5: as a Python float it would be outside its own bound.
    model = linear(rate=1e-5)
    greedy = GreedyLR(mode="max", min_lr=1e-5, reset_after=None, **EAGER)
    history = fit(model, [greedy], epochs=3)
    assert history["learning_rate"] == [1e-5, 2e-5, 1e-5]
    assert greedy.state.floor_cuts == 2
    assert rate_of(model) == np.float32(1e-5)


@pytest.mark.parametrize("inner", ["SGD", "Adam"])
def test_a_loss_scaling_optimizer(inner):
    inner = getattr(keras.optimizers, inner)(0.01)
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    probe = Probe()
    history = fit(linear(optimizer=optimizer), [GreedyLR(**EAGER), probe], epochs=3)
    assert history["learning_rate"] == [0.01, 0.02, 0.04]
    np.testing.assert_array_equal(probe.epochs, np.float32([0.01, 0.02, 0.04]))


@pytest.mark.parametrize("update_every", ["epoch", 1])
def test_mixed_float16(update_every, dtype_policy):
    dtype_policy("mixed_float16")
    model, spy, probe = linear(), Spy(update_every=update_every, **EAGER), Probe()
    history = fit(model, [spy, probe], epochs=3)
    assert hasattr(model.optimizer, "inner_optimizer")
    rule = GreedyRule(min_lr=1e-4, max_lr=1.0, **EAGER)
    rates = rates_of_rule(rule, 0.01, spy.looked)
    seen = probe.epochs if update_every == "epoch" else probe.batches
    np.testing.assert_array_equal(seen, np.float32(rates))
    assert len(set(rates)) > 2
    assert all(map(math.isfinite, history["loss"]))


def two_optimizers(how):
    multi = getattr(keras.optimizers, "MultiOptimizer", None)
    if multi is None:
        pytest.skip("this Keras has no MultiOptimizer")
    slow = keras.optimizers.SGD(0.01, name="slow")
    fast = keras.optimizers.SGD(0.04, name="fast")
    if how == "map":
        return multi(keras.optimizers.OptimizerMap(slow, {".*bias": fast}))
    return multi(lambda variable: fast if "bias" in variable.path else slow)


@pytest.mark.parametrize("how", ["map", "function"])
def test_several_optimizers_keep_their_ratio(how):
    model = linear(optimizer=two_optimizers(how))
    history = fit(model, [GreedyLR(**EAGER)], epochs=3)
    factors = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(history["learning_rate_slow"], 0.01 * factors)
    np.testing.assert_allclose(history["learning_rate_fast"], 0.04 * factors)
    rates = {part.name: rate_in(part) for part in model.optimizer.optimizers}
    assert rates == pytest.approx({"slow": 0.08, "fast": 0.32})


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="`fit` builds the model before callbacks begin"
)
def test_optimizers_that_are_not_made_yet_are_refused():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(optimizer=two_optimizers("function"), loss="mse")
    with pytest.raises(ValueError) as error:
        fit(model, [GreedyLR()])
    assert str(error.value) == (
        f"Optimizer '{model.optimizer.name}' makes its optimizers when the model is built. Build "
        "the model before `fit`, or give MultiOptimizer an OptimizerMap."
    )


def test_a_model_without_optimizer_is_refused():
    class Counts(keras.Model):  # trains in a step of its own
        def call(self, inputs):
            return inputs

        def train_step(self, *args):
            raise AssertionError("refused before the first step")

    model = Counts()
    model.compile(optimizer=None, run_eagerly=True)
    with pytest.raises(ValueError, match=r"^The model has no optimizer: compile it with one\.$"):
        fit(model, [GreedyLR()])


def test_the_rate_is_logged_as_the_model_has_it():
    model, probe = linear(), Probe()
    history = fit(model, [GreedyLR(**EAGER), probe], epochs=4)
    np.testing.assert_array_equal(np.float32(history["learning_rate"]), probe.epochs)
    assert len(set(probe.epochs)) == 4


def test_a_callback_before_it_sees_the_rate_it_trained_with():
    seen = []

    class After(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["learning_rate"])

    fit(linear(), [GreedyLR(**EAGER), After()], epochs=3)
    assert seen == [0.01, 0.02, 0.04]


def test_a_rate_restored_by_another_callback_is_the_initial_rate():
    class Restores(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.optimizer.learning_rate = 0.04

    for callbacks in ([GreedyLR(**EAGER), Restores()], [Restores(), GreedyLR(**EAGER)]):
        history = fit(linear(), callbacks, epochs=3)
        assert history["learning_rate"] == [0.04, 0.08, 0.16]
        greedy = next(cb for cb in callbacks if isinstance(cb, GreedyLR))
        assert greedy.rule.max_lr == pytest.approx(4.0)


# On JAX each use of `self.model` inside an epoch copies all variables; after a batch the rate is
# put where the training loop has it.


@pytest.mark.parametrize("update_every", ["epoch", 1])
def test_the_model_is_touched_only_when_the_rate_changes(update_every):
    class Counting(GreedyLR):
        touched, changes = 0, 0

        @property
        def model(self):
            self.touched += 1
            return super().model

        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            if epoch == 0:
                self.touched = 0

        def _look(self, *values):
            before = self.state.learning_rate
            super()._look(*values)
            self.changes += self.state.learning_rate != before

        def on_train_end(self, logs=None):
            self.touched_in_epochs = self.touched
            super().on_train_end(logs)

    greedy = Counting(factor=0.5, patience=2, update_every=update_every)
    fit(linear(), [greedy], epochs=10)
    assert greedy.changes > 0
    in_place = keras.backend.backend() == "jax" and update_every == 1
    assert greedy.touched_in_epochs == (0 if in_place else greedy.changes)


class ReadsTheModel(keras.callbacks.Callback):
    """Has JAX copy all variables at each batch."""

    def on_train_batch_begin(self, batch, logs=None):
        assert self.model.built


@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}, {"jit_compile": False}], ids=str)
@pytest.mark.parametrize("beside", ["alone", "before", "after"])
@pytest.mark.parametrize("inner", ["plain", "loss scaling"])
def test_each_batch_is_trained_at_the_rate_that_was_set(compiled, beside, inner):
    optimizer = keras.optimizers.SGD(0.01)
    if inner == "loss scaling":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0)
    # The gradient of the bias is one: it falls by each batch's rate.
    model = linear(optimizer=optimizer, loss=lambda y, prediction: prediction, **compiled)
    spy = Spy(update_every=1, **EAGER)
    callbacks = {"alone": [spy], "before": [ReadsTheModel(), spy], "after": [spy, ReadsTheModel()]}
    fit(model, callbacks[beside], epochs=2)
    rates = rates_of_rule(spy.rule, 0.01, spy.looked)
    assert len(set(rates)) > 2
    assert float(model.get_weights()[1][0]) == pytest.approx(-sum(rates), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Your input ran out of data", "ignore:`shuffle=True` was passed")
@pytest.mark.parametrize("steps", [None, 6], ids=["unknown", "fewer than said"])
@pytest.mark.parametrize("beside", [[], [keras.callbacks.LambdaCallback]], ids=["alone", "beside"])
def test_what_the_last_batch_decides_lasts_where_no_one_knew_it_was_the_last(beside, steps):
    # On JAX Keras begins one batch more, for which there is no data, and undoes what was assigned.
    x, y = data(40)
    batches = ((x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8))
    greedy, model = GreedyLR(update_every=5, **EAGER), linear()
    others = [make(on_train_batch_end=lambda batch, logs: None) for make in beside]
    model.fit(batches, steps_per_epoch=steps, verbose=0, callbacks=[greedy, *others])
    assert greedy.learning_rate == 0.02
    assert rate_of(model) == pytest.approx(0.02)


def test_a_later_callback_may_do_with_the_logs_what_it_likes():
    class Forger(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            logs["loss"] = 0.0

    spy, expected = (Spy(update_every=1, patience=3, factor=0.5) for _ in range(2))
    fit(linear(), [expected], epochs=3)
    fit(linear(), [spy, Forger()], epochs=3)
    np.testing.assert_allclose(spy.looked, expected.looked, rtol=1e-6)
    assert len(spy.looked) == 15


def test_a_lower_bound_of_zero_does_not_stop_training_for_good():
    model = linear()
    greedy = GreedyLR(factor=1e-3, patience=0, min_delta=1e9, min_delta_mode="abs", min_lr=0.0)
    fit(model, [greedy], epochs=20)
    assert 0.0 < rate_of(model) < 1e-30
