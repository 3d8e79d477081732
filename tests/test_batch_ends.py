"""What GreedyLR hears of batches on JAX, where it listens to the model's train function."""

import itertools

import keras
import numpy as np
import pytest
from helpers import EAGER, Probe, Spy, data, fit, linear, rate_of, rates_of_rule

from keras_greedylr import GreedyLR

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="elsewhere it is Keras' hook"
)


class Breaks(keras.callbacks.Callback):
    """Breaks a `fit` off in its second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def broken_off():
    """A model whose `fit` nobody could clean up after, and the callback that was in it."""
    spy, model = Spy(update_every=1, **EAGER), linear()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [spy, Breaks()], epochs=2)
    assert len(spy.looked) == 5
    return spy, model


def test_no_batch_waits_for_its_logs():
    looks = []

    class Keeps(GreedyLR):
        def _look_at_batches(self, reports):
            looks.append([logs["loss"] for _, logs in reports])
            return super()._look_at_batches(reports)

    greedy = Keeps(update_every=1, patience=100)
    assert "on_train_batch_end" not in vars(greedy)
    fit(linear(), [greedy])
    # The first is looked at alone, for its size, and the last, which may be smaller.
    assert [len(losses) for losses in looks] == [1, 3, 1]
    assert not any(isinstance(loss, float) for losses in looks for loss in losses)


def test_the_train_function_is_put_back():
    model = linear()
    model.make_train_function()
    function = model.train_function
    fit(model, [GreedyLR(update_every=1)], epochs=2)
    assert model.train_function is function


def use_in_fit(model):
    fit(model, [], epochs=2)


def use_on_batches(model):
    for _ in range(3):
        model.train_on_batch(*data(8))


@pytest.mark.parametrize("use", [use_in_fit, use_on_batches])
def test_after_a_fit_that_was_broken_off_it_hears_nothing(use):
    spy, model = broken_off()
    rate = rate_of(model)
    use(model)
    assert len(spy.looked) == 5
    assert rate_of(model) == rate


@pytest.mark.parametrize("again", [False, True], ids=["another", "the same"])
def test_after_a_fit_that_was_broken_off_another_is_heard(again):
    spy, model = broken_off()
    following, probe = spy if again else Spy(update_every=1, **EAGER), Probe()
    before, rate = len(following.looked), rate_of(model)
    fit(model, [following, probe], epochs=2)
    looked = following.looked[before:]
    assert len(looked) == 10
    np.testing.assert_allclose(probe.batches, rates_of_rule(following.rule, rate, looked))
    assert len(spy.looked) == 5 + 10 * again


def test_a_train_function_that_is_made_anew_is_heard():
    class MakesAnew(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.make_train_function(force=True)

    spy = Spy(update_every=1, **EAGER)
    fit(linear(), [spy, MakesAnew()], epochs=3)
    assert len(spy.looked) == 15


def test_who_looks_may_ask_for_the_model():
    weights = []

    class Asks(Spy):
        def _look(self, *values):
            weights.append(self.model.get_weights()[0])
            super()._look(*values)

    spies, models = (Spy(update_every=1, **EAGER), Asks(update_every=1, **EAGER)), []
    for spy in spies:
        models.append(linear())
        fit(models[-1], [spy], epochs=2)
    assert spies[0].looked == spies[1].looked
    np.testing.assert_array_equal(models[0].get_weights()[0], models[1].get_weights()[0])
    assert len(weights) == 10
    np.testing.assert_array_equal(weights[-1], models[1].get_weights()[0])
    assert all((before != after).any() for before, after in itertools.pairwise(weights))


def test_a_loop_that_does_not_call_the_train_function_is_refused():
    model = linear()
    callbacks = keras.callbacks.CallbackList([GreedyLR(update_every=1)], model=model, epochs=1)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    logs = model.train_on_batch(*data(8), return_dict=True)
    callbacks.on_train_batch_end(0, logs)
    with pytest.raises(RuntimeError) as error:
        callbacks.on_epoch_end(0, logs)
    assert str(error.value) == (
        "GreedyLR looks at batches and heard of none in this epoch. On the JAX backend it listens "
        "to `model.train_function`, which a training loop of your own has to call as Keras' `fit` "
        "does."
    )
