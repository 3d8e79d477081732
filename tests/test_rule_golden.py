"""The rule against 120 traces of the Hugging Face port."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import states_of

from keras_greedylr import GreedyRule

GOLDEN = json.loads((Path(__file__).parent / "golden" / "greedy_traces.json").read_text())


def test_there_are_120_golden_cases():
    assert len(GOLDEN) == 120
    assert {case["config"]["mode"] for case in GOLDEN} == {"min", "max"}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"seed{case['seed']}")
def test_golden_trace(case):
    config = case["config"]
    rule = GreedyRule(
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
    rates = [s.learning_rate for s in states_of(rule, case["initial_lr"], case["metrics"])]
    np.testing.assert_allclose(rates, case["lrs"], rtol=1e-9, atol=0)
