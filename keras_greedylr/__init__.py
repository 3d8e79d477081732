"""Learning-rate schedules for Keras that watch the training run."""

from keras_greedylr.rule import GreedyRule, GreedyState

__version__ = "0.1.0"

__all__ = ["GreedyRule", "GreedyState"]
