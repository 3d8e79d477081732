"""What GreedyLR says: about what it did, and about what it refuses."""

import keras
import pytest
from helpers import EAGER, data, fit, linear

from keras_greedylr import GreedyLR, LearnedLR


def test_verbose_says_what_it_did_per_epoch(capsys):
    history = fit(linear(), [GreedyLR(factor=0.5, patience=1, warmup=1, verbose=1)], epochs=3)
    assert capsys.readouterr().out == (
        "\nEpoch 2: GreedyLR sets learning rate to 0.02: loss improved 2 times running "
        f"(now {history['loss'][1]:.6g}).\n"
        "\nEpoch 3: GreedyLR sets learning rate to 0.04: warmup carries on.\n"
    )


def test_verbose_says_what_it_did_per_batch(capsys):
    # Two batches an epoch: the loss of the group is that of the epoch.
    greedy = GreedyLR(mode="max", factor=0.5, patience=0, update_every=2, verbose=1)
    history = fit(linear(), [greedy], samples=16, epochs=2)
    assert capsys.readouterr().out == (
        "\nEpoch 1, batch 2: GreedyLR sets learning rate to 0.02: loss improved 1 times running "
        f"(now {history['loss'][0]:.6g}).\n"
        "\nEpoch 2, batch 2: GreedyLR sets learning rate to 0.01: loss did not improve 1 times "
        f"running (now {history['loss'][1]:.6g}).\n"
    )


def test_verbose_tells_stages_from_the_end_of_the_horizon(capsys):
    """In a stage that holds nothing but the horizon moves the rate."""
    greedy = GreedyLR(
        mode="max", patience=0, cooldown=2, warmup=2, phases="hold", horizon="fit", verbose=1
    )
    fit(linear(), [greedy], epochs=20)
    said = capsys.readouterr().out
    assert said.count("the upper bound falls") > 3 and "did not improve" in said
    assert "carries on" not in said


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="takes no steps_per_execution")
def test_verbose_counts_batches_not_executions(capsys):
    greedy = GreedyLR(update_every=10, patience=0, verbose=1)
    fit(linear(steps_per_execution=3), [greedy], samples=80)
    assert "Epoch 1, batch 10: GreedyLR sets" in capsys.readouterr().out


@pytest.mark.parametrize("rate", [0.0, 1e-40])  # single precision has no factor of the second
def test_a_rate_that_nothing_can_move_is_refused(rate):
    with pytest.raises(
        ValueError, match=r"`learning_rate` must be a finite number >= 1\.175.*e-38"
    ):
        fit(linear(rate), [GreedyLR()])


def test_it_is_silent_otherwise(capsys):
    fit(linear(), [GreedyLR(**EAGER)], epochs=2)
    assert capsys.readouterr().out == ""


class Idle(keras.optimizers.SGD):
    """Makes no step: what a model's optimizer does where its `train_step` has others."""

    def apply(self, grads, trainable_variables=None):
        self.build(self._trainable_variables or trainable_variables)


@pytest.mark.parametrize("schedule", [GreedyLR, LearnedLR])
@pytest.mark.parametrize("optimizer, times", [(Idle, 1), (keras.optimizers.SGD, 0)])
@pytest.mark.parametrize("validation", [None, data(16)], ids=["alone", "validated"])
def test_an_optimizer_that_makes_no_step_is_warned_of(
    schedule, optimizer, times, validation, recwarn
):
    model = linear(optimizer=optimizer(0.01, name="own"))
    fit(model, [schedule()], samples=400, epochs=3, validation_data=validation)
    said = (
        f"{schedule.__name__} sets the rate of optimizer 'own', which made no step in epoch 1: "
        f"if the `train_step` of model '{model.name}' has optimizers of its own, their rates stay "
        "as they are."
    )
    assert [str(warning.message) for warning in recwarn].count(said) == times


# Errors.

HINT = " No validation took place: pass `validation_data` to `fit`, mind `validation_freq`."


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"monitor": None}, "`monitor` must be a string. Received: monitor=None"),
        (
            {"mode": "up"},
            "`mode` must be one of ('auto', 'min', 'max'). Received: mode='up'",
        ),
        (
            {"update_every": "batch"},
            "`update_every` must be one of ('epoch', 'validation'). Received: update_every='batch'",
        ),
        ({"update_every": 0}, "`update_every` must be an integer >= 1. Received: update_every=0"),
        (
            {"update_every": None},
            "`update_every` must be an integer >= 1. Received: update_every=None",
        ),
        ({"factor": 2.0}, "`factor` must be a finite number > 0 and < 1. Received: factor=2.0"),
        (
            {"min_lr": 1.0, "max_lr": 0.1},
            "`max_lr` must not be below `min_lr`. Received: min_lr=1.0, max_lr=0.1",
        ),
        (
            {"monitor": "val_loss", "update_every": 10},
            "`val_loss` is known at validation only, not after every 10 batches. Pass "
            "update_every='validation', or monitor a training metric.",
        ),
        ({"state_path": 3}, "`state_path` must be a path or None. Received: state_path=3"),
        ({"state_path": "."}, "`state_path` must be a file. Received the folder '.'"),
        ({"verbose": "yes"}, "`verbose` must be one of (0, 1). Received: verbose='yes'"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError) as error:
        GreedyLR(**arguments)
    assert str(error.value) == message


def test_two_schedules_in_one_fit_are_refused():
    with pytest.raises(ValueError) as error:
        fit(model := linear(), [LearnedLR(), GreedyLR()])
    assert str(error.value) == (
        f"GreedyLR and LearnedLR would both set the rate of model '{model.name}'. Give `fit` one "
        "of them."
    )
    for schedule in (GreedyLR(), GreedyLR()):  # one after the other is fine
        fit(model, [schedule])


def test_an_optimizer_with_a_schedule_is_refused():
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 100)
    model = linear(optimizer=keras.optimizers.Adam(schedule, name="adam"))
    with pytest.raises(ValueError) as error:
        fit(model, [GreedyLR()])
    assert str(error.value) == (
        "GreedyLR sets the learning rate itself, but optimizer 'adam' was built with a "
        "LearningRateSchedule or a callable. Pass the initial rate as a float instead, for "
        "example `keras.optimizers.Adam(learning_rate=1e-3)`."
    )


@pytest.mark.parametrize(
    "monitor, update_every, names",
    [
        ("acc", "epoch", ["loss", "mse"]),
        ("acc", 1, ["loss", "mse"]),
        ("val_acc", "epoch", ["loss", "mse", "val_loss", "val_mse"]),
        ("val_acc", "validation", ["loss", "mse", "val_loss", "val_mse"]),
    ],
)
def test_a_metric_that_is_absent(monitor, update_every, names, tmp_path):
    arguments = {"validation_data": data(8)} if "val_mse" in names else {}
    for state_path in (None, tmp_path / "state.json"):
        greedy = GreedyLR(monitor, update_every=update_every, state_path=state_path)
        model = linear(metrics=["mse"], run_eagerly=True)  # one batch is not worth a graph
        with pytest.raises(ValueError) as error:
            fit(model, [greedy], samples=8, epochs=2, **arguments)
        assert str(error.value) == (
            f"GreedyLR(monitor='{monitor}', update_every={update_every!r}) found nothing to look "
            f"at. The metrics of this training are {names}."
        )


@pytest.mark.parametrize(
    "monitor, update_every",
    [("val_loss", "epoch"), ("val_loss", "validation"), ("loss", "validation")],
)
def test_a_validation_that_never_comes(monitor, update_every, tmp_path):
    for state_path in (None, tmp_path / "state.json"):
        greedy = GreedyLR(monitor, update_every=update_every, state_path=state_path)
        model = linear(metrics=["mse"], run_eagerly=True)
        said = (
            f"GreedyLR(monitor='{monitor}', update_every={update_every!r}) found nothing to look "
            f"at. The metrics of this training are ['loss', 'mse'].{HINT}"
        )
        with pytest.raises(ValueError) as error, pytest.warns(UserWarning) as warned:
            fit(model, [greedy], samples=8, epochs=3)
        assert str(error.value) == said
        # Nobody should have to train to the end for that.
        early = f"{said} Until one does, the rate stays as it is."
        assert [str(warning.message) for warning in warned].count(early) == 1
        assert len(model.history.history["loss"]) == 3  # what was trained is not lost
