"""GreedyLR and LearnedLR against other schedules on small models with real data, one command:

    python tests/benchmarks/small_models.py

Thirteen problems on the data that come with scikit-learn and Python, each under five optimizers;
`agents/small_models.py` has them, and how they are run. All runs of a problem are one batched
computation, whose optimizers a test holds against Keras': one by one, the study would take a day.
Needs the extra `agents` (Python 3.11).

A comparison is one rival on one problem under one optimizer: the geometric mean over the seeds of
the ratio of losses, ours by the rival's, from the same weights and batches. Up to 1.01 it is as
good or better, below 1 / 1.01 better, below 1 / 1.1 clearly better; above 1.01 worse, above 1.1
clearly worse. Runs that diverged count as e times the untrained loss. Rates are multiples of one
usual rate an optimizer; tuned ones are the best of ten, half a decade apart, by the validation
loss at the end, over other seeds.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's greetings

import keras_greedylr_agents  # noqa: F401, I001 - before TensorFlow
import numpy as np

from keras_greedylr_agents.small_models import (
    CONTESTANTS,
    LOSSES,
    MOMENTS,
    OPTIMIZERS,
    OURS,
    PROBLEMS,
    RATES,
    RIVALS,
    TRAINED_ON,
    study,
)
from keras_greedylr_agents.verdicts import HEADS, cells, counted, rounded


def ratios(logs: np.ndarray, ours: str, loss: str, moment: int, case: str) -> np.ndarray:
    """Geometric means over the seeds of ours by each rival's loss, [rates, rivals].

    Args:
        logs: Of one problem, as `train` returns them, the last rate being the tuned one.
        ours: Whose.
        loss: `"validation"` or `"training"`.
        moment: Per cent of the steps.
        case: `"same"` initial rates, `"rivals"` tuned and ours at the usual rate, or `"both"`.
    """
    means = logs[LOSSES.index(loss), MOMENTS.index(moment)].mean(axis=-1)  # [contestants, rates]
    mine, theirs = means[list(CONTESTANTS).index(ours)], means[len(OURS) :]
    usual = RATES.index(1.0)
    if case == "same":
        return np.exp(mine[:-1, None] - theirs[:, :-1].T)
    return np.exp(mine[usual if case == "rivals" else -1] - theirs[:, -1])[None]


CASES = {
    "same": "same rate: x0.1, x1, x10",
    "rivals": "tuned, ours x1",
    "both": "both tuned",
}


def summarise(done: dict[str, Any]) -> dict[str, Any]:
    """Every table: the verdicts by loss, then those at the end by rival, optimizer, problem."""
    logs = done["logs"]

    def rows(of: list[str], pick: Any = lambda ratio: ratio, **what: Any) -> dict[str, Any]:
        by_problem: dict[str, list[np.ndarray]] = {}
        for name in of:
            part = pick(ratios(logs[name], **what))
            by_problem.setdefault(name.split(", ")[0], []).append(part)
        return {**what, **counted([np.stack(parts) for parts in by_problem.values()])}

    everything = list(logs)
    tables = {
        loss: [
            rows(everything, ours=ours, loss=loss, moment=moment, case=case)
            for ours in OURS for case in CASES for moment in MOMENTS
        ]
        for loss in LOSSES
    }  # fmt: skip
    groups: dict[str, list] = {"rival": [], "optimizer": [], "problem": []}
    for ours in OURS:
        for case in ("same", "rivals"):
            end = {"ours": ours, "loss": "validation", "moment": 100, "case": case}
            for i, rival in enumerate(RIVALS):
                row = rows(everything, lambda ratio, i=i: ratio[:, i], **end)
                groups["rival"].append({"of": rival, **row})
            for place, key in ((1, "optimizer"), (0, "problem")):
                for part in dict.fromkeys(name.split(", ")[place] for name in everything):
                    own = [name for name in everything if name.split(", ")[place] == part]
                    groups[key].append({"of": part, **rows(own, **end)})
    return {"verdicts": tables, "by": groups}


def markdown(summary: dict[str, Any]) -> str:
    """The report."""
    lines = [summary["heading"]]
    for loss, rows in summary["verdicts"].items():
        lines += [
            f"\n## {loss.capitalize()} loss\n",
            f"| | against | % of the steps | {HEADS}",
            "| --- " * 9 + "|",
        ]
        for row in rows:
            first = [row["ours"], CASES[row["case"]], str(row["moment"])]
            lines.append("| " + " | ".join([*first, *cells(row)]) + " |")
    for key, rows in summary["by"].items():
        heads = [f"{ours}, {case}" for ours in OURS for case in ("same rate", "rivals tuned")]
        lines += [
            f"\n## By {key}\n\nAs good or better / clearly worse, validation loss at the end.\n",
            f"| {key} | " + " | ".join(heads) + " |",
            "| --- " * (len(heads) + 1) + "|",
        ]
        for of in dict.fromkeys(row["of"] for row in rows):
            mine = [row for row in rows if row["of"] == of]
            shares = [f"{r['as good or better']:.0%} / {r['clearly worse']:.0%}" for r in mine]
            star = " \\*" if of in TRAINED_ON else ""
            lines.append(f"| {of}{star} | " + " | ".join(shares) + " |")
    lines.append("\n\\* The shipped policy was trained on these data, in other problems.")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the study and writes its report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""))
    options = parser.parse_args(arguments)
    problems, optimizers = options.problems.split(","), options.optimizers.split(",")
    done = study(problems, optimizers, options.seeds, lambda line: print(line, flush=True))
    heading = (
        f"{len(RIVALS)} schedules, {len(problems)} problems, {len(optimizers)} optimizers, "
        f"{options.seeds} seeds; what was compared, and how, is said in `small_models.py`, which "
        "made this. Ratio: ours by the rival's, below 1 ours is better. In brackets 95 % bootstrap "
        "intervals over the problems."
    )
    summary = {"heading": heading, "seeds": options.seeds, **summarise(done)}
    finals = {
        name: dict(zip(CONTESTANTS, logs[0, -1].mean(axis=-1).tolist(), strict=True))
        for name, logs in done["logs"].items()
    }
    result = {**summary, "rates": [*RATES, "tuned"], "log_validation_loss": finals,
              "tuned_rates": done["tuned_rates"]}  # fmt: skip
    text = json.dumps(rounded(result), allow_nan=False)
    options.out.with_suffix(".json").write_text(text.replace('{"', '\n{"') + "\n")
    options.out.with_suffix(".md").write_text(markdown(summary))
    print(markdown(summary), f"\n{done['seconds']:.0f} s")


if __name__ == "__main__":
    main()
