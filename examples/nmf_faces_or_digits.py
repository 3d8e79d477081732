"""Parts of handwritten digits: a factorisation of real data, its rate learned and provably bounded.

    python examples/nmf_faces_or_digits.py

factorises scikit-learn's digits, V (64 x 1792) as W H with no negative entry, by projected SGD on
column mini-batches. The shipped policy sets the rate, from one that is far too low, usual, and far
too high; each step is held under the limit beyond which a batch's loss could rise. Prints how it
ended against a constant and a step-decay rate under the same limit, and saves a picture of losses,
rates, and the parts in W. Needs the `agents` and `compare` extras,
Python 3.11. One minute on two cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import keras_greedylr_agents  # noqa: F401  (it has to come before TensorFlow)

try:
    import matplotlib
    import numpy as np
    import tensorflow as tf
    from rich.console import Console
    from rich.table import Table

    from keras_greedylr.policy import load_policy
    from keras_greedylr_agents.evaluate import rollout
    from keras_greedylr_agents.problems.base import start
    from keras_greedylr_agents.problems.nmf import NMF
    from keras_greedylr_agents.rivals import RIVALS, Controller, Learned
except ModuleNotFoundError as error:
    sys.exit(f'{error}: pip install "keras-greedylr[agents,compare]" with Python 3.11')

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STARTS = (0.01, 1.0, 100.0)  # initial rates, as multiples of the usual one


class Watched:
    """A controller that also keeps the losses of the intervals."""

    def __init__(self, controller: Controller) -> None:
        self.controller, self.losses = controller, []

    def first(self, rates: np.ndarray, bound: np.ndarray) -> np.ndarray:
        """Returns the first interval's rates."""
        return np.minimum(self.controller.first(rates, bound), bound)

    def next(self, seen, bound) -> np.ndarray:
        """Returns the next interval's rates."""
        self.losses.append(seen.loss)
        return np.minimum(self.controller.next(seen, bound), bound)


def positive(text: str) -> int:
    """Returns an option's integer, of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text}")
    return number


def main() -> None:
    """Factorises under each schedule; prints a table, saves a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=positive, default=16, help="number of parts")
    parser.add_argument("--steps", type=positive, default=40, help="steps of each of 40 intervals")
    parser.add_argument("--out", type=Path, default=Path("out/nmf_digits.png"), help="picture")
    options = parser.parse_args()

    problem = NMF(
        "digits", "digits", rank=options.rank, columns=1792, blocks=14, most_noise=0.0,
        steps=options.steps,
    )  # fmt: skip
    runs = start(problem, tf.constant([0, 0]), 1)
    runs = runs._replace(  # the same factors from each of the initial rates
        state=tf.nest.map_structure(lambda x: tf.repeat(x, len(STARTS), axis=0), runs.state),
        movement=tf.repeat(runs.movement, len(STARTS), axis=0),
    )
    rates = problem.usual_rate(runs.state).numpy() * np.array(STARTS, np.float32)
    contestants = {
        "constant": RIVALS["constant"](),
        "step decay": RIVALS["step"](),
        "learned": Learned(load_policy("default", runtime="numpy").act),
    }
    table = Table(
        "schedule", *(f"usual rate x {s:g}" for s in STARTS), title="mean squared error at the end"
    )
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4))
    for name, controller in contestants.items():
        watched = Watched(controller)
        done, used = rollout(problem, runs, rates, watched)
        table.add_row(name, *(f"{loss:.3f}" for loss in problem.training_loss(done.state).numpy()))
        if name != "learned":
            continue
        for i, factor in enumerate(STARTS):
            label = f"usual rate x {factor:g}"
            axes[0].plot([losses[i] for losses in watched.losses], label=label)
            axes[1].plot(used[:, i], label=label)
    limit = problem.bound(done.state).numpy()[1]
    axes[1].axhline(limit, color="grey", linestyle=":", label="the limit at the end")
    axes[0].set(title="mean loss of an interval's batches", xlabel="interval", yscale="log")
    axes[1].set(title="rate the policy asks for, under the limit", xlabel="interval", yscale="log")
    axes[0].legend()
    axes[1].legend()
    axes[2].imshow(tiles(done.state.w.numpy()[1]), cmap="magma")
    axes[2].set(title=f"the {options.rank} parts in W", xticks=[], yticks=[])
    figure.tight_layout()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=130)
    Console().print(table)
    print(f"Picture: {options.out}")


def tiles(parts: np.ndarray) -> np.ndarray:
    """Returns the columns of W [64, rank] as 8 x 8 images side by side, each scaled to its peak."""
    across = int(np.ceil(np.sqrt(parts.shape[1])))
    sheet = np.zeros((9 * across - 1, 9 * across - 1))
    for i, part in enumerate(parts.T):
        row, column = 9 * (i // across), 9 * (i % across)
        sheet[row : row + 8, column : column + 8] = part.reshape(8, 8) / max(part.max(), 1e-12)
    return sheet


if __name__ == "__main__":
    main()
