"""GreedyOptimizer under a `train_step` of one's own, which has to hand it the loss."""

import re
import textwrap

import keras
import numpy as np
import pytest
from given_losses import LOSSES, RULE, TOLERANCE, fit, follow, greedy, make_model, rates
from helpers import Probe

from keras_greedylr.optimizers import GreedyOptimizer

BACKEND = keras.backend.backend()


class OwnStep(keras.Model):
    """Trains with a `train_step` of its own."""

    scales = True

    def train_step(self, *arguments):
        return getattr(self, f"_{BACKEND}_step")(*arguments)

    def _loss(self, x, y):
        y_pred = self(x, training=True)
        return self.compute_loss(x, y, y_pred)

    def _scaled(self, loss):
        return self.optimizer.scale_loss(loss) if self.scales else loss

    def _tensorflow_step(self, data):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self._loss(*data)
            scaled = self._scaled(loss)
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, weights), weights)
        return {"loss": loss}

    def _torch_step(self, data):
        import torch

        self.zero_grad()
        loss = self._loss(*data)
        self._scaled(loss).backward()
        weights = self.trainable_variables
        with torch.no_grad():
            self.optimizer.apply([weight.value.grad for weight in weights], weights)
        return {"loss": loss.detach()}

    def _jax_step(self, state, data):
        import jax

        x, y = data
        trainable, others, optimizer, metrics = state

        def loss_of(trainable):
            y_pred, _ = self.stateless_call(trainable, others, x, training=True)
            loss = self.compute_loss(x, y, y_pred)
            return self._scaled(loss), loss

        (_, loss), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"loss": loss}, (trainable, others, optimizer, metrics)


def test_under_a_train_step_of_ones_own():
    model, probe = make_model(greedy(), make=OwnStep), Probe()
    fit(model, LOSSES[:30], [probe])
    expected = rates(follow(RULE, LOSSES[:30]))[:-1]
    np.testing.assert_allclose(probe.batches, expected, rtol=TOLERANCE)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="it is TensorFlow's")
def test_under_the_train_step_that_its_docstring_shows():
    import tensorflow as tf

    (shown,) = re.findall(r"( +def train_step.*?)\n\n", GreedyOptimizer.__doc__, flags=re.DOTALL)
    members = {}
    exec(textwrap.dedent(shown), {"tf": tf}, members)
    model, probe = make_model(greedy(), make=type("Shown", (keras.Model,), members)), Probe()
    fit(model, LOSSES[:30], [probe])
    expected = rates(follow(RULE, LOSSES[:30]))[:-1]
    np.testing.assert_allclose(probe.batches, expected, rtol=TOLERANCE)


def test_it_says_that_it_has_no_variables():
    with pytest.raises(ValueError, match="Received: trainable_variables=None"):
        greedy().apply([keras.ops.ones(1)])


def test_it_says_that_no_loss_came(dtype_policy):
    class NoLoss(OwnStep):
        scales = False

    outside = keras.optimizers.LossScaleOptimizer(greedy())
    for model in (make_model(greedy(), make=NoLoss), make_model(outside)):
        with pytest.raises(ValueError, match="gradients but no loss") as caught:
            fit(model, LOSSES[:1])
        assert "self.optimizer.scale_loss(loss)" in str(caught.value)
        assert "GreedyOptimizer(LossScaleOptimizer(optimizer), rule)" in str(caught.value)
