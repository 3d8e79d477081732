"""Learning-rate schedules for Keras that watch the training run."""

from keras_greedylr.callbacks import GreedyLR, LearnedLR, ScheduleLogger
from keras_greedylr.rule import GreedyRule, GreedyState

__version__ = "0.1.0"

__all__ = ["GreedyLR", "GreedyRule", "GreedyState", "LearnedLR", "ScheduleLogger"]
