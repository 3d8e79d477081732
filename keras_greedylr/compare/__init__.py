"""Schedules against each other on one model. Needs the extra `compare`."""

from keras_greedylr.compare.comparison import Comparison, compare
from keras_greedylr.compare.contestants import CONTESTANTS, Setting
from keras_greedylr.compare.report import heading, rich_table, write_report

__all__ = [
    "CONTESTANTS",
    "Comparison",
    "Setting",
    "compare",
    "heading",
    "rich_table",
    "write_report",
]
