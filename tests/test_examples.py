"""Every example runs, with tiny settings, as a reader would run it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {  # options, and the files that they leave
    "digits.py": (
        ["--epochs", "1", "--out", "made"],
        ["made/schedules.png", "made/logs/too_low/GreedyLR/train/events.*"],
    ),
}


def run(script, options, folder):
    path = os.pathsep.join([str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_example_is_tried():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(TINY)


@pytest.mark.parametrize("script", TINY)
def test_runs_and_leaves_its_files(script, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    options, files = TINY[script]
    done = run(script, options, tmp_path)
    assert done.returncode == 0, done.stderr
    for name in files:
        assert list(tmp_path.glob(name)), f"{script} left no {name}"


def test_digits_trains_all_from_the_same_weights_with_the_same_batches(tmp_path):
    """The first batch's loss is known before any schedule has done anything."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    done = run("digits.py", ["--epochs", "1", "--out", "made"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tensorboard --logdir made/logs" in done.stdout
    losses = {}  # of the first two batches
    folders = sorted((tmp_path / "made/logs").glob("*/*/train"))
    assert len(folders) == 12
    for folder in folders:
        events = accumulator.EventAccumulator(str(folder))
        events.Reload()
        values = {event.step: event.value for event in events.Scalars("batch_loss")}
        losses.setdefault(folder.parts[-3], []).append([values[1], values[2]])
    assert np.ptp([first for of in losses.values() for first, _ in of]) < 1e-4
    for of in losses.values():  # the first step was of the same rate still
        assert np.ptp([second for _, second in of]) < 1e-3
