"""Keras' calls at batches' ends: made where somebody listens, left out elsewhere."""

import contextlib
import io
import re
import types

import keras
import pytest
from helpers import Spy, data, fit, linear

from keras_greedylr import GreedyLR
from keras_greedylr.callbacks import batch_hooks

ALL = list(range(6))  # batches
SECONDS = [0.0, 0.01, 0.04, 0.06, 0.07, 0.2]  # when each ends
DRAWN = [0, 3, 5]  # no two within 0.05 seconds


class Hears(keras.callbacks.Callback):
    """Keeps which batches it was told of."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def hear(self, batch, logs=None):
        self.heard.append(batch)


class AtTrainBatches(Hears):
    on_train_batch_end = Hears.hear


class AtBatches(Hears):
    on_batch_end = Hears.hear


class InAThread(AtTrainBatches):
    async_safe = True


class OfItsOwn(Hears):
    def __init__(self):
        super().__init__()
        self.on_train_batch_end = self.hear


class AProgressBar(keras.callbacks.ProgbarLogger):
    """A subclass, of which Keras' class does not tell how often it wants to be called."""


LISTENERS = [AtTrainBatches, AtBatches, InAThread, OfItsOwn, AProgressBar]


def listed(callbacks, steps=6, verbose=1):
    """A list of callbacks in a training."""
    container = keras.callbacks.CallbackList(
        callbacks, add_history=True, model=linear(), steps=steps, epochs=1, verbose=verbose
    )
    container.on_train_begin()
    container.on_epoch_begin(0)
    return container


def calls_of(callbacks, monkeypatch, steps=6, **arguments):
    """The batches of whose ends Keras tells its callbacks."""
    called = []
    original = keras.callbacks.CallbackList.on_train_batch_end
    monkeypatch.setattr(
        keras.callbacks.CallbackList,
        "on_train_batch_end",
        lambda self, batch, logs=None: (called.append(batch), original(self, batch, logs)),
    )
    now = iter(SECONDS)
    clock = types.SimpleNamespace(monotonic=lambda: next(now))
    monkeypatch.setattr(batch_hooks, "time", clock)
    container = listed(callbacks, steps=steps, **arguments)
    batch_hooks.leave_out_calls(container)
    for batch in ALL:
        container.on_train_batch_end(batch, {"loss": 1.0})
    container.on_epoch_end(0, {"loss": 1.0})  # waits for threads
    return called


@pytest.mark.parametrize(
    ("listeners", "steps", "calls"),
    [
        ([], 6, [0]),
        ([lambda: keras.callbacks.ReduceLROnPlateau(monitor="loss")], 6, [0]),
        ([keras.callbacks.ProgbarLogger], 6, DRAWN),
        ([keras.callbacks.ProgbarLogger], None, ALL),  # it counts them
        ([keras.callbacks.ProgbarLogger, AtBatches], 6, ALL),
        *(([listener], 6, ALL) for listener in LISTENERS),
    ],
)
@pytest.mark.parametrize("verbose", [1, 2])
def test_calls_are_made_where_somebody_listens(listeners, steps, calls, verbose, monkeypatch):
    callbacks = [listener() for listener in listeners]
    with contextlib.redirect_stdout(io.StringIO()):
        assert calls_of(callbacks, monkeypatch, steps, verbose=verbose) == calls
    # Threads may be in each other's way, but none is left out.
    assert all(sorted(c.heard) == ALL for c in callbacks if isinstance(c, Hears))


def test_calls_are_put_back():
    listener = AtBatches()
    container = listed([])
    batch_hooks.leave_out_calls(container)
    container.on_train_batch_end(0)
    container.callbacks.append(listener)
    container.on_train_batch_end(1)
    assert listener.heard == []
    batch_hooks.put_calls_back(container)
    container.on_train_batch_end(2)
    container.on_epoch_end(0)
    assert listener.heard == [2]


class ListOfTheirOwn(keras.callbacks.CallbackList):
    """Hears of batches itself."""

    def on_train_batch_end(self, batch, logs=None):
        self.last = batch


def test_a_list_of_the_users_own_keeps_its_calls():
    of_a_class, of_an_instance, hearing = ListOfTheirOwn(), listed([]), Hears()
    of_an_instance.on_train_batch_end = hearing.hear
    for container in (of_a_class, of_an_instance):
        batch_hooks.leave_out_calls(container)
        container.on_train_batch_end(0)
        batch_hooks.put_calls_back(container)
        container.on_train_batch_end(1)
    assert of_a_class.last == 1
    assert hearing.heard == [0, 1]


def test_the_calling_list():
    found = []

    class Finds(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            found.append(batch_hooks.calling_list())

    container = keras.callbacks.CallbackList([Finds()])
    container.on_epoch_begin(0)
    Finds().on_epoch_begin(0)
    assert found == [container, None]


@pytest.mark.parametrize("beside", [None, keras.callbacks.ProgbarLogger, AtBatches])
def test_who_can_do_without_being_called(beside):
    own, heard = AtBatches(), []
    container = listed([own, *([beside()] if beside else [])], verbose=2)
    left_out = batch_hooks.leave_out_calls(
        container, own, lambda batch, logs: heard.append((batch, logs))
    )
    for batch in ALL[:3]:
        container.on_train_batch_end(batch, {"loss": "as it is"})
    assert left_out == (beside is not AtBatches)
    assert heard == [(batch, {"loss": "as it is"}) for batch in ALL[:3]] * left_out
    assert own.heard == ([0] if left_out else ALL[:3])


class Lists(keras.callbacks.Callback):
    """Keeps the list it is in."""

    def on_train_begin(self, logs=None):
        self.list = batch_hooks.calling_list()


@pytest.mark.parametrize("listener", LISTENERS)
def test_others_hear_each_batch_beside_greedy_lr(listener):
    other, lists = listener(), Lists()
    with contextlib.redirect_stdout(io.StringIO()):
        fit(linear(), [GreedyLR(update_every=1), other, lists], epochs=2)
    if isinstance(other, Hears):
        assert sorted(other.heard) == sorted([*range(5)] * 2)
    else:
        assert other.seen == 5
    assert batch_hooks.CALL not in vars(lists.list)


class WithAHook(Spy):
    """Has a hook of its own beside the inherited one."""

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.hooked = [*getattr(self, "hooked", []), batch]


def test_a_subclass_with_a_hook_looks_at_the_same_and_is_called():
    plain, hooked = Spy(update_every=1), WithAHook(update_every=1)
    for spy in (plain, hooked):
        fit(linear(), [spy], epochs=2)
    assert hooked.hooked == [*range(5)] * 2
    assert len(plain.looked) == 10
    assert hooked.looked == pytest.approx(plain.looked, rel=1e-5)


compiled = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="there GreedyLR has Keras' hook"
)


@compiled
def test_beside_greedy_lr_nobody_is_called_where_nobody_listens(monkeypatch):
    called = []
    monkeypatch.setattr(
        keras.callbacks.CallbackList,
        "on_train_batch_end",
        lambda self, batch, logs=None: called.append(batch),
    )
    fit(linear(), [], epochs=2)
    assert called == [*range(5)] * 2
    called.clear()
    history = fit(linear(), [GreedyLR(update_every=1, patience=100)], epochs=2)
    assert called == [0, 0]
    monkeypatch.undo()
    assert history["loss"] == fit(linear(), [], epochs=2)["loss"]


@compiled
def test_losses_are_kept_as_training_returns_them():
    kept = []

    class Keeps(GreedyLR):
        def _look_at_batches(self, reports):
            kept.extend(logs["loss"] for _, logs in reports)
            return super()._look_at_batches(reports)

    fit(linear(), [Keeps(update_every=1, patience=100)])
    assert len(kept) == 5
    assert not any(isinstance(loss, float) for loss in kept)


class Batches(keras.metrics.Metric):
    """Counts them. Its result is its variable, which goes on changing."""

    def __init__(self, name="batches"):
        super().__init__(name=name)
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign(self.count + 1)

    def result(self):
        # Keras has no other way on JAX, and on TensorFlow not this one.
        return self.count.value if keras.backend.backend() == "jax" else self.count


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_metric_whose_result_is_a_variable(run_eagerly):
    spy = Spy(monitor="batches", mode="max", update_every=1, patience=100)
    fit(linear(metrics=[Batches()], run_eagerly=run_eagerly), [spy])
    assert spy.looked == [1, 2, 3, 4, 5]


def test_the_progress_bar_ends_as_it_does_alone():
    def shown(callbacks):
        x, y = data()
        with contextlib.redirect_stdout(io.StringIO()) as out:
            linear().fit(x, y, batch_size=8, shuffle=False, verbose=1, callbacks=callbacks)
        last = re.sub(r"\x1b\[\d+m|\b", "", out.getvalue()).split("\r")[-1]
        return re.sub(r"\d+[mu]?s(/step)?", "time", last).split()

    alone = shown([])
    assert "5/5" in alone and "loss:" in alone
    beside = shown([GreedyLR(update_every=1, patience=100)])
    assert beside[: len(alone)] == alone
    assert "learning_rate:" in beside[len(alone) :]
