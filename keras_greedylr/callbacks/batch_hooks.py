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


def calling_list() -> keras.callbacks.CallbackList | None:
    """The list of callbacks that calls the hook this is called in; a user's loop may have none."""
    # `fit` gives callbacks no way to it.
    file = keras.callbacks.CallbackList.__init__.__code__.co_filename
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename != file:
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]


def leave_out_calls(
    callbacks: keras.callbacks.CallbackList,
    own: keras.callbacks.Callback | None = None,
    hear: Callable | None = None,
) -> bool:
    """Has a list, for the epoch that begins, leave out the calls at batches' ends that do nothing.

    Keras hands each batch's logs to a thread, or waits for them, makes them numbers and calls every
    callback, also where none has a hook, or only the progress bar has, which draws now and then.
    On JAX that is half the time of a `fit` whose steps take 0.1 ms.

    Args:
        callbacks: The list.
        own: A callback that has a hook and can do without being called.
        hear: Called in its place, with logs as training returns them.

    Returns:
        Whether calls are left out: not where another callback has a hook.
    """
    put_calls_back(callbacks)
    if type(callbacks) is not keras.callbacks.CallbackList or CALL in vars(callbacks):
        return False  # a list of the user's own, which may do more
    others = [other for other in callbacks.callbacks if other is not own and listens(other)]
    if not others:
        seconds = math.inf
    # Where the number of steps is not known the progress bar counts them.
    elif _drawn_only(others) and (callbacks.params or {}).get("steps"):
        seconds = DRAWN
    else:
        return False
    setattr(callbacks, CALL, _Seldom(getattr(callbacks, CALL), seconds, hear))
    return True


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
    """Makes a call at an epoch's first batch and then no oftener than every so many seconds."""

    def __init__(self, call: Callable, seconds: float, always: Callable | None):
        self._call = call
        self._seconds = seconds
        self._always = always
        self._next = 0.0

    def __call__(self, batch: int, logs: Any = None) -> None:
        if self._always is not None:
            self._always(batch, logs)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._seconds
            self._call(batch, logs)
