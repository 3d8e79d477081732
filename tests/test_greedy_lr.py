"""GreedyLR under a real `fit`, on the backend that runs."""

import json
import math

import keras
import numpy as np
import pytest
from helpers import NEVER, Probe, Spy, data, fit, linear, rate_in, rate_of

from keras_greedylr import GreedyLR, GreedyRule

EAGER = {"factor": 0.5, "patience": 0, "window": 1}  # moves at every value


def rates_of_rule(rule, rate, values):
    """The rates before each value."""
    state, rates = rule.init(rate), []
    for value in values:
        rates.append(state.learning_rate)
        state = rule.update(state, value)
    return rates


# When the rule looks, and at what.


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
def test_per_validation(monitor, update_every):
    spy = Spy(monitor, update_every=update_every, **EAGER)
    history = fit(linear(), [spy], epochs=5, validation_data=data(16, seed=1), validation_freq=2)
    expected = history["val_loss"] if monitor == "val_loss" else history["loss"][1::2]
    assert spy.looked == expected
    assert len(spy.looked) == 2
    rates = history["learning_rate"]
    assert rates == [0.01, 0.01, 0.02, 0.02, 0.04]


def test_per_validation_with_a_state_file_is_no_different(tmp_path):
    arguments = {"epochs": 5, "validation_data": data(16, seed=1), "validation_freq": 2}
    for number, (monitor, update_every) in enumerate(
        [("val_loss", "epoch"), ("val_loss", "validation"), ("loss", "validation")]
    ):
        plain = Spy(monitor, update_every=update_every, **EAGER)
        kept = Spy(monitor, update_every=update_every, state_path=tmp_path / f"{number}", **EAGER)
        assert fit(linear(), [plain], **arguments) == fit(linear(), [kept], **arguments)
        assert plain.looked == kept.looked


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


# Which way a metric gets better.


def surprise(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    "monitor, metric, mode",
    [
        ("loss", None, "min"),
        ("accuracy", "accuracy", "max"),
        ("mse", "mse", "min"),
        ("auc", lambda: keras.metrics.AUC(name="auc"), "max"),
        ("quality", lambda: keras.metrics.AUC(name="quality"), "max"),
        ("quality", lambda: keras.metrics.MeanSquaredError(name="quality"), "min"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "val_"])
def test_auto_mode(prefix, monitor, metric, mode):
    model = linear(metrics=[metric() if callable(metric) else metric] if metric else None)
    x, y = data(16)
    y = (y > 0).astype("float32")
    model.layers[-1].activation = keras.activations.sigmoid
    greedy = GreedyLR(prefix + monitor)
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[greedy])
    assert greedy.rule.mode == mode


def test_auto_mode_does_not_guess():
    with pytest.raises(ValueError) as error:
        fit(linear(metrics=[surprise]), [GreedyLR("surprise")])
    assert str(error.value) == (
        "GreedyLR cannot tell whether `surprise` gets better by growing or by shrinking. Pass "
        "mode='max' or mode='min' (received: mode='auto')."
    )


@pytest.mark.parametrize("mode, rate", [("min", 0.02), ("max", 0.01)])
def test_a_given_mode_is_used(mode, rate):
    spy = Spy("surprise", mode=mode, factor=0.5, patience=1)
    fit(linear(metrics=[surprise]), [spy], epochs=2)
    assert spy.looked[1] < spy.looked[0]
    assert spy.learning_rate == rate


# The rate and the optimizers.


@pytest.mark.parametrize(
    "bounds, expected",
    [
        ({}, (0.01 * 0.03, 100 * 0.03)),
        ({"min_lr": 0.02}, (0.02, 100 * 0.03)),
        ({"min_lr": 0.5}, (0.5, 100 * 0.5)),
        ({"max_lr": 0.05}, (0.01 * 0.03, 0.05)),
        ({"max_lr": 0.01}, (0.01 * 0.01, 0.01)),
        ({"min_lr": 0.0, "max_lr": 1.0}, (0.0, 1.0)),
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
def test_mixed_float16(update_every):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = linear()
        spy = Spy(update_every=update_every, **EAGER)
        probe = Probe()
        history = fit(model, [spy, probe], epochs=3)
    finally:
        keras.config.set_dtype_policy(before)
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


# On JAX each use of `self.model` inside an epoch copies all variables.


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

        def _look(self, value):
            before = self.state.learning_rate
            super()._look(value)
            self.changes += self.state.learning_rate != before

        def on_train_end(self, logs=None):
            self.touched_in_epochs = self.touched
            super().on_train_end(logs)

    greedy = Counting(factor=0.5, patience=2, update_every=update_every)
    fit(linear(), [greedy], epochs=10)
    assert greedy.touched_in_epochs == greedy.changes > 0


# One training after the other.


def test_each_fit_starts_afresh():
    model, spy = linear(), Spy(**EAGER)
    first = fit(model, [spy], epochs=2)
    assert first["learning_rate"] == [0.01, 0.02]
    second = fit(model, [spy], epochs=2)
    assert second["learning_rate"] == [0.04, 0.08]
    assert spy.looked == first["loss"] + second["loss"]
    assert spy.state.initial_learning_rate == 0.04
    assert spy.rule.max_lr == 4.0

    other, new = linear(), GreedyLR(**EAGER)
    fit(other, [GreedyLR(**EAGER)], epochs=2)
    fit(other, [new], epochs=2)
    assert new.state == spy.state


def test_half_a_group_is_forgotten_by_the_next_fit():
    spy = Spy(update_every=3, patience=NEVER)
    model = linear()
    fit(model, [spy])
    assert len(spy.looked) == 1  # of 5 batches
    fit(model, [spy])
    assert len(spy.looked) == 2


def test_initial_epoch():
    history = fit(linear(), [GreedyLR(**EAGER)], initial_epoch=3, epochs=6)
    assert history["learning_rate"] == [0.01, 0.02, 0.04]


def test_one_callback_drives_one_model():
    greedy = GreedyLR()
    first, second = linear(), linear()
    fit(first, [greedy])
    with pytest.raises(ValueError) as error:
        fit(second, [greedy])
    assert str(error.value) == (
        f"This GreedyLR already drives model '{first.name}' and cannot drive model "
        f"'{second.name}' as well: its state belongs to one training run. Make a callback for "
        "each model."
    )


@pytest.mark.parametrize("update_every", ["epoch", 2])
def test_the_same_seed_gives_the_same_path(update_every):
    def path():
        keras.utils.set_random_seed(5)
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, activation="relu"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(1),
            ]
        )
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
        probe = Probe()
        greedy = GreedyLR(factor=0.7, patience=0, update_every=update_every)
        model.fit(*data(), batch_size=8, epochs=4, verbose=0, callbacks=[greedy, probe])
        return probe.batches

    first = path()
    assert first == path()
    assert len(set(first)) > 2


def test_a_config_makes_the_same_callback():
    greedy = GreedyLR(
        factor=np.float32(0.5),
        patience=np.int64(1),
        window=2,
        warmup=1,
        max_lr=np.float64(0.3),
        update_every=np.int64(2),
    )
    config = json.loads(json.dumps(greedy.get_config(), allow_nan=False))
    again = GreedyLR.from_config(config)
    assert again.get_config() == greedy.get_config() == config
    histories = [fit(linear(), [callback], epochs=4) for callback in (greedy, again)]
    assert histories[0] == histories[1]
    assert len(set(histories[0]["learning_rate"])) > 2


# NaN.


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


# What it says.


def test_verbose_says_what_it_did_per_epoch(capsys):
    history = fit(linear(), [GreedyLR(factor=0.5, patience=1, warmup=1, verbose=1)], epochs=3)
    assert capsys.readouterr().out == (
        "\nEpoch 2: GreedyLR sets learning rate to 0.02: loss improved 2 times running "
        f"(now {history['loss'][1]:.6g}).\n"
        "\nEpoch 3: GreedyLR sets learning rate to 0.04: warmup carries on.\n"
    )


def test_verbose_says_what_it_did_per_batch(capsys):
    # Two batches an epoch: the loss of the group is that of the epoch.
    greedy = GreedyLR(mode="max", factor=0.5, patience=0, update_every=2, verbose=1)
    history = fit(linear(), [greedy], samples=16, epochs=2)
    assert capsys.readouterr().out == (
        "\nEpoch 1, batch 2: GreedyLR sets learning rate to 0.02: loss improved 1 times running "
        f"(now {history['loss'][0]:.6g}).\n"
        "\nEpoch 2, batch 2: GreedyLR sets learning rate to 0.01: loss did not improve 1 times "
        f"running (now {history['loss'][1]:.6g}).\n"
    )


def test_it_is_silent_otherwise(capsys):
    fit(linear(), [GreedyLR(**EAGER)], epochs=2)
    assert capsys.readouterr().out == ""


# Errors.


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"monitor": None}, "`monitor` must be a string. Received: monitor=None"),
        (
            {"mode": "up"},
            "`mode` must be one of ('auto', 'min', 'max'). Received: mode='up'",
        ),
        (
            {"update_every": "batch"},
            "`update_every` must be one of ('epoch', 'validation'). Received: update_every='batch'",
        ),
        ({"update_every": 0}, "`update_every` must be an integer >= 1. Received: update_every=0"),
        (
            {"update_every": None},
            "`update_every` must be an integer >= 1. Received: update_every=None",
        ),
        ({"factor": 2.0}, "`factor` must be a finite number > 0 and < 1. Received: factor=2.0"),
        (
            {"min_lr": 1.0, "max_lr": 0.1},
            "`max_lr` must not be below `min_lr`. Received: min_lr=1.0, max_lr=0.1",
        ),
        (
            {"monitor": "val_loss", "update_every": 10},
            "`val_loss` is known at validation only, not after every 10 batches. Pass "
            "update_every='validation', or monitor a training metric.",
        ),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError) as error:
        GreedyLR(**arguments)
    assert str(error.value) == message


def test_an_optimizer_with_a_schedule_is_refused():
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 100)
    model = linear(optimizer=keras.optimizers.Adam(schedule, name="adam"))
    with pytest.raises(ValueError) as error:
        fit(model, [GreedyLR()])
    assert str(error.value) == (
        "GreedyLR sets the learning rate itself, but optimizer 'adam' was built with a "
        "LearningRateSchedule or a callable. Pass the initial rate as a float instead, for "
        "example `keras.optimizers.Adam(learning_rate=1e-3)`."
    )


@pytest.mark.parametrize(
    "monitor, update_every, names, hint",
    [
        ("acc", "epoch", ["loss", "mse"], ""),
        ("acc", 1, ["loss", "mse"], ""),
        ("val_loss", "epoch", ["loss", "mse"], True),
        ("val_loss", "validation", ["loss", "mse"], True),
        ("loss", "validation", ["loss", "mse"], True),
        ("val_acc", "epoch", ["loss", "mse", "val_loss", "val_mse"], ""),
        ("val_acc", "validation", ["loss", "mse", "val_loss", "val_mse"], ""),
    ],
)
def test_a_metric_that_is_absent(monitor, update_every, names, hint, tmp_path):
    arguments = {"validation_data": data(8)} if "val_mse" in names else {}
    for state_path in (None, tmp_path / "state.json"):
        greedy = GreedyLR(monitor, update_every=update_every, state_path=state_path)
        with pytest.raises(ValueError) as error:
            fit(linear(metrics=["mse"]), [greedy], epochs=2, **arguments)
        assert str(error.value) == (
            f"GreedyLR(monitor='{monitor}', update_every={update_every!r}) found nothing to look "
            f"at. The metrics of this training are {names}."
            + (" No validation took place: pass `validation_data` to `fit`." if hint else "")
        )


@pytest.mark.parametrize(("update_every", "horizon"), [("epoch", 5), (4, 63)])
def test_horizon_of_the_fit(make_model, regression, update_every, horizon):
    callback = GreedyLR(horizon="fit", update_every=update_every, min_lr=1e-4)
    make_model().fit(*regression, batch_size=4, epochs=5, verbose=0, callbacks=[callback])
    assert callback.rule.horizon == callback.state.seen == horizon
    assert callback.learning_rate < 3e-4


def test_horizon_of_a_fit_of_unknown_length():
    callback = GreedyLR(horizon="fit", update_every=4)
    callback.set_params({"epochs": 5, "steps": None})
    with pytest.raises(ValueError, match=r"must know the number of batches.*Pass the number of"):
        callback._start(0.01)


def test_horizon_leaves_out_epochs_before_the_first(make_model, regression, capsys):
    callback = GreedyLR(horizon="fit", min_lr=1e-4, verbose=1)
    make_model().fit(*regression, epochs=9, initial_epoch=4, verbose=0, callbacks=[callback])
    assert callback.rule.horizon == callback.state.seen == 5
    assert callback.learning_rate == 1e-4
    assert "the upper bound falls towards the end of the horizon" in capsys.readouterr().out


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


def test_a_second_fit_has_a_horizon_of_its_own(make_model, regression, tmp_path):
    class Ceilings(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ceilings.append(callback.state.ceiling)

    model, ceilings = make_model(), []
    for _ in range(2):
        callback = GreedyLR(horizon="fit", min_lr=1e-4, state_path=tmp_path / "state.json")
        model.fit(*regression, epochs=10, verbose=0, callbacks=[callback, Ceilings()])
    assert callback.rule.horizon == callback.state.seen == 20
    assert callback.learning_rate == 1e-4
    falling = [ceiling is not None for ceiling in ceilings]
    assert falling == [False] * 7 + [True] * 3 + [False] * 4 + [True] * 6
