"""Schedule-Free SGD."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_greedylr.optimizers.scalars import dense
from keras_greedylr.optimizers.schedule_free.base import ScheduleFree
from keras_greedylr.validation import check_float


@keras.saving.register_keras_serializable(package="keras_greedylr")
class ScheduleFreeSGD(ScheduleFree):
    """SGD that needs no schedule: it trains at `y` and is evaluated at an average `x`.

        y_k     = (1 - momentum) z_k + momentum x_k
        z_{k+1} = z_k - lr_k (g(y_k) + weight_decay y_k)
        x_{k+1} = (1 - c_{k+1}) x_k + c_{k+1} z_{k+1}

    where `c_{k+1}` is the share of `w_k = (k+1)^r max(lr_0..lr_k)^weight_lr_power`
    in `w_0 + ... + w_k`. When `fit` ends the model holds `x`. For validation at
    `x` add the callback `SwapScheduleFreeWeights`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr.optimizers import ScheduleFreeSGD, SwapScheduleFreeWeights
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=ScheduleFreeSGD(0.1), loss="mse")
    >>> x, y = np.ones((32, 4)), np.ones((32, 1))
    >>> history = model.fit(
    ...     x, y, validation_data=(x, y), verbose=0, callbacks=[SwapScheduleFreeWeights()]
    ... )

    Args:
        learning_rate: A float, a `LearningRateSchedule` or a callable. Larger
            than one would take for SGD with a schedule.
        momentum: Float in (0, 1). How far `y` lies from `z` towards `x`.
        weight_decay: Float >= 0 or `None`. A penalty on the weights at `y`.
        warmup_steps: Integer >= 0. Steps over which the rate rises linearly.
        r: Float. The later steps' weights in the average grow as `k^r`.
        weight_lr_power: Float. Steps weigh in the average as this power of the
            rate; 0 for no such weighting.
        name: String. A name for the optimizer.
        **kwargs: Those of every Keras optimizer, but `use_ema`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Defazio et al., 2024](https://arxiv.org/abs/2405.15682).
    """

    def __init__(
        self,
        learning_rate: Any = 1.0,
        momentum: float = 0.9,
        weight_decay: float | None = None,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        name: str = "schedule_free_sgd",
        **kwargs: Any,
    ):
        check_float("momentum", momentum, above=0.0, below=1.0)
        super().__init__(
            learning_rate, weight_decay, warmup_steps, r, weight_lr_power, name, **kwargs
        )
        self.momentum = momentum

    @property
    def _beta(self) -> float:
        return self.momentum

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates `variable`, which holds y."""
        gradient = dense(gradient, variable.dtype)
        self._step(variable, gradient, ops.cast(learning_rate, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "momentum": self.momentum}
