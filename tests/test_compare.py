"""Schedules against each other: the same start for all, every run kept, the same table twice."""

import csv
import json
import re

import keras
import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("rich")
from comparing import DATA, X, Y, bare, quick, small
from rich.console import Console

from keras_greedylr import GreedyLR
from keras_greedylr.compare import (
    CONTESTANTS,
    compare,
    heading,
    pictures,
    rich_table,
    runner,
    write_report,
)
from keras_greedylr.compare.data import fit_arguments, steps_per_epoch
from keras_greedylr.compare.problems import PROBLEMS
from keras_greedylr.compare.store import Task
from keras_greedylr.optimizers import HypergradientDescent

RATE = 1e-7  # what is not moved by it must be the same for all


def greedy_with_noise(setting):
    """A contestant that uses up random numbers."""
    np.random.rand(7)  # noqa: NPY002 - the global generator is meant
    keras.random.normal((5,))
    return GreedyLR(), keras.optimizers.Adam(setting.rate)


@pytest.fixture(scope="module")
def everyone():
    names = dict.fromkeys([*CONTESTANTS, "cosine+warmup", "constant+warmup"])
    return quick({**names, "mine": greedy_with_noise}, lambda: small(RATE), seeds=1)


def test_every_contestant_has_the_rates_it_should(everyone):
    first = {run.task.contestant: run.rates[0][1] for run in everyone.runs}
    last = {run.task.contestant: tuple(run.rates[-1]) for run in everyone.runs}
    assert set(first) == {*CONTESTANTS, "cosine+warmup", "constant+warmup", "mine"}
    begin = {"learned": 2**-7, "cyclic": 0.1, "one-cycle": 0.1, "wsd": 0, "inverse-sqrt": 1,
             "cosine+warmup": 0, "constant+warmup": 0, "prodigy": 1 / RATE, "line-search": None,
             "hypergradient": None}  # fmt: skip
    end = {"step": 0.01, "exponential": 0.01, "linear": 0, "polynomial": 0, "cosine": 0, "wsd": 0,
           "cosine+warmup": 0, "constant+warmup": 1, "constant": 1, "plateau": 1}  # fmt: skip
    for name, rate in first.items():
        if begin.get(name, 1) is not None:
            assert rate == pytest.approx(RATE * begin.get(name, 1), rel=1e-5, abs=1e-15), name
    for name, multiple in end.items():
        assert last[name] == (4, pytest.approx(RATE * multiple, rel=1e-5, abs=1e-15)), name


def test_all_meet_the_same_weights_and_batches(everyone):
    curves = {run.task.contestant: run.history for run in everyone.runs}
    for metric in ("loss", "val_loss"):
        for name in set(curves) - {"line-search", "prodigy"}:  # whose rates are their own
            expected = curves["constant"][metric]
            np.testing.assert_allclose(curves[name][metric], expected, rtol=1e-4, err_msg=name)


def test_a_model_used_again_does_what_a_new_one_does():
    plan = runner.Plan(lambda: small(run_eagerly=False), DATA, {}, 2, 8, None)
    again, new = runner.Trainer(plan), runner.Trainer(plan)
    for contestant in ("cosine", "constant"):
        one, two = (again.run(Task(contestant, 1.0, seed)) for seed in (0, 1))
        assert one.history != two.history
    fast = again.run(Task("greedy", 3.0, 1))  # the same graph at another rate
    slow = new.run(Task("constant", 1.0, 1))
    assert slow.history == two.history and fast.history != two.history
    assert fast.rates[0] == [0, pytest.approx(0.15)]


def test_data_of_a_function_is_the_same_in_each_process():
    def data():
        order = np.random.permutation(60)  # noqa: NPY002 - as scikit-learn's splits draw
        return X[order[:40]], Y[order[:40]], X[order[40:]], Y[order[40:]]

    np.random.rand(3)  # noqa: NPY002 - the processes do not stand at the same number
    first = fit_arguments(data, 10)
    np.random.rand(5)  # noqa: NPY002
    np.testing.assert_array_equal(fit_arguments(data, 10)["x"], first["x"])


def test_runs_that_end_early_are_shown_and_reported(tmp_path):
    pytest.importorskip("matplotlib")
    early = [keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)]
    schedules = {"constant": None, "some/where/my_model.py:early": lambda setting: early}
    comparison = compare(small, DATA[:2], schedules, seeds=2, epochs=3, batch_size=20, verbose=0)
    assert "Initial rate 0.05 (SGD) times the number after x" in heading(comparison)
    assert "2 seeds; 95 % bootstrap intervals (too narrow with fewer than five" in heading(
        comparison
    )
    assert "sign test, each row by itself (at best 0.5 here)" in heading(comparison)
    console = Console(width=80)
    with console.capture() as shown:
        console.print(rich_table(comparison))
    assert "some" in shown.get() and "…" not in shown.get()  # no name is cut off
    lengths = {len(run.history["loss"]) for run in comparison.runs}
    assert lengths == {2, 3}
    for _ in range(2):  # a second report takes the place of the first
        paths = write_report(comparison, tmp_path)
    assert all(path.exists() for path in paths)
    events = list((tmp_path / "logs").rglob("events*"))
    assert len(events) == len(comparison.runs)


def test_a_reference_that_diverged_is_reported(tmp_path):
    pytest.importorskip("matplotlib")
    comparison = bare(["constant", "line-search"], lambda: small(1e30), seeds=2)
    assert comparison.rows[0]["diverged"] == 2 and comparison.rows[0]["reached"] == 0
    assert all(path.exists() for path in write_report(comparison, tmp_path))
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert told["target"] is None and told["rows"][0]["median"] is None
    assert "No target: half of the runs of constant or more diverged. " in heading(comparison)


def test_goes_on_where_it_stopped_and_gives_the_same_table(tmp_path):
    def interrupted(setting):  # counts where it is not told apart by what it captured
        interrupted.calls += 1
        if interrupted.calls == 3:
            raise KeyboardInterrupt
        return keras.optimizers.schedules.CosineDecay(setting.rate, setting.steps)

    interrupted.calls = 0
    schedules = {"constant": None, "mine": interrupted}
    with pytest.raises(KeyboardInterrupt):
        bare(schedules, seeds=2, out=tmp_path)
    runs = tmp_path / "runs.jsonl"
    assert len(runs.read_text().splitlines()) == 3
    runs.write_text(runs.read_text()[:-20])  # the last line cut short
    comparison = bare(schedules, seeds=2, out=tmp_path)
    assert interrupted.calls == 3 + 1 + 2  # looked at, and two of three runs were kept
    assert bare(schedules, seeds=2, out=tmp_path).rows == comparison.rows  # from the disk
    whole = bare(schedules, seeds=2)
    for mine, theirs in zip(comparison.rows, whole.rows, strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}
    assert bare(["constant"], seeds=3, out=tmp_path).rows[0]["runs"] == 3  # more is welcome
    with pytest.raises(ValueError, match=r"other settings: rate was 0.05 and is 0.1\. Name ano"):
        bare(["constant"], lambda: small(0.1), out=tmp_path)
    with pytest.raises(ValueError, match=r"other settings: data was"):
        bare(["constant"], data=(X[:40], -Y[:40]), out=tmp_path)
    with pytest.raises(ValueError, match="`out` must be a folder"):
        quick(["constant"], out=runs)
    with pytest.raises(ValueError, match="is not empty and holds no comparison"):
        quick(["constant"], out=tmp_path.parent)


def test_tunes_on_seeds_of_its_own_and_reports(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_greedylr.compare.comparison.TUNING_GRID", (0.01, 1.0, 1e9))
    comparison = bare(["constant", "cosine"], seeds=1, tune=True, rates=(0.1, 1e9), target=1e-9,
                      out=tmp_path)  # fmt: skip
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    tuning = [run for run in map(json.loads, lines) if run["tuning"]]
    assert len(tuning) == 2 * 2 * 3 and min(run["seed"] for run in tuning) > 1000
    assert comparison.own_rates == {"constant": 1.0, "cosine": 1.0}
    assert np.isinf(comparison.losses("constant", 1e9)).all()  # diverged

    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    pictures._profile(axes, comparison)
    assert axes.get_title() == "Performance profile over the tuned rates and all seeds"
    assert len(axes.lines[0].get_xdata()) == 2  # not the results at other rates
    names = {path.name for path in write_report(comparison, tmp_path)}
    assert names == {"comparison.md", "comparison.csv", "comparison.json", "curves.png",
                     "schedules.png", "profile.png", "rates.png"}  # fmt: skip
    table = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert float(table[0]["median"]) == told["rows"][0]["median"] == comparison.rows[0]["median"]
    assert told["rows"][0]["steps_to_target"] is None and table[0]["steps_to_target"] == "inf"
    assert [point["median"] is None for point in told["rates"]["cosine"]] == [False, False, True]
    assert "| cosine | x" in (tmp_path / "comparison.md").read_text()
    assert rich_table(comparison).row_count == 2
    write_report(bare(["constant"], seeds=1, out=tmp_path), tmp_path)  # in the same folder, less
    assert not (tmp_path / "rates.png").exists() and (tmp_path / "curves.png").exists()

    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "logs" / "cosine" / "x0.1" / "seed-0")).Reload()
    (run,) = comparison.at("cosine", 0.1)
    assert events.Scalars("final_loss")[0].value == pytest.approx(run.history["loss"][-1])
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_higher_is_better_where_it_is():
    def model():
        model = small()
        model.compile(keras.optimizers.SGD(0.05), loss="mse", metrics=["r2_score"],
                      run_eagerly=True)  # fmt: skip
        return model

    comparison = quick(["constant"], model, metric="val_r2_score", mode="max", seeds=2)
    last = [run.history["val_r2_score"][-1] for run in comparison.runs]
    (row,) = comparison.rows
    assert (row["median_low"], row["median_high"]) == (min(last), max(last))
    assert comparison.goal == row["median"] == pytest.approx(np.median(last))


def hypergradient():
    model = small()
    model.compile(HypergradientDescent(keras.optimizers.SGD(0.1)), loss="mse")
    return model


WRONG = {
    "unknown schedule": ({"schedules": ["warp"]}, "Schedules must be among"),
    "no warmup of that": ({"schedules": ["greedy+warmup"]}, "Schedules must be among"),
    "a string": ({"schedules": "greedy"}, "must be a list of names"),
    "the same twice": ({"schedules": ["greedy", "greedy"]}, "must be different names"),
    "no name": ({"schedules": [1]}, "must be names. Received: [1]"),
    "one folder": ({"schedules": {"a/b": list, "a_b": list}}, "for different folders"),
    "the folder above": ({"schedules": {"..": list}}, "for different folders"),
    "no function": ({"schedules": {"mine": 3}}, "must be a function of a Setting"),
    "makes nonsense": ({"schedules": {"mine": lambda setting: 3}}, "A contestant must return"),
    "seeds": ({"seeds": 0}, "`seeds` must be an integer >= 1"),
    "rates": ({"rates": (0.0,)}, "`rates` must be"),
    "reference": ({"reference": "cosine"}, "`reference` must be one of"),
    "metric": ({"metric": "val_beauty", "mode": "max"}, "come from `metrics=` in `model.compile`"),
    "direction": ({"metric": "val_beauty"}, "compare cannot tell whether"),
    "not compiled": ({"model": keras.Sequential}, "must return a compiled keras.Model"),
    "a model": ({"model": small()}, "must be a function that returns a compiled model. Received"),
    "no data": ({"data": X}, "`data` must be"),
    "sets its rate": ({"model": hypergradient}, "but HypergradientDescent sets it as well"),
    "a generator": ({"data": {"x": (batch for batch in [DATA])}}, "gone through anew"),
    "an iterator": ({"data": {"x": iter([DATA])}}, "Received: x is a list_iterator"),
    "another": ({"data": {"x": X, "y": Y, "validation_data": iter([DATA])}}, "validation_data is"),
    "keys": ({"data": {"x": X, "epochs": 3}}, "of which wrong or missing are"),
    "epochs": ({"data": {"x": X, "initial_epoch": 3}}, "are ['initial_epoch']"),
    "batches": ({"data": {"x": X, "batch_size": 0}}, "`batch_size` must be an integer >= 1"),
    "no argument of fit": ({"data": {"x": X, "yy": Y}}, "are ['yy']"),
    "a dataset's targets": ({"data": (object(), object())}, "must hold a dataset as a dict"),
    "lists": ({"data": (X.tolist(), Y.tolist())}, "NumPy arrays or tensors: `np.asarray` makes"),
    "a list in a dict": ({"data": {"x": {"a": X.tolist()}, "y": Y}}, "Received: x holds floats"),
    "a list as y": ({"data": (X, [0] * 60)}, "Received: y holds ints"),
    "a part of one": ({"data": ((X, Y), (X,))}, "sample weights behind if there are any"),
    "two inputs in a tuple": ({"data": ((X, X), Y)}, "several inputs go in a list"),
    "lists to validate with": ({"data": (X, Y, [[0.1]], [1])}, "validation_data holds floats"),
    "one rate": ({"rates": 0.1}, "`rates` must be a list of numbers. Received: rates=0.1"),
    "empty": ({"data": (X[:0], Y[:0])}, "must hold samples. Received: x of shape (0, 3)"),
    "not to be pickled": ({"jobs": 2, "model": lambda: small()}, "go to other processes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_say_what_was_wrong(case):
    arguments, reason = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(reason)):
        quick(**{"schedules": ["constant"], **arguments})


def test_the_length_of_an_epoch():
    lengths = [
        ({"x": X, "batch_size": 8}, 8),
        ({"x": [X, X], "batch_size": 8, "validation_split": 0.25}, 6),
        ({"x": iter([]), "steps_per_epoch": 5}, 5),
        ({"x": [X] * 2, "batch_size": 60}, 1),
        (fit_arguments({"x": X, "batch_size": None}, 8), 8),
    ]
    assert [steps_per_epoch(arguments) for arguments, _ in lengths] == [n for _, n in lengths]
    with pytest.raises(ValueError, match="steps_per_epoch"):
        steps_per_epoch({"x": object()})


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_have_models_that_fit_their_data(name):
    pytest.importorskip("sklearn")
    problem = PROBLEMS[name]
    data = fit_arguments(problem.load_data, problem.batch_size)
    model, x, y = problem.build_model(), data["x"][:3], data["y"][:3]
    loss = model.compute_loss(x, keras.ops.convert_to_tensor(y), model(x))
    loss = keras.ops.convert_to_numpy(loss)
    assert np.isfinite(loss) and 10 <= steps_per_epoch(data) <= 100
