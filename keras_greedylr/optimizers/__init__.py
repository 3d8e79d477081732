"""Keras optimizers that set their learning rate themselves."""

from keras_greedylr.optimizers.hypergradient import HypergradientDescent
from keras_greedylr.optimizers.line_search import ArmijoLineSearch
from keras_greedylr.optimizers.line_search_model import LineSearchModel
from keras_greedylr.optimizers.prodigy import Prodigy
from keras_greedylr.optimizers.schedule_free import (
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    SwapScheduleFreeWeights,
)

__all__ = [
    "ArmijoLineSearch",
    "HypergradientDescent",
    "LineSearchModel",
    "Prodigy",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "SwapScheduleFreeWeights",
]
