"""The study of small models: its command at a small setting, and its verdicts by hand."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tf_agents")
import keras_greedylr_agents  # noqa: F401, I001
import tensorflow as tf

from keras_greedylr import GreedyLR
from keras_greedylr_agents import small_models as runs
from keras_greedylr_agents import verdicts
from keras_greedylr_agents.rivals import AsShipped

SCRIPT = Path(__file__).parent / "benchmarks" / "small_models.py"
SPEC = importlib.util.spec_from_file_location("small_models_report", SCRIPT)
report = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(report)


def test_the_command_leaves_its_report(tmp_path, capsys):
    out = tmp_path / "study"
    report.main(["--problems", "iris", "--optimizers", "sgd", "--seeds", "1", "--out", str(out)])
    told = json.loads(out.with_suffix(".json").read_text())
    text = out.with_suffix(".md").read_text()
    assert text in capsys.readouterr().out and "| LearnedLR | both tuned | 100 |" in text
    assert {row["comparisons"] for row in told["verdicts"]["training"]} == {
        len(runs.RIVALS), len(runs.RIVALS) * len(runs.RATES)
    }  # fmt: skip
    for rows in (*told["verdicts"].values(), *told["by"].values()):
        for row in rows:
            assert row["as good or better"] + row["worse"] == pytest.approx(1.0, abs=1e-3)
    assert set(told["tuned_rates"]["iris, sgd"]) == set(runs.CONTESTANTS)


@pytest.mark.parametrize("name", runs.PROBLEMS)
def test_problems_can_be_begun(name):
    problem = runs.make_problem(name, "rmsprop")
    state = problem.sample(tf.constant([0, 0]), 2)
    x, y = problem.batches(state, tf.constant([1, 0]))
    assert np.isfinite(problem.validation_loss(state)).all() and x.shape[:2] == y.shape[:2]
    assert len(np.unique(problem.training_loss(state))) == 2  # the weights are each run's own


def test_ratios_and_verdicts_by_hand():
    ours, rivals = len(runs.OURS), len(runs.RIVALS)
    logs = np.zeros((2, 3, ours + rivals, len(runs.RATES) + 1, 2))
    logs[0, 2, 0, 1] = [0.1, 0.3]  # GreedyLR at the usual rate, two seeds
    logs[0, 2, ours, -1] = 0.2  # the first rival, tuned
    end = ("GreedyLR", "validation", 100)
    same = report.ratios(logs, *end, "same")
    assert same.shape == (len(runs.RATES), rivals)
    np.testing.assert_allclose(same[1], np.exp(0.2))
    np.testing.assert_allclose(same[[0, 2]], 1.0)
    np.testing.assert_allclose(report.ratios(logs, *end, "rivals")[0, :2], [1.0, np.exp(0.2)])
    np.testing.assert_allclose(report.ratios(logs, *end, "both")[0, :2], [np.exp(-0.2), 1.0])
    row = verdicts.counted([np.array([1.0, 1.005, 0.95]), np.array([0.5, 1.05, 1.2])])
    shares = [row[name] * 6 for name in verdicts.VERDICTS]
    np.testing.assert_allclose(shares, [4, 2, 1, 2, 1])
    assert row["interval"] == [pytest.approx(1 / 3), 1.0] and row["comparisons"] == 6


def test_greedy_is_the_callbacks():
    controller = AsShipped()
    rates = np.array([0.1, 1.0])
    controller.first(rates, None)
    rule = controller.rule.parameters
    callback = GreedyLR()._make_rule(0.1, "min")
    for name in ("factor", "patience", "min_delta", "window", "min_lr", "max_lr"):
        assert getattr(rule, name)[0] == pytest.approx(getattr(callback, name)), name


def test_fixed_shapes():
    at = [0.0, 1 / 7, 0.5, 0.9, 39 / 40]
    shapes = {name: [shape(x) for x in at] for name, shape in runs.FIXED.items()}
    assert shapes["polynomial"] == pytest.approx([(1 - x) ** 2 for x in at])
    assert shapes["restarts"][:2] == pytest.approx([1.0, 1.0]) and shapes["restarts"][-1] < 0.01
    assert shapes["wsd"] == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.125])
    assert shapes["inverse-sqrt"][0] == 1.0 and shapes["constant, warmup"][1:] == [1.0] * 4
    assert all(0 <= rate <= 1 for rates in shapes.values() for rate in rates)
