"""Values of groups of batches, out of the batch logs of a `fit`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras

from keras_greedylr.callbacks.batch_loss import BatchLoss
from keras_greedylr.callbacks.late_logs import Report
from keras_greedylr.validation import check_float, check_int


class BatchGroups:
    """Cuts the reports of one `fit` into groups of batches.

    Args:
        model: The model in training.
        steps: Batches in an epoch, or None if it is not known.
        monitor: The metric. `"loss"` is the mean loss of a group's batches; any other is taken
            as Keras shows it at the group's end.
        size: Batches in a group; with several steps per execution, the least there are.
    """

    def __init__(self, model: keras.Model, steps: int | None, monitor: str, size: int):
        self.losses = BatchLoss(model, steps)
        self._steps = steps
        self._monitor = monitor
        self._size = size
        self._sum, self._batches = 0.0, 0  # of the group under way

    def add(self, reports: Iterable[Report]) -> list[tuple[int, float]]:
        """Takes in reports; returns the groups they complete: last batch, and value."""
        completed = []
        for batch, logs in reports:
            value, batches = self.losses.take(self._monitor, batch, logs)
            self._sum += value * batches
            self._batches += batches
            if self._batches >= self._size:
                if self._monitor == "loss":
                    value = self._sum / self._batches
                completed.append((batch, value))
                self._sum, self._batches = 0.0, 0
        return completed

    def until(self, groups: int) -> int:
        """Returns how many batches more complete so many groups, at the earliest."""
        if self._steps is None or (self._monitor == "loss" and self.losses.reads_count):
            return 1  # the epoch may end here, or the samples of the next report be counted
        return groups * self._size - self._batches

    def snapshot(self) -> dict[str, Any]:
        """Returns the state between two epochs as JSON values."""
        # None for a group a NaN is in: the file is strict JSON.
        group_sum = self._sum if math.isfinite(self._sum) else None
        return {"group_sum": group_sum, "group_batches": self._batches}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Takes a snapshot back."""
        group_sum = snapshot["group_sum"]
        if group_sum is None:
            group_sum = math.nan
        else:
            check_float("group_sum", group_sum)
        check_int("group_batches", snapshot["group_batches"], least=0)
        self._sum, self._batches = float(group_sum), snapshot["group_batches"]
