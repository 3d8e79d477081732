"""Training of learned schedules with TF-Agents. Installed as `keras_greedylr_agents`.

TF-Agents 0.19 runs on legacy Keras, which has to be chosen before TensorFlow
is imported. Chosen later nothing fails, but PPO then trains almost none of its
variables, so a late import is refused here.
"""

import os
import sys

if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    raise ImportError(
        "keras_greedylr_agents must be imported before TensorFlow: TF-Agents needs "
        "TF_USE_LEGACY_KERAS=1 in the environment when TensorFlow is first imported, and it "
        f"was TF_USE_LEGACY_KERAS={os.environ.get('TF_USE_LEGACY_KERAS')!r}. Import "
        "keras_greedylr_agents first, or set the variable before starting Python."
    )
os.environ["TF_USE_LEGACY_KERAS"] = "1"
