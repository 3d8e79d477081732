"""Checks of arguments: each error says what was expected and what was received."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np


def check_int(name: str, value: Any, *, least: int) -> None:
    """Raises ValueError unless `value` is an integer of at least `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be an integer >= {least}. Received: {name}={value!r}")


def check_float(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Raises ValueError unless `value` is a finite real number within the limits."""
    if (
        isinstance(value, float | int | np.floating | np.integer)
        and not isinstance(value, bool)
        and _is_finite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (below is None or value < below)
        and (most is None or value <= most)
    ):
        return
    limits = [
        f"{sign} {limit:g}"
        for sign, limit in ((">=", least), (">", above), ("<", below), ("<=", most))
        if limit is not None
    ]
    expected = " ".join(["a finite number", " and ".join(limits)]).rstrip()
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


def check_bool(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if np.ndim(value) or value not in choices:  # an array is not even unequal
        raise ValueError(f"`{name}` must be one of {tuple(choices)}. Received: {name}={value!r}")
