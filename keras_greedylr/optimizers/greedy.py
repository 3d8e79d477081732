"""GreedyLR inside the training step: no loss has to come to the host for the rate to move.

A train step calls `scale_loss` with the batch's loss before it takes the gradients, and `apply`
with the gradients after. Here the first keeps the loss, and the second hands the gradients to
the optimizer inside and then the loss to the rule. So the step is taken at the rate that earlier
losses led to, and the new rate is that of the next one, as under the callback `GreedyLR`.

Where PyTorch compiles nothing each operation on a tensor costs microseconds. On a CPU the values
are in the host's memory already: there the rule runs in Python, as soon as a loss could move the
rate, or somebody asks, and on all losses since then. On a GPU its operations are recorded once and
then started as one.
"""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers import LossScaleOptimizer

from keras_greedylr.optimizers.device_rule import DeviceRule
from keras_greedylr.optimizers.recorded import Recorded
from keras_greedylr.optimizers.scalars import add_scalar, select, set_weights, to_rate
from keras_greedylr.rule import GreedyRule, GreedyState

MOST_KEPT = 256  # losses on a host that the rule has not seen
TORCH = keras.backend.backend() == "torch"
if TORCH:
    import torch


@keras.saving.register_keras_serializable(package="keras_greedylr")
class GreedyOptimizer(LossScaleOptimizer):
    """Raises another optimizer's learning rate while the loss falls, cuts it when it stops.

    It does per step, inside the compiled training step, what the callback
    `GreedyLR(update_every=1)` does on the host. After each step that the inner
    optimizer takes, the rule looks at the loss of that step's batch; with
    `gradient_accumulation_steps` at the mean loss of the batches whose gradients
    were accumulated. A step that loss scaling skips is no step.

    Losses of single batches are noisy: a `window` of some ten or more, with a
    `patience` of that size, tells a trend from the noise.

    The rule's state is part of the optimizer's: `.keras` files, weights files and
    `BackupAndRestore` carry it, and a model that is loaded goes on as if it had
    never stopped. A second `fit` goes on too. On PyTorch's CPU its variable is brought up to
    date when the rate may move, the model is saved, or `variables` or `state` is asked for: do
    not keep it from before. The path of rates is that of
    `GreedyRule.update` to a relative 1e-5 in single precision, but for comparisons
    of two values that differ by less than 2e-7 of their size.

    It owns the rate: set it by `optimizer.learning_rate = 0.1`. Of what the inner
    optimizer's variable is assigned by itself the rule does not know; use no callback
    beside it that sets the rate, either. Under `tf.distribute` the rule sees the mean of the
    replicas' losses, without those that are zero, as the loss of a replica without samples is.
    Clipping, averages, weight decay and accumulation are the inner optimizer's.
    If the global policy is `mixed_float16` by now, the inner optimizer is put into a
    `LossScaleOptimizer`, as `compile` would do. A model that has this policy to itself,
    or is given it later, needs `GreedyOptimizer(LossScaleOptimizer(optimizer), rule)`:
    `compile` takes this optimizer for one that scales.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr import GreedyRule
    >>> from keras_greedylr.optimizers import GreedyOptimizer
    >>> rule = GreedyRule(factor=0.5, patience=1)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=GreedyOptimizer(keras.optimizers.SGD(0.01), rule), loss="mse")
    >>> history = model.fit(np.ones((64, 4)), np.ones((64, 1)), batch_size=32, verbose=0)
    >>> round(float(model.optimizer.learning_rate), 4)
    0.02

    A `train_step` of your own hands it the loss by `scale_loss`, and takes the gradients of
    what comes back. On TensorFlow:

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
                scaled = self.optimizer.scale_loss(loss)
            weights = self.trainable_variables
            self.optimizer.apply(tape.gradient(scaled, weights), weights)
            return {"loss": loss}

    On JAX `scale_loss` stands inside the function given to `jax.value_and_grad`.
    A program that loads a saved model imports `keras_greedylr.optimizers` first.

    Args:
        inner_optimizer: An optimizer with a float for its learning rate, which is
            where the rate begins, or a `LossScaleOptimizer` around one.
        rule: A `GreedyRule`. Its counts are of steps and at most 2^24.
        name: String. A name for the optimizer.

    Raises:
        ValueError: at construction if an argument is of a wrong kind; in the first
            step if no loss came, see `apply`.

    Reference:
        "Zeroth order GreedyLR" (PRML 2023); arXiv 2512.14527.
    """

    sets_learning_rate = True  # for the callbacks, which cannot do it beside
    rate_is_next = True  # after a step it is that of the step to come

    # A LossScaleOptimizer for one reason: `compile` puts any other optimizer into one under
    # `mixed_float16`, which then would keep the loss to itself.

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        rule: GreedyRule,
        name: str = "greedy_optimizer",
    ):
        single = _single(inner_optimizer)
        # The rate of those that stand around others, as `MultiOptimizer` does, moves nothing.
        around = isinstance(single, LossScaleOptimizer) or hasattr(single, "optimizers")
        rate = None if around else getattr(single, "_learning_rate", None)
        if isinstance(inner_optimizer, GreedyOptimizer) or not isinstance(rate, keras.Variable):
            raise ValueError(
                "`inner_optimizer` must be an optimizer with a float for its learning rate, or a "
                "LossScaleOptimizer around one. "
                f"Received: inner_optimizer={inner_optimizer!r} with learning_rate={rate!r}"
            )
        if not isinstance(rule, GreedyRule):
            raise ValueError(f"`rule` must be a GreedyRule. Received: rule={rule!r}")
        number = to_rate(rate)
        # The rate lives in the inner optimizer, where those who log rates look.
        super(LossScaleOptimizer, self).__init__(learning_rate=lambda: rate, name=name)
        if keras.config.dtype_policy().name == "mixed_float16" and not isinstance(
            inner_optimizer, LossScaleOptimizer
        ):
            inner_optimizer = LossScaleOptimizer(inner_optimizer)
        self.inner_optimizer = inner_optimizer
        self.rule = rule
        self._device_rule = DeviceRule(rule)
        # The loss of the step that is under way; Keras looks into each attribute that is set.
        self._step = SimpleNamespace(loss=None)
        # On a host: losses the rule has not seen, and how many of them cannot move the rate.
        self._kept = SimpleNamespace(losses=[], idle=0)
        # Here and not in `build`: on TensorFlow `fit` begins before that.
        vector = self._device_rule.init(number)
        self._vector = self.add_variable(
            (len(vector),),
            lambda shape, dtype: ops.convert_to_tensor(vector, dtype),
            dtype="float64" if keras.config.floatx() == "float64" else "float32",
            aggregation="only_first_replica",  # each device computes the same
            name="rule",
        )
        accumulates = _single(inner_optimizer).gradient_accumulation_steps
        self._loss_sum = add_scalar(self, "loss_sum") if accumulates else None
        self._recorded = Recorded(self._look_on_device)

    @property
    def learning_rate(self) -> Any:
        """The rate of the next step; the rule goes on from one that is assigned."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        number = to_rate(learning_rate)
        self.inner_optimizer.learning_rate = number
        moved = self._device_rule.moved_to(self._read(), number)
        self._vector.assign(ops.convert_to_tensor(moved, self._vector.dtype))

    @property
    def state(self) -> GreedyState:
        """What the rule remembers, read from the device; `event` is not kept there."""
        return self._device_rule.to_state(self._read())

    @property
    def variables(self) -> list[keras.Variable]:
        """The rule's and the inner optimizer's, up to date."""
        self._catch_up()
        self._kept.idle = 0  # they may be asked for to be set
        return super().variables

    def _read(self) -> list[float]:
        self._catch_up()
        return _array(self._vector).tolist()

    def set_weights(self, weights: list[Any]) -> None:
        """Sets the variables, in the order of `variables`."""
        set_weights(self, weights)

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the inner optimizer's variables."""
        if self.built:
            return
        self.inner_optimizer.build(variables)
        super(LossScaleOptimizer, self).build(variables)
        inner, single = self.inner_optimizer, _single(self.inner_optimizer)
        if single is not inner and single.use_ema:  # `SwapEMAWeights` looks one level deep
            inner._model_variables_moving_average = single._model_variables_moving_average

    def exclude_from_weight_decay(
        self, var_list: list[keras.Variable] | None = None, var_names: list[str] | None = None
    ) -> None:
        """Leaves weights out of the inner optimizer's weight decay."""
        _single(self.inner_optimizer).exclude_from_weight_decay(var_list, var_names)

    def scale_loss(self, loss: Any) -> Any:
        """Keeps the loss for the rule and returns what the inner optimizer makes of it."""
        # On JAX this also takes it out of the differentiation, so that `apply` may use it.
        self._step.loss = loss.detach() if TORCH else ops.stop_gradient(loss)
        return self.inner_optimizer.scale_loss(loss)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Takes a step and has the rule look at its loss.

        Raises:
            ValueError: if `scale_loss` was not called since the last step, or there are no
                variables to build the optimizer for.
        """
        if not self.built:
            if trainable_variables is None:
                raise ValueError(
                    "Before it is built, GreedyOptimizer has to be given variables with the "
                    "gradients. Received: trainable_variables=None"
                )
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))
        loss, before = self._take_loss(), self._taken()
        self.inner_optimizer.apply(grads, trainable_variables)
        self._look(loss, before)

    def stateless_apply(
        self, optimizer_variables: Any, grads: Any, trainable_variables: Any
    ) -> tuple[Any, Any]:
        """`apply` on values instead of variables, for JAX.

        Raises:
            ValueError: if `scale_loss` was not called since the last step.
        """
        loss, own = self._take_loss(), len(self._variables)
        with keras.StatelessScope(list(zip(self.variables, optimizer_variables, strict=True))):
            before = self._taken()
        trainable_variables, inner = self.inner_optimizer.stateless_apply(
            optimizer_variables[own:], grads, trainable_variables
        )
        values = [*optimizer_variables[:own], *inner]
        with keras.StatelessScope(list(zip(self.variables, values, strict=True))) as scope:
            self._look_on_device(loss, before)
        return trainable_variables, [scope.get_current_value(v) for v in self.variables]

    def _take_loss(self) -> Any:
        loss, self._step.loss = self._step.loss, None
        if loss is None:
            raise ValueError(
                "GreedyOptimizer was given gradients but no loss. A `train_step` of your own must "
                "call `loss = self.optimizer.scale_loss(loss)` and take the gradients of that, as "
                "Keras' does. A LossScaleOptimizer belongs inside: "
                "GreedyOptimizer(LossScaleOptimizer(optimizer), rule)."
            )
        return loss

    @property
    def _batches(self) -> int:
        """How many batches make a step."""
        return _single(self.inner_optimizer).gradient_accumulation_steps or 1

    def _taken(self) -> Any:
        """How many batches the inner optimizer has taken, or None where it takes each as a step."""
        if isinstance(self.inner_optimizer, LossScaleOptimizer) or self._loss_sum is not None:
            return ops.copy(_single(self.inner_optimizer)._iterations)
        return None

    def _look(self, loss: Any, before: Any) -> None:
        """Lets the rule look at a step that was taken, after `before` batches."""
        eager = TORCH and not torch.compiler.is_compiling()
        if eager and loss.is_cpu:
            self._look_on_host(float(loss), before)
            return
        self._catch_up()
        self._kept.idle = 0  # what is done on the device goes past it
        if eager and loss.is_cuda:
            single = _single(self.inner_optimizer)
            used = [self._vector, single._learning_rate, single._iterations, self._loss_sum]
            inputs = [loss] if before is None else [loss, before]
            self._recorded([x for x in used if x is not None], *inputs)
        else:
            self._look_on_device(loss, before)

    def _look_on_device(self, loss: Any, before: Any = None) -> None:
        """In tensors."""
        # Read once: on TensorFlow the variable itself would be read at each use.
        vector = ops.stop_gradient(ops.convert_to_tensor(self._vector))
        loss = ops.cast(_over_replicas(loss), vector.dtype)
        if before is None:
            after, rate = self._device_rule.update(vector, loss)
        else:
            now = self._taken()
            taken = now > before
            applied = taken & (now % self._batches == 0)
            if self._loss_sum is not None:
                total = ops.convert_to_tensor(self._loss_sum) + select(taken, loss, 0.0)
                self._loss_sum.assign(select(applied, 0.0, total))
                loss = total / self._batches
            after, rate = self._device_rule.update(vector, loss)
            after, rate = select(applied, after, vector), select(applied, rate, vector[0])
        self._vector.assign(after)
        _single(self.inner_optimizer)._learning_rate.assign(rate)

    def _look_on_host(self, loss: float, before: Any) -> None:
        """In Python's numbers."""
        if before is not None:
            now = self._taken()
            if now == before:
                return
            if self._loss_sum is not None:
                loss += float(self._loss_sum.value)
                applied = int(now) % self._batches == 0
                self._loss_sum.assign(0.0 if applied else loss)
                if not applied:
                    return
                loss /= self._batches
        self._kept.losses.append(loss)
        if len(self._kept.losses) > min(self._kept.idle, MOST_KEPT):
            self._catch_up()

    def _catch_up(self) -> None:
        """Has the rule look at the losses kept on a host."""
        losses, self._kept.losses = self._kept.losses, []
        if not losses:
            return
        # Not a copy: `assign` takes many times as long.
        memory = self._vector._value.detach().numpy()
        rate = memory[0]
        memory[:], self._kept.idle = self._device_rule.update_on_host(memory.tolist(), losses)
        if memory[0] != rate:
            _single(self.inner_optimizer)._learning_rate.assign(float(memory[0]))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "rule": asdict(self.rule),
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> GreedyOptimizer:
        """Makes an optimizer from `get_config`."""
        rule = GreedyRule(**config["rule"])
        return super().from_config({**config, "rule": rule}, custom_objects)


def _single(optimizer: Any) -> Any:
    """The optimizer that has the rate."""
    return optimizer.inner_optimizer if isinstance(optimizer, LossScaleOptimizer) else optimizer


def _array(variable: keras.Variable) -> np.ndarray:
    # By way of a tensor: a variable spread over replicas is no array.
    return ops.convert_to_numpy(ops.convert_to_tensor(variable))


def _over_replicas(loss: Any) -> Any:
    """The loss of the whole batch; under `tf.distribute` each replica has a part of it.

    Of a short batch a replica may get no samples, whose loss Keras makes zero. It is left out.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        replicas = tf.distribute.get_replica_context()
        if replicas is not None and replicas.num_replicas_in_sync > 1:
            parts = tf.stack([loss, tf.cast(loss != 0.0, loss.dtype)])
            total, some = tf.unstack(replicas.all_reduce(tf.distribute.ReduceOp.SUM, parts))
            return total * (replicas.num_replicas_in_sync / tf.maximum(some, 1.0))
    return loss
