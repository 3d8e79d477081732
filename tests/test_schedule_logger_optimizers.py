"""`ScheduleLogger` beside what an optimizer does to its rate or its steps."""

import keras
import numpy as np
import pytest
from event_files import BATCHES, EPOCHS, BatchRates, fit, read

from keras_greedylr import GreedyLR, GreedyRule, ScheduleLogger
from keras_greedylr.optimizers import GreedyOptimizer


@pytest.mark.parametrize("update_every", [1, "epoch"])
def test_schedules_of_keras(tmp_path, make_model, regression, update_every):
    cosine = keras.optimizers.schedules.CosineDecay(0.01, EPOCHS * BATCHES)
    fit(make_model(cosine), regression, [ScheduleLogger(tmp_path, update_every=update_every)])
    scalars, texts = read(tmp_path)
    rates = [float(cosine(step)) for step in range(EPOCHS * BATCHES)]
    np.testing.assert_allclose(
        list(scalars["epoch_learning_rate"].values()), rates[BATCHES - 1 :: BATCHES], rtol=1e-5
    )
    if update_every == 1:
        np.testing.assert_allclose(list(scalars["batch_learning_rate"].values()), rates, rtol=1e-5)
    assert "CosineDecay" in texts["schedule/configuration"][0]


@pytest.fixture
def all_eager():
    """TensorFlow compiles nothing."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
@pytest.mark.parametrize("eager", ["nothing", "the model", "everything"])
def test_a_schedule_of_keras_is_compiled_as_the_step_is(
    request, tmp_path, make_model, regression, eager
):
    if eager == "everything":
        if keras.backend.backend() != "tensorflow":
            pytest.skip("a switch of TensorFlow's")
        request.getfixturevalue("all_eager")
    eagerly, calls = eager != "nothing", []

    class Halving(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            calls.append(step)
            half = step // 8
            return 0.5 ** (int(half) if eagerly else keras.ops.cast(half, "float32"))

    model = make_model(Halving(), run_eagerly=eager == "the model")
    fit(model, regression, [ScheduleLogger(tmp_path)])
    scalars, texts = read(tmp_path)
    assert "get_config" in texts["schedule/configuration"][0]  # it has none, and is none the worse
    rates = list(scalars["batch_learning_rate"].values())
    np.testing.assert_allclose(rates, [0.5 ** (step // 8) for step in range(EPOCHS * BATCHES)])
    if not eagerly and keras.backend.backend() != "torch":
        assert len(calls) < EPOCHS * BATCHES / 2


def test_the_card_shows_the_rule_in_the_optimizer(tmp_path, make_model, regression, dtype_policy):
    dtype_policy("mixed_float16")  # loss scaling stands between
    model = make_model()
    inner = keras.optimizers.SGD(0.01, momentum=0.5)
    model.compile(GreedyOptimizer(inner, GreedyRule(patience=7)), loss="mse")
    fit(model, regression, [ScheduleLogger(tmp_path, update_every="epoch")])
    card = read(tmp_path)[1]["schedule/configuration"][0]
    assert card.startswith("**GreedyOptimizer of LossScaleOptimizer of SGD**")
    assert "| patience | 7 |" in card and "| SGD.momentum | 0.5 |" in card


def test_accumulated_gradients_and_skipped_steps(tmp_path, make_model, regression):
    """A step is a batch, whatever the optimizer makes of it."""
    x, y = (part[:64] for part in regression)
    spoilt = x.copy()
    spoilt[17] = np.nan
    accumulating = keras.optimizers.SGD(0.01, gradient_accumulation_steps=2)
    skipping = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
    for name, optimizer, data in (("one", accumulating, x), ("two", skipping, spoilt)):
        model = make_model()
        model.compile(optimizer, loss="mse")
        fit(model, (data, y), [GreedyLR(update_every=2), ScheduleLogger(tmp_path / name)])
        scalars, _ = read(tmp_path / name)
        assert list(scalars["batch_learning_rate"]) == list(range(1, 4 * EPOCHS + 1))


def test_a_schedule_of_keras_stands_still_where_a_step_is_skipped(tmp_path, make_model, regression):
    x, y = (part[:64].copy() for part in regression)
    x[17] = np.nan  # the second of four batches
    cosine = keras.optimizers.schedules.CosineDecay(0.01, 4 * EPOCHS)
    model = make_model()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(cosine)), loss="mse")
    fit(model, (x, y), [ScheduleLogger(tmp_path)])
    scalars, _ = read(tmp_path)
    shown = [rate for step, rate in scalars["batch_learning_rate"].items() if step % 4 != 2]
    np.testing.assert_allclose(shown, [float(cosine(step)) for step in range(3 * EPOCHS)], 1e-5)


@pytest.mark.parametrize("update_every", [1, 3])
def test_rates_of_a_rule_in_the_optimizer(tmp_path, make_model, regression, update_every):
    """After a step its variable holds the rate of the next one."""
    model, rates = make_model(), BatchRates()
    model.compile(GreedyOptimizer(keras.optimizers.SGD(0.01), GreedyRule(patience=0)), loss="mse")
    logger = ScheduleLogger(tmp_path, update_every=update_every)
    fit(model, regression, [rates, logger])
    shown = read(tmp_path)[0]["batch_learning_rate"]
    assert len(set(rates.rates)) > 3 and len(shown) == EPOCHS * BATCHES // update_every
    np.testing.assert_allclose(list(shown.values()), [rates.rates[s - 1] for s in shown], rtol=1e-6)
