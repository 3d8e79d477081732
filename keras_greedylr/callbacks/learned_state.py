"""What LearnedLR remembers, as the JSON values of its state file and back."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import numpy as np

from keras_greedylr.callbacks.loss_guard import LossGuard
from keras_greedylr.observation import History
from keras_greedylr.validation import check_float, check_int

# The callback's own numbers. Those that are floats may not be finite.
CARRIED = {
    "done": int,
    "decisions": int,
    "due": bool,
    "validation": float,
    "losses": int,
    "sum": float,
    "sum_of_squares": float,
}


class LearnedState(NamedTuple):
    """All of it."""

    history: History  # of one run
    weights: np.ndarray  # float32 [n], a sample of them at the interval's start
    movement: np.ndarray  # float32 [n], theirs in the interval before
    guard: LossGuard
    steps: int | None  # batches in an epoch, if that is known
    carried: dict[str, Any]  # `CARRIED`

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; None stands for a number that is not finite."""
        return {
            "history": _jsonables(np.ravel(self.history)),
            "weights": _jsonables(self.weights),
            "movement": _jsonables(self.movement),
            "guard": asdict(self.guard),
            "steps": self.steps,
            **{name: _jsonable(value) for name, value in self.carried.items()},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LearnedState:
        """Rebuilds what `to_dict` returned.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if one is of a wrong kind, length or size.
        """
        history, weights, movement = (
            _array(name, values[name]) for name in ("history", "weights", "movement")
        )
        if len(history) != len(History._fields):
            raise ValueError(
                f"`history` must have {len(History._fields)} numbers. Received: {len(history)}"
            )
        if len(movement) != len(weights):
            raise ValueError(
                "`movement` must be as long as `weights`. "
                f"Received: {len(movement)} and {len(weights)} numbers"
            )
        past = History(*history[:, None])
        for name in ("initial_rate", "min_rate", "max_rate", "bound"):
            check_float(name, float(getattr(past, name)[0]), above=0.0)
        if values["steps"] is not None:
            check_int("steps", values["steps"], least=1)
        carried = {name: _number(name, values[name], kind) for name, kind in CARRIED.items()}
        return cls(past, weights, movement, _guard(values["guard"]), values["steps"], carried)


def _guard(values: Any) -> LossGuard:
    names = [field.name for field in fields(LossGuard)]
    if not isinstance(values, dict) or set(values) != set(names):
        raise ValueError(f"`guard` must have exactly the entries {names}. Received: {values!r}")
    check_float("fast", values["fast"])
    check_float("slow", values["slow"])
    check_int("reports", values["reports"], least=0)
    _check_bool("tripped", values["tripped"])
    return LossGuard(**values)


def _number(name: str, value: Any, kind: type) -> Any:
    if kind is bool:
        _check_bool(name, value)
    elif kind is int:
        check_int(name, value, least=0)
    elif value is None:
        return math.nan
    else:
        check_float(name, value)
    return value


def _array(name: str, values: Any) -> np.ndarray:
    if not isinstance(values, list):
        raise ValueError(f"`{name}` must be a list of numbers. Received: {name}={values!r}")
    return np.array([_number(name, value, float) for value in values], np.float32)


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be true or false. Received: {name}={value!r}")


def _jsonables(values: np.ndarray) -> list[float | None]:
    return [_jsonable(value) for value in values.tolist()]


def _jsonable(value: float) -> float | None:
    return value if math.isfinite(value) else None
