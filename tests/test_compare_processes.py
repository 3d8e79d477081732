"""Comparisons in other processes: what they are told, and what is said when one is gone."""

import multiprocessing
import os

import keras
import pytest

pytest.importorskip("scipy")
pytest.importorskip("rich")
from comparing import bare


def ends_its_process(setting):
    if multiprocessing.parent_process() is not None:
        os._exit(1)
    return []


class Failure(Exception):
    """Cannot be made anew of its text, as pickle does."""

    def __init__(self, code, where):
        super().__init__(f"code {code} at {where}")


class Fails(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        raise Failure(7, "the gate")


def fails(setting):
    return Fails()


def final_losses(policy, jobs):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        runs = bare(["constant"], seeds=2, jobs=jobs).runs
    finally:
        keras.config.set_dtype_policy(before)
    return sorted(run.history["loss"][-1] for run in runs)


def test_they_take_over_the_settings_of_keras():
    assert final_losses("mixed_bfloat16", jobs=2) == final_losses("mixed_bfloat16", jobs=1)
    assert final_losses("float32", jobs=1) != final_losses("mixed_bfloat16", jobs=1)


def test_one_that_ends_is_explained():
    with pytest.raises(RuntimeError, match="A process of the comparison has ended"):
        bare({"ends": ends_its_process}, jobs=2)


def test_an_error_that_cannot_be_sent_is_told():
    with pytest.raises(RuntimeError, match=r"in on_epoch_begin(.|\n)*Failure: code 7 at the gate"):
        bare({"fails": fails}, jobs=2)
