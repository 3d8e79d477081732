"""placeholder"""

from keras_greedylr.callbacks.schedule import Schedule


class ScheduleLogger(Schedule):
    """x"""
