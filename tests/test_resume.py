"""Training killed with SIGKILL and started again follows the path it would have followed."""

import itertools
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

MODES = ("epoch", "val_loss", "loss at validation", "three batches")
ORDERS = ("greedy first", "backup first")
EPOCHS = 9


def draw_tries():
    """Twenty tries: each mode and order between the two writes, and a seeded rest."""
    rng = random.Random(0)
    between = {"hook": "epoch_end", "place": 1}
    tries = [(mode, order, between) for mode in MODES for order in ORDERS]
    others = [
        {"hook": "epoch_end", "place": 0},
        {"hook": "epoch_end", "place": 2},
        {"hook": "validation", "place": 1},
        {"hook": "batch", "place": 1},
    ]
    for number in range(12):
        kill = dict(others[number % 4])
        if kill["hook"] == "batch":
            kill["batch"] = rng.randrange(5)
        tries.append((MODES[number // 4 + number % 2], rng.choice(ORDERS), kill))
    # Validations end every second epoch, here as people count them.
    return [
        {
            "mode": mode,
            "order": order,
            "kill": {
                **kill,
                "epoch": rng.choice((3, 5, 7) if kill["hook"] == "validation" else range(2, 8)),
            },
        }
        for mode, order, kill in tries
    ]


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


def test_there_are_twenty_tries():
    assert len(TRIES) == 20
    assert {one["kill"]["epoch"] for one in TRIES} >= {2, 7}


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
