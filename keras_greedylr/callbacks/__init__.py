"""Keras callbacks: the schedules and what shows them."""

from keras_greedylr.callbacks.greedy_lr import GreedyLR
from keras_greedylr.callbacks.learned_lr import LearnedLR
from keras_greedylr.callbacks.schedule_logger import ScheduleLogger

__all__ = ["GreedyLR", "LearnedLR", "ScheduleLogger"]
