"""Training of learned schedules with TF-Agents. Installed as `keras_greedylr_agents`.

TF-Agents 0.19 runs on legacy Keras, which TensorFlow chooses when it is first
imported. Chosen later nothing fails, but PPO then trains almost none of its
variables, so a late import is refused here. Keras 3 (`import keras`) works
beside it.
"""

import os
import sys


def _check_tensorflow() -> None:
    """Refuses a TensorFlow that was imported without legacy Keras.

    The variable alone proves nothing: it may have been set after the import.
    What TensorFlow made of it then is the proof.
    """
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or getattr(tensorflow, "_tf_uses_legacy_keras", False):
        return
    raise ImportError(
        "keras_greedylr_agents must be imported before TensorFlow: TF-Agents needs "
        "TF_USE_LEGACY_KERAS=1 in the environment when TensorFlow is first imported, and "
        "TensorFlow has been imported without it (now "
        f"TF_USE_LEGACY_KERAS={os.environ.get('TF_USE_LEGACY_KERAS')!r}). Import "
        "keras_greedylr_agents first, or set the variable before starting Python."
    )


def _one_thread_a_product() -> None:
    """Has XLA multiply matrices on the thread that runs a program, unless told otherwise.

    A matrix of an inner problem is too small to share, and the families run side by side.
    TensorFlow reads the flags when it first compiles; later this does nothing. Flags that do not
    begin with a dash name a file that holds them.
    """
    flag, given = "--xla_cpu_multi_thread_eigen", os.environ.get("XLA_FLAGS", "")
    if flag not in given and given.lstrip()[:1] in ("", "-"):
        os.environ["XLA_FLAGS"] = f"{given} {flag}=false".strip()


_check_tensorflow()
os.environ["TF_USE_LEGACY_KERAS"] = "1"
_one_thread_a_product()
