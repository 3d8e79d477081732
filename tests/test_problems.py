"""The inner problems: what any family must do, and the networks' optimizers against Keras'."""

import numpy as np
import pytest

pytest.importorskip("tf_agents")
import keras_greedylr_agents  # noqa: F401, I001
import keras
import tensorflow as tf

from keras_greedylr_agents.problems import base, data, families
from keras_greedylr_agents.problems.layers import Convolution, Dense, Embedding, Recurrent
from keras_greedylr_agents.problems.networks import Network
from keras_greedylr_agents.problems.nmf import ENTRIES, NMF

SMALL = (
    NMF("nmf", "gamma", columns=16, blocks=2, steps=3),
    NMF("nmf-noisy", "digits", "simultaneous", 3, columns=16, most_gradient_noise=1.0, steps=3),
    Network("mlp", "mixture", (Dense(8, "relu"),), "sgd", 6, steps=3),
    Network("cnn", "digits", (Convolution(2), Dense(4, "tanh")), "adam", 10, steps=3),
    Network("rnn", "topics", (Embedding(34, 3), Recurrent(5)), "momentum", 34, steps=3),
    Network("teacher", "round inputs", (), "adam", 2, teacher=(Dense(4, "tanh"),), steps=3),
    NMF("uniform", "uniform", rank=3, columns=16, blocks=2, most_gradient_noise=0.5, steps=3),
    NMF("log normal", "log normal", rank=3, columns=16, blocks=2, steps=3),
    Network("regression", "diabetes", (Dense(4),), "momentum", 1, 0.9, regression=True, steps=3),
    Network("noisy", "mixture", (Dense(8, "relu"),), "momentum", 6, steps=3,
            most_gradient_noise=1.0, most_loss_noise=0.5),
)  # fmt: skip


def play(problem, rates, seed=0, runs=4, intervals=4):
    batch = base.start(problem, tf.constant([seed, 0]), runs)
    reports = []
    for _ in range(intervals):
        batch, report = base.advance(problem, batch, problem.usual_rate(batch.state) * rates, 4)
        reports.append(report)
    return batch, reports


@pytest.mark.parametrize("problem", SMALL, ids=lambda p: p.name)
def test_contract(problem):
    before = base.start(problem, tf.constant([0, 0]), 4)
    after, reports = play(problem, tf.constant([1.0, 1.0, 0.0, 1e-3]))
    loss = np.stack([r.losses.numpy() for r in reports])
    assert loss.shape == (4, problem.steps, 4) and np.isfinite(loss).all()
    moved = np.abs(problem.weights(after.state) - problem.weights(before.state)).max(axis=1)
    assert (moved > 0).tolist() == [True, True, False, True]  # the rate is each run's own
    assert moved[3] < moved[1]
    for name in ("training_loss", "validation_loss"):
        value = getattr(problem, name)(after.state).numpy()
        assert value.shape == (4,) and np.isfinite(value).all()
    assert len(np.unique(problem.training_loss(before.state))) == 4  # runs differ
    validated = [np.isfinite(r.interval.validation_loss).all() for r in reports]
    assert validated == [(i + 1) % problem.validate_every == 0 for i in range(4)]
    assert [float(r.interval.progress[0]) for r in reports] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("problem", SMALL[:3], ids=lambda p: p.name)
def test_same_seed_same_runs(problem):
    one, two, other = (play(problem, 1.0, seed=seed)[0] for seed in (1, 1, 2))
    tf.nest.map_structure(np.testing.assert_array_equal, one.state, two.state)
    assert not np.array_equal(problem.weights(one.state), problem.weights(other.state))


@pytest.mark.parametrize("problem", SMALL, ids=lambda p: p.name)
def test_a_run_does_not_see_its_neighbours(problem):
    batch = base.start(problem, tf.constant([3, 0]), 3)
    batches = problem.batches(batch.state, tf.constant([4, 0]))
    rates = problem.usual_rate(batch.state)
    wild = rates * tf.constant([1.0, 1e9, 1e9])
    calm, wrecked = (
        problem.weights(problem.train(batch.state, batches, r)[0]) for r in (rates, wild)
    )
    np.testing.assert_array_equal(calm[0], wrecked[0])


@pytest.mark.parametrize("problem", SMALL, ids=lambda p: p.name)
def test_only_runs_that_are_alike_train_on_the_same(problem):
    two = base.start(problem, tf.constant([3, 0]), 2).state
    four = tf.nest.map_structure(lambda x: tf.repeat(x, 2, axis=0), two)
    rates = tf.constant([1.0, 1.0, 0.1, 0.1]) * problem.usual_rate(four)
    after, losses = problem.train(four, problem.batches(four, tf.constant([4, 0])), rates)
    weights = problem.weights(after).numpy()
    np.testing.assert_allclose(weights[0::2], weights[1::2], rtol=1e-4, atol=1e-6)
    first = losses.numpy()[0]
    assert np.isclose(first[1:], first[:-1], rtol=1e-5).tolist() == [True, False, True]


def test_noise_on_a_networks_gradients_and_shown_losses():
    problem = Network("noisy", "moons", (Dense(16),), "sgd", 2, steps=50,
                      most_gradient_noise=0.5, most_loss_noise=0.2)  # fmt: skip
    state = problem.sample(tf.constant([0, 0]), 64)
    level = state.seen_noise.numpy() / 0.2
    assert 20 < (level > 0).sum() < 44 and (level >= 0).all() and 0.8 < level.max() <= 1.0
    with tf.GradientTape() as tape:
        tape.watch(state.params)
        loss = tf.reduce_sum(problem.training_loss(state))
    gradient = problem.weights(state._replace(params=tape.gradient(loss, state.params)))
    usual = np.sqrt(np.mean(gradient.numpy() ** 2, axis=1))
    np.testing.assert_allclose(state.noise, 0.5 * level * usual, rtol=1e-4)

    *examples, pushes, seen = batches = problem.batches(state, tf.constant([1, 0]))
    # so small a rate that the gradients stay what they are
    none = (*examples, 0.0 * pushes, 0.0 * seen)
    noisy, quiet = (problem.train(state, b, tf.fill([64], 1e-4)) for b in (batches, none))
    moved = problem.weights(quiet[0]) - problem.weights(noisy[0])
    expected = 1e-4 * tf.reduce_sum(pushes, axis=0) * state.noise[:, None]
    np.testing.assert_allclose(moved, expected, rtol=0.02, atol=2e-6)
    np.testing.assert_allclose(
        np.log(noisy[1] / quiet[1]), seen * state.seen_noise, rtol=0.05, atol=2e-3
    )
    size = np.std(pushes, axis=(1, 2))
    assert 2.0 < size.max() / np.median(size) < 30.0  # some steps are bad ones


def test_noise_on_the_shown_losses_alone():
    problem = Network("seen", "moons", (Dense(4),), "sgd", 2, steps=5, most_loss_noise=0.5)
    state = problem.sample(tf.constant([0, 0]), 16)
    assert not state.noise.numpy().any() and state.seen_noise.numpy().max() > 0.25
    *examples, pushes, seen = problem.batches(state, tf.constant([1, 0]))
    quiet = problem.train(state, (*examples, pushes, 0.0 * seen), tf.fill([16], 0.1))
    shown = problem.train(state, (*examples, pushes, seen), tf.fill([16], 0.1))
    np.testing.assert_array_equal(problem.weights(quiet[0]), problem.weights(shown[0]))
    np.testing.assert_allclose(np.log(shown[1] / quiet[1]), seen * state.seen_noise, atol=1e-4)


def test_matrices_have_backgrounds_and_entries_of_their_own():
    problem = NMF("lit", "digits", most_background=4.0)
    clean = problem.sample(tf.constant([0, 0]), 64).clean.numpy()
    np.testing.assert_allclose(clean.mean(axis=(1, 2, 3)), 1.0, rtol=1e-4)
    ground = clean.min(axis=(1, 2, 3))  # digits have black corners
    assert ground.min() < 0.2 and 0.7 < ground.max() <= 0.8
    entries = ENTRIES["gamma"]((64, 40, 40), tf.constant([0, 0])).numpy().reshape(64, -1)
    variation = entries.std(axis=1) / entries.mean(axis=1)
    assert 0.3 < variation.min() < 0.45 and 1.4 < variation.max() < 1.9


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw", "rmsprop"])
def test_optimizers_are_kerass_through_changes_of_the_rate(optimizer):
    problem = Network("m", "mixture", (Dense(5, "relu"),), optimizer, 6, steps=7)
    state = trained = problem.sample(tf.constant([0, 0]), 2)
    rates = np.float32([[0.05, 0.01], [0.005, 0.04], [0.02, 0.001]])  # [action, run]
    batches = [problem.batches(state, tf.constant([1, i])) for i in range(len(rates))]
    losses = []
    for batch, each in zip(batches, rates, strict=True):
        trained, of_action = problem.train(trained, batch, tf.constant(each))
        losses.append(of_action)
    for run, rate in enumerate(map(float, rates[0])):
        model = keras.Sequential([keras.layers.Dense(5, "relu"), keras.layers.Dense(6)])
        model.build((None, 32))
        model.set_weights([w[run].numpy() for w in tf.nest.flatten(state.params)])
        made = {
            "sgd": keras.optimizers.SGD(rate),
            "momentum": keras.optimizers.SGD(rate, momentum=float(state.momentum[run])),
            "adam": keras.optimizers.Adam(rate),
            "adamw": keras.optimizers.AdamW(rate),
            "rmsprop": keras.optimizers.RMSprop(rate),
        }[optimizer]
        model.compile(made, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        for (x, y), rate, mine in zip(batches, rates[:, run], losses, strict=True):
            made.learning_rate = float(rate)
            theirs = [model.train_on_batch(x[i, run], y[i, run]) for i in range(7)]
            np.testing.assert_allclose(mine[:, run], theirs, rtol=1e-4)
        for w, v in zip(tf.nest.flatten(trained.params), model.get_weights(), strict=True):
            np.testing.assert_allclose(w[run], v, rtol=2e-4, atol=2e-6)


def test_convolution_is_kerass():
    x = np.random.default_rng(0).normal(size=(1, 4, 8, 8, 3)).astype(np.float32)
    (kernel, bias), shape = Convolution(5).init(tf.constant([0, 0]), 1, (8, 8, 3))
    layer = keras.layers.Conv2D(5, 3, activation="relu")
    layer.build((None, 8, 8, 3))
    layer.set_weights([tf.reshape(kernel, (3, 3, 3, 5)), bias[0] + 0.1])
    theirs = keras.layers.AveragePooling2D(2)(layer(x[0]))
    mine = Convolution(5).apply([kernel, bias + 0.1], tf.constant(x))[0]
    assert shape == mine.shape[1:]
    np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_splits_share_neither_data_nor_kind():
    seen = {
        split: ({f.data for f in found}, {f.kind for f in found}, {f.name for f in found})
        for split, found in families.FAMILIES.items()
    }
    for one in seen:
        for other in set(seen) - {one}:
            for mine, theirs in zip(seen[one], seen[other], strict=True):
                assert not mine & theirs

    def examples(name):
        return data.load(name)[0] if name in data.LOADERS else np.zeros((0, 7))

    # names could lie: no example stands in two splits either
    rows = {
        split: {
            row.tobytes()
            for f in found
            for row in np.round(examples(f.data), 4)
            if row.size > 6  # short windows of text coincide, as words do
        }
        for split, found in families.FAMILIES.items()
    }
    assert not rows["training"] & (rows["development"] | rows["test"])
    assert not rows["development"] & rows["test"]
    texts = [set(read()) for read in data.COUNTED.values()]  # of one split each
    assert len(texts) == 3 and len(set.union(*texts)) == sum(map(len, texts))
    assert len(families.FAMILIES["test"]) >= 10


@pytest.mark.parametrize("split", families.FAMILIES)
def test_every_family_can_be_begun(split):
    for problem in families.FAMILIES[split]:
        state = problem.sample(tf.constant([0, 0]), 2)
        assert np.isfinite(problem.validation_loss(state)).all(), problem.name
        assert (problem.usual_rate(state).numpy() > 0).all()


def test_select():
    names = [f.name for f in families.select("nmf-digits, nmf")]
    assert names[0] == "nmf-digits" and len(names) == len(set(names))
    training = families.FAMILIES["training"]
    assert set(names) == {f.name for f in training if isinstance(f, NMF)}
    for wrong in ("digits-rnn", "", "wine"):  # the last is a test family's
        with pytest.raises(ValueError, match="Received"):
            families.select(wrong)
