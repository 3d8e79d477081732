"""Line search: Armijo's condition on every step."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import rate_in
from keras import ops

from keras_greedylr.optimizers import ArmijoLineSearch, LineSearchModel


def line_search_model(inner, **kwargs):
    model = LineSearchModel(inner)
    jit_compile = False if keras.backend.backend() == "tensorflow" else "auto"
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
        assert rate_in(model.optimizer) == pytest.approx(rate, rel=1e-5)
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
        before, last = model.get_weights(), rate_in(model.optimizer)
        model.train_on_batch(x[batch], y[batch])
        rate = rate_in(model.optimizer)
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
    assert rate_in(model.optimizer) == 1.0
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
    assert rate_in(model.optimizer) < 1.0  # there were several
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


def test_line_search_knows_the_outputs_by_name(regression):
    x, y = regression
    inputs = keras.Input((4,))
    heads = [keras.layers.Dense(1, name=name)(inputs) for name in "ab"]
    model = LineSearchModel(keras.Model(inputs, heads))
    model.compile(ArmijoLineSearch(), loss={"a": "mse", "b": "mae"})
    losses = model.fit(x, {"a": y, "b": y}, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_metrics_are_masked_as_they_are_without_it():
    x, y = np.array([[1, 2, 0, 0], [3, 4, 1, 0]]), np.ones((2, 4, 1))
    histories = []
    for wrap, optimizer in (
        (lambda model: model, keras.optimizers.SGD(1e-20)),
        (LineSearchModel, ArmijoLineSearch(1e-20)),
    ):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Embedding(5, 3, mask_zero=True), keras.layers.Dense(1)]
        model = wrap(keras.Sequential([keras.Input((4,), dtype="int32"), *layers]))
        model.compile(optimizer, "mse", metrics=["mse"], jit_compile=False)
        histories.append(model.fit(x, y, verbose=0).history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5)


def test_a_wrapped_model_takes_weights_before_it_is_called(make_model, regression, tmp_path):
    first, second = (LineSearchModel(make_model()) for _ in range(2))
    first.compile(ArmijoLineSearch(), loss="mse")
    first.fit(*regression, verbose=0)
    first.save_weights(tmp_path / "model.weights.h5")
    second.load_weights(tmp_path / "model.weights.h5")
    for mine, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_model_with_nothing_to_train_stays_as_it_is(make_model, regression):
    model = make_model()
    model.trainable = False
    wrapper = LineSearchModel(model)
    wrapper.compile(ArmijoLineSearch(), loss="mse")
    before = model.get_weights()
    assert np.isfinite(wrapper.fit(*regression, verbose=0).history["loss"]).all()
    for mine, theirs in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_rate_that_is_set_is_a_number():
    optimizer = ArmijoLineSearch()
    optimizer.learning_rate = keras.ops.convert_to_tensor(0.5)
    assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == 0.5
    with pytest.raises(ValueError, match=r"must be a finite number > 0\. Received: .*CosineDecay"):
        optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(0.1, 9)


def test_line_search_says_what_model_it_needs(make_model, regression):
    model = make_model()
    model.compile(ArmijoLineSearch(), loss="mse")
    with pytest.raises(RuntimeError, match="LineSearchModel"):
        model.fit(*regression, verbose=0)
    model = LineSearchModel(make_model())
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="trains with ArmijoLineSearch"):
        model.fit(*regression, verbose=0)


def test_line_search_refuses_several_devices_and_other_backends(monkeypatch, regression):
    model = line_search_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "openvino")
        with pytest.raises(RuntimeError, match=r"on TensorFlow, JAX and PyTorch.*'openvino'"):
            model.train_step(regression)
    two = SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(LineSearchModel, "distribute_strategy", two, raising=False)
    with pytest.raises(RuntimeError, match=r"one device.*2 replicas"):
        model._train_step(regression)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a format of TensorFlow")
def test_what_is_exported_is_the_model_that_was_trained(tmp_path):
    import tensorflow as tf

    model = line_search_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))
    x = np.ones((8, 4), "float32")
    model.fit(x, x[:, :1], verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(x), model.predict(x, verbose=0), rtol=1e-6)
