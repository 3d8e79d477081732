"""The loss of the last batches, recovered from Keras' running mean.

Keras reports m_t = S_t / c_t, S_t the sum of loss x samples since the epoch
began and c_t the samples, so the batches since the last report lost

    (m_t c_t - m_s c_s) / (c_t - c_s).

The logs hold m but not c. Batches are equal but for the last of an epoch, so c
is read from the metric only where it can be needed: at the first report, at the
last of an epoch, and at each while the length of an epoch is unknown. The
result carries the float32 error of the mean times the number of batches: about
6e-8 t relative where the loss is near its mean.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_greedylr.callbacks.peek import peek


class BatchLoss:
    """Turns the batch logs of one `fit` into losses of batches.

    Args:
        model: The model in training.
        steps: Batches in an epoch, or None if it is not known.
    """

    def __init__(self, model: keras.Model, steps: int | None):
        self._model = model
        self._steps = steps
        self._tracker: Any = None
        self._first = True
        self._unit = 0.0  # samples in a full batch
        self._equal = True  # false once batches other than the last differed in size
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forgets the running mean, as Keras does."""
        self._batches = 0
        self._count = 0.0
        self._mean = 0.0
        self._held: float | None = None

    def hold_count(self) -> None:
        """Keeps the epoch's count of samples, for reports that come after validation reset it."""
        if self._held is not None:
            return
        if self._first:
            self._tracker = self._find_tracker()
        if self._tracker is not None:
            count = peek(self._model, self._tracker.count)
            if self._held is None:  # two threads may wait for the same last batch
                self._held = count

    @property
    def reads_count(self) -> bool:
        """Whether the next report has to come before the next batch: its samples are counted."""
        return self._first or (self._tracker is not None and not (self._equal and self._steps))

    def advance(self, batch: int) -> int:
        """Returns how many batches are new in the report with index `batch`."""
        # With several steps per execution the last index runs past the end.
        batches = batch + 1 if self._steps is None else min(batch + 1, self._steps)
        new, self._batches = batches - self._batches, batches
        return new

    def take(self, monitor: str, batch: int, logs: dict[str, Any]) -> tuple[float, int]:
        """`update` for any metric: one that is not the loss is taken as Keras shows it."""
        if monitor == "loss":
            return self.update(batch, logs)
        return float(logs[monitor]), self.advance(batch)

    def update(self, batch: int, logs: dict[str, Any]) -> tuple[float, int]:
        """Takes in one report.

        Args:
            batch: The index Keras gives with it, of the last batch it covers.
            logs: The logs Keras gives with it, with a `"loss"`.

        Returns:
            The mean loss of the batches since the last report, and how many
            there were.
        """
        new = self.advance(batch)
        mean = float(logs["loss"])
        if self._first and self._tracker is None:
            self._tracker = self._find_tracker()
        if self._tracker is None:  # a train_step of the user's reports what it likes
            self._first = False
            return mean, new
        before, count = self._count, self._count + new * self._unit
        known = True  # whether this report's samples are
        if self._first or not self._equal or self._steps is None or self._batches == self._steps:
            count, known = self._read_count(count, new)
        samples = count - before
        loss = math.nan if samples <= 0 else (mean * count - self._mean * before) / samples
        if not known:  # the batches turn out to be unequal: nobody can tell this one's loss
            loss = mean
        self._count, self._mean, self._first = count, mean, False
        return loss, new

    def _read_count(self, expected: float, new: int) -> tuple[float, bool]:
        """The samples so far, and whether those of the last report can be told from them."""
        count = peek(self._model, self._tracker.count) if self._held is None else self._held
        known = self.reads_count  # else the count before this report was reckoned, not read
        if self._first:
            self._unit = count / new
        elif expected - self._unit < count <= expected:
            known = True
        else:
            self._equal = False
        return count, known

    def _find_tracker(self) -> Any:
        for metric in self._model.metrics:
            if (
                metric.name == "loss"
                and isinstance(metric, keras.metrics.Mean)
                and peek(self._model, metric.count) > 0
            ):
                return metric
        return None
