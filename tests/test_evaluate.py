"""Evaluation: rivals do what they say, and tables hold what they should."""

import json
import re

import numpy as np
import pytest

pytest.importorskip("tf_agents")
import keras_greedylr_agents  # noqa: F401, I001

from keras_greedylr import GreedyLR, observation
from keras_greedylr.observation import Interval
from keras_greedylr.policy import act_with
from keras_greedylr.rule import GreedyRule
from keras_greedylr_agents import evaluate, export, rivals, tune
from keras_greedylr_agents.greedy import BatchedGreedyRule, GreedyParameters
from keras_greedylr_agents.problems.layers import Dense
from keras_greedylr_agents.problems.networks import Network
from keras_greedylr_agents.problems.nmf import NMF

PROBLEMS = (
    NMF("nmf", "gamma", columns=16, blocks=2, steps=2),
    Network("mlp", "mixture", (Dense(4, "relu"),), "sgd", 6, steps=2, batch=4),
)
PLAN = evaluate.Plan(
    seeds=3, rates=(0.01, 1.0, 100.0), tuning_seeds=2, grid=(0.1, 1.0), bootstrap=50
)


def test_batched_greedy_rule_is_the_rule():
    rng = np.random.default_rng(0)
    runs, length = 60, 150
    fields = {
        "factor": rng.choice([0.5, 0.9], runs),
        "patience": rng.integers(0, 4, runs),
        "min_delta": rng.choice([0.0, 1e-3], runs),
        "window": rng.integers(1, 6, runs),
        "cooldown": rng.integers(0, 4, runs),
        "warmup": rng.integers(0, 4, runs),
        "min_lr": np.full(runs, 1e-4),
        "max_lr": np.full(runs, 0.5),
        "horizon": rng.choice([0, 100, 200], runs),
    }
    carry_on = rng.integers(0, 2, runs).astype(bool)
    batched = BatchedGreedyRule(GreedyParameters(**fields, carry_on=carry_on), np.full(runs, 0.01))
    rules = []
    for i in range(runs):
        mine = {name: values[i].item() for name, values in fields.items()}
        mine["horizon"] = mine["horizon"] or None
        rules.append(GreedyRule(**mine, phases="carry_on" if carry_on[i] else "hold"))
    states = [rule.init(0.01) for rule in rules]
    steps = rng.normal(0, 0.1, (length, runs)) - np.linspace(0.05, -0.05, length)[:, None]
    metrics = np.cumsum(steps, axis=0)
    metrics[rng.random(metrics.shape) < 0.05] = np.nan
    for metric in metrics:
        states = [
            rule.update(state, value)
            for rule, state, value in zip(rules, states, metric, strict=True)
        ]
        expected = [state.learning_rate for state in states]
        np.testing.assert_allclose(batched.update(metric), expected, rtol=1e-12)
    assert len(np.unique(expected)) > 10


def intervals(losses, validations):
    for i, (loss, validation) in enumerate(zip(losses, validations, strict=True)):
        one = np.ones(1, np.float32)
        yield Interval(
            one * loss, one * 0, one * validation, one * (i + 1) / 40, one * 0.01, one * 0, one
        )


NAN = np.nan
CASES = {
    "linear": ([1, 1], [NAN, NAN], [1, 39 / 40, 38 / 40]),
    "step": ([1] * 30, [NAN] * 30, [1] * 20 + [0.1] * 10 + [0.01]),
    "plateau": ([1, 1, 1, 1], [1, 2, 3, 4], [1, 1, 1, 0.3, 0.3]),
    "hand-written": ([1, 0.9, 2, 2], [NAN] * 4, [1, 1.6, 2.56, 2.56 / 3, 2.56 / 3]),
}


@pytest.mark.parametrize("name", CASES)
def test_rivals(name):
    losses, validations, expected = CASES[name]
    controller = rivals.RIVALS[name]()
    rates = [controller.first(np.ones(1, np.float32), None)[0]]
    rates += [controller.next(seen, None)[0] for seen in intervals(losses, validations)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_shapes_start_or_peak_at_the_given_rate():
    progress = np.linspace(0, 1, 1001)
    for name, shape in rivals.SHAPES.items():
        values = np.array([shape(p) for p in progress])
        assert values.max() == pytest.approx(1.0), name
        assert values.min() >= 0.0, name


@pytest.fixture(scope="module")
def evaluation():
    acts = {
        "learned": lambda seen: np.full(len(seen), 0.3, np.float32),
        "untrained": act_with(export.untrained_layers(0)),
    }
    return evaluate.evaluate(acts, PROBLEMS, PLAN)


def test_evaluation(evaluation):
    names = set(rivals.RIVALS) | {"replay"}
    names |= {f"{name} tuned" for name in names}
    names |= {"learned", "learned, no validation", "untrained", "untrained, no validation"}
    for outcomes in evaluation.outcomes.values():
        assert set(outcomes) == names
        for outcome in outcomes.values():
            assert outcome.validation.shape == (3, 3) and np.isfinite(outcome.validation).all()
            assert outcome.rates.shape == (observation.DECISIONS, 3, 3)
        constant, tuned = outcomes["constant"], outcomes["constant tuned"]
        np.testing.assert_allclose(np.ptp(tuned.rates, axis=2), 0)  # one rate for all columns
        assert (np.ptp(constant.rates, axis=0) == 0).all() and (constant.rates[0, 0, 0] > 0)
    assert all(best in PLAN.grid for best in evaluation.tuned_rates["mlp"].values())


def test_summary(evaluation):
    summary = json.loads(evaluate.to_json(evaluate.summarise(evaluation, "learned")))
    own = summary["table"]["learned"]["validation"]
    assert own["ratio"] == [1.0, 1.0, 1.0] and own["win_rate"] == [0.5, 0.5, 0.5]
    for row in summary["table"].values():
        low, high = row["validation"]["ratio"][1:]
        assert low <= row["validation"]["ratio"][0] <= high
        assert 0 <= row["stuck"] <= 1 and row["validation"]["failures"] <= 1
    assert summary["table"]["constant"]["validation"]["failures"] == 0
    text = evaluate.markdown(summary)
    assert text.count("\n| ") == 2 + len(summary["table"]) - 1 + 1
    assert "in brackets, too narrow with fewer than five.\n" in text
    (named,) = re.findall(r"Tuned to the end .*: (.*)\.\n", text)
    rates = summary["tuned_rates"]  # of a grid of two
    assert len(named.split("; ")) == sum(map(len, rates.values())) > 10
    summary["plan"] |= {"grid": [0.01, 0.1, 1.0, 10.0], "seeds": 5}
    assert not re.search("Tuned to the end|too narrow", evaluate.markdown(summary))


def test_diverged_runs_cannot_decide_a_mean():
    bounded = evaluate.bounded(np.array([NAN, np.inf, 1e9, 0.5, 0.0]), np.ones(5))
    np.testing.assert_allclose(bounded, [np.e, np.e, np.e, 0.5, 1e-6])


def test_tuning_ranks_candidates_by_validation_loss():
    result = tune.tune_greedy(PROBLEMS[1:], candidates=4, seeds=1)
    scores = [candidate["score"] for candidate in result]
    assert scores == sorted(scores) and len(result) == 4
    made = [
        GreedyLR(**{name: value for name, value in candidate.items() if name != "score"})
        for candidate in result
    ]
    configs = [callback.get_config() for callback in made]
    assert scores[configs.index(GreedyLR().get_config())] == 1.0
    assert GreedyLR(horizon="fit").get_config() in configs
    again = tune.tune_greedy(PROBLEMS[1:], candidates=4, seeds=1)
    assert again == result
    json.loads(tune.to_json(result))
