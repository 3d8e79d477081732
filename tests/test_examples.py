"""Every example runs with tiny settings, as a reader would run it, and leaves its files."""

import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {  # options, and the files that they leave
    "char_model.py": (["--epochs", "1", "--characters", "3000"], []),
    "learned_digits.py": (
        ["--epochs", "1", "--rates", "1", "--out", "picture.png"],
        ["picture.png"],
    ),
}
if importlib.util.find_spec("tf_agents"):  # the other environments have no inner problems
    TINY["nmf_faces_or_digits.py"] = (["--steps", "1", "--out", "parts.png"], ["parts.png"])

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")


def test_every_example_is_tried():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {*TINY, "digits.py", "nmf_faces_or_digits.py"}


@pytest.mark.parametrize("script", TINY)
def test_runs_and_leaves_its_files(script, tmp_path):
    options, files = TINY[script]
    done = _run([str(EXAMPLES / script), *options], tmp_path)
    assert done.returncode == 0, done.stderr
    for name in files:
        assert (tmp_path / name).exists(), f"{script} left no {name}"


BAD = [  # options, and what is said of them
    ("char_model.py", ["--epochs", "0"], "--epochs: must be an integer >= 1, got 0"),
    ("char_model.py", ["--characters", "200"], "--characters must be at least 480, got 200"),
    ("digits.py", ["--epochs", "0"], "--epochs: must be an integer >= 1, got 0"),
    ("digits.py", ["--seeds", "0"], "--seeds: must be an integer >= 1, got 0"),
    ("learned_digits.py", ["--epochs", "0"], "--epochs: must be an integer >= 1, got 0"),
    ("nmf_faces_or_digits.py", ["--rank", "0"], "--rank: must be an integer >= 1, got 0"),
    ("nmf_faces_or_digits.py", ["--steps", "0"], "--steps: must be an integer >= 1, got 0"),
]


@pytest.mark.parametrize("script, options, said", BAD)
def test_says_which_options_it_cannot_run_with(script, options, said, monkeypatch, capsys):
    if script == "nmf_faces_or_digits.py" and script not in TINY:
        pytest.skip("the other environments have no inner problems")
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_nmf_says_what_it_lacks(tmp_path):
    code = "import runpy, sys; sys.modules['tensorflow'] = None; runpy.run_path(sys.argv.pop(1))"
    done = _run(["-c", code, str(EXAMPLES / "nmf_faces_or_digits.py"), "--help"], tmp_path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "tensorflow" in done.stderr
    assert 'pip install "keras-greedylr[agents,compare]"' in done.stderr


def test_digits_trains_all_from_the_same_weights_with_the_same_batches(
    tmp_path, monkeypatch, capsys
):
    """One rate in place of three: twelve networks take JAX a minute to compile."""
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    digits = _load(EXAMPLES / "digits.py")
    monkeypatch.setattr(digits, "RATES", {"right": digits.RATES["right"]})
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "argv", ["digits.py", "--epochs", "1", "--out", str(tmp_path)])
    digits.main(digits.parse_arguments())
    said = capsys.readouterr().out
    assert f"tensorboard --logdir {tmp_path / 'logs'}" in said
    assert (tmp_path / "schedules.png").stat().st_size > 10_000
    losses = []
    for schedule in digits.SCHEDULES:
        assert schedule in said
        folder = tmp_path / "logs" / "right" / schedule / "train"
        events = event_accumulator.EventAccumulator(str(folder))
        events.Reload()
        # Every schedule has made the first step at the initial rate.
        losses.append([event.value for event in events.Scalars("batch_loss")[:2]])
    np.testing.assert_allclose(losses, [losses[0]] * len(losses), rtol=1e-3)


def _run(arguments, folder):
    path = os.pathsep.join([str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": keras.config.backend(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
