"""The environment an agent learns in: many training runs, one action each per interval.

An episode is one run from start to end. Its first interval is trained at the cautious rate
`observation.init` sets, without a decision; then each action sets the rate of the next interval.
The reward is by how much the logarithm of the validation loss fell, so that an episode's return
is what it fell in all; a share of it may go to the training loss.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow.experimental.numpy as tnp
from tf_agents.environments import tf_environment
from tf_agents.specs import array_spec, tensor_spec
from tf_agents.trajectories import time_step as ts

from keras_greedylr import observation
from keras_greedylr_agents.problems.base import Problem, Runs, advance, start

DECADES = 2.5  # initial rates are drawn over so many on either side of the usual one
SHOWN = 0.7  # part of the runs whose validation loss the policy sees
WORST = 2.0  # log of the loss a run that diverged is taken to have, against its first
SMALLEST = 1e-4  # spread of returns; below, it is noise
RAISE = 0.75  # of a family whose returns spread little; at 1 they would spread as all do
FLOOR = 3e-4  # part of the first loss below which falling further earns little
TRAINING_FLOOR = 0.03  # the training loss's; where it falls without end, validation's may rise


class Episode(NamedTuple):
    """Where P runs of several problems are; [P] runs over all problems, in their order."""

    runs: tuple[Runs, ...]  # of each problem
    history: observation.History
    shown: tf.Tensor  # [P] bool, whether the policy sees validation losses
    first_validation: tf.Tensor  # [P], of the untrained weights
    first_loss: tf.Tensor  # [P], of the first interval
    score: tf.Tensor  # [P], what the return is counted from


class ScheduleEnvironment(tf_environment.TFEnvironment):
    """Learning-rate scheduling of many inner training runs as a `TFEnvironment`.

    Args:
        problems: The families; each gets the same number of runs.
        runs: Runs in all, P; at least one per family.
        seed: Of everything random; `episode` is folded in.
        copies: So many runs in a row are alike but for their batches and actions. They tell by
            how much an action is better than another, however hard the run is to train.
        training_share: In [0, 1], the share of the reward that is the training loss's.
    """

    def __init__(
        self,
        problems: tuple[Problem, ...],
        runs: int,
        seed: int,
        copies: int = 1,
        training_share: float = 0.0,
    ) -> None:
        self.problems = problems
        self.copies = copies
        self.each = max(runs // len(problems) // copies, 1) * copies
        self.seed = seed
        self.training_share = training_share
        self.episode = tf.Variable(0, dtype=tf.int32, name="episode")  # of the next reset
        width = len(observation.NAMES)
        time_step_spec = ts.time_step_spec(
            array_spec.BoundedArraySpec(
                (width,), "float32", -observation.LIMIT, observation.LIMIT, name="observation"
            )
        )
        super().__init__(
            tensor_spec.from_spec(time_step_spec),
            tensor_spec.BoundedTensorSpec((), tf.float32, -1.0, 1.0, name="action"),
            batch_size=self.each * len(problems),
        )
        # as one graph, so that the families are compiled side by side
        begun, seen = tf.function(self.begin, autograph=False)(tf.constant([seed, 0]))
        self._now = tf.nest.map_structure(tf.Variable, begun)
        self._time_step = tf.nest.map_structure(tf.Variable, ts.restart(seen, self.batch_size))

    def by_family(self, values: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the parts [P / families] of `values` [P] by family."""
        parts = tf.split(values, len(self.problems))
        return {problem.name: part for problem, part in zip(self.problems, parts, strict=True)}

    def begin(self, seed: tf.Tensor) -> tuple[Episode, tf.Tensor]:
        """Returns fresh runs after their first interval, and what is seen of them."""
        seeds = tf.unstack(
            tf.random.experimental.stateless_split(seed, len(self.problems) + 2),
            num=len(self.problems) + 2,
        )
        runs = tuple(
            self._copied(start(problem, part, self.each // self.copies))
            for problem, part in zip(self.problems, seeds, strict=False)
        )
        usual = self._gather("usual_rate", runs)
        originals = (self.batch_size // self.copies,)
        spread = tf.random.stateless_uniform(originals, seeds[-1], -DECADES, DECADES)
        shown = tf.random.stateless_uniform(originals, seeds[-2]) < SHOWN
        zero = tf.zeros_like(usual)
        episode = Episode(
            runs=runs,
            history=observation.init(
                tnp, usual * 10.0 ** self._each(spread), bound=self._bound(runs)
            ),
            shown=self._each(shown),
            first_validation=self._gather("validation_loss", runs),
            first_loss=zero,
            score=zero,
        )
        episode, interval = self._train(episode, observation.rate(tnp, episode.history))
        episode = episode._replace(first_loss=interval.loss)
        return self._look(episode, interval)

    def relative(self, rewards: tf.Tensor) -> tf.Tensor:
        """Returns rewards [P, T] less the mean of their copies', small differences made larger.

        What its other copies earn does not depend on a run's actions, so what is taken away is
        noise only; its own share in the mean makes the rest smaller by 1 / copies. A family whose
        returns then spread less than all do is multiplied by `RAISE`'s power of how much less: what
        a rate does to a factorisation, some per cent, would be lost among the networks.
        Without copies there is nothing to compare with, and rewards stay as they are.
        """
        if self.copies == 1:
            return rewards
        shape = (len(self.problems), -1, self.copies, rewards.shape[1])
        families = tf.reshape(rewards, shape)
        families -= tf.reduce_mean(families, axis=2, keepdims=True)
        returns = tf.reduce_sum(families, axis=3, keepdims=True)
        spread = tf.sqrt(tf.reduce_mean(tf.square(returns), axis=[1, 2], keepdims=True))
        raised = (tf.reduce_mean(spread) / tf.maximum(spread, SMALLEST)) ** RAISE
        return tf.reshape(tf.maximum(raised, 1.0) * families, rewards.shape)

    def step_seed(self) -> tf.Tensor:
        """Returns a seed [2] of this step's own, which follows from the step's number."""
        seed = tf.stack([self.seed, self.episode])
        return tf.random.experimental.stateless_fold_in(seed, self._now.runs[0].interval)

    def play(self, episode: Episode, action: tf.Tensor) -> tuple[Episode, tf.Tensor]:
        """Returns the runs one interval on, and what is seen of them."""
        history, rates = observation.apply_action(tnp, episode.history, action)
        return self._look(*self._train(episode._replace(history=history), rates))

    def _train(self, episode: Episode, rates: tf.Tensor) -> tuple[Episode, observation.Interval]:
        """Trains an interval; the families do not depend on each other and may run side by side."""
        parts = tf.split(rates, len(self.problems))
        done = [
            advance(problem, runs, part, observation.DECISIONS)
            for problem, runs, part in zip(self.problems, episode.runs, parts, strict=True)
        ]
        intervals = [report.interval for _, report in done]
        together = tf.nest.map_structure(lambda *fields: tf.concat(fields, axis=0), *intervals)
        return episode._replace(runs=tuple(runs for runs, _ in done)), together

    def _look(self, episode: Episode, interval: observation.Interval) -> tuple[Episode, tf.Tensor]:
        """Updates history and score."""
        validation = interval.validation_loss
        score = _log_fall(validation, episode.first_validation, FLOOR)
        if self.training_share:
            training = _log_fall(interval.loss, episode.first_loss, TRAINING_FLOOR)
            score = self.training_share * training + (1.0 - self.training_share) * score
        due = [
            tf.fill([self.each], tf.equal(runs.interval % problem.validate_every, 0))
            for problem, runs in zip(self.problems, episode.runs, strict=True)
        ]
        score = tf.where(tf.concat(due, axis=0), score, episode.score)
        hidden = tf.fill(tf.shape(validation), float("nan"))
        interval = interval._replace(validation_loss=tf.where(episode.shown, validation, hidden))
        bound = self._bound(episode.runs)
        history, seen = _observe(episode.history, interval, bound)
        return episode._replace(history=history, score=score), seen

    def _each(self, originals: tf.Tensor) -> tf.Tensor:
        return tf.repeat(originals, self.copies, axis=0)

    def _copied(self, runs: Runs) -> Runs:
        state = tf.nest.map_structure(self._each, runs.state)
        return runs._replace(state=state, movement=self._each(runs.movement))

    @tf.function(jit_compile=True, autograph=False)
    def _bound(self, runs: tuple[Runs, ...]) -> tf.Tensor:
        """The problems' bounds."""
        bounds = [problem.bound(r.state) for problem, r in zip(self.problems, runs, strict=True)]
        no_bound = tf.fill([self.each], observation.NO_BOUND)
        return tf.concat([no_bound if bound is None else bound for bound in bounds], axis=0)

    def _gather(self, method: str, runs: tuple[Runs, ...]) -> tf.Tensor:
        """One [P] of what every problem's method says of its runs."""
        values = [
            getattr(problem, method)(r.state)
            for problem, r in zip(self.problems, runs, strict=True)
        ]
        return tf.concat(values, axis=0)

    # what a TFEnvironment is asked for

    def _current_time_step(self) -> ts.TimeStep:
        return tf.nest.map_structure(tf.convert_to_tensor, self._time_step)

    def _reset(self) -> ts.TimeStep:
        begun, seen = self.begin(tf.stack([self.seed, self.episode]))
        with tf.control_dependencies(tf.nest.flatten(begun)):
            self.episode.assign_add(1)
        return self._store(begun, ts.restart(seen, self.batch_size))

    def _step(self, action: tf.Tensor) -> ts.TimeStep:
        over = tf.reduce_all(self._current_time_step().is_last())
        return tf.cond(over, self._reset, lambda: self._play(action))

    def _play(self, action: tf.Tensor) -> ts.TimeStep:
        before = tf.nest.map_structure(tf.convert_to_tensor, self._now)
        after, seen = self.play(before, tf.convert_to_tensor(action))
        last = tf.equal(after.runs[0].interval, observation.DECISIONS)
        one = tf.ones([self.batch_size])
        step_type = tf.where(last, ts.StepType.LAST, ts.StepType.MID)
        return self._store(
            after,
            ts.TimeStep(
                step_type=tf.fill([self.batch_size], step_type),
                reward=before.score - after.score,
                discount=tf.where(last, 0.0 * one, one),
                observation=seen,
            ),
        )

    def _store(self, episode: Episode, time_step: ts.TimeStep) -> ts.TimeStep:
        tf.nest.map_structure(
            lambda variable, value: variable.assign(value),
            (self._now, self._time_step),
            (episode, time_step),
        )
        return time_step


@tf.function(jit_compile=True, autograph=False)
def _observe(
    history: observation.History, interval: observation.Interval, bound: tf.Tensor
) -> tuple[observation.History, tf.Tensor]:
    """Compiled: hundreds of operations on [P] would take longer to begin than to do."""
    return observation.observe(tnp, history, interval, bound)


def _log_fall(loss: Any, first: Any, floor: float) -> tf.Tensor:
    """log(loss / first), flattened from the floor down, `WORST` if it is not finite."""
    value = tf.math.log(tf.maximum(loss / first, 0.0) + floor)
    sound = tf.abs(loss) < float("inf")
    return tf.where(sound, tf.minimum(value, WORST), WORST)
