"""Validation and checkpoints at the averaged point."""

from __future__ import annotations

from typing import Any

import keras

from keras_greedylr.optimizers.schedule_free.base import ScheduleFree


class SwapScheduleFreeWeights(keras.callbacks.Callback):
    """Evaluates and saves a Schedule-Free model at its averaged point.

    The model goes to `x` when validation begins or the epoch ends, whichever is
    first, and back to `y` when the next epoch begins. So `validation_data`,
    `EarlyStopping` and `ModelCheckpoint` see the model one would deploy. Without
    validation data put it before the callbacks that read the weights.

    Example: see `ScheduleFreeSGD`.
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes sure that there is something to swap."""
        if not self._optimizers():
            raise ValueError(
                "SwapScheduleFreeWeights needs a model compiled with ScheduleFreeSGD or "
                f"ScheduleFreeAdamW. Received: optimizer={self.model.optimizer!r}"
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Back to the training point."""
        for optimizer in self._optimizers():
            optimizer.resume_variable_values(self.model.trainable_variables)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """To the averaged point, for validation."""
        for optimizer in self._optimizers():
            optimizer.finalize_variable_values(self.model.trainable_variables)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """To the averaged point, for what reads the weights between epochs."""
        self.on_test_begin()

    def _optimizers(self) -> list[ScheduleFree]:
        optimizer = self.model.optimizer
        while hasattr(optimizer, "inner_optimizer"):  # inside loss scaling or GreedyOptimizer
            optimizer = optimizer.inner_optimizer
        parts = getattr(optimizer, "optimizers", [optimizer])  # inside MultiOptimizer
        return [part for part in parts if isinstance(part, ScheduleFree)]
