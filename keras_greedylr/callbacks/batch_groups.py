"""Values of groups of batches, out of the batch logs of a `fit`, when they are needed.

Between two looks at which something can happen, reports are only kept: many at a time cost less
than one by one, and on JAX, where they are on their way still, none is waited for meanwhile.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import keras

from keras_greedylr.callbacks.batch_loss import BatchLoss, Report
from keras_greedylr.validation import check_float, check_int

MOST = 256  # reports that may be kept
Group = tuple[int, float]  # the index of its last batch, and its value


class BatchGroups:
    """Cuts the reports of one `fit` into groups of batches.

    Args:
        model: The model in training.
        steps: Batches in an epoch, or None if it is not known.
        monitor: The metric. `"loss"` is the mean loss of a group's batches; any other is taken
            as Keras shows it at the group's end.
        size: Batches in a group; with several steps per execution, the least there are.
        absent: Says what is wrong with logs without the metric.

    Attributes:
        losses: The `BatchLoss` they are cut from.
    """

    def __init__(
        self,
        model: keras.Model,
        steps: int | None,
        monitor: str,
        size: int,
        absent: Callable[[dict[str, Any]], str],
    ):
        self.losses = BatchLoss(model, steps)
        self._reports: list[Report] = []  # kept
        self._steps = steps
        self._monitor = monitor
        self._size = size
        self._absent = absent
        together = getattr(model, "steps_per_execution", 1) or 1  # batches in a report
        self._last_report = ((steps or 0) - 1) // together * together  # where an epoch's begins
        self._needed_at = 0  # the batch before which all reports have to be there
        self._upto = 0  # the batch before which they have been taken
        self._sum, self._batches = 0.0, 0  # of the group under way

    def begin_epoch(self) -> None:
        """Begins an epoch, with the group that is under way."""
        self.losses.begin_epoch()
        self._reports = []
        self._needed_at = 0

    def keep(self, batch: int, logs: dict[str, Any]) -> bool:
        """Keeps a report; returns whether it is time to `take` the groups they complete."""
        try:
            self._reports.append((batch, logs[self._monitor]))
        except KeyError:
            raise ValueError(self._absent(logs)) from None
        return batch + 1 >= self._needed_at

    def look_after(self, groups: int) -> None:
        """Says after how many groups more something may happen."""
        batches = groups * self._size - self._batches
        if self._steps is None or (self._monitor == "loss" and self.losses.alone):
            batches = 1  # the epoch may end here, or the next report is to be taken alone
        end = self._steps or sys.maxsize
        if self._upto < self._last_report:  # so that the last report is alone, too
            end = self._last_report
        self._needed_at = min(self._upto + min(batches, MOST), end)

    def hold(self) -> None:
        """Before a validation: keeps what reports not taken yet are to be reckoned with."""
        if self._reports:
            self.losses.hold_count()

    def take(self) -> list[Group]:
        """Returns the groups that the reports kept complete; to be followed by `look_after`."""
        reports, self._reports = self._reports, []
        self._upto = reports[-1][0] + 1 if reports else 0
        completed = []
        taken = self.losses.take(reports, self._monitor == "loss") if reports else []
        for (batch, _), (value, batches) in zip(reports, taken, strict=True):
            self._sum += value * batches
            self._batches += batches
            if self._batches >= self._size:
                if self._monitor == "loss":
                    value = self._sum / self._batches
                completed.append((batch, value))
                self._sum, self._batches = 0.0, 0
        return completed

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
