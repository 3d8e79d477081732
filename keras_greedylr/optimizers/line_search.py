"""SGD whose every step passes an Armijo line search on its own batch.

The rate of step `k` is the first of `eta, beta eta, beta^2 eta, ...` for which

    f(w - eta g) <= f(w) - c eta |g|^2

where `f` is the loss of the batch, `g` its gradient and the first `eta` comes
from the last step's (Vaswani et al., 2019, https://arxiv.org/abs/1905.09997).

An optimizer sees gradients only, and this one needs losses. So there are two
parts: `ArmijoLineSearch` decides, and `LineSearchModel`, a model around any
other, evaluates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_greedylr.optimizers.scalars import add_scalar, constant, minimum, to_rate
from keras_greedylr.validation import check_choice, check_float, check_int


@keras.saving.register_keras_serializable(package="keras_greedylr")
class ArmijoLineSearch(keras.optimizers.Optimizer):
    """SGD with a backtracking line search on the batch's loss.

    The model must be a `LineSearchModel`, which evaluates the loss at trial
    weights. A step is only taken if it satisfies

        f(w - eta g) <= f(w) - c eta |g|^2

    If `max_backtracks` cuts do not get there, the weights stay as they are and
    so does the rate: one such batch says nothing about the next.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr.optimizers import ArmijoLineSearch, LineSearchModel
    >>> model = LineSearchModel(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    >>> model.compile(optimizer=ArmijoLineSearch(), loss="mse")
    >>> history = model.fit(np.ones((32, 4)), np.ones((32, 1)), verbose=0)

    Args:
        learning_rate: Float > 0. What the first step tries first; afterwards
            the rate of the last step taken.
        max_learning_rate: Float >= `learning_rate`. No step is larger.
        c: Float in (0, 1). The part of the decrease along the gradient's slope
            that a step must bring. The paper has 0.1 for networks and at least
            0.5 for convex problems.
        beta: Float in (0, 1). What a rate that fails is multiplied by.
        reset: Where the next search begins, the paper's options 0 to 2:
            `"keep"`, at the last rate, which then never rises; `"max"`, at
            `max_learning_rate`; `"increase"`, at the last rate times
            `gamma^(1 / steps_per_epoch)`.
        gamma: Float >= 1. How much the rate may rise in an epoch.
        steps_per_epoch: Integer >= 1, or `None`: as many as `fit` says, and one where
            there is no `fit`.
        max_backtracks: Integer >= 1. Cuts after which the batch is passed over.
        name: String. A name for the optimizer.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Vaswani et al., 2019](https://arxiv.org/abs/1905.09997).
    """

    sets_learning_rate = True  # for the callbacks, which cannot do it beside

    def __init__(
        self,
        learning_rate: float = 1.0,
        max_learning_rate: float = 10.0,
        c: float = 0.1,
        beta: float = 0.9,
        reset: str = "increase",
        gamma: float = 2.0,
        steps_per_epoch: int | None = None,
        max_backtracks: int = 100,
        name: str = "armijo_line_search",
    ):
        check_float("learning_rate", learning_rate, above=0.0)
        check_float("max_learning_rate", max_learning_rate, least=learning_rate)
        check_float("c", c, above=0.0, below=1.0)
        check_float("beta", beta, above=0.0, below=1.0)
        check_choice("reset", reset, ("keep", "max", "increase"))
        check_float("gamma", gamma, least=1.0)
        if steps_per_epoch is not None:
            check_int("steps_per_epoch", steps_per_epoch, least=1)
        check_int("max_backtracks", max_backtracks, least=1)
        super().__init__(learning_rate=float(learning_rate), name=name)
        self.max_learning_rate = max_learning_rate
        self.c = c
        self.beta = beta
        self.reset = reset
        self.gamma = gamma
        self.steps_per_epoch = steps_per_epoch
        self.max_backtracks = max_backtracks
        # Here and not in `build`: on TensorFlow `fit` begins before that.
        self._growth = add_scalar(self, "growth", gamma ** (1 / (steps_per_epoch or 1)))

    @property
    def learning_rate(self) -> Any:
        """The rate of the last step; a number that is assigned is where the next search begins."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self._learning_rate.assign(to_rate(learning_rate))

    def build(self, variables: list[keras.Variable]) -> None:
        """Checks the weights; a line search keeps nothing for each of them."""
        if self.built:
            return
        if any(getattr(variable, "constraint", None) is not None for variable in variables):
            raise ValueError(
                "ArmijoLineSearch takes no weights with constraints: a projection after the step "
                "could undo the decrease that the search has found. "
                f"Received: {[v.path for v in variables if v.constraint is not None]}"
            )
        super().build(variables)

    def begin_fit(self, steps_per_epoch: int | None) -> None:
        """Takes the number of steps in an epoch from `fit`, unless it was given."""
        if self.reset != "increase" or self.steps_per_epoch is not None:
            return
        if steps_per_epoch is None:
            raise ValueError(
                "`fit` does not know how many batches an epoch has: pass "
                "`ArmijoLineSearch(steps_per_epoch=...)` or another `reset`."
            )
        self._growth.assign(self.gamma ** (1 / steps_per_epoch))

    def search(
        self,
        loss_at: Callable[[list[Any]], Any],
        loss: Any,
        weights: list[Any],
        gradients: list[Any],
    ) -> list[Any]:
        """Returns the weights after a step that satisfies Armijo's condition.

        Args:
            loss_at: The loss of the batch as a function of the weights.
            loss: Its value at `weights`.
            weights: Tensors.
            gradients: Tensors, those of the loss at `weights`.
        """
        dtype = loss.dtype
        # Notation to match theory
        c, beta = constant(self.c, dtype), constant(self.beta, dtype)
        squared_norm = sum(ops.cast(ops.sum(ops.square(g)), dtype) for g in gradients)

        def moved(eta: Any) -> list[Any]:
            return [w - ops.cast(eta, w.dtype) * g for w, g in zip(weights, gradients, strict=True)]

        def fails(eta: Any, value: Any) -> Any:
            # So written, a loss that is not a number fails.
            return ops.logical_not(value <= loss - c * eta * squared_norm)

        def goes_on(eta: Any, value: Any, cuts: Any) -> Any:
            return ops.logical_and(fails(eta, value), cuts < self.max_backtracks)

        def cut(eta: Any, value: Any, cuts: Any) -> Any:
            eta = beta * eta
            return eta, ops.cast(loss_at(moved(eta)), dtype), cuts + 1

        last = ops.cast(self._learning_rate, dtype)
        first = self._first(last)
        start = (first, ops.cast(loss_at(moved(first)), dtype), constant(0, "int32"))
        eta, value, _ = ops.while_loop(goes_on, cut, start)
        found = ops.logical_not(fails(eta, value))
        self._learning_rate.assign(ops.where(found, eta, last))
        self._iterations.assign_add(1)
        return [ops.where(found, new, old) for new, old in zip(moved(eta), weights, strict=True)]

    def _first(self, last: Any) -> Any:
        """The rate that the search begins with."""
        largest = constant(self.max_learning_rate, last.dtype)
        if self.reset == "max":
            return largest
        if self.reset == "keep":
            return minimum(last, largest)
        first_step = self._iterations == 0
        growth = ops.where(
            first_step, constant(1.0, last.dtype), ops.cast(self._growth, last.dtype)
        )
        return minimum(last * growth, largest)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Refuses: a gradient alone is not enough."""
        raise RuntimeError(
            "ArmijoLineSearch evaluates the loss at trial weights, which the train step of "
            "keras.Model does not offer. Wrap the model before compiling it: "
            "`model = LineSearchModel(model)`."
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, the rate as it stands."""
        # The variable is of single precision and may lie above the bound by its rounding.
        rate = min(super().get_config()["learning_rate"], self.max_learning_rate)
        return {
            "learning_rate": rate,
            "max_learning_rate": self.max_learning_rate,
            "c": self.c,
            "beta": self.beta,
            "reset": self.reset,
            "gamma": self.gamma,
            "steps_per_epoch": self.steps_per_epoch,
            "max_backtracks": self.max_backtracks,
            "name": self.name,
        }
