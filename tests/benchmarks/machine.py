"""The machine that is measured on."""

import os
import platform
from pathlib import Path

import keras


def gpu():
    """The name of the GPU that the backend finds, or None."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind if jax.default_backend() == "gpu" else None
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(found[0])["device_name"] if found else None


def wait_for_device(model):
    """Until the steps that were begun are done."""
    if keras.backend.backend() == "jax":
        import jax

        # Keras' own kind of dictionary is none that JAX looks into.
        jax.block_until_ready([list(values) for values in model._jax_state.values()])
    elif keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
    elif gpu():
        import tensorflow as tf

        tf.test.experimental.sync_devices()


def processor():
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def machine():
    """Where this was measured and with what."""
    backend = keras.backend.backend()
    engine = __import__(backend)
    return {
        **({"gpu": name} if (name := gpu()) else {}),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        backend: engine.__version__,
    }
