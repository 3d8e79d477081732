"""What learns: PPO's actor and critic, and how the actor explores."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.networks import (
    actor_distribution_network,
    normal_projection_network,
    value_network,
)
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

if TYPE_CHECKING:
    from keras_greedylr_agents.environment import ScheduleEnvironment
    from keras_greedylr_agents.train import Config


def make_agent(config: Config, environment: ScheduleEnvironment) -> ppo_clip_agent.PPOClipAgent:
    """Returns the untrained agent: two tanh layers for the actor, two for the critic."""
    layers = (config.hidden, config.hidden)
    activation = tf.keras.activations.tanh

    def projection(spec: tf.TypeSpec) -> normal_projection_network.NormalProjectionNetwork:
        # a bounded mean through tanh, and one deviation for all observations
        return normal_projection_network.NormalProjectionNetwork(
            spec,
            init_means_output_factor=0.01,
            std_bias_initializer_value=_inverse_softplus(config.deviation),
            std_transform=tf.nn.softplus,
        )

    actor = actor_distribution_network.ActorDistributionNetwork(
        environment.observation_spec(),
        environment.action_spec(),
        fc_layer_params=layers,
        activation_fn=activation,
        continuous_projection_net=projection,
    )
    critic = value_network.ValueNetwork(
        environment.observation_spec(), fc_layer_params=layers, activation_fn=activation
    )

    # by the number of steps, so that a seed gives one policy
    steps = config.iterations * config.epochs * config.minibatches
    learning_rate = tf.keras.optimizers.schedules.PolynomialDecay(
        config.learning_rate, steps, 0.1 * config.learning_rate
    )
    agent = ppo_clip_agent.PPOClipAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        optimizer=tf.keras.optimizers.Adam(learning_rate, epsilon=1e-5),
        actor_net=actor,
        value_net=critic,
        importance_ratio_clipping=config.clip,
        lambda_value=config.trace,
        discount_factor=config.discount,
        entropy_regularization=config.entropy,
        num_epochs=1,
        use_gae=True,
        normalize_observations=False,  # they are of order one already, and export stays a plain net
        gradient_clipping=0.5,
    )
    agent.initialize()
    return agent


def _inverse_softplus(value: float) -> float:
    """log(exp(value) - 1), of large values too."""
    return value + math.log(-math.expm1(-value))


class Explorer(tf_policy.TFPolicy):
    """The collect policy, its noise drawn by the step's number: a resumed training draws it too."""

    def __init__(self, policy: tf_policy.TFPolicy, environment: ScheduleEnvironment) -> None:
        super().__init__(
            policy.time_step_spec,
            policy.action_spec,
            policy.policy_state_spec,
            policy.info_spec,
            clip=False,  # the environment does, and PPO wants to know what was drawn
        )
        self._policy, self._environment = policy, environment

    def _variables(self) -> list[tf.Variable]:
        return self._policy.variables()

    def _distribution(self, time_step: ts.TimeStep, policy_state: Any) -> policy_step.PolicyStep:
        return self._policy.distribution(time_step, policy_state)

    def _action(
        self, time_step: ts.TimeStep, policy_state: Any, seed: Any
    ) -> policy_step.PolicyStep:
        step = self._distribution(time_step, policy_state)
        return step._replace(action=step.action.sample(seed=self._environment.step_seed()))
