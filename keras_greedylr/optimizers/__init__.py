"""Keras optimizers that set their learning rate themselves."""

from keras_greedylr.optimizers.prodigy import Prodigy
from keras_greedylr.optimizers.schedule_free import (
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    SwapScheduleFreeWeights,
)

__all__ = ["Prodigy", "ScheduleFreeAdamW", "ScheduleFreeSGD", "SwapScheduleFreeWeights"]
