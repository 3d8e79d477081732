"""The loss of the last batches, recovered from Keras' running mean.

Keras reports m_t = S_t / c_t, S_t the sum of loss x samples since the epoch
began and c_t the samples, so the batches since the last report lost

    (m_t c_t - m_s c_s) / (c_t - c_s).

The logs hold m but not c, which is read from the metric (Keras' own, or one of a train_step of the
user's that has this mean): once for all the reports that are taken together. Where their batches
then turn out not to be as large as the first one, nobody can tell how the samples are spread over
them, and each is given the loss of all. The result carries the float32 error of the mean times the
number of batches: about 6e-8 t relative where the loss is near its mean.

An evaluation between two batches of an epoch resets the metric: then the loss of the batches since
the last report cannot be told, and the mean goes on from what the evaluation left in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_greedylr.callbacks.live_scalar import JAX, LiveScalar
from keras_greedylr.callbacks.schedule import single_optimizers

ROUNDING = 2.0**-23  # of a count in single precision

Report = tuple[int, dict[str, Any]]  # the index Keras gives with a batch's logs, and the logs


class Mark:
    """Stays on a model until it is evaluated."""


def mark(model: keras.Model) -> Mark:
    """Returns the mark on a model, a new one if it has been evaluated since the last."""
    found = getattr(model, "stop_evaluating", None)  # which `evaluate` sets to False
    if not isinstance(found, Mark):
        found = model.stop_evaluating = Mark()
    return found


class BatchLoss:
    """Turns the batch logs of one `fit` into losses of batches.

    Args:
        model: The model in training.
        steps: Batches in an epoch, or None if it is not known.

    Attributes:
        batches: Batches of the epoch whose losses have been taken.
    """

    def __init__(self, model: keras.Model, steps: int | None):
        self._model = model
        self._steps = steps
        self._counter: LiveScalar | None
        self._total: LiveScalar | None
        self._named = True  # the counter is that of Keras' own metric
        self._sought = False
        self._unit = 0.0  # samples in the first batch
        self._count = self._mean = 0.0  # of what has been taken
        self._mark = mark(model)
        together = getattr(model, "steps_per_execution", 1) or 1
        self._updates: LiveScalar | None = None  # where Keras' index runs past an unknown end
        if steps is None and together > 1:
            self._updates = LiveScalar(model, single_optimizers(model)[0]._iterations)
        self._equal = True  # false once batches other than the last of an epoch differed in size
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Goes on from the mean as it is: reset by Keras, but someone may have evaluated since."""
        self.batches = 0
        self._held: float | None = None
        self._begin_from(self._read_count() if self._sought else self._find())
        self._begun = 0.0 if self._updates is None else self._updates.read()

    def trained(self, batch: int) -> int:
        """Returns how many batches of the epoch the report with index `batch` covers.

        With several steps per execution the last index runs past the end. Where that is not known
        the optimizer's count tells, which leaves out steps that loss scaling skipped.
        """
        if self._updates is not None:
            return round(self._updates.read() - self._begun)
        return batch + 1 if self._steps is None else min(batch + 1, self._steps)

    def hold_count(self) -> None:
        """Keeps the epoch's count of samples, for reports that come after validation reset it."""
        if self._held is None:
            self._held = self._read_count()

    @property
    def alone(self) -> bool:
        """Whether the next report of a loss is to be taken alone, and before the next batch."""
        known = self._equal and self._steps is not None
        return not self._sought or (self._counter is not None and not known)

    def take(
        self, reports: Sequence[Report], monitor: str = "loss"
    ) -> list[tuple[float | None, int]]:
        """Takes in reports, in order, when no further batch has been trained.

        Args:
            reports: At least one: the index Keras gives with it, of the last batch it covers, and
                the logs, with `monitor` among them. The last of an epoch is to come alone, and
                where the model has been evaluated, the next to come is to be the last.
            monitor: The metric. One that is not the loss is taken as Keras shows it.

        Returns:
            For each the mean loss of the batches since the report before, None if it cannot be
            told, and how many there were.
        """
        batches = self._advance(reports)
        means = [_number(logs[monitor]) for _, logs in reports]
        count = self._read_count(means[-1]) if monitor == "loss" else None
        if count is None:
            return list(zip(means, batches, strict=True))
        if self._held is None and mark(self._model) is not self._mark:
            return list(zip(self._until_evaluated(means, batches, count), batches, strict=True))
        whole = max(sum(batches), 1)

        def is_as_large(samples: float) -> bool:
            return abs(samples - whole * self._unit) <= ROUNDING * count

        # A loop of the user's may reset the metric after the epoch's begin, or at each batch.
        if count <= self._count or (self.batches == whole and is_as_large(count)):
            self._count = self._mean = 0.0
        samples = count - self._count
        self._unit = self._unit or samples / whole
        as_large = is_as_large(samples)
        self._equal = self._equal and (as_large or self.batches == self._steps)
        losses: Sequence[float | None]
        if as_large or len(reports) == 1:
            losses = self._undo(means, [samples * new / whole for new in batches])
        else:
            losses = self._undo(means[-1:], [samples]) * len(reports)
        self._count = count
        return list(zip(losses, batches, strict=True))

    def _advance(self, reports: Sequence[Report]) -> list[int]:
        """How many batches are new in each report."""
        # Only the last may run past the epoch's end.
        ends = [batch + 1 for batch, _ in reports[:-1]] + [self.trained(reports[-1][0])]
        begins, self.batches = [self.batches, *ends[:-1]], ends[-1]
        return [end - begin for begin, end in zip(begins, ends, strict=True)]

    def _until_evaluated(
        self, means: list[float], batches: list[int], count: float
    ) -> list[float | None]:
        """The losses of all but the last, which may have come before or after the evaluation."""
        losses: list[float | None] = [None] * len(means)
        if len(means) > 1 and self._equal and self._unit:
            losses[:-1] = self._undo(means[:-1], [self._unit * new for new in batches[:-1]])
        self._begin_from(count)
        return losses

    def _begin_from(self, count: float | None) -> None:
        """Takes the mean of so many samples as what the next losses are added to."""
        total = self._total.read() if self._total is not None and count else 0.0
        self._count = count or 0.0
        self._mean = total / count if count else 0.0
        self._mark = mark(self._model)

    def _undo(self, means: list[float], sizes: list[float]) -> list[float]:
        """The losses of so many samples each, with which the running mean has become `means`."""
        count, lost, losses = self._count, self._mean * self._count, []
        for mean, size in zip(means, sizes, strict=True):
            count += size
            before, lost = lost, mean * count
            losses.append((lost - before) / size if size > 0 else math.nan)
        self._mean = means[-1]
        return losses

    def _read_count(self, mean: float | None = None) -> float | None:
        """The samples since the epoch began; None where a train_step of the user's has no count.

        With `mean`, the loss shown, it has to be of these samples.
        """
        if self._held is not None:
            return self._held
        if not self._sought:
            self._sought = True
            return self._find(mean)
        if self._counter is None:
            return None
        count = self._counter.read()
        to_check = not self._named and mark(self._model) is self._mark
        if to_check and mean is not None and not self._shows(mean, count):
            self._counter = None  # of one batch a mean is the loss itself, of more it is not
            return None
        return count

    def _find(self, mean: float | None = None) -> float | None:
        """Looks for the metric whose mean is shown as the loss; returns how many samples it has.

        Keras' own is named "loss". A `train_step` of the user's may show another one's result.
        """
        self._counter = self._total = None
        for metric in sorted(self._model.metrics, key=lambda metric: metric.name != "loss"):
            if not isinstance(metric, keras.metrics.Mean):
                continue
            self._named = metric.name == "loss"
            self._counter = LiveScalar(self._model, metric.count)
            self._total = LiveScalar(self._model, metric.total)
            count = self._counter.read()
            if count > 0 and (self._named or (mean is not None and self._shows(mean, count))):
                return count
        self._counter = self._total = None
        return None

    def _shows(self, mean: float, count: float) -> bool:
        """Whether the counter's metric has this mean."""
        assert self._total is not None
        return abs(self._total.read() - mean * count) <= 8 * ROUNDING * abs(mean * count)


def _number(value: Any) -> float:
    """A scalar of the logs.

    On JAX it may be on its way still, and `float` takes three times as long as by way of NumPy;
    TensorFlow and PyTorch have no bfloat16 that NumPy could read.
    """
    return float(np.asarray(value)) if JAX else float(value)
