"""Training killed with SIGKILL and started again follows the path it would have followed."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the worker forks")

MODES = ("epoch", "val_loss", "loss at validation", "three batches")
ORDERS = ("greedy first", "backup first")
EPOCHS = 9


# Validations end the epochs 1, 3, 5 and 7, counted from 0.
VALIDATED, NOT_VALIDATED = (3, 5, 7), (2, 4, 6)


def draw_tries():
    """Tries: each mode and order between the two writes and in Keras', and others, seeded."""
    rng = random.Random(0)
    tries = []
    for mode in MODES:
        for order in ORDERS:
            epochs = NOT_VALIDATED if mode == "val_loss" else VALIDATED
            if mode in ("epoch", "three batches"):
                epochs = range(2, 8)
            kill = {"hook": "epoch_end", "place": 1, "epoch": rng.choice(epochs)}
            tries.append({"mode": mode, "order": order, "kill": kill})
            kill = {"hook": "write", "place": None, "epoch": rng.randrange(2, 8)}
            tries.append({"mode": mode, "order": order, "kill": kill})
    for number in range(12):
        kill = [
            {"hook": "epoch_end", "place": 0, "epoch": rng.randrange(2, 8)},
            {"hook": "epoch_end", "place": 2, "epoch": rng.randrange(2, 8)},
            {"hook": "validation", "place": 1, "epoch": rng.choice(VALIDATED)},
            {"hook": "batch", "place": 1, "epoch": rng.randrange(2, 8), "batch": rng.randrange(5)},
        ][number % 4]
        mode = MODES[(number + number // 4) % 4]
        tries.append({"mode": mode, "order": rng.choice(ORDERS), "kill": kill})
    return tries


TRIES = draw_tries()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What the killed and restarted trainings did, and first those never killed."""
    whole = [{"mode": mode, "order": ORDERS[0], "kill": None} for mode in MODES]
    jobs = [{**one, "folder": str(tmp_path_factory.mktemp("try"))} for one in [*whole, *TRIES]]
    worker = Path(__file__).parent / "resume_worker.py"
    done = subprocess.run(
        [sys.executable, str(worker)], input=json.dumps(jobs), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout)
    paths = {job["mode"]: answer["rates"] for job, answer in zip(whole, answers, strict=False)}
    return paths, answers[len(whole) :]


def test_there_are_tries_of_each_kind():
    assert len(TRIES) == 28
    kills = [one["kill"] for one in TRIES]
    assert {(kill["hook"], kill["place"]) for kill in kills} == {
        ("epoch_end", 0),
        ("epoch_end", 1),
        ("epoch_end", 2),
        ("validation", 1),
        ("batch", 1),
        ("write", None),
    }
    assert {kill["epoch"] for kill in kills} == {2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize("mode", MODES)
def test_the_path_to_follow_goes_both_ways(outcomes, mode):
    path = [rate for epoch in outcomes[0][mode].values() for rate in epoch]
    assert len(path) == EPOCHS * 5
    steps = list(itertools.pairwise(path))
    assert any(after > before for before, after in steps)
    assert any(after < before for before, after in steps)


@pytest.mark.parametrize("number", range(len(TRIES)))
def test_a_killed_training_goes_on_where_its_weights_do(outcomes, number):
    one, outcome = TRIES[number], outcomes[1][number]
    assert outcome["killed"] == {"signal": signal.SIGKILL}
    assert isinstance(outcome["rates"], dict), outcome["rates"]  # else a traceback
    kill = one["kill"]
    # BackupAndRestore wrote the epoch's weights before the kill or did not.
    backed_up = kill["hook"] == "epoch_end" and (
        kill["place"] == 2 or (kill["place"] == 1 and one["order"] == "backup first")
    )
    restored = kill["epoch"] + backed_up
    path = outcomes[0][one["mode"]]
    expected = {epoch: rates for epoch, rates in path.items() if int(epoch) >= restored}
    assert outcome["rates"] == expected
