"""Schedule-Free and Prodigy take the paths of their authors' own packages."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import descend
from keras import ops

from keras_greedylr.optimizers import Prodigy, ScheduleFreeAdamW, ScheduleFreeSGD

GOLDEN = json.loads((Path(__file__).parent / "golden/optimizer_paths.json").read_text())["cases"]


def from_authors(case):
    """The optimizer of a golden case, the authors' arguments in Keras' names."""
    kwargs = dict(case["kwargs"])
    kwargs["learning_rate"] = kwargs.pop("lr")
    if "betas" in kwargs:
        kwargs["beta_1"], kwargs["beta_2"] = kwargs.pop("betas")
    classes = {
        "schedulefree.SGDScheduleFree": ScheduleFreeSGD,
        "schedulefree.AdamWScheduleFree": ScheduleFreeAdamW,
        "prodigyopt.Prodigy": Prodigy,
    }
    return classes[case["optimizer"]](**kwargs)


@pytest.mark.parametrize(
    "case", GOLDEN, ids=lambda case: f"{case['optimizer']}-{case['seed']}" if case else ""
)
def test_golden_paths(case, float64):
    a, b = np.array(case["A"]), np.array(case["b"])
    optimizer = from_authors(case)
    averages = []

    def note_average(variables):
        if case["eval_params"]:
            optimizer.finalize_variable_values(variables)
            averages.append(ops.convert_to_numpy(variables[0].value).copy())
            optimizer.resume_variable_values(variables)

    path = descend(
        optimizer, lambda w: a @ w - b, [np.array(case["x0"])], len(case["params"]), note_average
    )
    np.testing.assert_allclose(path, case["params"], rtol=1e-9, atol=1e-9)
    if case["eval_params"]:
        np.testing.assert_allclose(averages, case["eval_params"], rtol=1e-9, atol=1e-9)
