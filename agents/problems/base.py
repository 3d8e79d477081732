"""What a problem is, and how a batch of its runs moves on by one interval.

A problem is a family of training runs that differ in data, noise and initial weights. P of them
are computed together: every tensor of a state leads with [P], so that a run's result does not
depend on its neighbours and states can be tiled and taken apart.
"""

from __future__ import annotations

import abc
import functools
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from keras_greedylr.observation import Interval, weight_signals

State = Any  # a nest of tensors [P, ...]


class Problem(abc.ABC):
    """A family of training runs.

    Attributes:
        name: Unique among the families.
        kind: What is learned, by which architecture and optimizer.
        data: Name of the data it learns from.
        steps: Inner training steps in an interval.
        validate_every: Intervals between two validation losses.
    """

    name: str
    kind: str
    data: str
    steps: int
    validate_every: int

    @abc.abstractmethod
    def sample(self, seed: tf.Tensor, runs: int) -> State:
        """Returns untrained runs; the same seed [2] int32 gives the same ones."""

    @abc.abstractmethod
    def usual_rate(self, state: State) -> tf.Tensor:
        """Returns the rates [P] somebody who does not tune would take."""

    @abc.abstractmethod
    def batches(self, state: State, seed: tf.Tensor) -> Any:
        """Returns what the interval's steps train on, each tensor leading with [steps]."""

    @abc.abstractmethod
    def train(self, state: State, batches: Any, rates: tf.Tensor) -> tuple[State, tf.Tensor]:
        """Returns the state after the interval and the batch losses [steps, P]."""

    @abc.abstractmethod
    def weights(self, state: State) -> tf.Tensor:
        """Returns the trained weights [P, n]."""

    @abc.abstractmethod
    def training_loss(self, state: State) -> tf.Tensor:
        """Returns the loss [P] on the data the runs train on."""

    @abc.abstractmethod
    def validation_loss(self, state: State) -> tf.Tensor:
        """Returns the loss [P] on data the runs do not train on."""

    def bound(self, state: State) -> tf.Tensor | None:
        """Returns rates [P] above which training is not stable, or `None`."""
        del state


class Runs(NamedTuple):
    """P runs of a problem, somewhere on their way."""

    state: State
    interval: tf.Tensor  # [] int32, intervals done
    movement: tf.Tensor  # [P, n], what the weights moved in the last interval
    seed: tf.Tensor  # [2] int32, of everything random from here on


class Report(NamedTuple):
    """What an interval showed."""

    interval: Interval
    losses: tf.Tensor  # [steps, P], the batch losses


def start(problem: Problem, seed: tf.Tensor, runs: int) -> Runs:
    """Returns P untrained runs."""
    state = problem.sample(seed, runs)
    weights = problem.weights(state)
    return Runs(state, tf.constant(0), tf.zeros_like(weights), seed)


def advance(problem: Problem, runs: Runs, rates: tf.Tensor, intervals: int) -> tuple[Runs, Report]:
    """Trains all runs for one interval.

    Args:
        problem: Whose runs they are.
        runs: What `start` or the last `advance` returned.
        rates: [P] float32, the learning rates of the interval.
        intervals: Number of intervals in a whole run, for `progress`.
    """
    return _advance(problem, intervals)(runs, rates)


@functools.cache
def _advance(problem: Problem, intervals: int) -> Any:
    """One graph for a problem's intervals: the random batches, and what XLA compiles.

    The networks are so small that most of a step would be spent between its operations.
    """

    @tf.function(jit_compile=True, autograph=False)
    def interval(runs: Runs, batches: Any, rates: tf.Tensor) -> tuple[Runs, Report]:
        then = problem.weights(runs.state)
        state, losses = problem.train(runs.state, batches, rates)
        done = runs.interval + 1
        validation = tf.cond(
            tf.equal(done % problem.validate_every, 0),
            lambda: problem.validation_loss(state),
            lambda: tf.fill(tf.shape(rates), float("nan")),
        )
        movement, alignment, norm, moved = weight_signals(
            tnp, problem.weights(state), then, runs.movement
        )
        progress = tf.cast(done, tf.float32) / float(intervals)
        seen = Interval(
            loss=tf.reduce_mean(losses, axis=0),
            loss_std=tf.math.reduce_std(losses, axis=0),
            validation_loss=validation,
            progress=tf.fill(tf.shape(rates), progress),
            movement=movement,
            alignment=alignment,
            norm=norm,
        )
        # what stays as it is would be copied on its way out
        state = tf.nest.map_structure(
            lambda new, old: None if new is old else new, state, runs.state
        )
        return Runs(state, done, moved, None), Report(seen, losses)

    @tf.function(autograph=False)
    def drawn_interval(runs: Runs, rates: tf.Tensor) -> tuple[Runs, Report]:
        seed = tf.random.experimental.stateless_fold_in(runs.seed, runs.interval)
        changed, report = interval(runs, problem.batches(runs.state, seed), rates)
        runs = tf.nest.map_structure(lambda new, old: old if new is None else new, changed, runs)
        return runs, report

    return drawn_interval
