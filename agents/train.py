"""PPO over the environment: configuration, one iteration, checkpoints and logs."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.drivers import dynamic_episode_driver
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.trajectories import trajectory

from keras_greedylr import observation
from keras_greedylr.policy import is_pattern
from keras_greedylr.validation import check_float, check_int
from keras_greedylr.whole_file import write_whole
from keras_greedylr_agents.agent import Explorer, make_agent
from keras_greedylr_agents.environment import ScheduleEnvironment
from keras_greedylr_agents.problems.families import select

Metrics = dict[str, float]


@dataclass(frozen=True)
class Config:
    """What a training of a policy depends on, and nothing else does.

    Args:
        problems: Training families, by sort (`nmf`, `networks`) or name, comma-separated.
        seed: Of everything random.
        runs: Inner training runs per iteration, over all families. The more at once, the more
            inner steps a second.
        copies: How many of them are alike, so that an action is compared with others.
        iterations: PPO iterations; the learner's schedules go by their number.
        epochs: Passes of the learner over each iteration's transitions.
        minibatches: Parts the runs are cut into, the learner taking a step on each.
        learning_rate: Of the learner's Adam at the start; it falls linearly to a tenth.
        hidden: Width of the two hidden layers of actor and critic.
        deviation: Standard deviation of the actions at the start; it is learned from there.
        discount: Of later rewards; at 1 the return is what the loss fell in all.
        trace: Lambda of the generalised advantage estimate; what a rate does to the validation
            loss may show twenty decisions later, so it must not be small.
        clip: How far PPO lets a probability ratio move.
        entropy: Weight of the entropy bonus.
        training_share: Share of the reward that the training loss has; the rest is validation's.
    """

    problems: str = "nmf,networks"
    seed: int = 0
    runs: int = 2208
    copies: int = 4
    iterations: int = 90
    epochs: int = 15
    minibatches: int = 4
    learning_rate: float = 1e-3
    hidden: int = 64
    deviation: float = 0.3
    discount: float = 1.0
    trace: float = 0.98
    clip: float = 0.2
    entropy: float = 0.0
    training_share: float = 0.15

    def __post_init__(self) -> None:
        families = len(select(self.problems))
        check_int("seed", self.seed, least=0)
        if self.seed >= 2**31:
            raise ValueError(f"`seed` must be below 2^31. Received: seed={self.seed}")
        for name in ("runs", "copies", "iterations", "epochs", "minibatches", "hidden"):
            check_int(name, getattr(self, name), least=1)
        each = self.runs // families // self.copies * self.copies
        if each < self.minibatches:
            raise ValueError(
                f"Each minibatch holds runs of all {families} families, and each family runs in "
                f"groups of `copies`: with `runs` there are {each} of a family for `minibatches`. "
                f"Received: runs={self.runs}, copies={self.copies}, minibatches={self.minibatches}"
            )
        for name in ("learning_rate", "deviation", "clip"):
            check_float(name, getattr(self, name), above=0.0)
        for name in ("discount", "trace", "training_share"):
            check_float(name, getattr(self, name), least=0.0, most=1.0)
        check_float("entropy", self.entropy, least=0.0)


def use_threads() -> None:
    """Gives the families, computed side by side, two threads a core.

    A family that waits for the others then leaves no core idle. Does nothing once TensorFlow is at
    work.
    """
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_inter_op_parallelism_threads(2 * (os.cpu_count() or 1))


class Trainer:
    """A training on its way.

    Args:
        config: What to train.
        folder: Where checkpoints and TensorBoard's logs are kept.
        resume: Go on from the folder's last checkpoint. Without it the folder must hold none.

    Raises:
        ValueError: if the folder's checkpoint is of another configuration, or if there is one and
            `resume` is false.
    """

    def __init__(self, config: Config, folder: Path, resume: bool = False) -> None:
        self.config, self.folder = config, folder
        self._claim(resume)
        tf.keras.utils.set_random_seed(config.seed)
        self.environment = ScheduleEnvironment(
            select(config.problems),
            config.runs,
            config.seed,
            config.copies,
            config.training_share,
        )
        self.iteration = tf.Variable(0, dtype=tf.int64, trainable=False, name="iteration")
        self.agent = make_agent(config, self.environment)
        self._buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
            self.agent.collect_data_spec,
            batch_size=self.environment.batch_size,
            max_length=observation.DECISIONS,  # one frame more than there are actions: the boundary
        )
        self._driver = dynamic_episode_driver.DynamicEpisodeDriver(
            self.environment,
            Explorer(self.agent.collect_policy, self.environment),
            observers=[self._buffer.add_batch],
            num_episodes=self.environment.batch_size,
        )
        checkpoint = tf.train.Checkpoint(agent=self.agent, iteration=self.iteration)
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(folder / "checkpoints"), max_to_keep=2
        )
        if self._manager.latest_checkpoint:
            checkpoint.restore(self._manager.latest_checkpoint).expect_partial()
        # the runs themselves are not saved: an iteration's follow from its number
        self.environment.episode.assign(tf.cast(self.iteration, tf.int32))
        if int(self.iteration):
            # In a graph, as the iteration before would have begun them: its rounding is another.
            tf.function(self.environment.reset, autograph=False)()
        else:
            self.environment.reset()
        self._writer = tf.summary.create_file_writer(str(folder / "logs"))

    def run(
        self,
        report: Callable[[int, Metrics], None] = lambda *_: None,
        minutes: float | None = None,
    ) -> None:
        """Trains until the configured number of iterations, or until the minutes are over.

        Args:
            report: Called after each iteration with its number and metrics.
            minutes: Time after which no further iteration is begun. One always is: a policy
                that was never trained is no result.
        """
        begin = time.monotonic()
        while int(self.iteration) < self.config.iterations:
            report(int(self.iteration) + 1, self.iterate())
            if minutes is not None and time.monotonic() - begin > 60 * minutes:
                return

    def iterate(self) -> Metrics:
        """Collects one episode of every run, learns from it, logs it and saves a checkpoint."""
        begin = time.monotonic()
        frames = self._collect()
        returns = tf.reduce_sum(frames.reward[:, :-1], axis=1).numpy()  # waits for the device
        collected = time.monotonic()
        frames = frames._replace(reward=self.environment.relative(frames.reward))
        parts = _minibatches(frames, self.config.minibatches)
        for part in parts * self.config.epochs:
            loss = self._learn(part)
        self.iteration.assign_add(1)
        families = self.environment.by_family(returns)
        multiplier = frames.observation[:, :, observation.NAMES.index("multiplier")] * 7.0
        metrics = {
            "return": tf.reduce_mean(returns),
            "worst_return": tf.reduce_min(returns),
            "log2_multiplier/quarter": tf.reduce_mean(multiplier[:, observation.DECISIONS // 4]),
            "log2_multiplier/half": tf.reduce_mean(multiplier[:, observation.DECISIONS // 2]),
            "log2_multiplier/end": tf.reduce_mean(multiplier[:, -1]),
            "action/mean": tf.reduce_mean(frames.action),
            "action/deviation": tf.math.reduce_std(frames.action),
            "policy_loss": loss.extra.policy_gradient_loss,
            "value_loss": loss.extra.value_estimation_loss,
            "entropy": self._entropy(),
            **{f"return/{name}": tf.reduce_mean(part) for name, part in families.items()},
        }
        metrics = {name: float(value) for name, value in metrics.items()}
        metrics["inner_steps_per_second"] = self.inner_steps / (collected - begin)
        metrics["seconds"] = time.monotonic() - begin
        with self._writer.as_default(step=int(self.iteration)):
            for name, value in metrics.items():
                tf.summary.scalar(name, value)
        self._writer.flush()
        self._manager.save()
        return metrics

    @property
    def inner_steps(self) -> int:
        """Inner training steps in an iteration."""
        steps = sum(problem.steps for problem in self.environment.problems)
        return steps * self.environment.each * observation.DECISIONS

    def _entropy(self) -> tf.Tensor:
        """Of the actions' distribution, whose deviation does not depend on the observation."""
        step = self.environment.current_time_step()
        return tf.reduce_mean(self.agent.collect_policy.distribution(step).action.entropy())

    @tf.function(autograph=False)
    def _collect(self) -> trajectory.Trajectory:
        """Plays every run to its end, and begins the next iteration's runs."""
        self._buffer.clear()
        self._driver.run(self.environment.current_time_step())
        return self._buffer.gather_all()

    @tf.function(autograph=False)
    def _learn(self, frames: trajectory.Trajectory) -> tf_agent.LossInfo:
        """One step on a minibatch: epochs of the agent's own would be unrolled into the graph."""
        return self.agent.train(frames)

    def _claim(self, resume: bool) -> None:
        """Makes the folder this configuration's, or says why it is not."""
        if is_pattern(self.folder.absolute()):
            raise ValueError(
                "TensorFlow takes a path with any of *?[ for a pattern, and would not find the "
                f"checkpoints. Choose another folder. Received: {self.folder.absolute()}"
            )
        path = self.folder / "config.json"
        mine = json.loads(json.dumps(asdict(self.config)))
        if not (self.folder / "checkpoints" / "checkpoint").exists():  # begun, but nothing done
            write_whole(path, json.dumps(mine, indent=2) + "\n")
            return
        if not resume:
            raise ValueError(
                f"{self.folder} holds a training already. Pass --resume to go on with it, or "
                "choose another --out."
            )
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as JSON: {error}") from error
        if not isinstance(theirs, dict):
            raise ValueError(f"{path} must hold an object. Received: {type(theirs).__name__}")
        names = [n for n in {**mine, **theirs} if n not in mine or mine[n] != theirs.get(n)]
        if names:
            raise ValueError(
                f"{self.folder} holds a training with other settings: "
                + ", ".join(f"{n}={theirs.get(n)!r}, not {mine.get(n)!r}" for n in names)
            )


def _minibatches(frames: trajectory.Trajectory, count: int) -> list[trajectory.Trajectory]:
    """Every `count`-th run from the first, from the second, ...: each part has all families."""
    return [tf.nest.map_structure(lambda x, i=i: x[i::count], frames) for i in range(count)]
