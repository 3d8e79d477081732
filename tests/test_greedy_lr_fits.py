"""GreedyLR in one training after the other: what is forgotten, what is the same, the horizon."""

import contextlib
import copy
import json

import keras
import numpy as np
import pytest
from helpers import EAGER, NEVER, Probe, Spy, data, fit, linear

from keras_greedylr import GreedyLR


def test_each_fit_starts_afresh():
    model, spy = linear(), Spy(**EAGER)
    first = fit(model, [spy], epochs=2)
    assert first["learning_rate"] == [0.01, 0.02]
    second = fit(model, [spy], epochs=2)
    assert second["learning_rate"] == [0.04, 0.08]
    assert spy.looked == first["loss"] + second["loss"]
    assert spy.state.initial_learning_rate == 0.04
    assert spy.rule.max_lr == 4.0

    other, new = linear(), GreedyLR(**EAGER)
    fit(other, [GreedyLR(**EAGER)], epochs=2)
    fit(other, [new], epochs=2)
    assert new.state == spy.state


def test_half_a_group_is_forgotten_by_the_next_fit():
    spy = Spy(update_every=3, patience=NEVER)
    model = linear()
    fit(model, [spy])
    assert len(spy.looked) == 1  # of 5 batches
    fit(model, [spy])
    assert len(spy.looked) == 2


def test_initial_epoch():
    history = fit(linear(), [GreedyLR(**EAGER)], initial_epoch=3, epochs=6)
    assert history["learning_rate"] == [0.01, 0.02, 0.04]


def test_one_callback_drives_one_model():
    greedy = GreedyLR()
    first, second = linear(), linear()
    fit(first, [greedy])
    with pytest.raises(ValueError) as error:
        fit(second, [greedy])
    assert str(error.value) == (
        f"This GreedyLR already drives model '{first.name}' and cannot drive another, "
        f"'{second.name}', as well: its state belongs to one training run. Make a callback for "
        "each model."
    )


@pytest.mark.parametrize("update_every", ["epoch", 2])
def test_the_same_seed_gives_the_same_path(update_every):
    def path():
        keras.utils.set_random_seed(5)
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, activation="relu"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(1),
            ]
        )
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
        probe = Probe()
        greedy = GreedyLR(factor=0.7, patience=0, update_every=update_every)
        model.fit(*data(), batch_size=8, epochs=4, verbose=0, callbacks=[greedy, probe])
        return probe.batches

    first = path()
    assert first == path()
    assert len(set(first)) > 2


def test_a_config_makes_the_same_callback():
    greedy = GreedyLR(
        factor=np.float32(0.5),
        patience=np.int64(1),
        window=2,
        warmup=1,
        max_lr=np.float64(0.3),
        update_every=np.int64(2),
    )
    config = json.loads(json.dumps(greedy.get_config(), allow_nan=False))
    again = GreedyLR.from_config(config)
    assert again.get_config() == greedy.get_config() == config
    histories = [fit(linear(), [callback], epochs=4) for callback in (greedy, again)]
    assert histories[0] == histories[1]
    assert len(set(histories[0]["learning_rate"])) > 2


# The horizon.


@pytest.mark.parametrize(("update_every", "horizon"), [("epoch", 5), (4, 63)])
def test_horizon_of_the_fit(make_model, regression, update_every, horizon):
    callback = GreedyLR(horizon="fit", update_every=update_every, min_lr=1e-4)
    make_model().fit(*regression, batch_size=4, epochs=5, verbose=0, callbacks=[callback])
    assert callback.rule.horizon == callback.state.seen == horizon
    assert callback.learning_rate < 3e-4


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch has one step an execution")
@pytest.mark.parametrize(
    ("together", "update_every"), [(4, 1), (4, 4), (4, 6), (3, 5), (13, 2), (32, 1), (32, 40)]
)
def test_horizon_counts_the_reports_of_several_steps(
    make_model, regression, together, update_every
):
    callback = GreedyLR(horizon="fit", update_every=update_every, min_lr=1e-4)
    make_model(steps_per_execution=together).fit(
        *regression, batch_size=16, epochs=6, verbose=0, callbacks=[callback]
    )
    assert callback.rule.horizon == callback.state.seen > 0


def test_horizon_of_a_list_that_was_not_told_the_epochs():
    model, callback = linear(), GreedyLR(horizon="fit")
    callbacks = keras.callbacks.CallbackList([callback], model=model)
    with pytest.raises(ValueError, match="must know the number of epochs, and it is unknown here"):
        model.fit(np.ones((8, 3)), np.ones((8, 1)), epochs=5, callbacks=callbacks, verbose=0)


def test_horizon_of_a_fit_of_unknown_length():
    callback = GreedyLR(horizon="fit", update_every=4)
    callback.set_model(linear())
    callback.set_params({"epochs": 5, "steps": None})
    with pytest.raises(ValueError, match=r"must know the number of batches.*Pass the number of"):
        callback._start(0.01)


def test_horizon_leaves_out_epochs_before_the_first(make_model, regression, capsys):
    callback = GreedyLR(horizon="fit", min_lr=1e-4, verbose=1)
    make_model().fit(*regression, epochs=9, initial_epoch=4, verbose=0, callbacks=[callback])
    assert callback.rule.horizon == callback.state.seen == 5
    assert callback.learning_rate == 1e-4
    assert "the upper bound falls towards the end of the horizon" in capsys.readouterr().out


def test_a_second_fit_has_a_horizon_of_its_own(make_model, regression, tmp_path):
    class Ceilings(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ceilings.append(callback.state.ceiling)

    model, ceilings = make_model(), []
    for _ in range(2):
        callback = GreedyLR(horizon="fit", min_lr=1e-4, state_path=tmp_path / "state.json")
        model.fit(*regression, epochs=10, verbose=0, callbacks=[callback, Ceilings()])
    assert callback.rule.horizon == callback.state.seen == 20
    assert callback.learning_rate == 1e-4
    falling = [ceiling is not None for ceiling in ceilings]
    assert falling == [False] * 7 + [True] * 3 + [False] * 4 + [True] * 6


@pytest.mark.parametrize("broken_off", [False, True])
def test_a_fit_that_goes_further_has_a_longer_horizon(make_model, regression, tmp_path, broken_off):
    def train(epochs, begin, *others):
        callback = GreedyLR(horizon="fit", min_lr=1e-4, state_path=tmp_path / "state.json")
        model.fit(
            *regression, epochs=epochs, initial_epoch=begin, verbose=0,
            callbacks=[callback, *others],
        )  # fmt: skip
        return callback

    def stop(epoch, logs):
        if broken_off and epoch == 5:
            raise KeyboardInterrupt

    model = make_model()
    with contextlib.suppress(KeyboardInterrupt):
        train(6, 0, keras.callbacks.LambdaCallback(on_epoch_begin=stop))
    callback = train(12, 5 if broken_off else 6)
    assert callback.rule.horizon == callback.state.seen == 12


class WithHooks(Spy):
    """Has hooks of its own."""

    heard = ()

    def on_train_batch_begin(self, batch, logs=None):
        self.heard += (f"begin {batch}",)

    def on_train_batch_end(self, batch, logs=None):
        self.heard += (f"end {batch}",)


@pytest.mark.parametrize("copied", [None, copy.copy, copy.deepcopy])
def test_hooks_of_a_subclass_are_called(copied):
    greedy = WithHooks(update_every=1, **EAGER)
    used = copied(greedy) if copied else greedy
    fit(linear(), [used], samples=16)
    assert used.heard == ("begin 0", "end 0", "begin 1", "end 1")
    assert len(used.looked) == 2
    assert bool(greedy.heard) is (copied is None)
