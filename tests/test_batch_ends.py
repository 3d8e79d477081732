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


class Does(keras.callbacks.Callback):
    """Does something to the model when each epoch begins or ends."""

    def __init__(self, when, what):
        super().__init__()
        self.when, self.what = when, what

    def on_epoch_begin(self, epoch, logs=None):
        if self.when == "begins":
            self.what(self.model, epoch)

    def on_epoch_end(self, epoch, logs=None):
        if self.when == "ends":
            self.what(self.model, epoch)


def make_anew(model, epoch):
    model.make_train_function(force=True)


def wrap_once(model, epoch):
    if epoch == 0:
        function = model.train_function
        model.train_function = lambda state, iterator: function(state, iterator)


def fit_it_by_itself(model, epoch):
    fit(model, [], samples=16)


def train_on_one_batch(model, epoch):
    model.train_on_batch(*data(8))


@pytest.mark.parametrize("what", [make_anew, wrap_once, fit_it_by_itself, train_on_one_batch])
@pytest.mark.parametrize("when", ["begins", "ends"])
@pytest.mark.parametrize("place", [0, 1])
def test_whatever_others_do_to_the_model_each_batch_is_heard_once(what, when, place):
    spy, probe = Spy(update_every=1, **EAGER), Probe()
    callbacks = [spy, probe]
    callbacks.insert(place, Does(when, what))
    fit(linear(), callbacks, epochs=3)
    assert len(spy.looked) == 15
    rates = rates_of_rule(spy.rule, 0.01, spy.looked)
    np.testing.assert_allclose(probe.batches, rates, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Your input ran out of data", "ignore:`shuffle=True` was passed")
def test_an_epoch_without_batches_passes():
    x, y = data(40)
    spy, batches = Spy(update_every=1), ((x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8))
    linear().fit(batches, steps_per_epoch=5, epochs=2, verbose=0, callbacks=[spy])
    assert len(spy.looked) == 5


def test_a_list_of_callbacks_without_history_will_do():
    spy, model = Spy(update_every=1), linear()
    fit(model, [])
    fit(model, keras.callbacks.CallbackList([spy], model=model, epochs=1, steps=5))
    assert len(spy.looked) == 5


class OwnStep(keras.Model):
    """Returns its state in tuples, and the loss among others of its kind."""

    def train_step(self, state, data):
        logs, state = super().train_step(state, data)
        return {"losses": {"loss": logs["loss"]}}, tuple(tuple(part) for part in state)


def test_a_train_step_of_ones_own_may_nest_its_logs_and_return_tuples():
    inputs = keras.Input((3,))
    model = OwnStep(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    model.compile(keras.optimizers.SGD(0.01), loss="mse")
    spy, probe = Spy(update_every=1, **EAGER), Probe()
    fit(model, [spy, probe], epochs=2)
    assert len(spy.looked) == 10
    rates = rates_of_rule(spy.rule, 0.01, spy.looked)
    np.testing.assert_allclose(probe.batches, rates, rtol=1e-6)


def test_an_error_in_a_look_leaves_the_model_as_it_is():
    model = linear()
    before = model.get_weights()[0]
    with pytest.raises(ValueError, match="found nothing to look at"):
        fit(model, [GreedyLR("accuracy", update_every=1)])
    assert (model.get_weights()[0] != before).any()  # one batch


def test_who_looks_may_evaluate_the_model():
    class Evaluates(Spy):
        def _look(self, *values):
            super()._look(*values)
            losses.append(self.model.evaluate(*data(8), verbose=0))

    losses, spy, model = [], Evaluates(update_every=1, **EAGER), linear()
    fit(model, [spy])
    assert len(losses) == 3  # of a batch after one that was evaluated the loss cannot be told
    assert losses[-1] == pytest.approx(model.evaluate(*data(8), verbose=0))


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
