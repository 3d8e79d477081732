import importlib.util
import os
import tempfile

if importlib.util.find_spec("tf_keras"):
    # TF-Agents needs legacy Keras, chosen before the first test imports TensorFlow;
    # `import keras` is Keras 3 all the same.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

if os.environ.get("KERAS_BACKEND") == "jax":
    # Most tests train the same few models: what JAX has compiled for one serves the others, and
    # the processes they start. It reads this when it is imported.
    COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import keras
import numpy as np
import pytest


@pytest.fixture
def regression():
    """203 samples: the last batch is never full."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(203, 4)).astype("float32")
    y = x.sum(1, keepdims=True) + 0.5 * rng.normal(size=(203, 1)).astype("float32")
    return x, y


@pytest.fixture
def make_model():
    """Makes equal small compiled models."""

    def make(learning_rate=0.01, **compile_arguments):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
        )
        model.compile(keras.optimizers.SGD(learning_rate), loss="mse", **compile_arguments)
        return model

    return make


@pytest.fixture
def float64():
    """Double precision throughout, for paths that are compared to many digits."""
    keras.config.set_floatx("float64")
    jax = importlib.import_module("jax") if keras.backend.backend() == "jax" else None
    if jax:
        jax.config.update("jax_enable_x64", True)
    yield
    keras.config.set_floatx("float32")
    if jax:
        jax.config.update("jax_enable_x64", False)


@pytest.fixture
def bfloat16():
    """The smallest of the precisions Keras has for everything."""
    keras.config.set_floatx("bfloat16")
    yield
    keras.config.set_floatx("float32")


@pytest.fixture
def dtype_policy():
    """Sets the global dtype policy, until the test ends."""
    before = keras.config.dtype_policy().name
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)
