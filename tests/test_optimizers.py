"""The optimizers that set their own rate, on the running backend."""

import doctest
import importlib
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_greedylr.optimizers import (
    ArmijoLineSearch,
    HypergradientDescent,
    LineSearchModel,
    Prodigy,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    SwapScheduleFreeWeights,
)

GOLDEN = json.loads((Path(__file__).parent / "golden/optimizer_paths.json").read_text())["cases"]
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


@pytest.fixture
def float64():
    """Double precision throughout, for paths that are compared to many digits."""
    keras.config.set_floatx("float64")
    jax = importlib.import_module("jax") if keras.backend.backend() == "jax" else None
    if jax:
        jax.config.update("jax_enable_x64", True)
    yield
    keras.config.set_floatx("float32")
    if jax:
        jax.config.update("jax_enable_x64", False)


def descend(optimizer, gradient, start, steps, after_step=lambda variables: None):
    """Returns what the weights, given as a list of arrays, are after each step."""
    variables = [keras.Variable(values, dtype="float64") for values in start]

    def read():
        return np.concatenate([ops.convert_to_numpy(v.value).ravel() for v in variables])

    path = []
    for _ in range(steps):
        gradients = np.split(gradient(read()), np.cumsum([len(values) for values in start])[:-1])
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
        path.append(read().copy())
        after_step(variables)
    return np.array(path)


def rate_of(optimizer):
    return float(ops.convert_to_numpy(optimizer.learning_rate))


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
    assert rate_of(loaded.optimizer) == pytest.approx(rate_of(model.optimizer), rel=1e-6)
    np.testing.assert_allclose(fit(loaded), fit(model), rtol=2e-4)
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


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


# Schedule-Free and Prodigy: the authors' own packages.


def from_authors(case):
    """The optimizer of a golden case, the authors' arguments in Keras' names."""
    kwargs = dict(case["kwargs"])
    kwargs["learning_rate"] = kwargs.pop("lr")
    if "betas" in kwargs:
        kwargs["beta_1"], kwargs["beta_2"] = kwargs.pop("betas")
    classes = {
        "schedulefree.SGDScheduleFree": ScheduleFreeSGD,
        "schedulefree.AdamWScheduleFree": ScheduleFreeAdamW,
        "prodigyopt.Prodigy": Prodigy,
    }
    return classes[case["optimizer"]](**kwargs)


@pytest.mark.parametrize(
    "case", GOLDEN, ids=lambda case: f"{case['optimizer']}-{case['seed']}" if case else ""
)
def test_golden_paths(case, float64):
    a, b = np.array(case["A"]), np.array(case["b"])
    optimizer = from_authors(case)
    averages = []

    def note_average(variables):
        if case["eval_params"]:
            optimizer.finalize_variable_values(variables)
            averages.append(ops.convert_to_numpy(variables[0].value).copy())
            optimizer.resume_variable_values(variables)

    path = descend(
        optimizer, lambda w: a @ w - b, [np.array(case["x0"])], len(case["params"]), note_average
    )
    np.testing.assert_allclose(path, case["params"], rtol=1e-9, atol=1e-9)
    if case["eval_params"]:
        np.testing.assert_allclose(averages, case["eval_params"], rtol=1e-9, atol=1e-9)


def test_schedule_free_weighs_its_average_by_the_squared_rate(float64):
    weights = []
    optimizer = ScheduleFreeSGD(0.4, warmup_steps=4)
    descend(
        optimizer,
        lambda w: w,
        [np.ones(2)],
        5,
        lambda _: weights.append(float(ops.convert_to_numpy(optimizer._weight))),
    )
    np.testing.assert_allclose(weights, [1, 4 / 5, 9 / 14, 16 / 30, 16 / 46], rtol=1e-12)


def test_schedule_free_goes_on_from_the_average(float64):
    # A step that meets the model at x, as after a `fit`, takes it to y first.
    path = descend(ScheduleFreeAdamW(0.1), lambda w: np.ones(2), [np.ones(2)], 6)
    optimizer = ScheduleFreeAdamW(0.1)
    left = descend(
        optimizer,
        lambda w: np.ones(2),
        [np.ones(2)],
        6,
        optimizer.finalize_variable_values,
    )
    np.testing.assert_allclose(left, path, rtol=1e-12)


def test_schedule_free_validates_and_ends_at_the_average(make_model, regression):
    x, y = regression
    model = make_model()
    model.compile(ScheduleFreeSGD(0.05), loss="mse")
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            at_average = self.model.get_weights()
            loss = float(np.mean((self.model.predict_on_batch(x) - y) ** 2))
            self.model.optimizer.resume_variable_values(self.model.trainable_variables)
            differs = [
                np.abs(a - b).max()
                for a, b in zip(at_average, self.model.get_weights(), strict=True)
            ]
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            seen.append((logs["val_loss"], loss, max(differs), at_average))

    history = model.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=2,
        batch_size=32,
        verbose=0,
        callbacks=[Spy(), SwapScheduleFreeWeights()],
    )
    for val_loss, loss, differs, _ in seen:
        assert val_loss == pytest.approx(loss, rel=1e-5)
        assert differs > 1e-4
    for last, final in zip(seen[-1][3], model.get_weights(), strict=True):
        np.testing.assert_allclose(last, final, rtol=1e-6, atol=1e-7)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(history.history["val_loss"][-1], 1e-5)


def test_schedule_free_in_two_fits_is_as_in_one(make_model, regression):
    x, y = regression
    weights = []
    for fits in ([2], [1, 1]):
        model = make_model()
        model.compile(ScheduleFreeAdamW(0.01), loss="mse")
        for epochs in fits:
            model.fit(
                x, y, epochs=epochs, shuffle=False, verbose=0, callbacks=[SwapScheduleFreeWeights()]
            )
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


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


def test_prodigy_finds_the_distance_and_never_lowers_its_estimate(float64):
    estimates = []
    optimizer = Prodigy(d0=1e-3)
    descend(
        optimizer,
        lambda w: np.sign(w - 30.0),
        [np.zeros(1)],
        60,
        lambda _: estimates.append(float(ops.convert_to_numpy(optimizer._d))),
    )
    assert np.all(np.diff(estimates) >= 0)
    assert 30 / 20 < estimates[-1] <= 30  # a lower bound of the distance


def test_prodigy_passes_over_steps_at_rate_zero_and_zero_gradients(float64):
    start = [np.array([1.0, -2.0])]
    plain = descend(Prodigy(1.0), lambda w: w, start, 4)
    late = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 1.0])
    waited = descend(Prodigy(late), lambda w: w, start, 6)
    np.testing.assert_allclose(waited[2:], plain, rtol=1e-12)


# Hypergradient descent: the paper's equations by hand.

# f(w) = (w_1^2 + 2 w_2^2) / 2 from (1, 1) with SGD at 0.1 and h = 0.01:
# g_1 = (1, 2), u_1 = -g_1, lr_1 = 0.1; w = (0.9, 0.8); g_2 = (0.9, 1.6),
# lr_2 = 0.1 + 0.01 (0.9 + 3.2) = 0.141; w = (0.7731, 0.5744); g_3 = (0.7731, 1.1488),
# lr_3 = 0.141 + 0.01 (0.69579 + 1.83808) = 0.1663387, and so on.
FIRST_FIVE_RATES = {
    ("additive", False): [0.1, 0.141, 0.1663387, 0.1801282898, 0.1872937264],
    ("multiplicative", False): [0.1, 0.1009988124, 0.1020074123, 0.1030258969, 0.1040543788],
    ("multiplicative", True): [0.1, 0.101, 0.10201, 0.1030301, 0.104060401],
}


@pytest.mark.parametrize(("mode", "per_parameter"), FIRST_FIVE_RATES)
def test_hypergradient_first_five_rates(mode, per_parameter, float64):
    optimizer = HypergradientDescent(keras.optimizers.SGD(0.1), 0.01, mode, per_parameter)
    rates = []
    path = descend(
        optimizer,
        lambda w: np.array([1.0, 2.0]) * w,
        [np.array([1.0]), np.array([1.0])],
        5,
        lambda _: rates.append(rate_of(optimizer)),
    )
    np.testing.assert_allclose(rates, FIRST_FIVE_RATES[mode, per_parameter], rtol=2e-9)
    np.testing.assert_allclose(path[0], [0.9, 0.8], rtol=1e-9)
    if mode == "additive":
        np.testing.assert_allclose(path[1], [0.7731, 0.5744], rtol=1e-9)


INNER = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.1),
}


def unit_steps(kind):
    """The inner optimizer's step at rate 1 as a function of the gradients, by its equation."""
    m = v = 0.0
    t = 0

    def step(g):
        nonlocal m, v, t
        t += 1
        if kind == "adam":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            return -(math.sqrt(1 - 0.999**t) / (1 - 0.9**t)) * m / (np.sqrt(v) + 1e-7)
        m = (0.0 if kind == "sgd" else 0.9) * m - g
        return 0.9 * m - g if kind == "nesterov" else m

    return step


@pytest.mark.parametrize("per_parameter", [False, True])
@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
@pytest.mark.parametrize("kind", INNER)
def test_hypergradient_follows_its_equation(kind, mode, per_parameter, float64):
    scale = np.array([1.0, 2.0, 0.5])
    optimizer = HypergradientDescent(INNER[kind](), 0.01, mode, per_parameter)
    rates = []
    path = descend(
        optimizer,
        lambda w: scale * w,
        [np.array([1.0, -2.0]), np.array([3.0])],
        8,
        lambda _: rates.append(rate_of(optimizer)),
    )

    w, u, rate = np.array([1.0, -2.0, 3.0]), np.zeros(3), np.full(3, 0.1)
    step = unit_steps(kind)
    tolerance = 1e-4 if ON_TENSORFLOW else 1e-9  # Keras rounds 0.9 to single precision there
    for t in range(8):
        g = scale * w
        slope = g * u if per_parameter else np.full(3, g @ u)
        if mode == "multiplicative":
            norm = abs(g * u) if per_parameter else np.linalg.norm(g) * np.linalg.norm(u)
            slope = rate * slope / (norm if t else 1.0)
        rate = rate - 0.01 * slope
        u = step(g)
        w = w + rate * u
        assert rates[t] == pytest.approx(rate.mean(), rel=tolerance)
        np.testing.assert_allclose(path[t], w, rtol=tolerance, atol=tolerance)


def test_hypergradient_shows_its_rate_where_others_look(make_model, regression):
    model = make_model()
    model.compile(HypergradientDescent(keras.optimizers.SGD(0.01), 1e-3), loss="mse")
    model.fit(*regression, epochs=1, verbose=0)
    assert rate_of(model.optimizer) != pytest.approx(0.01, rel=1e-3)
    assert rate_of(model.optimizer) == rate_of(model.optimizer.inner_optimizer)


# Line search: Armijo's condition on every step.


def line_search_model(inner, **kwargs):
    model = LineSearchModel(inner)
    jit_compile = False if ON_TENSORFLOW else "auto"
    model.compile(ArmijoLineSearch(**kwargs), loss="mse", jit_compile=jit_compile)
    return model


@pytest.mark.parametrize(
    ("reset", "rates"),
    [
        # f = w^2 passes at eta <= 1 - c = 0.7: 0.9^4 is the first power below.
        ("keep", [0.9**4, 0.9**4, 0.9**4]),
        ("max", [4 * 0.9**17] * 3),
        # In two steps an epoch the rate may grow by sqrt(2) each: 0.928 falls to 0.676, ...
        ("increase", [0.9**4, 0.9**7 * 2**0.5, 0.9**10 * 2]),
    ],
)
def test_line_search_resets(reset, rates):
    inner = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model = line_search_model(inner, max_learning_rate=4.0, c=0.3, reset=reset, steps_per_epoch=2)
    x, y = np.ones((4, 1)), np.zeros((4, 1))
    for rate in rates:
        model.set_weights([np.array([[2.0]])])
        model.train_on_batch(x, y)
        assert rate_of(model.optimizer) == pytest.approx(rate, rel=1e-5)
        assert float(model.get_weights()[0][0, 0]) == pytest.approx(2 - rate * 4, rel=1e-4)


@pytest.mark.parametrize("reset", ["keep", "max", "increase"])
def test_line_search_never_breaks_armijo(reset, regression):
    x, y = regression
    keras.utils.set_random_seed(1)
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
    )
    c, beta = 0.2, 0.7
    model = line_search_model(inner, c=c, beta=beta, reset=reset, steps_per_epoch=4)

    def loss_and_slope(weights, x, y):
        """The loss and |g|^2 in double precision."""
        w1, b1, w2, b2 = (w.astype("float64") for w in weights)
        hidden = np.tanh(x @ w1 + b1)
        error = hidden @ w2 + b2 - y
        g_out = 2 * error / len(x)
        g_hidden = (g_out @ w2.T) * (1 - hidden**2)
        gradients = (x.T @ g_hidden, g_hidden.sum(0), hidden.T @ g_out, g_out.sum(0))
        return float(np.mean(error**2)), sum(float(np.sum(g**2)) for g in gradients)

    rejected = 0
    for step in range(16):
        batch = slice(50 * (step % 4), 50 * (step % 4) + 50)
        before, last = model.get_weights(), rate_of(model.optimizer)
        model.train_on_batch(x[batch], y[batch])
        rate = rate_of(model.optimizer)
        loss, slope = loss_and_slope(before, x[batch], y[batch])
        new_loss, _ = loss_and_slope(model.get_weights(), x[batch], y[batch])
        assert new_loss <= loss - c * rate * slope + 1e-5 * loss
        first = {"keep": last, "max": 10.0, "increase": min(last * 2 ** (1 / 4), 10.0)}[reset]
        first = last if step == 0 and reset == "increase" else first
        cuts = math.log(rate / first, beta)
        assert cuts == pytest.approx(round(cuts), abs=1e-3)
        rejected += round(cuts)
    assert rejected > 0


def test_line_search_passes_over_a_batch_it_cannot_improve(regression):
    x, y = regression
    model = line_search_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    before = model.get_weights()
    model.train_on_batch(x, np.full_like(y, np.nan))
    assert rate_of(model.optimizer) == 1.0
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_line_search_trials_leave_no_trace(regression):
    x, y = regression
    layers = [
        keras.Input((4,)),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.Dropout(0.5, seed=1),
        keras.layers.Dense(1, kernel_regularizer="l2"),
    ]
    inner = keras.Sequential(layers)
    dropout = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5, seed=1)])
    dropout(x, training=True)
    model = line_search_model(inner)
    model.train_on_batch(x, y)
    assert rate_of(model.optimizer) < 1.0  # there were several
    moving_mean = ops.convert_to_numpy(inner.layers[0].moving_mean)
    np.testing.assert_allclose(moving_mean, 0.1 * x.mean(0), rtol=1e-4, atol=1e-6)
    # The generator has moved on by the one step that any training would take.
    states = [
        ops.convert_to_numpy(layer.seed_generator.state)
        for layer in (inner.layers[1], dropout.layers[0])
    ]
    np.testing.assert_array_equal(*states)


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_line_search_learns_the_epoch_from_fit(regression):
    model = line_search_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    model.fit(*regression, batch_size=32, verbose=0)
    growth = float(ops.convert_to_numpy(model.optimizer._growth))
    assert growth == pytest.approx(2 ** (1 / 7), rel=1e-6)

    def endless():
        while True:
            yield regression

    model = line_search_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    model.fit(endless(), steps_per_epoch=2, verbose=0)
    assert float(ops.convert_to_numpy(model.optimizer._growth)) == pytest.approx(2**0.5, rel=1e-6)


def test_line_search_says_what_model_it_needs(make_model, regression):
    model = make_model()
    model.compile(ArmijoLineSearch(), loss="mse")
    with pytest.raises(RuntimeError, match="LineSearchModel"):
        model.fit(*regression, verbose=0)
    model = LineSearchModel(make_model())
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="trains with ArmijoLineSearch"):
        model.fit(*regression, verbose=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScheduleFreeSGD(momentum=1.0), "momentum=1.0"),
        (lambda: ScheduleFreeSGD(use_ema=True), "use_ema=True"),
        (lambda: ScheduleFreeSGD(warmup_steps=-1), "warmup_steps=-1"),
        (lambda: ScheduleFreeAdamW(beta_1=0.0), "beta_1=0.0"),
        (lambda: ScheduleFreeAdamW(weight_decay=-0.1), "weight_decay=-0.1"),
        (lambda: Prodigy(d0=0.0), "d0=0.0"),
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
    "module", ["schedule_free", "prodigy", "hypergradient", "line_search", "greedy"]
)
def test_examples_run(module):
    result = doctest.testmod(importlib.import_module(f"keras_greedylr.optimizers.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
