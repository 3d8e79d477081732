"""Hypergradient descent against the paper's equations."""

import math

import keras
import numpy as np
import pytest
from helpers import descend, rate_in

from keras_greedylr.optimizers import HypergradientDescent

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

# By hand. f(w) = (w_1^2 + 2 w_2^2) / 2 from (1, 1) with SGD at 0.1 and h = 0.01:
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
        lambda _: rates.append(rate_in(optimizer)),
    )
    np.testing.assert_allclose(rates, FIRST_FIVE_RATES[mode, per_parameter], rtol=2e-9)
    np.testing.assert_allclose(path[0], [0.9, 0.8], rtol=1e-9)
    if mode == "additive":
        np.testing.assert_allclose(path[1], [0.7731, 0.5744], rtol=1e-9)


@pytest.mark.parametrize("per_parameter", [False, True])
def test_the_multiplicative_form_does_not_see_how_large_gradients_are(per_parameter):
    def rates(scale):
        inner = keras.optimizers.SGD(0.1 / scale)
        optimizer = HypergradientDescent(inner, 0.01, "multiplicative", per_parameter)
        seen = []
        descend(
            optimizer,
            lambda w: scale * np.array([1.0, 2.0], "float32") * w,
            [np.ones(1, "float32"), np.ones(1, "float32")],
            5,
            lambda _: seen.append(scale * rate_in(optimizer)),
        )
        return seen

    for scale in (1e-11, 1e11):
        np.testing.assert_allclose(rates(scale), rates(1.0), rtol=1e-5)


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
        lambda _: rates.append(rate_in(optimizer)),
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
    assert rate_in(model.optimizer) != pytest.approx(0.01, rel=1e-3)
    assert rate_in(model.optimizer) == rate_in(model.optimizer.inner_optimizer)


def test_a_rate_that_is_set_is_a_number():
    optimizer = HypergradientDescent(keras.optimizers.SGD(0.1))
    optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match=r"must be a finite number > 0\. Received: .*CosineDecay"):
        optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(0.1, 9)
    assert rate_in(optimizer) == 0.5


@pytest.mark.parametrize("per_parameter", [False, True])
def test_a_rate_that_is_set_is_that_of_the_next_step(per_parameter):
    optimizer = HypergradientDescent(
        keras.optimizers.SGD(0.1), hyper_learning_rate=0.0, per_parameter=per_parameter
    )
    weights = keras.Variable([2.0, -1.0])
    for expected in ([1.9, -1.1], [1.4, -1.6]):
        optimizer.apply([keras.ops.ones(2)], [weights])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weights.value), expected, rtol=1e-6)
        optimizer.learning_rate = 0.5
