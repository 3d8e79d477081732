"""Every example runs with tiny settings, as a reader would run it, and leaves its files."""

import importlib.util
import os
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
    path = os.pathsep.join([str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *options],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": keras.config.backend(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for name in files:
        assert (tmp_path / name).exists(), f"{script} left no {name}"


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


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
