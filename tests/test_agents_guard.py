"""A TensorFlow without legacy Keras is refused, whenever the variable is set."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("tf_agents")

LATE = "import os, tensorflow; os.environ['TF_USE_LEGACY_KERAS'] = '1'; "
CASES = {
    "agents first": "import keras_greedylr_agents, tensorflow, keras; keras.Variable(1.0)",
    "TensorFlow first": "import tensorflow, keras_greedylr_agents",
    "variable late": LATE + "import keras_greedylr_agents",
}


@pytest.mark.parametrize("case", CASES)
def test_import(case):
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", CASES[case]], env=environment, capture_output=True, text=True
    )
    if case == "agents first":
        assert done.returncode == 0, done.stderr
    else:
        assert "must be imported before TensorFlow" in done.stderr
