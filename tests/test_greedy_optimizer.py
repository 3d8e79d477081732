"""GreedyOptimizer under `fit`, in every mode, against the rule driven with the same losses."""

import json
import subprocess
import sys
from pathlib import Path

import helpers
import keras
import numpy as np
import pytest
from given_losses import (
    BATCH,
    LOSSES,
    RULE,
    START,
    TOLERANCE,
    assert_same_state,
    fit,
    follow,
    greedy,
    make_model,
    rates,
    record_compiled,
)
from keras import ops

from keras_greedylr import GreedyLR, GreedyRule
from keras_greedylr.optimizers import GreedyOptimizer
from keras_greedylr.optimizers.device_rule import MOST

BACKEND = keras.backend.backend()


def test_the_losses_bring_out_all_of_the_rule():
    events = {state.event for state in follow(RULE, LOSSES)}
    assert events >= {"none", "raised", "cut", "reset"}


MODES = {
    "plain": {},
    "steps per execution": {"steps_per_execution": 4},
    "mixed_bfloat16": {"policy": "mixed_bfloat16"},
    "mixed_float16": {"policy": "mixed_float16"},
    "clipnorm": {"inner": {"clipnorm": 0.5}},
    "ema": {"inner": {"use_ema": True, "ema_overwrite_frequency": 3}},
    "weight decay": {"inner": {"weight_decay": 0.1}},
    "accumulation": {"inner": {"gradient_accumulation_steps": 3}},
    "accumulation, scaled": {
        "inner": {"gradient_accumulation_steps": 3},
        "policy": "mixed_float16",
    },
    "sample weight": {"sample_weight": 0.5},
    "not compiled": {"run_eagerly": True},
    "compiled": {"jit_compile": True},
}
if BACKEND == "torch":
    del MODES["steps per execution"]  # Keras refuses it, see below


@pytest.mark.parametrize("mode", MODES)
def test_under_fit_the_rates_are_those_of_the_rule(mode, dtype_policy, monkeypatch):
    options = dict(MODES[mode])
    if mode == "compiled" and BACKEND == "torch":
        record_compiled(monkeypatch)
    dtype_policy(options.pop("policy", "float32"))
    inner, weight = options.pop("inner", {}), options.pop("sample_weight", 1.0)
    losses = LOSSES[:24] if mode == "not compiled" else LOSSES
    every, together = (
        inner.get("gradient_accumulation_steps", 1),
        options.get("steps_per_execution", 1),
    )
    model, probe = make_model(greedy(**inner), **options), helpers.Probe()
    fit(model, losses, [probe], sample_weight=np.full(len(losses) * BATCH, weight))

    seen = losses[: len(losses) // every * every].reshape(-1, every).mean(axis=1) * weight
    states = follow(RULE, seen)
    expected = np.repeat(rates(states), every)[: len(losses)]
    np.testing.assert_allclose(probe.batches, expected[::together], rtol=TOLERANCE)
    assert_same_state(model.optimizer.state, states[-1])
    if mode in ("plain", "steps per execution", "compiled", "not compiled"):
        # A step is taken at the rate that earlier losses led to.
        assert model.get_weights()[0][0, 0] == pytest.approx(1 - expected.sum(), abs=1e-5)


def test_a_step_that_loss_scaling_skips_is_no_step(dtype_policy):
    dtype_policy("mixed_float16")
    # 2^17 overflows, and 2^16 where sums are in half precision, too; each time the scale is halved.
    scaler = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(START), initial_scale=2.0**17)
    model, probe = make_model(GreedyOptimizer(scaler, RULE)), helpers.Probe()
    fit(model, LOSSES, [probe])
    skipped = round(17 - np.log2(float(ops.convert_to_numpy(scaler.dynamic_scale))))
    assert skipped in (1, 2)
    expected = rates(follow(RULE, LOSSES[skipped:]))
    np.testing.assert_allclose(probe.batches[skipped:], expected[:-1], rtol=TOLERANCE)


def test_it_sees_what_train_on_batch_reports(regression):
    x, y = regression
    rule = GreedyRule(factor=0.7, patience=1, window=2, min_delta=0.0, warmup=1)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    )
    model.compile(greedy(rule, keras.optimizers.Adam, clipnorm=1.0), loss="mse", metrics=["mae"])
    losses, path = [], []
    for step in range(30):
        batch = slice(32 * (step % 6), 32 * (step % 6) + 32)
        model.reset_metrics()  # Keras 3.11 goes on with the mean of earlier batches
        losses.append(model.train_on_batch(x[batch], y[batch], return_dict=True)["loss"])
        path.append(float(ops.convert_to_numpy(model.optimizer.learning_rate)))
    expected = rates(follow(rule, losses))[1:]
    assert len(set(expected)) > 4
    np.testing.assert_allclose(path, expected, rtol=TOLERANCE)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras distributes on TensorFlow and JAX")
def test_on_two_devices():
    worker = Path(__file__).with_name("two_devices.py")
    shown = json.loads(
        subprocess.check_output([sys.executable, worker], text=True).splitlines()[-1]
    )
    assert shown["devices"] == 2
    expected = rates(follow(RULE, LOSSES))[:-1]
    np.testing.assert_allclose(shown["rates"], expected, rtol=TOLERANCE)
    np.testing.assert_allclose(shown["weight"], 1 - expected.sum(), atol=1e-5)
    # The callback, whose losses need the count of samples that the devices share.
    spy = helpers.Spy(update_every=1, **helpers.EAGER)
    helpers.fit(helpers.linear(), [spy], samples=38, epochs=2)
    np.testing.assert_allclose(shown["losses"], spy.looked, rtol=1e-4)
    if BACKEND == "tensorflow":  # of five samples in batches of two a device gets none at last
        assert shown["short"] == [2.0, 2.0, 0, 2]


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras' own fails there")
def test_stateless_apply_leaves_the_optimizer_as_it_is():
    optimizer, weight = greedy(), keras.Variable([1.0])
    optimizer.build([weight])
    rate = [v is optimizer.learning_rate for v in optimizer.variables].index(True)
    values, weights = [ops.copy(v.value) for v in optimizer.variables], [weight.value]
    path = []
    for loss in LOSSES:
        optimizer.scale_loss(ops.convert_to_tensor(loss))
        weights, values = optimizer.stateless_apply(values, [ops.ones((1,))], weights)
        path.append(float(ops.convert_to_numpy(values[rate])))
    np.testing.assert_allclose(path, rates(follow(RULE, LOSSES))[1:], rtol=TOLERANCE)
    assert optimizer.state.learning_rate == pytest.approx(START)


# What it cannot do, it says.


@pytest.mark.skipif(BACKEND != "torch", reason="Keras' own error on PyTorch")
def test_pytorch_takes_one_step_per_execution():
    with pytest.raises(ValueError, match="`steps_per_execution` must be 1 with the PyTorch"):
        fit(make_model(greedy(), steps_per_execution=4), LOSSES[:4])


scaled = keras.optimizers.LossScaleOptimizer
SCHEDULED = keras.optimizers.schedules.CosineDecay(0.1, 9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GreedyOptimizer("sgd", RULE), "float for its learning rate.*'sgd'"),
        (lambda: GreedyOptimizer(keras.optimizers.SGD(SCHEDULED), RULE), "CosineDecay"),
        (lambda: GreedyOptimizer(scaled(scaled(keras.optimizers.SGD())), RULE), "float for its"),
        pytest.param(
            lambda: GreedyOptimizer(
                keras.optimizers.MultiOptimizer(lambda variable: keras.optimizers.SGD()), RULE
            ),
            "float for its.*MultiOptimizer",
            marks=pytest.mark.skipif(
                not hasattr(keras.optimizers, "MultiOptimizer"), reason="newer than this Keras"
            ),
        ),
        (lambda: GreedyOptimizer(greedy(), RULE), "inner_optimizer=.*GreedyOptimizer"),
        (lambda: GreedyOptimizer(keras.optimizers.SGD(), {"factor": 0.5}), "rule={'factor': 0.5}"),
        (lambda: greedy(GreedyRule(patience=MOST + 1)), f"up to {MOST}.*patience={MOST + 1}"),
        (lambda: GreedyOptimizer(keras.optimizers.SGD(0.0), RULE), r"learning_rate=0\.0"),
        (lambda: setattr(greedy(), "learning_rate", -1.0), "learning_rate=-1.0"),
        (lambda: setattr(greedy(), "learning_rate", SCHEDULED), "learning_rate=<.*CosineDecay"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_callbacks_that_set_the_rate_are_refused_beside_it():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(GreedyOptimizer(keras.optimizers.SGD(0.01), GreedyRule()), loss="mse")
    with pytest.raises(ValueError, match="GreedyLR sets the learning rate, but GreedyOptimizer"):
        model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[GreedyLR()])
