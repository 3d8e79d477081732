"""The rule against 120 traces of the Hugging Face port."""

import numpy as np
import pytest
from golden_traces import GOLDEN, golden_rule
from helpers import states_of


def test_there_are_120_golden_cases():
    assert len(GOLDEN) == 120
    assert {case["config"]["mode"] for case in GOLDEN} == {"min", "max"}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"seed{case['seed']}")
def test_golden_trace(case):
    rule = golden_rule(case["config"])
    rates = [s.learning_rate for s in states_of(rule, case["initial_lr"], case["metrics"])]
    np.testing.assert_allclose(rates, case["lrs"], rtol=1e-9, atol=0)
