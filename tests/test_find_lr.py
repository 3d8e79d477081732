"""The range test: true losses at rising rates, and a model that is as it was."""

import json
import random

import keras
import numpy as np
import pytest
from helpers import rate_of

from keras_greedylr.cli import main
from keras_greedylr.find_lr import analyse, find_lr

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)).astype("float32")
Y = (X.sum(axis=1, keepdims=True) + 0.1 * RNG.normal(size=(50, 1))).astype("float32")


def build(optimizer=None, inputs=True):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)]
    start = [keras.Input((3,))] if inputs else []
    model = keras.Sequential([*start, *layers, keras.layers.Dense(1)])
    model.compile(optimizer or keras.optimizers.SGD(0.02, momentum=0.9), loss="mse",
                  run_eagerly=True)  # fmt: skip
    return model


def state(model):
    return [
        np.array(keras.ops.convert_to_numpy(v))
        for v in [*model.variables, *model.optimizer.variables]
    ]


class Spoil(keras.callbacks.Callback):
    """Fails in the middle of an epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            raise RuntimeError("spoilt")


def scaled():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.02, momentum=0.9))


@pytest.mark.parametrize("make_optimizer", [lambda: None, scaled], ids=["plain", "loss scaling"])
@pytest.mark.parametrize("callbacks", [[], Spoil()], ids=["through", "exception"])
def test_leaves_the_model_as_it_was(callbacks, make_optimizer):
    model = build(make_optimizer())
    model.fit(X, Y, verbose=0)  # momentum and statistics are there
    before = state(model)
    try:
        test = find_lr(model, X, Y, batch_size=8, steps=30, callbacks=callbacks)
    except RuntimeError as error:
        assert callbacks and str(error) == "spoilt"
    else:
        assert test.rates[0] == 1e-6 and np.all(np.diff(test.rates) > 0) and len(test.rates) <= 30
    for now, then in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert rate_of(model) == pytest.approx(0.02) and not model.stop_training
    keras.utils.set_random_seed(3)
    one = model.fit(X, Y, verbose=0).history["loss"]
    other = build(make_optimizer())
    keras.utils.set_random_seed(0)
    other.fit(X, Y, verbose=0)
    for mine, then in zip([*other.variables, *other.optimizer.variables], before, strict=True):
        mine.assign(then)
    keras.utils.set_random_seed(3)
    assert one == other.fit(X, Y, verbose=0).history["loss"]  # and trains as if nothing had been


def test_leaves_the_global_generators_as_they_were():
    trainings = []
    for tested in (False, True):
        keras.utils.set_random_seed(3)
        layers = [keras.layers.Dropout(0.5), keras.layers.Dense(1)]  # PyTorch has its own dropout
        model = keras.Sequential([keras.Input((3,)), *layers])
        model.compile("sgd", loss="mse")
        model.fit(X, Y, verbose=0)  # Keras draws more the first time
        if tested:
            find_lr(model, X, Y, batch_size=8, steps=10)
        losses = model.fit(X, Y, batch_size=8, epochs=2, verbose=0).history["loss"]
        trainings.append((*losses, random.random()))
    assert trainings[0] == trainings[1]


@pytest.mark.parametrize("inputs", [True, False], ids=["built", "not built"])
def test_leaves_a_model_that_was_never_trained_as_it_was(inputs):
    model = build(keras.optimizers.Adam(1e-3), inputs)
    find_lr(model, X, Y, batch_size=8, steps=30, callbacks=None)
    reference = build(keras.optimizers.Adam(1e-3))  # the same seed
    reference.optimizer.build(reference.trainable_variables)
    for now, then in zip(state(model), state(reference), strict=True):
        np.testing.assert_array_equal(now, then)


def test_losses_are_those_of_the_batches_and_end_where_they_blow_up():
    model = build(keras.optimizers.SGD(1.0), inputs=False)  # not built yet
    test = find_lr(model, X, Y, batch_size=25, min_lr=1e-9, max_lr=1e6, steps=40, shuffle=False)
    assert 10 < len(test.rates) < 40  # both batches several times, and not to the end
    reference = build(keras.optimizers.SGD(1e-9))
    expected = [reference.train_on_batch(X[:25], Y[:25]), reference.test_on_batch(X, Y)]
    assert test.losses[0] == pytest.approx(float(expected[0]), rel=0.5)
    assert test.smoothed[-1] > 4 * test.smoothed.min() or not np.isfinite(test.losses[-1])
    assert test.blew_up and not test.doubt


def test_a_lucky_first_batch_is_no_measure():
    x, y = np.ones((8, 1), "float32"), np.array([[1e-3], *[[1.0]] * 7], "float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", loss="mse")
    test = find_lr(model, x, y, batch_size=1, steps=60, max_lr=0.1, shuffle=False)
    assert len(test.rates) == 60 and not test.blew_up and test.suggestion > 1e-3


def test_a_callback_that_evaluates_costs_losses_and_no_more():
    class Evaluate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                self.model.evaluate(X, Y, verbose=0)

    test = find_lr(build(), X, Y, max_lr=0.01, steps=20, batch_size=10, callbacks=[Evaluate()])
    assert len(test.losses) == 20 and min(test.losses) > 0
    assert (np.diff(test.rates) > 0).all()


def test_the_suggestion_by_hand():
    rates = 10.0 ** np.arange(-4, 4)
    losses = np.array([8.0, 8.0, 8.0, 2.0, 0.1, 0.1, 50.0, 500.0])
    test = analyse(rates, losses)
    weights = 0.9 ** np.arange(5)[::-1]
    assert test.smoothed[4] == pytest.approx((weights * losses[:5]).sum() / weights.sum())
    lowest = rates[test.smoothed.argmin()]
    assert lowest == 10.0 and test.suggestion == 1.0


def test_a_lowest_loss_at_an_end_of_the_rates_is_doubted():
    rates, falling = 10.0 ** np.arange(-4, 0), np.array([4.0, 3.0, 2.0, 1.0])
    assert analyse(rates, falling).doubt.endswith("try a larger max_lr.")
    assert not analyse(rates, falling)._replace(blew_up=True).doubt  # there is none beyond
    assert analyse(rates, falling[::-1]).doubt.endswith("try a smaller min_lr.")


WRONG = {
    "min_lr": ({"min_lr": 0.0}, "`min_lr` must be"),
    "max_lr": ({"max_lr": 1e-9}, "`max_lr` must be above `min_lr`. Received: min_lr=1e-06"),
    "no max_lr": ({"max_lr": "1"}, "`max_lr` must be a finite number > 0. Received: max_lr='1'"),
    "steps": ({"steps": 2}, "`steps` must be an integer >= 3"),
    "validation": ({"validation_split": 0.5}, "has no epochs, no validation"),
    "epochs": ({"initial_epoch": 5}, "has no epochs"),
    "no model": ({"model": [X]}, "must be a compiled keras.Model. Received: <class 'list'>"),
    "not compiled": ({"model": keras.Sequential()}, "must be a compiled .*Sequential'>"),
    "hopeless": (
        {"min_lr": 1e30, "max_lr": 1e31},
        "There was a loss at 1 rate only",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_say_what_was_wrong(case):
    arguments, reason = WRONG[case]
    with pytest.raises(ValueError, match=reason):
        find_lr(**{"model": build(), "x": X, "y": Y, "batch_size": 8, **arguments})


def test_a_schedule_in_the_optimizer_is_refused():
    model = build(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)))
    with pytest.raises(ValueError, match=r"^find_lr sets .* Pass the initial rate as a float"):
        find_lr(model, X, Y)


def test_the_command_draws_and_suggests(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    options = ["--problem", "wine", "--steps", "30", "--out", str(tmp_path)]
    assert main(["find-lr", *options]) == 0
    assert "Suggested rate: " in capsys.readouterr().out
    told = json.loads((tmp_path / "find-lr.json").read_text())
    assert len(told["rates"]) == len(told["losses"]) and told["suggestion"] > 0
    assert (tmp_path / "find-lr.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("losses", "doubt"),
    [
        (
            np.linspace(1.0, 2.0, 10),
            "The suggestion is below the rates tried: try a smaller min_lr.",
        ),
        (
            np.linspace(2.0, 1.0, 10),
            "The loss was lowest at the highest rate: try a larger max_lr.",
        ),
        (np.array([9, 9, 9, 9, 1, 1, 1, 9, 99, 999.0]), ""),
    ],
    ids=["rising", "falling", "valley"],
)
def test_a_suggestion_from_an_end_of_the_rates_is_doubted(losses, doubt):
    test = analyse(np.geomspace(1e-6, 1.0, 10), losses)
    assert test.doubt == doubt
    if losses[-1] < losses[0]:
        assert test._replace(blew_up=True).doubt == ""


def test_the_command_says_what_to_doubt(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    command = ["find-lr", "--problem", "wine", "--steps", "10", "--out", str(tmp_path)]
    assert main([*command, "--min-lr", "1e-9", "--max-lr", "2e-9"]) == 0
    said = capsys.readouterr().out
    assert "The suggestion is below the rates tried: try a smaller --min-lr." in said
    assert "blew up" not in said
    assert main([*command, "--min-lr", "1e-3", "--max-lr", "1e9"]) == 0
    assert ", where the loss blew up." in capsys.readouterr().out


@pytest.fixture
def own_model(tmp_path):
    """Options of the command for a model in a file, on data in arrays."""
    (tmp_path / "mine.py").write_text(
        "import keras, numpy as np\n"
        "def model():\n"
        "    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])\n"
        "    model.compile(keras.optimizers.SGD(0.01), loss='mse')\n"
        "    return model\n"
        "def data():\n"
        "    x = np.ones((80, 1), 'float32')\n"
        "    y = np.repeat([[0.0], [1e6]], [60, 20], axis=0).astype('float32')\n"
        "    return {'x': x, 'y': y, 'validation_split': 0.25}\n"
    )
    file = tmp_path / "mine.py"
    return ["--model", f"{file}:model", "--data", f"{file}:data", "--out", str(tmp_path)]


def test_the_command_does_not_train_on_what_validates(own_model, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["find-lr", *own_model, "--steps", "20", "--batch-size", "20"]) == 0
    losses = json.loads((tmp_path / "find-lr.json").read_text())["losses"]
    assert max(losses[:10]) < 100.0  # those that validate lose 1e12


def test_the_command_does_not_test_what_it_cannot_write(own_model, tmp_path, monkeypatch, capsys):
    pytest.importorskip("scipy")
    monkeypatch.setattr("keras_greedylr.find_lr.find_lr", lambda *_, **__: pytest.fail("tests"))
    assert main(["find-lr", *own_model, "--out", str(tmp_path / "mine.py" / "folder")]) == 2
    assert "Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["find-lr", "compare"])
@pytest.mark.parametrize("size", ["0", "-5"])
def test_the_command_refuses_a_batch_without_samples(own_model, command, size, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    pytest.importorskip("rich")
    assert main([command, *own_model, "--batch-size", size]) == 2
    assert f"`batch_size` must be an integer >= 1. Received: batch_size={size}" in (
        capsys.readouterr().err
    )
