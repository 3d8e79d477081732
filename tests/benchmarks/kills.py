"""Whether trainings that are killed at random moments go on as if they had not been.

    python tests/benchmarks/kills.py [--kills 20] [--epoch 0.5] [--seed 0]

The trainings of `tests/test_resume.py`: GreedyLR with a state file beside Keras'
`BackupAndRestore(double_checkpoint=True)`, in four modes and both orders. But the SIGKILL comes
from another process, at any moment of epochs 2 to 7. The training is started again and has to
follow, from the epoch its weights are restored to, the path of rates of one that was never killed.
The shorter an epoch the more of it is the writing of files. Exits with 1 if a training did not.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from machine import machine

WORKER = Path(__file__).resolve().parents[1] / "resume_worker.py"
MODES = ("epoch", "val_loss", "loss at validation", "three batches")
ORDERS = ("greedy first", "backup first")
FIRST, EPOCHS, BATCHES = 2, 6, 5  # the epochs it may be killed in; batches in one


def outcome(answer, path):
    """What became of a training, and why if it did not go on along the path."""
    if answer["killed"] != {"signal": 9}:
        return "ended before", ""
    rates = answer["rates"]
    if not isinstance(rates, dict):
        return "could not go on", rates.strip().splitlines()[-1]  # of a traceback
    restored = min(map(int, rates))
    if rates == {epoch: path[epoch] for epoch in path if int(epoch) >= restored}:
        return "went on along the path", ""
    return "went on along another path", f"from epoch {restored}"


def main():
    """Kills and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epoch", type=float, default=0.5, help="seconds that one takes at least")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(", ".join(f"{key} {value}" for key, value in machine().items()))

    rng = random.Random(arguments.seed)
    jobs = [{"mode": mode, "order": ORDERS[0], "kill": None} for mode in MODES]
    for number in range(arguments.kills):
        after = rng.uniform(0.0, EPOCHS * arguments.epoch)
        jobs.append(
            {
                "mode": MODES[number % 4],
                "order": ORDERS[number // 4 % 2],
                "kill": {"hook": "clock", "place": 0, "epoch": FIRST, "after": after},
            }
        )
    with tempfile.TemporaryDirectory() as folder:
        for number, job in enumerate(jobs):
            job |= {"folder": f"{folder}/{number}", "pace": arguments.epoch / BATCHES}
            Path(job["folder"]).mkdir()
        done = subprocess.run(
            [sys.executable, str(WORKER)], input=json.dumps(jobs), text=True, stdout=subprocess.PIPE
        )
    answers = json.loads(done.stdout)
    paths = {job["mode"]: one["rates"] for job, one in zip(jobs[:4], answers[:4], strict=True)}
    counts = Counter()
    for job, answer in zip(jobs[4:], answers[4:], strict=True):
        what, why = outcome(answer, paths[job["mode"]])
        counts[what] += 1
        if why:
            print(f"{job['mode']}, {job['order']}, {job['kill']['after']:.3f} s: {what}: {why}")
    for what, count in counts.most_common():
        print(f"{count:4} of {arguments.kills} {what}")
    sys.exit(counts["went on along the path"] + counts["ended before"] < arguments.kills)


if __name__ == "__main__":
    main()
