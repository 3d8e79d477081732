"""GreedyOptimizer against the rule on the host, driven with the same losses."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from given_losses import BATCH, RULE, START, fit, follow, make_model, rates, wander
from helpers import Probe
from keras import ops

from keras_greedylr import GreedyLR, GreedyRule
from keras_greedylr.optimizers import GreedyOptimizer
from keras_greedylr.optimizers.device_rule import MOST, DeviceRule

BACKEND = keras.backend.backend()
GOLDEN = json.loads((Path(__file__).parent / "golden" / "greedy_traces.json").read_text())
TOLERANCE = 1e-5  # relative, of rates in single precision
LOSSES = wander(66)


def greedy(rule=RULE, inner=keras.optimizers.SGD, **arguments):
    return GreedyOptimizer(inner(START, **arguments), rule)


def test_the_losses_bring_out_all_of_the_rule():
    events = {state.event for state in follow(RULE, LOSSES)}
    assert events >= {"none", "raised", "cut", "reset"}


# The rule as arithmetic.


def drive(rule, rate, metrics):
    """The rates and the last state of the vector form, compiled where the backend compiles."""
    device = DeviceRule(rule)

    def step(vector, metric):
        vector = device.update(vector, metric)
        return vector, vector

    def run(vector, metrics):
        return ops.scan(step, vector, metrics)

    if BACKEND == "tensorflow":
        import tensorflow as tf

        run = tf.function(run, autograph=False)
    elif BACKEND == "jax":
        import jax

        run = jax.jit(run)
    start = ops.convert_to_tensor(device.init(rate), "float32")
    last, path = run(start, ops.convert_to_tensor(metrics, "float32"))
    path = ops.convert_to_numpy(path)[:, 0]
    return path, device.to_state(ops.convert_to_numpy(last).tolist())


def drive_on_host(rule, rate, metrics):
    """The same for the form that runs on the host."""
    device, path = DeviceRule(rule), []
    vector = device.init(float(np.float32(rate)))
    for metric in metrics:
        vector = np.float32(device.update_on_host(vector, float(metric))).tolist()
        path.append(vector[0])
    return np.array(path), device.to_state(vector)


def assert_same_state(ours, theirs):
    """Equal counters; values to single precision."""
    ours, theirs = ours._replace(event="none")._asdict(), theirs._replace(event="none")._asdict()
    for name, mine in ours.items():
        exact = mine is None or isinstance(mine, int | str)
        assert mine == (theirs[name] if exact else pytest.approx(theirs[name], rel=TOLERANCE)), name


def golden_rule(config):
    return GreedyRule(
        factor=config["factor"],
        patience=config["patience"],
        min_delta=config["threshold"],
        min_delta_mode=config["threshold_mode"],
        window=config["window_size"] if config["smooth"] else 1,
        cooldown=config["cooldown"],
        warmup=config["warmup"],
        phases="hold",
        min_lr=config["min_lr"],
        max_lr=config["max_lr"],
        reset_after=config["reset_start"] or None,
        mode=config["mode"],
    )


@pytest.mark.parametrize("form", [drive, drive_on_host])
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"seed{case['seed']}")
def test_golden_trace(case, form):
    path, _ = form(golden_rule(case["config"]), case["initial_lr"], case["metrics"])
    np.testing.assert_allclose(path, case["lrs"], rtol=TOLERANCE)


def draw_rule(rng):
    """A rule with every argument drawn, and metrics for it with some that are not finite."""
    rule = GreedyRule(
        factor=float(rng.uniform(0.3, 0.97)),
        patience=int(rng.integers(0, 4)),
        min_delta=float(rng.choice([0.0, 1e-4, 0.03])),
        min_delta_mode=str(rng.choice(["rel", "abs"])),
        window=int(rng.choice([1, 2, 7])),
        cooldown=int(rng.integers(0, 4)),
        warmup=int(rng.integers(0, 4)),
        phases=str(rng.choice(["carry_on", "hold"])),
        min_lr=float(rng.choice([1e-30, 1e-3, 0.02])),
        max_lr=float(rng.choice([0.005, 0.03, 1.0])) + 0.02,
        reset_after=[None, 1, 3][rng.integers(3)],
        horizon=[None, 50, 110][rng.integers(3)],
        mode=str(rng.choice(["min", "max"])),
    )
    metrics = wander(120, seed=int(rng.integers(10**6))) * rng.choice([-1.0, 1.0])
    metrics[rng.integers(0, 120, 6)] = rng.choice([np.nan, np.inf, -np.inf], 6)
    return rule, metrics


@pytest.mark.parametrize("seed", range(16))
def test_any_rule_follows_the_reference(seed):
    rule, metrics = draw_rule(np.random.default_rng(seed))
    states = follow(rule, metrics)
    for form in (drive, drive_on_host):
        path, last = form(rule, START, metrics)
        np.testing.assert_allclose(path, rates(states)[1:], rtol=TOLERANCE)
        uncounted = {"floor_cuts": 0} if rule.reset_after is None else {}
        assert_same_state(last, states[-1]._replace(**uncounted))


def test_no_error_adds_up():
    # 500 rises, 500 cuts, and again: after each pair of those the rate is the first one to the bit.
    rule = GreedyRule(factor=0.991, patience=0, min_delta=0.0, min_lr=1e-6, max_lr=1e3)
    falling = np.linspace(2.0, 1.0, 501)[1:]
    metrics = np.concatenate([falling, np.full(500, 3.0), falling - 1.0, np.full(500, 3.0)])
    path, _ = drive(rule, START, metrics)
    assert path[499] == pytest.approx(START / 0.991**500, rel=2e-6)
    assert path[999] == path[1999] == np.float32(START)


def test_equal_values_are_no_improvement():
    # The mean of three 0.1 in single precision is not 0.1 when taken as sum / 3.
    rule = GreedyRule(patience=0, window=3, min_delta=0.0)
    states = follow(rule, [np.float32(0.1)] * 9)
    path, _ = drive(rule, START, [0.1] * 9)
    np.testing.assert_allclose(path, rates(states)[1:], rtol=TOLERANCE)


# The optimizer under `fit`, in every mode.

SCALER = keras.optimizers.LossScaleOptimizer
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


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy().name
    yield lambda name: keras.config.set_dtype_policy(name)
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("mode", MODES)
def test_under_fit_the_rates_are_those_of_the_rule(mode, policy, monkeypatch):
    options = dict(MODES[mode])
    if mode == "compiled" and BACKEND == "torch":
        import torch

        # Its compiler proper takes half a minute; here it records the step only.
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    policy(options.pop("policy", "float32"))
    inner, weight = options.pop("inner", {}), options.pop("sample_weight", 1.0)
    losses = LOSSES[:24] if mode == "not compiled" else LOSSES
    every, together = (
        inner.get("gradient_accumulation_steps", 1),
        options.get("steps_per_execution", 1),
    )
    model, probe = make_model(greedy(**inner), **options), Probe()
    fit(model, losses, [probe], sample_weight=np.full(len(losses) * BATCH, weight))

    seen = losses[: len(losses) // every * every].reshape(-1, every).mean(axis=1) * weight
    states = follow(RULE, seen)
    expected = np.repeat(rates(states), every)[: len(losses)]
    np.testing.assert_allclose(probe.batches, expected[::together], rtol=TOLERANCE)
    assert_same_state(model.optimizer.state, states[-1])
    if mode in ("plain", "steps per execution", "compiled", "not compiled"):
        # A step is taken at the rate that earlier losses led to.
        assert model.get_weights()[0][0, 0] == pytest.approx(1 - expected.sum(), abs=1e-5)


def test_a_step_that_loss_scaling_skips_is_no_step(policy):
    policy("mixed_float16")
    # 2^17 and 2^16 overflow: the third step is the first.
    scaler = SCALER(keras.optimizers.SGD(START), initial_scale=2.0**17)
    model, probe = make_model(GreedyOptimizer(scaler, RULE)), Probe()
    fit(model, LOSSES, [probe])
    expected = rates(follow(RULE, LOSSES[2:]))
    np.testing.assert_allclose(probe.batches[2:], expected[:-1], rtol=TOLERANCE)


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


class OwnStep(keras.Model):
    """Trains with a `train_step` of its own."""

    scales = True

    def train_step(self, *arguments):
        return getattr(self, f"_{BACKEND}_step")(*arguments)

    def _loss(self, x, y):
        y_pred = self(x, training=True)
        return self.compute_loss(x, y, y_pred)

    def _scaled(self, loss):
        return self.optimizer.scale_loss(loss) if self.scales else loss

    def _tensorflow_step(self, data):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self._loss(*data)
            scaled = self._scaled(loss)
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, weights), weights)
        return {"loss": loss}

    def _torch_step(self, data):
        import torch

        self.zero_grad()
        loss = self._loss(*data)
        self._scaled(loss).backward()
        weights = self.trainable_variables
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
        return {"loss": loss.detach()}

    def _jax_step(self, state, data):
        import jax

        x, y = data
        trainable, others, optimizer, metrics = state

        def loss_of(trainable):
            y_pred, _ = self.stateless_call(trainable, others, x, training=True)
            loss = self.compute_loss(x, y, y_pred)
            return self._scaled(loss), loss

        (_, loss), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"loss": loss}, (trainable, others, optimizer, metrics)


def test_under_a_train_step_of_ones_own():
    model, probe = make_model(greedy(), make=OwnStep), Probe()
    fit(model, LOSSES[:30], [probe])
    expected = rates(follow(RULE, LOSSES[:30]))[:-1]
    np.testing.assert_allclose(probe.batches, expected, rtol=TOLERANCE)


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


# Saved and restored.


def through_keras_file(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def through_weights_file(model, folder):
    model.save_weights(folder / "model.weights.h5")
    again = make_model(greedy(gradient_accumulation_steps=2))
    again.optimizer.build(again.trainable_variables)
    again.load_weights(folder / "model.weights.h5")
    return again


@pytest.mark.parametrize("copied", [through_keras_file, through_weights_file])
def test_a_loaded_model_goes_on_exactly(copied, tmp_path):
    model = make_model(greedy(gradient_accumulation_steps=2))
    fit(model, LOSSES[:31])  # in the middle of an accumulation
    models = [model, copied(model, tmp_path)]
    probes = [Probe(), Probe()]
    for one, probe in zip(models, probes, strict=True):
        fit(one, LOSSES[31:], [probe])
    assert probes[0].batches == probes[1].batches
    assert len(set(probes[0].batches)) > 3
    assert models[0].optimizer.state == models[1].optimizer.state
    np.testing.assert_array_equal(models[0].get_weights()[0], models[1].get_weights()[0])


def test_backup_and_restore_goes_on_exactly(tmp_path):
    class Crash(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4 and self.epoch == 2:
                raise KeyboardInterrupt

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    whole, rest = Probe(), Probe()
    fit(make_model(greedy()), LOSSES[:11], [whole], epochs=4)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(greedy()), LOSSES[:11], [backup, Crash()], epochs=4)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    fit(make_model(greedy()), LOSSES[:11], [backup, rest], epochs=4)
    assert rest.batches == whole.batches[22:]


def test_the_configuration_makes_the_same_optimizer():
    optimizer = greedy(dataclasses.replace(RULE, mode="max"), momentum=0.9, use_ema=True)
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer), allow_nan=False))
    again = keras.optimizers.deserialize(config)
    assert again.rule == optimizer.rule
    assert again.inner_optimizer.momentum == 0.9
    assert keras.optimizers.serialize(again) == keras.optimizers.serialize(optimizer)


def test_the_rule_goes_on_from_a_rate_that_is_assigned():
    model = make_model(greedy(GreedyRule(factor=0.5, patience=0)))
    fit(model, [3.0, 2.0])
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(4 * START)
    model.optimizer.learning_rate = 0.2
    fit(model, [1.0])
    assert float(ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(0.4)
    assert model.optimizer.state.initial_learning_rate == pytest.approx(START)


# What it cannot do, it says.


def test_it_says_that_no_loss_came(policy):
    class NoLoss(OwnStep):
        scales = False

    outside = SCALER(greedy())
    for model in (make_model(greedy(), make=NoLoss), make_model(outside)):
        with pytest.raises(ValueError, match="gradients but no loss") as caught:
            fit(model, LOSSES[:1])
        assert "self.optimizer.scale_loss(loss)" in str(caught.value)
        assert "GreedyOptimizer(LossScaleOptimizer(optimizer), rule)" in str(caught.value)


@pytest.mark.skipif(BACKEND != "torch", reason="Keras' own error on PyTorch")
def test_pytorch_takes_one_step_per_execution():
    with pytest.raises(ValueError, match="`steps_per_execution` must be 1 with the PyTorch"):
        fit(make_model(greedy(), steps_per_execution=4), LOSSES[:4])


SCHEDULED = keras.optimizers.schedules.CosineDecay(0.1, 9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GreedyOptimizer("sgd", RULE), "float for its learning rate.*'sgd'"),
        (lambda: GreedyOptimizer(keras.optimizers.SGD(SCHEDULED), RULE), "CosineDecay"),
        (lambda: GreedyOptimizer(greedy(), RULE), "inner_optimizer=.*GreedyOptimizer"),
        (lambda: GreedyOptimizer(keras.optimizers.SGD(), {"factor": 0.5}), "rule={'factor': 0.5}"),
        (lambda: greedy(GreedyRule(patience=MOST + 1)), f"up to {MOST}.*patience={MOST + 1}"),
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
