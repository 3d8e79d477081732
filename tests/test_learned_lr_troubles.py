"""LearnedLR where a training goes wrong, is too short, becomes longer, or is elsewhere."""

import pickle
import warnings

import keras
import numpy as np
import pytest
from helpers import Probe
from test_learned_lr import Seen

from keras_greedylr import LearnedLR, observation
from keras_greedylr.policy import load_policy


class OneBadBatch(keras.utils.PyDataset):
    """A feature of the sixth batch is not a number the first time it is asked for."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.sound = x, y, False

    def __len__(self):
        return len(self.x) // 4

    def __getitem__(self, i):
        rows = slice(4 * i, 4 * i + 4)
        x = self.x[rows].copy()
        if i == 5 and not self.sound:
            self.sound, x[0] = True, np.nan
        return x, self.y[rows]


def test_a_loss_that_is_not_finite_takes_the_rate_back_once(make_model, regression, capsys):
    """Keras' mean is then NaN until the epoch's end, and tells nothing about later batches."""
    model = make_model()
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))  # skips the step
    model.compile(scaled, loss="mse")
    callback = Seen(verbose=1)
    model.fit(OneBadBatch(*regression), epochs=4, shuffle=False, verbose=0, callbacks=[callback])
    printed = capsys.readouterr().out
    assert printed.count("the guard takes it back") == 1
    assert printed.count("no loss is known") > 3
    broken = observation.NAMES.index("loss_broken")
    assert sum(seen[broken] for seen in callback.observations) == 1.0
    assert len(callback.observations) > 25


def test_a_training_that_becomes_longer_goes_on_deciding(make_model, regression, tmp_path):
    model, state = make_model(), tmp_path / "state.json"

    def fit(epochs, begin=0):
        callback, probe = Seen(state_path=state, actions=[0.0] * observation.DECISIONS), Probe()
        model.fit(
            *regression, batch_size=8, epochs=epochs, initial_epoch=begin, verbose=0,
            callbacks=[callback, probe],
        )  # fmt: skip
        callback.rates = probe.batches
        return callback

    first, second = fit(8), fit(16, begin=8)
    assert len(first.observations) == observation.DECISIONS - 1
    assert len(second.observations) == observation.DECISIONS // 2 - 1
    # It goes on from the rate there was, though the cosine is back in its middle.
    assert max(second.rates) == second.rates[0] == pytest.approx(first.learning_rate, rel=1e-4)


def test_epochs_that_count_anew_make_the_training_longer(make_model, regression, tmp_path):
    model, state = make_model(), tmp_path / "state.json"
    for epochs in (8, 12):
        callback = Seen(state_path=state)
        model.fit(*regression, batch_size=8, epochs=epochs, verbose=0, callbacks=[callback])
    assert callback._total == callback._done == 20 * 26
    assert len(callback.observations) == observation.DECISIONS * 12 // 20 - 1
    assert callback.observations[0][observation.NAMES.index("progress")] < 0.5
    callback = Seen(state_path=state, total_steps=20 * 26)
    state.write_text(state.read_text().replace('"total_steps": null', '"total_steps": 520'))
    with pytest.raises(ValueError, match=r"520 steps are done. Delete it to begin another\.$"):
        model.fit(*regression, batch_size=8, epochs=1, verbose=0, callbacks=[callback])


def test_batches_of_another_size_are_as_far_in_the_training(make_model, regression, tmp_path):
    model, state = make_model(), tmp_path / "state.json"
    for size, begin in ((8, 0), (16, 4)):
        callback = Seen(state_path=state)
        model.fit(
            *regression, batch_size=size, epochs=begin + 4, initial_epoch=begin, verbose=0,
            callbacks=[callback],
        )  # fmt: skip
    assert callback._total == callback._done == 8 * 13


def test_a_metric_that_should_grow_is_refused(regression):
    model = keras.Sequential([keras.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    x, y = regression
    with pytest.raises(ValueError, match=r"get better by falling.*monitor='accuracy'$"):
        model.fit(x, y > 0, epochs=3, verbose=0, callbacks=[LearnedLR(monitor="accuracy")])


def test_a_model_that_is_built_in_its_first_batch_is_watched(regression):
    callbacks = []
    for built in (True, False):
        keras.utils.set_random_seed(0)
        inputs = [keras.Input((4,))] if built else []
        model = keras.Sequential([*inputs, keras.layers.Dense(4), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01), loss="mse")
        callbacks.append(Seen())
        model.fit(*regression, batch_size=8, epochs=8, verbose=0, callbacks=callbacks[-1:])
    moved = observation.NAMES.index("movement")
    for seen in callbacks:
        assert len(seen.observations) == observation.DECISIONS - 1
        assert min(shown[moved] for shown in seen.observations) > -observation.LIMIT


def test_a_training_of_other_weights_goes_on(make_model, regression, tmp_path):
    """What a layer is frozen for is to train it later."""
    model, callbacks = make_model(), []
    for epoch, frozen in enumerate((True, False)):
        model.layers[0].trainable = not frozen
        model.compile(keras.optimizers.SGD(0.01), loss="mse")
        callbacks.append(Seen(total_steps=52, state_path=tmp_path / "state.json"))
        model.fit(
            *regression, batch_size=8, epochs=epoch + 1, initial_epoch=epoch, verbose=0,
            callbacks=callbacks[-1:],
        )  # fmt: skip
    first, second = (callback.observations for callback in callbacks)
    assert len(first) + len(second) == observation.DECISIONS - 1
    assert np.isfinite(second).all()


def test_later_epochs_of_unknown_length_are_later_in_the_training(make_model, regression):
    model, rates = make_model(), []
    for begin in (0, 8):
        callback = LearnedLR(total_steps=260)
        batches = OneBadBatch(*regression)
        batches.sound = True
        callback.set_model(model)
        callback.set_params({"epochs": 10, "steps": None})
        callback.on_train_begin()
        callback.on_epoch_begin(begin)
        rates.append(callback._done)
    assert rates == [0, 208]


def test_numpys_numbers_go_into_the_state_file(make_model, regression, tmp_path):
    callback = LearnedLR(
        decide_every=np.int64(4), total_steps=np.int64(26), min_lr=np.float32(1e-5),
        max_lr=np.float64(1.0), state_path=tmp_path / "state.json",
    )  # fmt: skip
    make_model().fit(*regression, batch_size=8, epochs=1, verbose=0, callbacks=[callback])
    assert (tmp_path / "state.json").exists()


def test_a_short_training_is_warned_of(make_model, regression):
    for epochs, every, expected in (
        (7, None, "has 182 batches, of which at least 4.55 lie between two decisions: below 200 "),
        (8, None, None),
        (8, 10, None),
        (8, 11, "has 208 batches, of which at least 11 lie between two decisions: below 200 "),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make_model().fit(
                *regression, batch_size=8, epochs=epochs, verbose=0,
                callbacks=[LearnedLR(decide_every=every)],
            )  # fmt: skip
        shown = [str(w.message) for w in caught if "LearnedLR" in str(w.message)]
        assert (expected is None and not shown) or expected in shown[0]


def test_a_fit_of_no_epochs_does_nothing(make_model, regression):
    model = make_model()
    before = float(model.optimizer.learning_rate)
    x, y = regression
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model.fit(x, y, epochs=0, verbose=0, callbacks=[LearnedLR(decide_every=1)])
    assert float(model.optimizer.learning_rate) == before


def test_it_goes_to_other_processes():
    policy = load_policy("default")
    copy = pickle.loads(pickle.dumps(LearnedLR(total_steps=50)))
    seen = np.random.default_rng(0).normal(size=(3, len(observation.NAMES))).astype("float32")
    assert copy.total_steps == 50
    np.testing.assert_array_equal(copy._policy(seen), policy(seen))
