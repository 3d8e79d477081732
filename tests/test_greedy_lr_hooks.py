"""GreedyLR at batches' ends, beside others that listen there and others that do not."""

import contextlib
import copy
import io
import re

import keras
import numpy as np
import pytest
from helpers import Spy, data, fit, linear
from listeners import LISTENERS, AtTrainBatches, Hears

from keras_greedylr import GreedyLR
from keras_greedylr.callbacks import batch_hooks


class Lists(keras.callbacks.Callback):
    """Keeps the list it is in."""

    def on_train_begin(self, logs=None):
        self.list = batch_hooks.list_of(self)


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


def count_calls(monkeypatch):
    """A list of the batches at whose ends Keras' list of callbacks was called."""
    called = []
    monkeypatch.setattr(
        keras.callbacks.CallbackList,
        "on_train_batch_end",
        lambda self, batch, logs=None: called.append(batch),
    )
    return called


def test_beside_greedy_lr_nobody_is_called_where_nobody_listens(monkeypatch):
    called = count_calls(monkeypatch)
    fit(linear(), [], epochs=2)
    assert called == [*range(5)] * 2
    called.clear()
    history = fit(linear(), [GreedyLR(update_every=1, patience=100)], epochs=2)
    assert called == [0, 0]
    monkeypatch.undo()
    assert history["loss"] == fit(linear(), [], epochs=2)["loss"]


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="its tensors may change until they are looked at"
)
def test_losses_are_kept_as_training_returns_them():
    kept = []

    class Keeps(GreedyLR):
        def _look_at_batches(self, reports):
            kept.extend(logs["loss"] for _, logs in reports)
            return super()._look_at_batches(reports)

    fit(linear(), [Keeps(update_every=1, patience=100)])
    assert len(kept) == 5
    assert not any(isinstance(loss, float) for loss in kept)


def wrap_hook(greedy, calls):
    """Gives a GreedyLR a hook at batches' ends, around the one it has."""
    inherited = greedy.on_train_batch_end

    def hook(batch, logs=None):
        inherited(batch, logs)
        calls.append(batch)

    greedy.on_train_batch_end = hook


def test_a_hook_that_somebody_puts_on_greedy_lr_is_called():
    plain, wrapped, calls = Spy(update_every=1), Spy(update_every=1), []
    wrap_hook(wrapped, calls)
    for spy in (plain, wrapped):
        fit(linear(), [spy], epochs=2)
    assert calls == [*range(5)] * 2
    assert wrapped.looked == pytest.approx(plain.looked, rel=1e-5)


def test_copies_are_called_no_oftener(monkeypatch):
    called = count_calls(monkeypatch)
    greedy = copy.deepcopy(GreedyLR(update_every=1, patience=100))
    fit(linear(), [greedy], epochs=2)
    assert called == [0, 0]


class Swaps(keras.callbacks.Callback):
    """Has another callback take its place when the first epoch ends, or in its third batch."""

    def __init__(self, other, in_batch=False):
        super().__init__()
        self.other = other
        self.in_batch = in_batch

    def swap(self):
        callbacks = batch_hooks.list_of(self).callbacks
        callbacks[callbacks.index(self)] = self.other

    def on_train_batch_begin(self, batch, logs=None):
        if self.in_batch and batch == 2:
            self.swap()

    def on_epoch_end(self, epoch, logs=None):
        if not self.in_batch:
            self.swap()


@pytest.mark.parametrize("in_batch", [False, True])
def test_who_comes_later_is_called(in_batch):
    other, spy = AtTrainBatches(), Spy(update_every=1)
    other.set_model(linear())
    fit(linear(), [spy, Swaps(other, in_batch)], epochs=2)
    times = 2 if in_batch else 1
    assert [other.heard.count(batch) for batch in (2, 3, 4)] == [times] * 3
    assert len(spy.looked) == 10


def by_hand(callback, model, begin, end):
    """Trains for an epoch in a loop of the user's own."""
    x, y = data()
    callback.set_model(model)
    callback.set_params({"steps": 5, "epochs": 1, "verbose": 0})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    model.reset_metrics()
    for batch in range(5):
        part = slice(8 * batch, 8 * batch + 8)
        begin(batch)
        end(batch, model.train_on_batch(x[part], y[part], return_dict=True))
    callback.on_epoch_end(0, {})
    callback.on_train_end()


not_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="there a loop has to call `model.train_function`"
)


@not_jax
@pytest.mark.parametrize("begins", ["by the list", "by itself"])
@pytest.mark.parametrize("ends", ["by the list", "by itself"])
def test_a_loop_may_call_the_list_or_the_callback(begins, ends):
    spy, expected, model = Spy(update_every=1), Spy(update_every=1), linear()
    fit(linear(), [expected])
    container = keras.callbacks.CallbackList([spy], model=model)
    begin, end = (
        getattr(container if who == "by the list" else spy, name)
        for who, name in ((begins, "on_train_batch_begin"), (ends, "on_train_batch_end"))
    )
    by_hand(spy, model, begin, end)
    assert spy.looked == pytest.approx(expected.looked, rel=1e-5)


@not_jax
def test_a_training_by_hand_inside_of_a_fit():
    inner, outer, expected = (Spy(update_every=1) for _ in range(3))
    fit(linear(), [expected])

    class TrainsAnother(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                by_hand(inner, linear(), inner.on_train_batch_begin, inner.on_train_batch_end)

    fit(linear(), [TrainsAnother(), outer])
    assert inner.looked == pytest.approx(expected.looked, rel=1e-5)
    assert outer.looked == pytest.approx(expected.looked, rel=1e-5)


@not_jax
@pytest.mark.parametrize("nested", [False, True])
def test_values_are_those_of_their_batch(nested):
    spy, live = Spy(monitor="live", mode="max", update_every=1, patience=100), np.zeros(())
    spy.set_params({"steps": 5, "epochs": 1, "verbose": 0})
    container = keras.callbacks.CallbackList([spy], model=linear(), steps=5, epochs=1, verbose=0)
    container.on_train_begin()
    container.on_epoch_begin(0)
    logs = {"part": {"live": live}} if nested else {"live": live}
    for batch in range(5):
        container.on_train_batch_begin(batch)
        live += 1
        container.on_train_batch_end(batch, logs)
    container.on_epoch_end(0, {})
    assert spy.looked == [1, 2, 3, 4, 5]


def test_names_at_two_levels_of_the_logs():
    class Nests(keras.Sequential):
        def train_step(self, *arguments):
            result = super().train_step(*arguments)
            logs, *state = result if isinstance(result, tuple) else (result,)
            logs = {"z": {"loss": 2.0 * logs["loss"]}, "loss": logs["loss"]}
            return (logs, *state) if state else logs

    spies = []
    for model_class in (keras.Sequential, Nests):
        model = model_class(linear().layers)
        model.build((None, 3))
        model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
        spies.append(Spy(update_every=5))
        fit(model, [spies[-1]])
    # Keras, and so what a hook is told, goes by the names in order: the last one wins.
    plain, nested = (spy.looked for spy in spies)
    assert nested == pytest.approx([2.0 * loss for loss in plain], rel=1e-5)


def test_a_callback_without_a_list():
    plain, bare = Spy(update_every=1), Spy(update_every=1)
    fit(linear(), [plain])
    fit(linear(), bare)  # which Keras calls in threads
    assert bare.looked == pytest.approx(plain.looked, rel=1e-5)


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
