"""Callbacks' hooks at batches: adding one, and leaving out the calls that none of them needs."""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable
from typing import Any

import keras

CALL = "on_train_batch_end"
HOOKS = CALL, "on_batch_end"  # the first calls the second
DRAWN = 0.05  # seconds between two pictures of Keras' progress bar


def add_hook(callback: keras.callbacks.Callback, name: str, hook: Callable) -> None:
    """Has a callback's hook, which a subclass may have made its own, call another one as well."""
    # No closure: a callback can be copied.
    setattr(callback, name, functools.partial(_both, getattr(callback, name), hook))


def _both(first: Callable, second: Callable, batch: int, logs: Any = None) -> None:
    first(batch, logs)
    second(batch, logs)


def list_of(callback: keras.callbacks.Callback) -> keras.callbacks.CallbackList | None:
    """The list that calls the callback's hook this is called in; a user's loop may have none."""
    # `fit` gives callbacks no way to it.
    file = inspect.getfile(keras.callbacks.CallbackList)
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_filename == file:
            found = frame.f_locals.get("self")
            # Another one may be further out: of a `fit` in a callback of which this one is trained.
            if isinstance(found, keras.callbacks.CallbackList) and _among(callback, found):
                return found
        frame = frame.f_back
    return None


def _among(callback: keras.callbacks.Callback, callbacks: keras.callbacks.CallbackList) -> bool:
    return any(one is callback for one in callbacks.callbacks)


def leave_out_calls(
    callbacks: keras.callbacks.CallbackList,
    own: keras.callbacks.Callback | None = None,
    hear: Callable | None = None,
) -> None:
    """Has a list, for the epoch that begins, leave out the calls at batches' ends that do nothing.

    Keras hands each batch's logs to a thread, or waits for them, makes them numbers and calls every
    callback, also where none has a hook, or only the progress bar has, which draws now and then.
    On JAX that is half the time of a `fit` whose steps take 0.1 ms. None is left out where another
    callback has a hook.

    Args:
        callbacks: The list.
        own: A callback that has a hook and can do without being called.
        hear: Called in its place, with logs as training returns them.
    """
    put_calls_back(callbacks)
    if type(callbacks) is not keras.callbacks.CallbackList or CALL in vars(callbacks):
        return  # a list of the user's own, which may do more
    others = [other for other in callbacks.callbacks if other is not own and listens(other)]
    if not others:
        seconds = math.inf
    # Where the number of steps is not known the progress bar counts them.
    elif _drawn_only(others) and (callbacks.params or {}).get("steps"):
        seconds = DRAWN
    else:
        return
    setattr(callbacks, CALL, _Seldom(callbacks, seconds, hear))


def put_calls_back(callbacks: keras.callbacks.CallbackList) -> None:
    """Has a list make its calls at batches' ends again."""
    if isinstance(vars(callbacks).get(CALL), _Seldom):
        delattr(callbacks, CALL)


def listens(callback: keras.callbacks.Callback) -> bool:
    """Whether a hook at a batch's end is not that of Keras' base class, which does nothing."""
    return any(
        getattr(getattr(callback, name, None), "__func__", None)
        is not getattr(keras.callbacks.Callback, name)
        for name in HOOKS
    )


def _drawn_only(callbacks: list[keras.callbacks.Callback]) -> bool:
    return all(type(callback) is keras.callbacks.ProgbarLogger for callback in callbacks)


class _Seldom:
    """Makes a list's call at an epoch's first batch and then every so many seconds at most."""

    def __init__(
        self, callbacks: keras.callbacks.CallbackList, seconds: float, always: Callable | None
    ):
        self._list = callbacks
        self._callbacks = [*callbacks.callbacks]
        self._call = getattr(callbacks, CALL)
        self._seconds = seconds
        self._always = always
        self._next = 0.0

    def __call__(self, batch: int, logs: Any = None) -> None:
        if self._list.callbacks != self._callbacks:  # one came that may listen, or went
            put_calls_back(self._list)
            self._call(batch, logs)
            return
        if self._always is not None:
            self._always(batch, logs)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._seconds
            self._call(batch, logs)
