"""Trainings that are killed and started again, for test_resume.py and benchmarks/kills.py.

Reads a list of tries as JSON from standard input, forks a process for each
training (Keras is imported once, and nothing of the backend is used before the
fork), and prints as JSON what each did.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
from helpers import Probe, data, linear

from keras_greedylr import GreedyLR

EPOCHS = 9
BATCHES = 5
OFTEN = {"factor": 0.6, "patience": 1, "window": 2, "warmup": 1, "cooldown": 1}
SELDOM = {"factor": 0.6, "patience": 0, "min_delta": 0.1, "update_every": "validation"}
MODES = {
    "epoch": OFTEN,
    "val_loss": {**SELDOM, "monitor": "val_loss"},
    "loss at validation": SELDOM,
    "three batches": {**OFTEN, "update_every": 3},
}


class Backup(keras.callbacks.BackupAndRestore):
    """Keeps two epochs; may be killed in the middle of its own write."""

    def __init__(self, folder, kill):
        super().__init__(folder, double_checkpoint=True)
        self.kill = kill

    def on_epoch_end(self, epoch, logs=None):
        if self.kill and (self.kill["hook"], self.kill["epoch"]) == ("write", epoch):
            self.model.save_weights = self._half
        super().on_epoch_end(epoch, logs)

    def _half(self, filepath, overwrite):
        keras.Model.save_weights(self.model, filepath, overwrite=overwrite)
        os.truncate(filepath, os.path.getsize(filepath) // 2)
        os.kill(os.getpid(), signal.SIGKILL)


class Killer(keras.callbacks.Callback):
    """Kills its own process at a hook of an epoch, or some seconds after it began."""

    def __init__(self, hook, epoch, batch=0, after=0.0):
        super().__init__()
        self.hook, self.epoch, self.batch, self.now = hook, epoch, batch, None
        self.after = after

    def _reached(self, hook):
        if (hook, self.now) == (self.hook, self.epoch):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch
        if (self.hook, epoch) == ("clock", self.epoch):  # wherever Python is by then
            subprocess.Popen(["sh", "-c", f"sleep {self.after}; kill -KILL {os.getpid()}"])

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.batch:
            self._reached("batch")

    def on_test_end(self, logs=None):
        self._reached("validation")

    def on_epoch_end(self, epoch, logs=None):
        self._reached("epoch_end")


class Pace(keras.callbacks.Callback):
    """Has each batch take some seconds."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(self.seconds)


def train(folder, mode, order, kill=None, pace=0.0):
    """Trains, for the first time or again; returns the rates of each epoch's batches."""
    greedy = GreedyLR(**MODES[mode], state_path=Path(folder, "state.json"))
    backup = Backup(Path(folder, "backup"), kill)
    callbacks = [greedy, backup] if order == "greedy first" else [backup, greedy]
    if kill and kill["hook"] != "write":
        where = {name: value for name, value in kill.items() if name != "place"}
        callbacks.insert(kill["place"], Killer(**where))
    probe = Probe()
    rates = {}

    class Collect(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rates[epoch] = probe.batches
            probe.batches = []

    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    linear(optimizer=optimizer).fit(
        *data(8 * BATCHES),
        batch_size=8,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks, probe, Collect(), Pace(pace)],
        validation_data=data(16, seed=1),
        validation_freq=2,
    )
    return rates


def forked(*arguments, **keywords):
    """Runs `train` in a process of its own; returns what it returned, or how it ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            answer = train(*arguments, **keywords)
        except Exception:
            answer = traceback.format_exc()
        with os.fdopen(write, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"signal": os.WTERMSIG(status)}


def attempt(one):
    """One try: killed, if it is to be, and started again."""
    where = {name: value for name, value in one.items() if name != "kill"}
    killed = forked(**where, kill=one["kill"]) if one["kill"] else None
    return {"killed": killed, "rates": forked(**where)}


if __name__ == "__main__":
    with ThreadPoolExecutor(2) as pool:
        json.dump(list(pool.map(attempt, json.load(sys.stdin))), sys.stdout)
