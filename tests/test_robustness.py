"""The study of robustness: its noise by hand, its recoveries by hand, its command when small."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tf_agents")
import keras_greedylr_agents  # noqa: F401, I001
import tensorflow as tf

from keras_greedylr_agents import noises, noisy_training, robustness
from keras_greedylr_agents.problems.landscapes import LANDSCAPES, Function
from keras_greedylr_agents.rivals import Fixed

SCRIPT = Path(__file__).parent / "benchmarks" / "robustness.py"
SPEC = importlib.util.spec_from_file_location("robustness_report", SCRIPT)
report = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(report)

BOWL = Function(lambda x: tf.reduce_sum(x * x, axis=1), 3)


class Watching(Fixed):
    """A constant rate that remembers what it was shown."""

    def __init__(self):
        super().__init__(lambda progress: 1.0)
        self.shown = []

    def next(self, seen, bound):
        self.shown.append(seen.loss)
        return super().next(seen, bound)


def run(noise, unit=1.0, landscape=BOWL, start=0):
    """One run at a constant rate; returns its clean losses, and those shown."""
    noise = noises.Noise(*(field[:, None] for field in noise))
    watching = Watching()
    curves = noisy_training.train(
        landscape,
        landscape.sample(tf.constant([start, 0]), 1),
        noise,
        np.array([unit]),
        watching,
        np.full(1, 0.01, np.float32),
        seed=0,
    )
    np.testing.assert_array_equal(np.stack(watching.shown), curves.seen[:-1])
    return curves.clean[:, 0], curves.seen[:, 0]


QUIET = noises.none(None, 0.0)


def test_the_metric_is_disturbed_and_nothing_else():
    clean, seen = run(QUIET)
    np.testing.assert_array_equal(clean[:-1], seen)
    metric = np.linspace(-1, 1, noises.STEPS)
    same, shown = run(QUIET._replace(metric=metric))
    np.testing.assert_array_equal(same, clean)  # a fixed schedule does not look
    np.testing.assert_allclose(shown, clean[:-1] * np.exp(metric), rtol=1e-5)
    same, shown = run(QUIET._replace(rising=np.full(noises.STEPS, 0.5)))
    np.testing.assert_array_equal(same, clean)
    fell = np.diff(clean, prepend=clean[0])[:-1] < 0
    assert fell[1:50].all() and not fell[0]
    np.testing.assert_allclose(shown, clean[:-1] * np.exp(0.5 * fell), rtol=1e-5)


def test_the_gradient_is_disturbed():
    """Adam's first step is the rate times the gradient's sign: its direction can be read off."""
    weights, places = BOWL.sample(tf.constant([0, 0]), 1)
    distance = (weights - places).numpy()[0]

    def after_one(noise, unit):
        return run(noise, unit)[0][1]

    def expected(gradient):
        return np.sum((distance - 0.01 * np.sign(gradient)) ** 2)

    np.testing.assert_allclose(after_one(QUIET, 1.0), expected(distance), rtol=1e-5)
    turned = QUIET._replace(turn=np.full(noises.STEPS, -1.0))
    np.testing.assert_allclose(after_one(turned, 1.0), expected(-distance), rtol=1e-5)
    vector = tf.random.stateless_normal((1, 3), (0, 1)).numpy()[0]
    pushed = QUIET._replace(push=np.full(noises.STEPS, 0.5))
    for unit in (1.0, 1e3):
        gradient = 2 * distance + 0.5 * unit * vector
        np.testing.assert_allclose(after_one(pushed, unit), expected(gradient), rtol=1e-5)
    assert not np.array_equal(np.sign(distance), np.sign(vector))  # or the last would say nothing


class Solved(Function):
    """A run that begins at the lowest point."""

    def sample(self, seed, runs):
        places = super().sample(seed, runs)[1]
        return places, places


def test_a_held_vector_pushes_one_way():
    """Under a constant gradient each step of Adam is the rate; a vector drawn anew goes nowhere."""
    steps = np.arange(noises.STEPS)
    ends = [
        run(
            QUIET._replace(push=np.ones(noises.STEPS), held=held),
            unit=1e3,
            landscape=Solved(BOWL.formula, BOWL.size),
        )[0][-1]
        for held in (steps > 0, steps < 0)
    ]
    assert ends[0] == pytest.approx(BOWL.size * (0.01 * noises.STEPS) ** 2, rel=0.02)
    assert ends[1] < 0.2 * ends[0]


@pytest.mark.parametrize("name", noises.NOISES)
def test_noises(name):
    drawn = noises.draw([(name, 0.1), (name, 1.0)], seeds=2, seed=3)
    assert all(field.shape == (noises.STEPS, 4) for field in drawn)
    again = noises.draw([(name, 1.0)], seeds=2, seed=3)
    np.testing.assert_array_equal(drawn.metric[:, 2:], again.metric)
    weak, strong = drawn.metric[:, :2], drawn.metric[:, 2:]
    np.testing.assert_allclose(10 * weak, strong)  # the same but for its strength
    quiet = all(
        (field == usual).all() for field, usual in zip(drawn[:4], (0, 0, 1, 0), strict=True)
    )
    assert quiet == (name == "none")
    assert (drawn.spike.any()) == ("spike" in name)


def test_spikes():
    spikes = noises.periodic_spike(None, 0.5)
    assert np.flatnonzero(spikes.spike).tolist() == [40, 80, 120, 160]
    assert np.flatnonzero(spikes.push).tolist()[:4] == [40, 41, 42, 80]
    assert spikes.push.max() == 5.0 and np.exp(spikes.metric.max()) == pytest.approx(10**0.5)
    assert np.flatnonzero(spikes.held).tolist()[:3] == [41, 42, 81]


def test_recoveries_by_hand():
    clean = np.ones((noises.STEPS + 1, 4))
    clean[43:47, 1] = 2.0  # back at 47
    clean[43:, 2] = np.nan  # not back, nor ever high above what it is then
    clean[:, 3] = 1e-6
    clean[43:, 3] = 5e-4  # high, but below a thousandth of the first loss
    spike = np.zeros(noises.STEPS, bool)
    spike[[40, 190]] = True  # the second is too near the end
    found = noisy_training.recoveries(clean, spike, first=1.0)
    np.testing.assert_array_equal(found, [[0, 7, np.inf, 0]])
    assert report.recovered([found[0], np.zeros(4)]) == {
        "spikes": 8, "raised": 0.25, "median steps": None, "not back": 0.5
    }  # fmt: skip
    assert report.recovered([np.zeros(4)])["not back"] is None  # of none


@pytest.mark.parametrize("name", LANDSCAPES)
def test_landscapes(name):
    landscape = LANDSCAPES[name]
    weights, instances = landscape.sample(tf.constant([0, 0]), 3)
    losses = landscape.loss(weights, instances).numpy()
    assert losses.shape == (3,) and len(set(losses)) == 3 and (losses > 0).all()
    alone = landscape.loss(weights[1:2], instances[1:2]).numpy()
    np.testing.assert_allclose(alone, losses[1:2], rtol=1e-5)  # a run knows no neighbours
    if landscape.sort == "function":
        lowest = landscape.loss(instances, instances).numpy()
        np.testing.assert_allclose(lowest, 0.0, atol=1e-4)
    else:
        trained, _ = run(QUIET, landscape=landscape)
        assert trained[-1] < 0.3 * trained[0]


def test_epochs_are_shown_as_means():
    watching = Watching()
    every = robustness.EveryEpoch(watching)
    every.first(np.ones(2), None)
    for step in range(2 * noises.EPOCH):
        every.next(robustness.Interval(*[np.full(2, float(step))] * 7), None)
    np.testing.assert_array_equal(watching.shown, [[2.0, 2.0], [7.0, 7.0]])


def test_ratios_by_hand():
    ours, rivals = len(robustness.OURS), len(robustness.RIVALS)
    logs = np.zeros((2, ours + rivals, len(robustness.RATES) + 1, 2))
    logs[1, 0, report.USUAL] = [0.1, 0.3]  # GreedyLR at the usual rate, two seeds
    logs[1, ours, -1] = 0.2  # the first rival, tuned
    found = {case: report.ratios(logs, "GreedyLR", case) for case in report.CASES}
    assert found["same"].shape == (2, len(robustness.RATES), rivals)
    np.testing.assert_allclose(found["same"][1, report.USUAL], np.exp(0.2))
    np.testing.assert_array_equal(found["published"][:, 0], found["same"][:, report.USUAL])
    np.testing.assert_allclose(found["rivals"][1, 0, :2], [1.0, np.exp(0.2)])
    np.testing.assert_allclose(found["both"][1, 0, :2], [np.exp(-0.2), 1.0])
    assert all((ratio[0] == 1).all() for ratio in found.values())


def test_the_same_seed_gives_the_same_table(tmp_path, capsys):
    told = []
    for i in range(2):
        out = tmp_path / f"study-{i}"
        report.main(["--models", "ackley,recurrent", "--noises", "none,random spike",
                     "--seeds", "1", "--out", str(out)])  # fmt: skip
        text = out.with_suffix(".md").read_text()
        assert text in capsys.readouterr().out and "| LearnedLR | both tuned |" in text
        told.append((text, out.with_suffix(".json").read_text()))
    assert told[0] == told[1]
    found = json.loads(told[0][1])
    rivals, conditions = len(robustness.RIVALS), 4
    assert [row["comparisons"] for row in found["verdicts"][:4]] == [
        2 * conditions * rivals * rates for rates in (1, len(robustness.RATES), 1, 1)
    ]
    for row in found["verdicts"]:
        assert row["as good or better"] + row["worse"] == pytest.approx(1.0, abs=1e-3)
    assert {row["of"] for row in found["recovery"]} == set(robustness.CONTESTANTS)


def test_the_noise_is_not_where_runs_start(monkeypatch):
    """Both are drawn from the study's seed: a drift along the start would lead to the minimum."""
    drawn, normal = [], tf.random.stateless_normal

    def recording(shape, seed):
        drawn.append(normal(shape, seed).numpy())
        return normal(shape, seed)

    monkeypatch.setattr(tf.random, "stateless_normal", recording)
    landscape = LANDSCAPES["quadratic"]
    start = landscape.sample(tf.constant([0, 0]), 2)
    drawn.clear()
    quiet, rates = noises.draw(noises.CONDITIONS[:1], 2, 0), np.full(2, 0.01, np.float32)
    noisy_training.train(landscape, start, quiet, rates, Fixed(lambda progress: 1.0), rates, 0)
    assert len(drawn) == noises.STEPS
    assert not any(np.isclose(vectors, start[0].numpy()).any() for vectors in drawn)
