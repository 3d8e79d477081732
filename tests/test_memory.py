"""Callbacks hold no more after ten times as many updates; TensorFlow no more for each rate."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_greedylr import GreedyLR

SCRIPT = Path(__file__).parent / "benchmarks" / "memory.py"
SPEC = importlib.util.spec_from_file_location("memory", SCRIPT)
memory = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(memory)


class Hoarder(keras.callbacks.Callback):
    """Keeps a number an epoch: what the test has to see."""

    def on_train_begin(self, logs=None):
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append(epoch + 0.5)


def growth(callbacks, epochs):
    """Objects held at the end of so many epochs that were not after a tenth of them."""
    held = {}

    def look(done):
        if done in (epochs // 10, epochs):
            held[done] = sum(memory.objects(vars(callback)) for callback in callbacks)

    memory.drive(callbacks, epochs, 120, look)
    return held[epochs] - held[epochs // 10]


@pytest.mark.parametrize("name", memory.trainings(""))
def test_callbacks_hold_no_more(name, tmp_path):
    assert abs(growth(memory.trainings(tmp_path)[name](), 50)) < 10


def test_growth_is_seen():
    assert growth([Hoarder()], 50) >= 45


def test_a_rate_leaves_nothing_behind(make_model):
    """Each Python number TensorFlow is handed stays in a cache of its own."""
    schedule, model = GreedyLR(), make_model()
    model.build((None, 4))
    schedule.set_params({"epochs": 1, "steps": 1})
    schedule.set_model(model)
    schedule.on_train_begin()
    blocks = []
    for rates in np.random.default_rng(0).uniform(size=(2, 1_000)).tolist():
        for rate in rates:
            schedule._apply("batch", 0, rate, "")
        blocks.append(sys.getallocatedblocks())
    assert blocks[1] - blocks[0] < 500
