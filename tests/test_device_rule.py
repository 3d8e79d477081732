"""The rule as arithmetic on a vector, against the rule on the host."""

import keras
import numpy as np
import pytest
from given_losses import START, TOLERANCE, assert_same_state, follow, rates, wander
from golden_traces import GOLDEN, golden_rule
from keras import ops

from keras_greedylr import GreedyRule
from keras_greedylr.optimizers.device_rule import DeviceRule

BACKEND = keras.backend.backend()


def drive(rule, rate, metrics):
    """The rates and the last state of the vector form, compiled where the backend compiles."""
    device = DeviceRule(rule)

    def step(vector, metric):
        vector, rate = device.update(vector, metric)
        return vector, ops.concatenate([ops.reshape(rate, (1,)), vector[:-1]])

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
    path = ops.convert_to_numpy(path)
    np.testing.assert_array_equal(path[:, 0], path[:, 1])  # the rate alone, and in the vector
    return path[:, 0], device.to_state(ops.convert_to_numpy(last).tolist())


def drive_on_host(rule, rate, metrics):
    """The same for the form that runs on the host."""
    device, path = DeviceRule(rule), []
    vector = device.init(float(np.float32(rate)))
    for metric in metrics:
        vector = np.float32(device.update_on_host(vector, [float(metric)])[0]).tolist()
        path.append(vector[0])
    return np.array(path), device.to_state(vector)


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


@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere the step is compiled")
@pytest.mark.parametrize(
    "rule",
    [
        GreedyRule(),
        GreedyRule(window=10, mode="max"),
        GreedyRule(window=3, cooldown=2, warmup=1, reset_after=3, horizon=100),
    ],
)
def test_no_number_goes_to_the_device_or_comes_from_it(monkeypatch, rule):
    import torch

    device = DeviceRule(rule)
    vector, metric = ops.convert_to_tensor(device.init(0.1)), ops.convert_to_tensor(1.0)
    tensor_of = torch.as_tensor

    def of_tensors_only(data, *arguments, **options):
        assert isinstance(data, torch.Tensor), f"a copy to the device: {data!r}"
        return tensor_of(data, *arguments, **options)

    def refuse(tensor):
        raise AssertionError("a wait for the device")

    monkeypatch.setattr(torch, "as_tensor", of_tensors_only)
    for name in ("tolist", "item", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    assert device.update(vector, metric)[0].shape == vector.shape
