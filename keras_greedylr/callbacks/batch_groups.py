"""Values of groups of batches, out of the batch logs of a `fit`, when they are needed.

Between two looks at which something can happen reports can be kept: many at a time cost less than
one by one, and on JAX, where they are on their way still, none is waited for meanwhile.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import keras

from keras_greedylr.callbacks.batch_loss import BatchLoss, Report
from keras_greedylr.validation import check_float, check_int

MOST = 256  # batches from one look to the next: what is kept stays small
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
        self._steps = steps
        self._monitor = monitor
        self._size = size
        self._absent = absent
        # Batches in a report, and where an epoch's last report begins.
        self._together = getattr(model, "steps_per_execution", 1) or 1
        self._last_report = ((steps or 0) - 1) // self._together * self._together
        self._upto = 0  # the batch before which they have been taken
        self._sum, self._batches = 0.0, 0  # of the group under way

    def in_epochs(self, epochs: int) -> int:
        """How many groups so many epochs of known length complete, if every loss is known."""
        whole, rest = divmod(self._steps or 0, self._together)
        batches = groups = 0
        for _ in range(epochs):
            # All reports of an epoch are of one length, but for a shorter last one.
            first = min(-(-(self._size - batches) // self._together), whole)
            batches += first * self._together
            left, each = whole - first, -(-self._size // self._together)
            if batches >= self._size:
                groups += 1 + left // each
                batches = left % each * self._together
            batches += rest
            if batches >= self._size:
                groups, batches = groups + 1, 0
        return groups

    def begin_epoch(self) -> None:
        """Begins an epoch, with the group that is under way."""
        self.losses.begin_epoch()

    def needed_at(self, groups: int) -> int:
        """After how many batches of the epoch to take the next, `groups` from those taken."""
        batches = groups * self._size - self._batches
        if self._steps is None or (self._monitor == "loss" and self.losses.alone):
            batches = 1  # the epoch may end here, or the next report is to be taken alone
        end = self._steps or sys.maxsize
        if self._upto < self._last_report:  # so that the last report is alone, too
            end = self._last_report
        return min(self._upto + min(batches, MOST), end)

    def take(self, reports: list[Report]) -> list[Group]:
        """Returns the groups that further reports, in order and at least one, complete."""
        self._upto = reports[-1][0] + 1
        completed = []
        for _, logs in reports:
            if self._monitor not in logs:
                raise ValueError(self._absent(logs))
        taken = self.losses.take(reports, self._monitor)
        for (batch, _), (value, batches) in zip(reports, taken, strict=True):
            if value is None:  # a group has its number of batches whose losses are known
                continue
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
