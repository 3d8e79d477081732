"""Base of the optimizers whose rate depends on all gradients of the step."""

from __future__ import annotations

import abc
from typing import Any

import keras

from keras_greedylr.optimizers.scalars import dense


class TwoPassOptimizer(keras.optimizers.Optimizer, abc.ABC):
    """Sees every gradient before it moves the first weight.

    A step calls `observe_step` for each variable, `decide` once, and then
    `move_step` for each variable. Sums over the variables are kept in scalar
    variables, for on several devices no Python value survives between the passes.
    """

    _observing = False

    @abc.abstractmethod
    def observe_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Takes note of a gradient; leaves the variable as it is."""

    @abc.abstractmethod
    def decide(self, learning_rate: Any) -> None:
        """Sets what `move_step` goes by, now that every gradient was seen."""

    @abc.abstractmethod
    def move_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates the variable."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Serves one variable in the pass that is on."""
        gradient = dense(gradient, variable.dtype)
        step = self.observe_step if self._observing else self.move_step
        step(gradient, variable, learning_rate)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> Any:
        self._observing = True
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        self._observing = False
        self.decide(learning_rate)
        super()._backend_update_step(grads, trainable_variables, learning_rate)
