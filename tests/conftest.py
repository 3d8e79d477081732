"""TF-Agents needs legacy Keras, chosen before the first test imports TensorFlow."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # `import keras` is Keras 3 all the same
