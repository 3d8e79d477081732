"""What the runs of a comparison may share, and what must be as new in each."""

import json
import math

import keras
import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("rich")
from comparing import DATA, X, Y, bare, quick, small
from rich.console import Console

from keras_greedylr.compare import Comparison, heading, rich_table, runner, write_report
from keras_greedylr.compare.contestants import equip, resolve
from keras_greedylr.compare.names import _renamed_key
from keras_greedylr.compare.report import markdown, to_json
from keras_greedylr.compare.store import Run, Task


def histories(comparison):
    return {(run.task.contestant, run.task.seed): run.history for run in comparison.runs}


def test_a_callback_drives_the_optimizer_it_came_with():
    def mine(setting):
        optimizer = keras.optimizers.SGD(setting.rate)
        still = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: optimizer.learning_rate.assign(0.0)
        )
        return [optimizer, still]

    for run in bare({"mine": mine}, seeds=2).runs:
        assert {rate for _, rate in run.rates} == {0.0}


def test_what_a_model_draws_into_its_layers_is_that_of_each_seed(tmp_path):
    """Also where a run goes on that was stopped, and pairs with others."""

    def drawn():
        features = np.random.normal(size=(3, 8)).astype("float32")  # noqa: NPY002
        cosines = keras.layers.Lambda(lambda x: keras.ops.cos(keras.ops.matmul(x, features)))
        model = keras.Sequential([keras.Input((3,)), cosines, keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.05), loss="mse", run_eagerly=True)
        return model

    schedules = {"constant": None, "again": lambda setting: None}
    whole = histories(bare(schedules, drawn, seeds=2))
    bare(["constant"], drawn, seeds=1, out=tmp_path)
    assert histories(bare(schedules, drawn, seeds=2, out=tmp_path)) == whole
    assert whole["constant", 1] == whole["again", 1] != whole["constant", 0]


class Spoils(keras.callbacks.Callback):
    """Sets what is no variable."""

    def on_train_begin(self, logs=None):
        (dropout,) = [one for one in self.model.layers if isinstance(one, keras.layers.Dropout)]
        dropout.rate = 0.0


class Remembers(keras.layers.Layer):
    """Keeps in Python how often it was called."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def call(self, inputs):
        self.calls += 1
        return inputs * (1.0 + 0.1 * self.calls)


def remembering():
    layers = [keras.Input((3,)), Remembers(), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.01), loss="mse", run_eagerly=True)
    return model


@pytest.mark.parametrize(
    "other, model",
    [(lambda setting: Spoils(), small), (None, remembering)],
    ids=["a callback of one's own", "a layer of one's own"],
)
def test_what_is_no_variable_does_not_pass_from_run_to_run(other, model):
    alone = histories(bare(["constant"], model, seeds=2))
    first = histories(bare({"greedy": other, "constant": None}, model, seeds=2))
    last = histories(bare({"constant": None, "greedy": other}, model, seeds=2))
    assert first == last and alone.items() <= first.items()
    differs = other is not None  # else a step of the rate is too little, in one epoch
    assert (first["greedy", 0] != alone["constant", 0]) == differs


class Shuffles(keras.utils.PyDataset):
    """Another order in each epoch, of one generator."""

    def __init__(self):
        super().__init__()
        self.generator, self.order = np.random.default_rng(0), np.arange(40)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = self.order[10 * index : 10 * index + 10]
        return X[rows], Y[rows]

    def on_epoch_end(self):
        self.generator.shuffle(self.order)


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_a_dataset_of_a_function_begins_anew_in_each_run():
    again = {"constant": None, "again": lambda setting: None}
    runs = histories(bare(again, data=lambda: {"x": Shuffles(), "shuffle": False}, seeds=2))
    for seed in (0, 1):
        assert runs["constant", seed] == runs["again", seed]


class Offset(keras.Sequential):
    """Another objective than the losses'."""

    def compute_loss(self, *args, **kwargs):
        return 100.0 + super().compute_loss(*args, **kwargs)


def test_a_line_search_takes_no_part_where_the_model_has_a_loss_of_its_own():
    def model():
        model = Offset([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.05), loss="mse")
        return model

    with pytest.raises(ValueError, match="Received: a Offset with compute_loss"):
        bare(["constant", "line-search"], model)


def test_a_model_that_was_told_its_input_and_has_no_weights_yet():
    class Late(keras.Model):
        def build(self, input_shape):
            self.dense = keras.layers.Dense(1)
            self.built = True

        def call(self, x):
            return self.dense(x)

    def model():
        model = Late()
        model.build((None, 3))
        model.compile(keras.optimizers.SGD(0.05), loss="mse", run_eagerly=True)
        return model

    one, two = bare(["constant"], model, seeds=2).runs
    assert np.isfinite(one.history["loss"]).all() and one.history != two.history


def test_compiling_is_nobodys_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(runner.time, "perf_counter", lambda: now[0])

    def seconds(*epochs):
        clock = runner._Clock()
        for epoch, took in enumerate(epochs):
            clock.on_epoch_begin(epoch)
            now[0] += took
            clock.on_epoch_end(epoch)
        return clock.seconds

    assert seconds(30.0, 2.0, 4.0) == 9.0
    assert seconds(30.0) == 30.0


def test_loss_scaling_stays_as_the_model_has_it():
    model = small()
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.05), initial_scale=8.0, dynamic_growth_steps=7
    )
    model.compile(scaled, loss="mse")
    made = equip(model, resolve("cosine"), 1.0, steps=4, epochs=1, validated=False).model.optimizer
    assert made is not scaled and (made.initial_scale, made.dynamic_growth_steps) == (8.0, 7)
    assert isinstance(made.inner_optimizer._learning_rate, keras.optimizers.schedules.CosineDecay)


@pytest.mark.parametrize(
    "none",
    [{"validation_data": None}, {"validation_split": 0.0}],
    ids=lambda none: next(iter(none)),
)
def test_no_validation_may_be_said(none):
    comparison = bare(["constant"], data={"x": X, "y": Y, **none}, seeds=1)
    assert comparison.metric == "loss"


def test_names_are_shown_as_they_are():
    names = ("greedy[fast]", "greedy[/slow]")
    table = rich_table(bare(dict.fromkeys(names, lambda setting: None), seeds=1))
    console = Console(width=100)
    with console.capture() as shown:
        console.print(table)
    assert all(name in shown.get() for name in names)


def test_a_name_cannot_break_the_table_and_numpys_numbers_are_numbers():
    comparison = bare({"a|b": lambda setting: None}, seeds=1, target=np.float32(0.5))
    rows = [line.replace(r"\|", "") for line in markdown(comparison).splitlines() if "| " in line]
    assert len(rows) == 3 and len({row.count("|") for row in rows}) == 1
    assert json.loads(to_json(comparison))["target"] == 0.5


def test_metrics_and_outputs_go_by_one_name_in_all_runs():
    """Keras counts what has no name of its own, and each run has a model of its own."""

    def build():
        inputs = keras.Input((3,))
        outputs = [keras.layers.Dense(1, "sigmoid")(inputs) for _ in range(2)]
        model = keras.Model(inputs, outputs)
        metrics = [[keras.metrics.AUC(), keras.metrics.AUC()], [keras.metrics.AUC(name="top_5")]]
        model.compile("sgd", ["mse", "mse"], metrics=metrics)
        return model

    labels = (Y[:40] > 0).astype("float32")
    data = {"x": X[:40], "y": [labels, labels]}
    comparison = bare(["constant", "cosine"], build, data, seeds=2, metric="dense_auc_1")
    assert {frozenset(run.history) for run in comparison.runs} == {
        frozenset(
            ["loss", "dense_loss", "dense_1_loss", "dense_auc", "dense_auc_1", "dense_1_top_5"]
        )
    }
    assert comparison.mode == "max"


def test_an_outputs_name_that_begins_another_is_not_taken_for_it():
    outputs, metrics = {"dense": "dense", "dense_1": "dense_1"}, {"auc_5": "auc"}
    assert _renamed_key("val_dense_1_auc_5", outputs, metrics) == "val_dense_1_auc"


def test_half_of_the_reference_reaches_what_it_ends_with():
    (row,) = bare(["constant"], seeds=4).rows
    assert (row["steps_to_target"], row["reached"]) == (4.0, 0.5)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_where_all_diverge_there_is_a_report(mode, tmp_path):
    pytest.importorskip("matplotlib")
    comparison = quick(
        ["constant"], lambda: small(1e30), DATA, rates=(1.0, 10.0), seeds=1, mode=mode
    )
    assert comparison.rows[0]["diverged"] == 1
    assert all(path.exists() for path in write_report(comparison, tmp_path))


@pytest.mark.parametrize("validated", [True, False])
def test_the_accuracy_of_a_model_that_diverged_is_no_result(validated):
    """Of NaN it is that of the first class, which may be most of the data."""
    nan, prefix = math.nan, "val_" if validated else ""
    logged = {
        "sound": {"loss": [1.0, 0.5], f"{prefix}accuracy": [0.7, 0.8]},
        "broken": {"loss": [1.0, nan], f"{prefix}accuracy": [0.9, 0.83]},
    }
    if validated:  # by which it counts: a training loss may have met a batch that was skipped
        logged["sound"] |= {"val_loss": [1.0, 0.5], "loss": [1.0, nan]}
        logged["broken"] |= {"val_loss": [1.0, nan], "loss": [1.0, 0.5]}
    runs = [Run(Task(name, 1.0, 0), history, [], 1, 1.0) for name, history in logged.items()]
    rates = dict.fromkeys(logged, 1.0)
    comparison = Comparison(runs, rates, f"{prefix}accuracy", "max", "sound", None, {})
    assert [row["median"] for row in comparison.rows] == [0.8, -math.inf]
    assert [row["diverged"] for row in comparison.rows] == [0, 1]
    assert comparison.rows[1]["win_rate"] == 0.0
    assert comparison.rows[1]["steps_to_target"] == 1.0  # it got there before


def test_where_no_rate_is_better_the_models_own_is_taken():
    comparison = bare(["constant"], lambda: small(1e30), tune=True, seeds=1)
    assert comparison.own_rates == {"constant": 1.0}
    assert "Tuned to the end" not in heading(comparison)


def test_sample_weights_reach_the_training_and_the_validation():
    none, one = np.zeros(40, "float32"), np.ones(20, "float32")
    x, y, x_val, y_val = DATA
    (still,) = quick(["constant"], data=((x, y, none), (x_val, y_val, one)), seeds=1).runs
    (trained,) = quick(["constant"], data=((x, y), (x_val, y_val, one)), seeds=1).runs
    assert still.history["loss"] == [0.0] and trained.history["loss"] > [0.0]
    (unweighted,) = quick(["constant"], data=((x, y), (x_val, y_val)), seeds=1).runs
    (halved,) = quick(["constant"], data=((x, y), (x_val, y_val, 0 * one)), seeds=1).runs
    assert trained.history == unweighted.history and halved.history["val_loss"] == [0.0]


def test_a_metric_with_a_value_for_each_class_is_left_out():
    def model():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "sigmoid")])
        each = keras.metrics.F1Score(threshold=0.5, name="each")
        mean = keras.metrics.F1Score("macro", threshold=0.5, name="mean")
        model.compile("sgd", loss="mse", metrics=[each, mean], run_eagerly=True)
        return model

    data = (X, np.eye(2, dtype="float32")[(Y[:, 0] > 0).astype(int)])
    (run,) = bare(["constant"], model, data, seeds=1, metric="mean", mode="max").runs
    assert set(run.history) == {"loss", "mean"}
    with pytest.raises(ValueError, match=r"one of \['loss', 'mean'\], the logs .* one value an"):
        bare(["constant"], model, data, seeds=1, metric="each", mode="max")
