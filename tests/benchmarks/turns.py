"""Several trainings at once, in turns of some steps: what else the machine does falls on all.

Each contestant has a model of its own, for two that share one could not be in a `fit` at once, and
two models compiled alike differ by some per cent. So several sets of models are compiled, each
in another order of turns, and there should be a contestant that differs in nothing from the first:
its ratio says what the figures can tell. A round is one turn of each; ratios are taken in a round.
"""

import contextlib
import functools
import os
import random
import threading
import time

import keras
import numpy as np
from machine import wait_for_device

TURN, EPOCH = 0.01, 2.0  # seconds they last, about
LEAST = 3  # rounds
RESAMPLES = 2000


class Relay:
    """Who of several trains: one at a time, each its turn of so many steps, for some seconds."""

    def __init__(self, names, steps, seconds):
        self.names = names
        self.steps = steps
        self.turns = {name: [] for name in names}  # the seconds that a step took in each
        self.over = False
        self._seconds = seconds
        self._ready = {name: threading.Semaphore(0) for name in names}
        self._failed = None

    def run(self, fits):
        """Runs the functions, which call `fit` with a `Turn`, each in a thread."""
        threads = [threading.Thread(target=self._guard, args=(fits[name],)) for name in self.names]
        for thread in threads:
            thread.start()
        self._end = time.monotonic() + self._seconds
        self._ready[self.names[0]].release()
        for thread in threads:
            thread.join()
        if self._failed:
            raise self._failed

    def _guard(self, fit):
        try:
            fit()
        except Exception as error:
            self._failed = self._failed or error
            self.over = True
            for ready in self._ready.values():
                ready.release()

    def wait(self, name):
        """Waits for a turn. It is over for all in the same round, after some."""
        self._ready[name].acquire()
        some = len(self.turns[name]) > LEAST
        if name == self.names[0] and some and time.monotonic() > self._end:
            self.over = True

    def hand_over(self, name):
        """Ends a turn."""
        self._ready[self.names[(self.names.index(name) + 1) % len(self.names)]].release()


class Turn(keras.callbacks.Callback):
    """Trains in the turns of a relay. An epoch's end falls into a turn and is not counted."""

    def __init__(self, relay, name):
        super().__init__()
        self.relay = relay
        self.name = name

    def on_train_begin(self, logs=None):
        """Waits for the first turn."""
        self.relay.wait(self.name)
        self._model.stop_training = self.relay.over  # another has failed

    def on_train_batch_begin(self, batch, logs=None):
        """Hands over after the steps of a turn."""
        if batch % self.relay.steps:
            return
        if batch > 0:
            wait_for_device(self._model)
            taken = time.perf_counter() - self.begun
            self.relay.turns[self.name].append(taken / self.relay.steps)
            self.relay.hand_over(self.name)
            self.relay.wait(self.name)
            self._model.stop_training = self.relay.over
        self.begun = time.perf_counter()

    def on_train_end(self, logs=None):
        """Lets the next one see that it is over."""
        self.relay.hand_over(self.name)


def step_time(make):
    """Seconds that a step takes in `fit`; `make` as for `compare`."""
    relay = Relay(["alone"], 10, 0.0)
    _, fit = prepared(make, relay, "alone", 61, verbose=0)
    relay.run({"alone": fit})
    return float(np.median(relay.turns["alone"][1:]))


def prepared(make, relay, name, steps, verbose):
    """A model that is compiled and has trained, and a function that trains it in its turns."""
    model, callbacks, batch_size, data = make()
    model.fit(*data(2), batch_size=batch_size, verbose=0)  # traces and compiles
    return model, functools.partial(
        model.fit,
        *data(steps),
        batch_size=batch_size,
        epochs=10**6,
        verbose=verbose,
        callbacks=[Turn(relay, name), *callbacks],
    )


def compare(contestants, sets, seconds, verbose=0):
    """Trains sets of models for so long each.

    Args:
        contestants: For each name a function that returns a compiled model, callbacks, the size
            of a batch, and a function that makes data for so many steps. The first one is what
            the others are compared with.
        sets: How many times models are compiled.
        seconds: How long each set is trained.
        verbose: As in `fit`. What it prints goes nowhere.

    Returns:
        What a step of each took, as JSON values, and the models of the last set by their names.
    """
    base, *_ = contestants
    step = step_time(contestants[base])
    turn, epoch = int(np.clip(TURN / step, 2, 40)), int(np.clip(EPOCH / step, 20, 401))
    rounds = []  # for each set, what the contestants took
    for number in range(sets):
        names = list(contestants)
        random.Random(number).shuffle(names)
        relay, models, fits = Relay(names, turn, seconds), {}, {}
        for name in names:
            models[name], fits[name] = prepared(contestants[name], relay, name, epoch, verbose)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            relay.run(fits)
        # The first turn has begun what an epoch begins with.
        rounds.append({name: np.array(turns[1:]) for name, turns in relay.turns.items()})
    return {
        "steps_in_a_turn": turn,
        "rounds": [len(times[base]) for times in rounds],
        "contestants": {
            name: {
                "microseconds_a_step": quartiles(
                    1e6 * np.concatenate([times[name] for times in rounds])
                ),
                "ratio": median_interval(ratios),
                "ratio_of_each_set": [float(np.median(ratio)) for ratio in ratios],
            }
            for name in contestants
            for ratios in [[times[name] / times[base] for times in rounds]]
        },
    }, models


def quartiles(values):
    """Lower quartile, median, upper quartile."""
    return np.quantile(values, [0.25, 0.5, 0.75]).tolist()


def median_interval(ratios):
    """Median of all sets' ratios and its 95 % bootstrap interval.

    Whole sets are drawn, for a set's models are faster or slower throughout, and rounds in them:
    drawn from all rounds alike, an interval is several times too narrow.
    """
    rng, medians = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        sets = [ratios[drawn] for drawn in rng.integers(len(ratios), size=len(ratios))]
        medians.append(np.median(np.concatenate([rng.choice(s, len(s)) for s in sets])))
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(np.median(np.concatenate(ratios))), float(high)


def show(name, measured):
    """Prints what `compare` measured on a network."""
    rounds = ", ".join(map(str, measured["rounds"]))
    print(f"\n{name}, sets of {rounds} rounds, turns of {measured['steps_in_a_turn']} steps.")
    print("Median (quartiles); ratio in a round, median [95 % interval], and of each set.")
    for contestant, figures in measured["contestants"].items():
        low, middle, high = figures["microseconds_a_step"]
        ratio_low, ratio, ratio_high = figures["ratio"]
        sets = " ".join(f"{ratio:.3f}" for ratio in figures["ratio_of_each_set"])
        print(
            f"  {contestant:26} {middle:8.1f} us ({low:.1f} to {high:.1f})"
            f"   x {ratio:.3f} [{ratio_low:.3f}, {ratio_high:.3f}]   {sets}"
        )
