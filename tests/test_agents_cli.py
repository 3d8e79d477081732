"""`train-agent` from end to end, and its errors."""

import json

import numpy as np
import pytest

pytest.importorskip("tf_agents")
import keras_greedylr_agents  # noqa: F401, I001
import tensorflow as tf

from keras_greedylr import observation
from keras_greedylr.policy import SHIPPED, load_policy
from keras_greedylr_agents.cli import MINUTES, main

TINY = ["--problems", "teacher", "--runs", "4", "--epochs", "1", "--hidden", "8"]


def test_train_resume_and_evaluate(tmp_path, capsys):
    out = tmp_path / "mine"
    train = [*TINY, "--out", str(out), "--iterations", "2", "--evaluate", "none"]
    assert main([*train, "--resume", "--minutes", "1e-9"]) == 0
    said = capsys.readouterr().err
    assert "holds no iteration to go on from: training from the start" in said
    assert "stopped after 1 of 2 iterations; --resume goes on" in said
    assert load_policy(out, "numpy").card["iterations"] == 1
    assert main([*train, "--resume"]) == 0
    said = capsys.readouterr().err
    assert "holds no iteration" not in said and "stopped after" not in said
    assert main(train) == 2 and "Pass --resume" in capsys.readouterr().err
    policy = load_policy(out)
    assert policy.card["iterations"] == 2 and policy.card["config"]["problems"] == "teacher"
    assert policy.card["command"].startswith("train-agent") and "teacher" in policy.card["command"]
    assert np.isfinite(policy(np.zeros((2, len(observation.NAMES)), np.float32))).all()

    report = tmp_path / "report-0.1"
    evaluate = ["evaluate", str(out), "--split", "development", "--problems", "cancer"]
    assert main([*evaluate, "--seeds", "1", "--tuning-seeds", "1", "--out", str(report)]) == 0
    summary = json.loads((tmp_path / "report-0.1.json").read_text())
    assert summary["problems"] == ["cancer"] and "untrained" in summary["table"]
    assert summary["files"] == policy.card["files"]
    said = capsys.readouterr()
    assert said.out.endswith((tmp_path / "report-0.1.md").read_text())
    assert f"written to {report}.json and {report}.md\n" in said.err
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"mine", "mine.training", "report-0.1.json", "report-0.1.md"}


@pytest.mark.parametrize(
    "options, minutes",
    [([], MINUTES), (["--iterations", "90"], None), (["--iterations", "2", "--minutes", "3"], 3.0)],
)
def test_how_long_it_trains(options, minutes, tmp_path, monkeypatch):
    limits = []
    monkeypatch.setattr(
        "keras_greedylr_agents.train.Trainer.run", lambda self, report, limit: limits.append(limit)
    )
    out = tmp_path / "mine"
    assert main([*TINY, *options, "--out", str(out), "--evaluate", "none"]) == 0
    assert limits == [minutes]
    command = load_policy(out, "numpy").card["command"].split()
    assert [name in command for name in options[::2]] == [True] * len(options[::2])


def test_tune_greedy(tmp_path, capsys):
    out = tmp_path / "greedy.json"
    assert main(["tune-greedy", "--problems", "teacher", "--candidates", "2", "--seeds", "1",
                 "--out", str(out)]) == 0  # fmt: skip
    assert len(json.loads(out.read_text())["candidates"]) == 2
    assert "best of 2" in capsys.readouterr().out


STOPPED = {
    "train": (["--out", "x"], "train.Trainer", "the same command with --resume goes on"),
    "evaluate": (["evaluate", "default"], "evaluate.evaluate", "Nothing was written"),
    "tune-greedy": (["tune-greedy"], "tune.tune_greedy", "Nothing was written"),
}


@pytest.mark.parametrize("case", STOPPED)
def test_ctrl_c_says_what_is_left(case, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    arguments, where, reason = STOPPED[case]
    monkeypatch.setattr(f"keras_greedylr_agents.{where}", stop)
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 130
    assert reason in capsys.readouterr().err


WRONG = {
    "unknown problem": (["--out", "x", "--problems", "chess"], "chess"),
    "bad option": (["--out", "x", "--runs", "0"], "`runs` must be an integer >= 1"),
    "no minutes": (["--out", "x", "--minutes", "0"], "`minutes` must be"),
    "taken": (["--out", "."], "is not a policy"),
    "over 1": (["--out", "x", "--discount", "1.5"], "finite number >= 0 and <= 1. Received"),
    "pattern": (["--out", "b[1]"], "TensorFlow takes a path with any of *?["),
    "no such place": (["evaluate", "default", "--out", "precious/x"], "precious"),
    "no name": (["evaluate", "default", "--out", "."], "`--out` is a name for two files"),
    "in the policy": (["evaluate", "default", "--out", f"{SHIPPED}/default/x"], "write elsewhere"),
    "a folder": (["tune-greedy", "--out", "."], "A file's name is expected. Received: ."),
    "no candidates": (["tune-greedy", "--candidates", "0"], "`candidates` must be an integer >= 1"),
    "seed": (["tune-greedy", "--seed", "-1"], "`seed` must be an integer >= 0"),
    "not a policy": (["evaluate", "nowhere"], "Not a policy"),
    "unknown split's problem": (["evaluate", "default", "--problems", "teacher"], "teacher"),
}


def test_errors_of_tensorflow_are_said_plainly(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "no space left")

    monkeypatch.setattr("keras_greedylr_agents.train.Trainer.run", full)
    assert main([*TINY, "--out", str(tmp_path / "x")]) == 2
    assert "train-agent: TensorFlow: no space left" in capsys.readouterr().err


@pytest.mark.parametrize("case", WRONG)
def test_errors_say_what_was_wrong(case, tmp_path, monkeypatch, capsys):
    (tmp_path / "precious").write_text("")
    monkeypatch.chdir(tmp_path)
    arguments, reason = WRONG[case]
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err.replace("\n", " ")
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]  # nothing half-written
