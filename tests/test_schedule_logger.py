"""Reads the event files back with TensorBoard's own reader."""

import contextlib
import copy
import itertools
import os
import pickle
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from event_files import BATCHES, EPOCHS, BatchRates, fit, read
from helpers import NEVER, Spy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_greedylr import GreedyLR, LearnedLR, ScheduleLogger

COUNTERS = {"good", "bad", "cooldown_left", "warmup_left", "floor_cuts"}


def expected_losses(model, data):
    x, y = data
    losses = []
    for _ in range(EPOCHS):
        for start in range(0, len(x), 16):
            model.reset_metrics()  # before Keras 3.15 `train_on_batch` returns a running mean
            losses.append(float(model.train_on_batch(x[start : start + 16], y[start : start + 16])))
    return losses


@pytest.mark.parametrize("logger_first", [True, False])
@pytest.mark.parametrize("update_every", ["epoch", 1, 5])
def test_every_tag_has_its_steps_and_values(
    tmp_path, make_model, regression, update_every, logger_first
):
    schedule = GreedyLR(factor=0.5, patience=1, update_every=update_every)
    decisions = []
    schedule_rates = BatchRates()
    logger = ScheduleLogger(tmp_path)
    ours = [logger, schedule] if logger_first else [schedule, logger]

    class Listener(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            schedule.subscribe(decisions.append)

    history = fit(make_model(), regression, [schedule_rates, *ours, Listener()])
    scalars, texts = read(tmp_path)

    steps = list(range(1, EPOCHS * BATCHES + 1))
    assert list(scalars["batch_learning_rate"]) == steps
    np.testing.assert_allclose(
        list(scalars["batch_learning_rate"].values()), schedule_rates.rates, rtol=1e-6
    )
    assert list(scalars["batch_loss"]) == steps
    np.testing.assert_allclose(
        scalars["epoch_learning_rate"][EPOCHS - 1],
        schedule_rates.rates[-1] if update_every == "epoch" else schedule.learning_rate,
        rtol=1e-6,
    )
    assert list(scalars["epoch_learning_rate"]) == list(range(EPOCHS))
    if not logger_first:
        np.testing.assert_allclose(
            list(scalars["epoch_learning_rate"].values()),
            history.history["learning_rate"],
            rtol=1e-6,
        )
    assert decisions
    at = [d.position if d.unit == "epoch" else _global_step(decisions, d) for d in decisions]
    for name in {"metric", "best"} | COUNTERS:
        values = [decision.values[name] for decision in decisions]
        assert list(scalars[f"schedule/{name}"]) == at
        np.testing.assert_allclose(list(scalars[f"schedule/{name}"].values()), values, rtol=1e-6)
    assert "| factor | 0.5 |" in texts["schedule/configuration"][0]
    changes = [d for d in decisions if d.new_rate != d.old_rate]
    told = "".join(texts["schedule/changes"].values())
    assert changes and told.count("| loss ") == len(changes)
    assert all(f"| {d.new_rate:.6g} | {d.reason} |" in told for d in changes)


def _global_step(decisions, decision):
    """Batches trained at a decision: positions fall where an epoch begins anew."""
    before = decisions[: decisions.index(decision) + 1]
    epochs = sum(b.position < a.position for a, b in itertools.pairwise(before))
    return epochs * BATCHES + decision.position + 1


def test_batch_losses_are_those_of_the_batches(tmp_path, make_model, regression):
    fit(make_model(), regression, [ScheduleLogger(tmp_path)])
    scalars, _ = read(tmp_path)
    np.testing.assert_allclose(
        list(scalars["batch_loss"].values()), expected_losses(make_model(), regression), rtol=1e-4
    )


def test_update_every_thins_the_batch_tags(tmp_path, make_model, regression):
    fit(make_model(), regression, [ScheduleLogger(tmp_path, update_every=5)])
    scalars, _ = read(tmp_path)
    assert list(scalars["batch_loss"]) == [5, 10, 15, 20, 25, 30, 35]
    losses = expected_losses(make_model(), regression)
    for step, since in ((10, 5), (15, BATCHES)):  # not of an epoch before
        mean = np.mean(losses[since:step])
        np.testing.assert_allclose(scalars["batch_loss"][step], mean, rtol=1e-4)


def test_entries_further_apart_than_an_epoch_is_long(tmp_path, make_model, regression):
    fit(make_model(), regression, [ScheduleLogger(tmp_path, update_every=15)])
    assert list(read(tmp_path)[0]["batch_learning_rate"]) == [15, 30]


def test_epoch_only(tmp_path, make_model, regression):
    schedule = GreedyLR(update_every=4)
    fit(make_model(), regression, [schedule, ScheduleLogger(tmp_path, update_every="epoch")])
    scalars, _ = read(tmp_path)
    assert not any(tag.startswith("batch_") for tag in scalars)
    assert list(scalars["schedule/metric"]) == list(range(EPOCHS))


@pytest.mark.parametrize("logger_first", [True, False])
@pytest.mark.parametrize(
    ("update_every", "steps"), [(1, [3, 6, 9, 12, 15, 18, 21]), ("epoch", [0, 1, 2])]
)
def test_what_is_decided_between_epochs_is_on_the_axis_of_the_batches(
    tmp_path, make_model, regression, update_every, steps, logger_first
):
    """`LearnedLR` decides some things with an epoch's begin."""
    ours = [ScheduleLogger(tmp_path, update_every), LearnedLR(decide_every=3, total_steps=26)]
    with pytest.warns(UserWarning, match="too little to go by"):
        fit(make_model(), regression, ours if logger_first else ours[::-1], steps_per_epoch=9)
    events = EventAccumulator(str(tmp_path / "train"), size_guidance={"scalars": 0})
    events.Reload()
    found = [event.step for event in events.Scalars("schedule/metric")]
    assert found == steps


@pytest.mark.parametrize("copied", [lambda logger: logger, copy.copy])
def test_a_subclass_may_have_a_hook_of_its_own(tmp_path, make_model, regression, copied):
    class Counting(ScheduleLogger):
        seen = 0

        def on_train_batch_end(self, batch, logs=None):
            self.seen += 1

    logger = copied(Counting(tmp_path))
    fit(make_model(), regression, [logger])
    assert logger.seen == len(read(tmp_path)[0]["batch_loss"]) == EPOCHS * BATCHES


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda logger: pickle.loads(pickle.dumps(logger))]
)
def test_a_copy_of_a_logger_that_was_used_writes_its_own_file(
    tmp_path, make_model, regression, ended, duplicate
):
    logger, model = ScheduleLogger(tmp_path), make_model()
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 99)), "mse")
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: 1 / 0)
    with contextlib.nullcontext() if ended else pytest.raises(ZeroDivisionError):
        fit(model, regression, [logger] if ended else [logger, stop])
    own = duplicate(logger)
    assert own._events is None and logger._events is not None
    fit(own.model, regression, [own])
    assert len(list((tmp_path / "train").iterdir())) == 2


def test_a_second_fit_goes_on_counting(tmp_path, make_model, regression):
    model = make_model()
    for run in range(2):
        fit(model, regression, [ScheduleLogger(tmp_path / str(run))])
    scalars, _ = read(tmp_path / "1")
    assert list(scalars["batch_loss"])[:2] == [EPOCHS * BATCHES + 1, EPOCHS * BATCHES + 2]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch has one step an execution")
def test_several_steps_per_execution(tmp_path, make_model, regression):
    fit(make_model(steps_per_execution=4), regression, [ScheduleLogger(tmp_path)])
    scalars, _ = read(tmp_path)
    steps = [4, 8, 12, 13]
    assert list(scalars["batch_loss"]) == [13 * e + s for e in range(EPOCHS) for s in steps]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch has one step an execution")
def test_several_steps_per_execution_and_an_unknown_length(tmp_path, make_model, regression):
    tf = pytest.importorskip("tensorflow")
    data = [part[:80] for part in regression]  # five batches
    dataset = tf.data.Dataset.from_tensor_slices(tuple(data)).batch(16).filter(lambda x, y: True)
    assert dataset.cardinality() == tf.data.UNKNOWN_CARDINALITY
    spy, learned = Spy(update_every=2, patience=NEVER), LearnedLR(total_steps=200)
    for schedule in (spy, learned):
        logger = ScheduleLogger(tmp_path / type(schedule).__name__)
        make_model(steps_per_execution=4).fit(
            dataset, epochs=EPOCHS, verbose=0, callbacks=[schedule, logger]
        )
        scalars, _ = read(logger.log_dir)
        assert list(scalars["batch_learning_rate"]) == [4, 5, 9, 10, 14, 15]
    assert learned._done == 15
    losses = expected_losses(make_model(), data)
    groups = [losses[:4], losses[4:9], losses[9:14]]
    np.testing.assert_allclose(spy.looked, [np.mean(group) for group in groups], rtol=1e-3)


@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_what_was_logged_survives(tmp_path, end):
    """An interrupt loses nothing; a kill nothing before the last flush, an epoch's end here."""
    script = textwrap.dedent(
        f"""
        import os, signal
        import keras, numpy as np
        from keras_greedylr import ScheduleLogger
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", loss="mse")
        class End(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if self.epoch == 1 and batch == 2:
                    if {end == "interrupt"}:
                        raise KeyboardInterrupt
                    os.kill(os.getpid(), signal.SIGKILL)
            def on_epoch_begin(self, epoch, logs=None):
                self.epoch = epoch
        model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=2, epochs=3, verbose=0,
                  callbacks=[ScheduleLogger({str(tmp_path)!r}), End()])
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=os.environ)
    assert done.returncode in ((-signal.SIGKILL,) if end == "kill" else (-signal.SIGINT, 130, 1))
    scalars, _ = read(tmp_path)
    steps = list(scalars["batch_loss"])
    assert steps == list(range(1, 8 if end == "interrupt" else 5))


def test_bad_update_every():
    with pytest.raises(ValueError, match=r"`update_every` must be an integer >= 1. Received.*=0"):
        ScheduleLogger("logs", update_every=0)
    with pytest.raises(ValueError, match=r"`update_every` must be one of \('epoch',\)"):
        ScheduleLogger("logs", update_every="batch")


@pytest.mark.parametrize(
    "schedule", [GreedyLR(factor=0.5, patience=0, update_every=2), LearnedLR()]
)
def test_bfloat16_throughout(tmp_path, make_model, regression, bfloat16, schedule):
    schedule = copy.copy(schedule)
    fit(make_model(), regression, [schedule, ScheduleLogger(tmp_path)])
    scalars, _ = read(tmp_path)
    for tag in ("batch_learning_rate", "batch_loss"):
        values = list(scalars[tag].values())
        assert len(values) == EPOCHS * BATCHES and np.isfinite(values).all()
    assert len(set(scalars["batch_learning_rate"].values())) > 3


@pytest.mark.parametrize("logger_first", [True, False])
@pytest.mark.parametrize(
    "schedule", [GreedyLR(factor=0.5, patience=0, update_every=13), LearnedLR()]
)
def test_rates_are_those_in_force_in_any_order(
    tmp_path, make_model, regression, schedule, logger_first
):
    """Decisions fall on the same batch of each epoch, and before its first."""
    schedule = type(schedule).from_config(schedule.get_config())
    logger, rates = ScheduleLogger(tmp_path), BatchRates()
    ours = [logger, schedule] if logger_first else [schedule, logger]
    fit(make_model(), regression, [*ours, rates])
    scalars, _ = read(tmp_path)
    np.testing.assert_allclose(
        list(scalars["batch_learning_rate"].values()), rates.rates, rtol=1e-6
    )


@pytest.mark.parametrize("logger_first", [True, False])
def test_epochs_are_shown_with_what_their_last_batch_decided(
    tmp_path, make_model, regression, logger_first
):
    schedule = GreedyLR(factor=0.5, patience=0, update_every=13)
    logger, model = ScheduleLogger(tmp_path, update_every="epoch"), make_model()
    callbacks = [logger, schedule] if logger_first else [schedule, logger]
    history = model.fit(*regression, batch_size=16, epochs=3, verbose=0, callbacks=callbacks)
    rates = history.history["learning_rate"]
    assert len({0.01, *rates}) == 4
    scalars, _ = read(tmp_path)
    assert list(scalars["epoch_learning_rate"]) == list(scalars["schedule/metric"]) == [0, 1, 2]
    np.testing.assert_allclose(list(scalars["epoch_learning_rate"].values()), rates, rtol=1e-6)
