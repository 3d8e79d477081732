"""LearnedLR under `model.fit`, and that it sees and does what the environment did."""

import json
import re
import warnings

import keras
import numpy as np
import pytest
from helpers import Probe, fit, linear

from keras_greedylr import LearnedLR, ScheduleLogger, observation
from keras_greedylr.callbacks import loss_guard
from keras_greedylr.callbacks.weight_sample import SIZE, WeightSample
from keras_greedylr.policy import load_policy

TORCH = keras.backend.backend() == "torch"


class Seen(LearnedLR):
    """Keeps what the policy was shown; answers with `actions` where they are given."""

    def __init__(self, *args, actions=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.observations, self.actions, self._real = [], actions, self._policy
        self._policy = _Recorder(self)


class _Recorder:
    decisions = observation.DECISIONS

    def __init__(self, callback):
        self.callback = callback

    def __call__(self, seen):
        callback = self.callback
        callback.observations.append(seen[0])
        if callback.actions is None:
            return callback._real(seen)
        return np.array([callback.actions[len(callback.observations) - 1]], np.float32)


def test_environment_and_callback_see_and_do_the_same(monkeypatch):
    """The losses, validation losses and weights of a real inner run, through both."""
    pytest.importorskip("tf_agents")
    import tensorflow as tf

    from keras_greedylr_agents import environment as environments
    from keras_greedylr_agents.problems.layers import Dense
    from keras_greedylr_agents.problems.networks import Network

    reports, weights = [], []
    advance = environments.advance

    def recording(problem, runs, rates, intervals):
        if not weights:
            weights.append(problem.weights(runs.state).numpy())
        runs, report = advance(problem, runs, rates, intervals)
        reports.append((rates.numpy(), tf.nest.map_structure(lambda t: t.numpy(), report)))
        weights.append(problem.weights(runs.state).numpy())
        return runs, report

    monkeypatch.setattr(loss_guard, "JUMP", float("inf"))  # the guard is the callback's own
    problem = Network("small", "mixture", (Dense(6, "tanh"),), "sgd", 6, validate_every=3)
    environment = environments.ScheduleEnvironment((problem,), runs=4, seed=0)
    monkeypatch.setattr(environments, "advance", recording)
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (observation.DECISIONS, 4)).astype("f")
    episode, seen = environment.begin(tf.constant([0, 0]))
    observations = [seen.numpy()]
    for action in actions[: observation.DECISIONS - 1]:
        episode, seen = environment.play(episode, tf.constant(action))
        observations.append(seen.numpy())

    for run in range(4):
        size = weights[0].shape[1]
        model = keras.Sequential([keras.Input((size,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(keras.optimizers.SGD(float(episode.history.initial_rate[run])), loss="mse")
        callback = Seen(actions=actions[:, run])
        callback.set_model(model)
        callback.set_params({"epochs": observation.DECISIONS, "steps": problem.steps})
        model.set_weights([weights[0][run][:, None]])
        callback.on_train_begin()
        for epoch, (rates, report) in enumerate(reports):
            callback.on_epoch_begin(epoch)
            np.testing.assert_allclose(callback.learning_rate, rates[run], rtol=1e-5)
            model.set_weights([weights[epoch + 1][run][:, None]])
            for batch, loss in enumerate(report.losses[:, run]):
                callback.on_train_batch_end(batch, {"loss": float(loss)})
            validation = report.interval.validation_loss[run]
            if np.isfinite(validation) and episode.shown[run]:
                callback.on_test_end({"loss": float(validation)})
            callback.on_epoch_end(epoch, {})
        np.testing.assert_allclose(
            callback.observations,
            [seen[run] for seen in observations[: len(callback.observations)]],
            rtol=1e-4,
            atol=1e-4,
        )
        assert len(callback.observations) == observation.DECISIONS - 1


@pytest.mark.parametrize("batch_size", [8, 64])
def test_decisions_fall_evenly_over_the_training(make_model, regression, batch_size):
    callback, probe = Seen(), Probe()
    steps, epochs = -(-203 // batch_size), 6
    make_model().fit(
        *regression, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[callback, probe]
    )
    progress = (np.array(callback.observations)[:, 0] + 1) / 2
    expected = np.arange(1, observation.DECISIONS) / observation.DECISIONS
    if steps * epochs < observation.DECISIONS:  # a decision after each batch is all there can be
        expected = np.arange(1, steps * epochs) / (steps * epochs)
    np.testing.assert_allclose(progress, expected, atol=1 / (steps * epochs))
    assert len(set(probe.batches)) == len(expected) + 1
    assert all(np.isfinite(observed).all() for observed in callback.observations)


def test_decide_every_and_total_steps(make_model, regression):
    callback = Seen(decide_every=5, total_steps=100)
    make_model().fit(*regression, batch_size=8, epochs=2, verbose=0, callbacks=[callback])
    progress = (np.array(callback.observations)[:, 0] + 1) / 2
    np.testing.assert_allclose(progress, np.arange(5, 52, 5) / 100, atol=1e-6)


def test_validation_is_seen(make_model, regression):
    place = observation.NAMES.index("validated")
    for validation, shown in ((regression, 1.0), (None, 0.0)):
        callback = Seen()
        make_model().fit(
            *regression, batch_size=8, epochs=4, verbose=0, validation_data=validation,
            callbacks=[callback],
        )  # fmt: skip
        assert callback.observations[-1][place] == shown


@pytest.mark.parametrize("decide_every", [None, 8])
def test_saved_model_and_weights_drive_equally(make_model, regression, decide_every):
    pytest.importorskip("tensorflow")
    policies = [load_policy("default", runtime=runtime) for runtime in ("tensorflow", "numpy")]
    seen = []

    def path(act):
        callback, probe = LearnedLR(decide_every=decide_every), Probe()
        callback._policy = policies[0]._replace(act=act)
        make_model().fit(
            *regression, batch_size=8, epochs=3, shuffle=False, verbose=0,
            callbacks=[callback, probe],
        )  # fmt: skip
        return probe.batches

    def keep(observed):
        seen.append(observed)
        return policies[0].act(observed)

    driven = path(keep)
    np.testing.assert_allclose(*(policy(np.concatenate(seen)) for policy in policies), atol=1e-6)
    # Where both are shown the same, all of their rates are; alone, what they round otherwise is
    # fed back, decision after decision.
    same = iter(seen)
    np.testing.assert_allclose(path(lambda _: policies[1].act(next(same))), driven, rtol=1e-5)
    assert next(same, None) is None
    few_decisions = decide_every is not None
    rtol = 1e-4 if few_decisions else 1e-3
    np.testing.assert_allclose(path(policies[1].act), driven, rtol=rtol)


def test_a_resumed_fit_follows_the_same_path(make_model, regression, tmp_path):
    def fit(model, epochs, state, begin=0):
        probe = Probe()
        model.fit(
            *regression, batch_size=8, epochs=epochs, initial_epoch=begin, shuffle=False, verbose=0,
            validation_data=regression,
            callbacks=[LearnedLR(total_steps=26 * 6, state_path=state), probe],
        )  # fmt: skip
        return probe.batches

    whole = fit(make_model(), 6, tmp_path / "whole.json")
    model = make_model()
    first = fit(model, 3, tmp_path / "state.json")
    json.loads((tmp_path / "state.json").read_text(), parse_constant=pytest.fail)
    rest = fit(model, 6, tmp_path / "state.json", begin=3)
    np.testing.assert_allclose(first + rest, whole, rtol=1e-4)


def test_two_fits_begin_afresh(make_model, regression):
    callback, paths = LearnedLR(), []
    model = make_model()
    start = model.get_weights()
    for _ in range(2):
        model.set_weights(start)
        model.optimizer.learning_rate = 0.01
        probe = Probe()
        model.fit(
            *regression, batch_size=8, epochs=2, shuffle=False, verbose=0,
            callbacks=[callback, probe],
        )  # fmt: skip
        paths.append(probe.batches)
    np.testing.assert_allclose(*paths, rtol=1e-4)


@pytest.mark.skipif(TORCH, reason="PyTorch has one step an execution")
def test_steps_per_execution(make_model, regression):
    callback = Seen()
    make_model(steps_per_execution=4).fit(
        *regression, batch_size=4, epochs=4, verbose=0, callbacks=[callback]
    )
    progress = (np.array(callback.observations)[:, 0] + 1) / 2
    assert (np.diff(progress) > 0).all() and len(progress) >= 35


def test_mixed_float16(regression):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    )
    for layer in model.layers:
        layer.dtype_policy = keras.DTypePolicy("mixed_float16")
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01)), loss="mse")
    callback, probe = Seen(), Probe()
    model.fit(*regression, batch_size=8, epochs=3, verbose=0, callbacks=[callback, probe])
    assert len(callback.observations) == observation.DECISIONS - 1
    assert len(set(probe.batches)) > 30


@pytest.mark.parametrize(
    ("factor", "what"), [(1e30, "is not finite"), (1e3, "jumped far above its average")]
)
def test_the_guard_takes_the_rate_back(make_model, regression, capsys, factor, what):
    """From one batch on the targets are so large that the loss jumps, or overflows."""
    x, y = regression
    y = y.copy()
    y[160:] *= factor
    make_model().fit(
        x, y, batch_size=4, epochs=1, shuffle=False, verbose=0, callbacks=[LearnedLR(verbose=1)]
    )
    printed = capsys.readouterr().out
    assert f"the guard takes it back, the loss {what}" in printed
    assert "the policy's action is" in printed


def test_the_guard_trips_at_the_loss_that_jumps():
    guard = loss_guard.LossGuard()
    tripped = [guard.trips(loss) for loss in [1.0] * 30 + [100.0] * 5]
    assert tripped == [False] * 30 + [True] + [False] * 4  # once in an interval


@pytest.mark.parametrize("after", [False, True])
def test_averages_in_the_weights_place_are_not_looked_at(after):
    """Between epochs, when decisions are due that wait for the validation."""

    def rates(optimizer, *others):
        probe, learned = Probe(), LearnedLR()
        callbacks = [probe, *others[:after], learned, *others[after:]]
        fit(linear(optimizer=optimizer), callbacks, samples=160, epochs=10)
        return probe.batches

    averaging = keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.9)
    found = rates(averaging, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    np.testing.assert_allclose(found, rates(keras.optimizers.SGD(0.01)), rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_losses_that_are_not_positive_are_warned_of_once(offset):
    model = linear(loss=lambda y, y_pred: keras.ops.mean((y - y_pred) ** 2) - offset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, [LearnedLR()], samples=160, epochs=10)
    told = [str(warning.message) for warning in caught if "above zero" in str(warning.message)]
    assert len(told) == (offset > 0)
    assert all(re.search(r"Received: loss=-\d", message) for message in told)


def test_bounds_hold(make_model, regression):
    probe = Probe()
    actions = np.resize([1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0], 40)
    callback = Seen(actions=actions, min_lr=1e-3, max_lr=2e-3)
    make_model().fit(*regression, batch_size=8, epochs=3, verbose=0, callbacks=[callback, probe])
    assert min(probe.batches) >= 1e-3 * (1 - 1e-6) and max(probe.batches) <= 2e-3 * (1 + 1e-6)
    assert len(set(probe.batches)) > 5


@pytest.mark.parametrize(
    ("rate", "low", "high", "expected"),
    [(1e-6, 0.1, None, 0.1), (1.0, None, 1e-7, 1e-7), (0.128, None, None, 0.001)],
)
def test_a_bound_beyond_the_other_ones_default_holds(rate, low, high, expected):
    given = (None if bound is None else np.float32([bound]) for bound in (low, high))
    history = observation.init(np, np.float32([rate]), *given)
    assert observation.rate(np, history) == pytest.approx(expected)
    assert history.min_rate <= history.max_rate


def test_the_logger_shows_the_action(make_model, regression, tmp_path):
    from test_schedule_logger import read

    callback = Seen()
    make_model().fit(
        *regression, batch_size=8, epochs=3, verbose=0,
        callbacks=[callback, ScheduleLogger(tmp_path)],
    )  # fmt: skip
    scalars, texts = read(tmp_path)
    assert len(scalars["schedule/action"]) >= len(callback.observations)
    assert "the policy's action is" in "".join(texts["schedule/changes"].values())


def test_config_round_trip():
    config = LearnedLR(decide_every=3, total_steps=50, min_lr=1e-5, verbose=1).get_config()
    assert LearnedLR.from_config(json.loads(json.dumps(config))).get_config() == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"monitor": "val_loss"}, "`monitor` must name a training metric.*Received.*val_loss"),
        ({"decide_every": 0}, "`decide_every` must be an integer >= 1. Received: decide_every=0"),
        ({"total_steps": 1.5}, "`total_steps` must be an integer >= 1. Received: total_steps=1.5"),
        ({"min_lr": 0.0}, "`min_lr` must be a finite number > 0. Received: min_lr=0.0"),
        ({"min_lr": 1.0, "max_lr": 0.1}, "`max_lr` must not be below `min_lr`"),
        ({"policy": "nowhere"}, "Not a policy: there is no nowhere"),
        ({"policy": 3}, "`policy` must be a path or 'default'. Received: policy=3"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LearnedLR(**arguments)


def test_errors_in_fit(make_model, regression):
    with pytest.raises(ValueError, match=r"monitors `nope`, which is not among.*\['loss'\]"):
        make_model().fit(*regression, verbose=0, callbacks=[LearnedLR(monitor="nope")])

    def batches():
        while True:
            yield regression

    with pytest.raises(ValueError, match=r"`learning_rate` must be a finite number > 0.*=0\.0"):
        make_model(0.0).fit(*regression, verbose=0, callbacks=[LearnedLR()])

    callback = LearnedLR()
    callback.set_model(make_model())
    callback.set_params({"epochs": 2, "steps": None})
    with pytest.raises(ValueError, match=r"must know how long.*steps=None, epochs=2.*total_steps="):
        callback.on_train_begin()
    callback = LearnedLR(decide_every=1000)
    with pytest.raises(ValueError, match=r"`decide_every` must be below.*=1000 in a training of "):
        make_model().fit(*regression, verbose=0, callbacks=[callback])


def test_weight_sample_is_fixed_and_bounded():
    model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(40), keras.layers.Dense(3)])
    sample = WeightSample(model)
    before = sample(model)
    assert before.shape == (SIZE,)
    np.testing.assert_array_equal(before, WeightSample(model)(model))
    weights = [w * 1.5 for w in model.get_weights()]
    model.set_weights(weights)
    np.testing.assert_allclose(sample(model), before * 1.5, rtol=1e-6)
    everything = np.concatenate([np.ravel(w) for w in weights])
    norm = np.sqrt(np.mean(sample(model) ** 2)) / np.sqrt(np.mean(everything**2))
    assert abs(norm - 1) < 0.05
