"""What all optimizers that set their own rate have in common, on the running backend."""

import doctest
import importlib
import json

import keras
import numpy as np
import pytest
from helpers import descend, rate_in
from keras import ops

from keras_greedylr import GreedyLR, GreedyRule
from keras_greedylr.optimizers import (
    ArmijoLineSearch,
    GreedyOptimizer,
    HypergradientDescent,
    LineSearchModel,
    Prodigy,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
)

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

# One contract for all: it fits, keeps its promises in a file, and goes on from there.

CONTRACT = {
    "schedule-free sgd": lambda: ScheduleFreeSGD(0.05, warmup_steps=3, weight_decay=0.01),
    "schedule-free adamw": lambda: ScheduleFreeAdamW(0.02, r=1.0, clipnorm=1.0),
    "prodigy": lambda: Prodigy(d0=1e-3, growth_rate=1.5, weight_decay=0.01),
    "prodigy, sliced": lambda: Prodigy(d0=1e-3, slice_p=3, use_bias_correction=True),
    "hypergradient sgd": lambda: HypergradientDescent(keras.optimizers.SGD(0.01), 1e-4),
    "hypergradient momentum": lambda: HypergradientDescent(
        keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=1.0), 0.02, "multiplicative"
    ),
    "hypergradient adam": lambda: HypergradientDescent(
        keras.optimizers.AdamW(0.01), 1e-3, per_parameter=True
    ),
    "line search": lambda: ArmijoLineSearch(0.6, 0.6, c=0.2),  # float32(0.6) > 0.6
}


@pytest.mark.parametrize("make", CONTRACT.values(), ids=CONTRACT)
def test_contract(make, make_model, regression, tmp_path):
    x, y = regression
    model = make_model()
    if isinstance(make(), ArmijoLineSearch):
        model = LineSearchModel(model)
    # XLA takes its time to compile; those with control flow of their own must pass it.
    compiled = not ON_TENSORFLOW or isinstance(make(), ArmijoLineSearch | Prodigy)
    model.compile(make(), loss="mse", jit_compile="auto" if compiled else False)
    config = json.dumps(keras.optimizers.serialize(model.optimizer), allow_nan=False)
    again = keras.optimizers.deserialize(json.loads(config))
    assert type(again) is type(model.optimizer)
    assert json.dumps(keras.optimizers.serialize(again)) == config

    def fit(model):
        return model.fit(x, y, epochs=2, batch_size=32, shuffle=False, verbose=0).history["loss"]

    losses = fit(model)
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert rate_in(loaded.optimizer) == pytest.approx(rate_in(model.optimizer), rel=1e-6)
    np.testing.assert_allclose(fit(loaded), fit(model), rtol=2e-4)
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda adam: HypergradientDescent(adam, 0.0),
        lambda adam: GreedyOptimizer(adam, GreedyRule(patience=99)),
        lambda adam: GreedyOptimizer(
            keras.optimizers.LossScaleOptimizer(adam), GreedyRule(patience=99)
        ),
    ],
    ids=["hypergradient", "greedy", "greedy and loss scaling"],
)
def test_averages_of_the_weights_are_validated_as_without_it(wrap, make_model, regression):
    def losses(wrap):
        adam = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)
        model = make_model()
        model.compile(wrap(adam), loss="mse")
        history = model.fit(
            *regression, epochs=2, validation_data=regression, shuffle=False, verbose=0,
            callbacks=[keras.callbacks.SwapEMAWeights()],
        )  # fmt: skip
        return [*history.history["loss"], *history.history["val_loss"]]

    np.testing.assert_allclose(losses(wrap), losses(lambda adam: adam), rtol=1e-4)


@pytest.mark.parametrize("make", list(CONTRACT.values())[:-1], ids=list(CONTRACT)[:-1])
def test_sparse_gradients_and_weights_without_gradient(make):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), keras.layers.Embedding(7, 2), keras.layers.Flatten()]
    )
    model.compile(make(), loss="mse", jit_compile=False if ON_TENSORFLOW else "auto")
    tokens = np.array([[0, 1, 2], [3, 4, 4]])
    unused = model.get_weights()[0][5:]
    model.fit(tokens, np.ones((2, 6)), epochs=2, verbose=0)
    assert np.isfinite(model.get_weights()[0]).all()
    # Rows that no sample uses only ever decay.
    np.testing.assert_allclose(model.get_weights()[0][5:], unused, rtol=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda **kwargs: ScheduleFreeSGD(0.1, warmup_steps=3, **kwargs),
        lambda **kwargs: ScheduleFreeAdamW(0.1, **kwargs),
        lambda **kwargs: Prodigy(d0=0.1, **kwargs),
        lambda **kwargs: HypergradientDescent(keras.optimizers.Adam(0.1, **kwargs), 0.01),
    ],
)
def test_two_accumulated_gradients_are_one_step(make, float64):
    start = [np.array([1.0, -2.0]), np.array([0.5])]
    plain = descend(make(), lambda w: w, start, 3)
    accumulated = descend(make(gradient_accumulation_steps=2), lambda w: w, start, 6)
    np.testing.assert_allclose(accumulated[1::2], plain, rtol=1e-9)


def test_weights_set_after_the_first_build_are_the_start(float64):
    # The optimizer may be built long before training; p_0 and z are taken late.
    for make in (lambda: ScheduleFreeSGD(0.1), lambda: Prodigy(d0=0.1)):
        fresh = descend(make(), lambda w: w, [np.array([1.0, -2.0])], 3)
        optimizer = make()
        variable = keras.Variable(np.zeros(2), dtype="float64")
        optimizer.build([variable])
        variable.assign(np.array([1.0, -2.0]))
        for step in range(3):
            optimizer.apply([ops.copy(variable)], [variable])
            value = ops.convert_to_numpy(variable.value)
            np.testing.assert_allclose(value, fresh[step], rtol=1e-12)


@pytest.mark.parametrize(
    "wrap",
    [HypergradientDescent, lambda inner: GreedyOptimizer(inner, GreedyRule())],
    ids=["hypergradient", "greedy"],
)
def test_what_is_left_out_of_the_decay_is_left_out_inside(wrap):
    optimizer = wrap(keras.optimizers.SGD(0.1, weight_decay=0.5))
    decays, keeps = keras.Variable([1.0]), keras.Variable([1.0])
    optimizer.exclude_from_weight_decay(var_list=[keeps])
    if isinstance(optimizer, GreedyOptimizer):
        optimizer.scale_loss(ops.convert_to_tensor(1.0))
    optimizer.apply([ops.zeros(1), ops.zeros(1)], [decays, keeps])
    values = [ops.convert_to_numpy(v.value).item() for v in (decays, keeps)]
    assert values == [pytest.approx(0.95), 1.0]


@pytest.mark.parametrize(
    "wrap",
    [
        HypergradientDescent,
        lambda inner: GreedyOptimizer(inner, GreedyRule()),
        lambda inner: GreedyOptimizer(
            keras.optimizers.LossScaleOptimizer(inner), GreedyRule(patience=2)
        ),
    ],
    ids=["hypergradient", "greedy", "greedy and loss scaling"],
)
def test_weights_are_set_inside_as_well(wrap, make_model, regression):
    optimizers = []
    for _ in range(2):
        model = make_model()
        model.compile(wrap(keras.optimizers.Adam(0.01)), loss="mse")
        optimizers.append(model.optimizer)
        if len(optimizers) == 1:
            model.fit(*regression, epochs=1, verbose=0)
        else:
            model.optimizer.build(model.trainable_variables)
    weights = [ops.convert_to_numpy(variable) for variable in optimizers[0].variables]
    optimizers[1].set_weights(weights)
    for variable, weight in zip(optimizers[1].variables, weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), weight)
    with pytest.raises(
        ValueError, match=f"the {len(weights)} variables of.*{len(weights) - 1} arrays"
    ):
        optimizers[1].set_weights([weight + 1.0 for weight in weights[:-1]])
    np.testing.assert_array_equal(ops.convert_to_numpy(optimizers[1].variables[0]), weights[0])


@pytest.mark.parametrize("make", [Prodigy, ScheduleFreeAdamW])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_in_half_precision_are_refused(make, dtype):
    weight = keras.Variable([1.0], dtype=dtype, name="small")
    message = rf"^{make.__name__} cannot keep .* 'mixed_bfloat16'. Received: small \({dtype}\)$"
    with pytest.raises(ValueError, match=message):
        make().build([weight])


@pytest.mark.parametrize("optimizer", [ArmijoLineSearch, HypergradientDescent])
def test_callbacks_that_set_the_rate_are_refused_beside(optimizer):
    model = LineSearchModel(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]))
    model.compile(
        optimizer() if optimizer is ArmijoLineSearch else optimizer(keras.optimizers.SGD()), "mse"
    )
    with pytest.raises(ValueError, match=f"GreedyLR sets the.*, but {optimizer.__name__}"):
        model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[GreedyLR()])


def test_and_inside_loss_scaling():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    inner = HypergradientDescent(keras.optimizers.SGD())
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    with pytest.raises(ValueError, match=r"GreedyLR sets the.*, but HypergradientDescent"):
        model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[GreedyLR()])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScheduleFreeSGD(momentum=1.0), "momentum=1.0"),
        (lambda: ScheduleFreeSGD(use_ema=True), "use_ema=True"),
        (lambda: ScheduleFreeSGD(warmup_steps=-1), "warmup_steps=-1"),
        (lambda: ScheduleFreeAdamW(beta_1=0.0), "beta_1=0.0"),
        (lambda: ScheduleFreeAdamW(weight_decay=-0.1), "weight_decay=-0.1"),
        (lambda: Prodigy(d0=0.0), "d0=0.0"),
        (lambda: Prodigy(beta_2=0.0), "beta_2=0.0"),
        (lambda: Prodigy(epsilon=0.0), "epsilon=0.0"),
        (lambda: Prodigy(growth_rate=0.9), "growth_rate=0.9"),
        (lambda: Prodigy(beta_3=1.0), "beta_3=1.0"),
        (lambda: HypergradientDescent("sgd"), "one of SGD, Adam.*inner_optimizer='sgd'"),
        (lambda: HypergradientDescent(keras.optimizers.Ftrl(0.1)), "Ftrl"),
        (lambda: HypergradientDescent(keras.optimizers.SGD(), mode="up"), "mode='up'"),
        (
            lambda: HypergradientDescent(
                keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9))
            ),
            "float for its learning rate.*CosineDecay",
        ),
        (lambda: HypergradientDescent(keras.optimizers.SGD(), per_parameter="no"), "True or False"),
        (lambda: Prodigy(-1.0), "learning_rate=-1.0"),
        (lambda: Prodigy(decouple="no"), "decouple='no'"),
        (lambda: Prodigy(use_bias_correction=1), "use_bias_correction=1"),
        (lambda: Prodigy(safeguard_warmup=None), "safeguard_warmup=None"),
        (lambda: ScheduleFreeSGD(float("nan")), "learning_rate=nan"),
        (lambda: ScheduleFreeAdamW(-0.01), "learning_rate=-0.01"),
        (lambda: ArmijoLineSearch(reset=np.zeros(2)), r"one of \('keep'.*array"),
        (lambda: ArmijoLineSearch(c=1.0), "c=1.0"),
        (lambda: ArmijoLineSearch(reset="never"), "reset='never'"),
        (lambda: ArmijoLineSearch(2.0, max_learning_rate=1.0), "max_learning_rate=1.0"),
        (lambda: LineSearchModel("model"), "model='model'"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "optimizer",
    [
        ArmijoLineSearch,
        GreedyOptimizer,
        HypergradientDescent,
        Prodigy,
        ScheduleFreeAdamW,
        ScheduleFreeSGD,
    ],
)
def test_examples_run(optimizer):
    result = doctest.testmod(importlib.import_module(optimizer.__module__))
    assert result.attempted > 0
    assert result.failed == 0
