"""Keras' calls at batches' ends: made where somebody listens, left out elsewhere."""

import contextlib
import io
import types

import keras
import pytest
from helpers import linear
from listeners import LISTENERS, AtBatches, Hears

from keras_greedylr.callbacks import batch_hooks

ALL = list(range(6))  # batches
SECONDS = [0.0, 0.01, 0.04, 0.06, 0.07, 0.2]  # when each ends
DRAWN = [0, 3, 5]  # no two within 0.05 seconds


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
    container, listener = listed([keras.callbacks.Callback()]), AtBatches()
    batch_hooks.leave_out_calls(container)
    container.on_train_batch_end(0)
    container.callbacks[0].on_train_batch_end = listener.hear  # too late for this epoch
    container.on_train_batch_end(1)
    assert listener.heard in ([], [0])  # a thread may be late as well
    batch_hooks.put_calls_back(container)
    container.on_train_batch_end(2)
    container.on_epoch_end(0)
    assert listener.heard[-1] == 2 and 1 not in listener.heard


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


@pytest.mark.parametrize("making_is_wrapped", [False, True])
def test_the_calling_list(monkeypatch, making_is_wrapped):
    original = keras.callbacks.CallbackList.__init__

    def wrapped(self, *arguments, **named):
        original(self, *arguments, **named)

    if making_is_wrapped:
        monkeypatch.setattr(keras.callbacks.CallbackList, "__init__", wrapped)
    found = []

    class Finds(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            found.append(batch_hooks.list_of(self))

    container = keras.callbacks.CallbackList([Finds()])
    container.on_epoch_begin(0)
    Finds().on_epoch_begin(0)
    assert found == [container, None]


@pytest.mark.parametrize("beside", [None, keras.callbacks.ProgbarLogger, AtBatches])
def test_who_can_do_without_being_called(beside):
    own, heard = AtBatches(), []
    container = listed([own, *([beside()] if beside else [])], verbose=2)
    batch_hooks.leave_out_calls(container, own, lambda batch, logs: heard.append((batch, logs)))
    for batch in ALL[:3]:
        container.on_train_batch_end(batch, {"loss": "as it is"})
    left_out = beside is not AtBatches
    assert heard == [(batch, {"loss": "as it is"}) for batch in ALL[:3]] * left_out
    assert own.heard == ([0] if left_out else ALL[:3])
