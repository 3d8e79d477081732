"""GreedyOptimizer where there is a GPU: `make test-gpu PYTHON=...`."""

import warnings

import keras
import numpy as np
import pytest
from given_losses import BATCH, LOSSES, RULE, START, fit, follow, make_model, rates
from helpers import Probe

from keras_greedylr.optimizers import GreedyOptimizer

pytestmark = pytest.mark.gpu

BACKEND = keras.backend.backend()
INNER = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}


@pytest.fixture(autouse=True)
def gpu():
    """Skips the test, with the reason, where Keras has no GPU to train on."""
    if BACKEND == "jax":
        jax = pytest.importorskip("jax")
        found = jax.default_backend() == "gpu"
    elif BACKEND == "torch":
        torch = pytest.importorskip("torch")
        found = torch.cuda.is_available()
    else:
        tf = pytest.importorskip("tensorflow")
        found = bool(tf.config.list_physical_devices("GPU"))
    if not found:
        pytest.skip(f"{BACKEND} finds no GPU")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("inner", INNER)
def test_the_path_on_the_device(inner, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model, probe = make_model(GreedyOptimizer(INNER[inner](START), RULE)), Probe()
    finally:
        keras.config.set_dtype_policy(before)
    fit(model, LOSSES, [probe])
    np.testing.assert_allclose(probe.batches, rates(follow(RULE, LOSSES))[:-1], rtol=1e-5)


def arrays():
    """One batch, on the host."""
    return np.ones((BATCH, 1), "float32"), np.ones((BATCH, 1), "float32")


@pytest.mark.skipif(BACKEND != "jax", reason="JAX' transfer guard")
def test_no_transfer_in_a_step_on_jax():
    import jax

    model = make_model(GreedyOptimizer(keras.optimizers.SGD(START), RULE))
    model.train_on_batch(*arrays())  # compiles
    batch = jax.device_put(arrays())
    kinds = ("trainable", "non_trainable", "optimizer", "metrics")
    state = model._get_jax_state(**{f"{kind}_variables": True for kind in kinds})
    with jax.transfer_guard("disallow"):  # either way: neither loss nor rate leaves the device
        for _ in range(20):
            _, state = model.train_function(state, iter([batch]))
    jax.block_until_ready(state)


def warm_steps(optimizer):
    """A function that takes so many steps on the device, where all has been loaded."""
    import torch

    model = make_model(optimizer)
    batch = [tuple(torch.tensor(array, device="cuda") for array in arrays())]
    model.train_on_batch(*arrays())

    def train(steps):
        for _ in range(steps):
            model.train_function(batch)
        torch.cuda.synchronize()

    train(5)
    return train


def syncs(optimizer, steps):
    """How often the host waits for the device in so many steps."""
    import torch

    train = warm_steps(optimizer)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's record of waits for the device")
@pytest.mark.parametrize("inner", INNER)
def test_no_more_waits_than_the_inner_optimizer_on_pytorch(inner):
    plain = syncs(INNER[inner](START), 20)
    assert syncs(GreedyOptimizer(INNER[inner](START), RULE), 20) == plain


def launches(optimizer, steps):
    """How often the host starts kernels, and graphs, in so many steps."""
    import torch

    train = warm_steps(optimizer)
    with torch.profiler.profile() as profile:
        train(steps)
    counts = {event.key: event.count for event in profile.key_averages()}
    return (
        sum(count for key, count in counts.items() if "LaunchKernel" in key),
        counts.get("cudaGraphLaunch", 0),
    )


@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere the step is compiled")
def test_the_rule_is_started_as_one_on_pytorch():
    plain, none = launches(keras.optimizers.SGD(START), 20)
    kernels, graphs = launches(GreedyOptimizer(keras.optimizers.SGD(START), RULE), 20)
    assert plain > 0 and (none, graphs) == (0, 20)
    assert kernels <= plain + 20  # the copy of the loss, if it is one


@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere nothing has an address")
def test_variables_that_move_are_found_on_pytorch():
    import torch

    model, probe = make_model(GreedyOptimizer(keras.optimizers.SGD(START), RULE)), Probe()
    optimizer, path = model.optimizer, []
    for part in (LOSSES[:20], LOSSES[20:40], LOSSES[40:]):
        fit(model, part, [probe])
        path += probe.batches
        for variable in (optimizer._vector, optimizer.inner_optimizer._learning_rate):
            moved = torch.nn.Parameter(variable.value.detach().clone(), requires_grad=False)
            variable.value.data.fill_(float("nan"))  # what is left behind
            variable._value = moved
    np.testing.assert_allclose(path, rates(follow(RULE, LOSSES))[:-1], rtol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="placement of TensorFlow's operations")
def test_the_rule_runs_on_the_gpu_on_tensorflow():
    import tensorflow as tf

    from keras_greedylr.optimizers.device_rule import DeviceRule

    rule = DeviceRule(RULE)
    update = tf.function(rule.update, autograph=False)
    vector = update(tf.constant(rule.init(START)), tf.constant(1.0))
    assert "GPU" in vector.device
