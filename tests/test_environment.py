"""The environment a policy learns in is what the callback will do with it."""

import numpy as np
import pytest

pytest.importorskip("tf_agents")
import keras_greedylr_agents  # noqa: F401, I001
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from keras_greedylr import observation
from keras_greedylr_agents import environment as env
from keras_greedylr_agents.problems import base
from keras_greedylr_agents.problems.layers import Dense
from keras_greedylr_agents.problems.networks import Network
from keras_greedylr_agents.problems.nmf import NMF

PROBLEMS = (
    NMF("nmf", "gamma", columns=16, blocks=2, steps=2),
    Network("mlp", "mixture", (Dense(4, "relu"),), "sgd", 6, steps=2, batch=4),
)


@pytest.fixture(scope="module")
def environment():
    return env.ScheduleEnvironment(PROBLEMS, runs=6, seed=0)


@tf.function(autograph=False)
def _episode(environment, action):
    """The last time step of an episode of one action, and its return."""
    environment.reset()

    def step(_, total):
        now = environment.step(action)
        return now, total + now.reward

    first = environment.current_time_step()
    return tf.while_loop(
        lambda now, _: tf.logical_not(tf.reduce_all(now.is_last())),
        step,
        (first, tf.zeros([environment.batch_size])),
    )


def test_episode(environment):
    step, total = _episode(environment, tf.fill([6], 0.1))
    assert (step.step_type == ts.StepType.LAST).numpy().all() and not step.discount.numpy().any()
    seen = step.observation.numpy()
    assert seen.shape == (6, len(observation.NAMES)) and np.isfinite(seen).all()
    assert (seen[:, 0] == 1.0).all()  # progress is over
    again = environment.step(tf.zeros([6]))
    assert again.is_first().numpy().all() and not again.reward.numpy().any()
    assert total.numpy().std() > 0


def test_same_episode_same_runs_and_actions_matter(environment):
    totals = []
    for action, episode in ((0.3, 5), (0.3, 5), (0.3, 6), (-0.3, 5)):
        environment.episode.assign(episode)
        totals.append(_episode(environment, tf.fill([6], action))[1].numpy())
    np.testing.assert_array_equal(totals[0], totals[1])
    assert not np.allclose(totals[0], totals[2]) and not np.allclose(totals[0], totals[3])


def test_return_is_the_fall_of_the_log_validation_loss(environment):
    episode, _ = environment.begin(tf.constant([0, 9]))
    score = episode.score
    for _ in range(observation.DECISIONS - 1):
        episode, _ = environment.play(episode, tf.fill([6], 0.2))
    last = [p.validation_loss(r.state) for p, r in zip(PROBLEMS, episode.runs, strict=True)]
    expected = env._log_fall(tf.concat(last, 0), episode.first_validation, env.FLOOR)
    np.testing.assert_allclose(episode.score, expected, rtol=1e-4, atol=1e-5)
    assert not score.numpy().any()  # the first interval has no validation
    assert (episode.score.numpy() < 0).all()


def test_a_share_of_the_return_is_the_training_losss():
    totals = []
    for share in (0.0, 1.0, 0.25):
        environment = env.ScheduleEnvironment(PROBLEMS, 6, seed=0, training_share=share)
        episode, _ = environment.begin(tf.constant([0, 9]))
        for _ in range(observation.DECISIONS - 1):
            episode, interval = environment._train(
                episode, environment._gather("usual_rate", episode.runs)
            )
            episode, _ = environment._look(episode, interval)
        totals.append(episode.score.numpy())
    expected = np.log(interval.loss / episode.first_loss + env.TRAINING_FLOOR)
    np.testing.assert_allclose(totals[1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(totals[2], 0.75 * totals[0] + 0.25 * totals[1], rtol=1e-4)


def test_runs_that_diverge_are_finite_losses():
    losses = np.float32([1.0, 0.0, 1e30, np.nan, np.inf])
    got = env._log_fall(losses, np.ones(5, np.float32), 0.01).numpy()
    expected = [np.log(1.01), np.log(0.01), env.WORST, env.WORST, env.WORST]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_copies_are_alike_and_what_they_earn_is_compared():
    environment = env.ScheduleEnvironment(PROBLEMS, runs=8, seed=0, copies=2)
    episode, _ = environment.begin(tf.constant([0, 0]))
    for values in (episode.history.initial_rate, episode.shown, episode.first_validation):
        first, second = np.reshape(values, (4, 2)).T
        np.testing.assert_array_equal(first, second)
    assert len(set(episode.first_validation.numpy())) == 4
    rewards = np.random.default_rng(0).normal(size=(8, 5)).astype("f") + np.arange(8)[:, None]
    relative = environment.relative(tf.constant(rewards)).numpy()
    difference = ((rewards[0::2] - rewards[1::2]) / 2).reshape(2, 2, 5)  # [family, pair, T]
    spread = np.sqrt((difference.sum(axis=2, keepdims=True) ** 2).mean(axis=1, keepdims=True))
    difference *= np.maximum(1.0, (spread.mean() / spread) ** env.RAISE)
    np.testing.assert_allclose(relative[0::2], difference.reshape(4, 5), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(relative[1::2], -difference.reshape(4, 5), rtol=1e-4, atol=1e-6)


def test_a_family_whose_returns_differ_little_counts_for_more():
    environment = env.ScheduleEnvironment(PROBLEMS, runs=8, seed=0, copies=2)
    rewards = np.tile(np.float32([[1.0], [-1.0]]), (4, 1))
    rewards[4:] *= 0.02
    relative = environment.relative(tf.constant(rewards)).numpy()
    np.testing.assert_allclose(relative[:4], rewards[:4], rtol=1e-5)
    raised = (0.51 / 0.02) ** env.RAISE
    np.testing.assert_allclose(relative[4:], rewards[4:] * raised, rtol=1e-5)


def test_one_run_through_numpy_sees_and_does_the_same(environment):
    """The callback's way (B = 1, NumPy) beside the environment's (P, TensorFlow)."""
    episode, seen = environment.begin(tf.constant([3, 0]))
    rng = np.random.default_rng(0)
    run = 4  # of the network
    rate = episode.history.initial_rate.numpy()[run : run + 1]
    history = observation.init(np, rate)
    f32 = np.float32
    mlp = PROBLEMS[1]
    runs = base.start(mlp, tf.unstack(tf.random.experimental.stateless_split([3, 0], 4))[1], 3)
    shown = bool(episode.shown[run])
    rates = np.full(3, observation.rate(np, history)[0], f32)
    for _ in range(12):
        runs, report = base.advance(mlp, runs, tf.constant(rates), observation.DECISIONS)
        interval = observation.Interval(*(x.numpy()[1:2] for x in report.interval))
        if not shown:
            interval = interval._replace(validation_loss=np.full(1, np.nan, f32))
        history, observed = observation.observe(np, history, interval)
        # float32 through two libraries, over a run that feeds its own rates back
        np.testing.assert_allclose(observed[0], seen[run], atol=2e-3)
        action = rng.uniform(-1, 1, 6).astype(f32)
        history, rate = observation.apply_action(np, history, action[run : run + 1])
        episode, seen = environment.play(episode, tf.constant(action))
        np.testing.assert_allclose(
            episode.history.multiplier[run], history.multiplier[0], rtol=1e-5
        )
        rates = np.full(3, rate[0], f32)
