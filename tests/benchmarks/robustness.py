"""GreedyLR and LearnedLR against other schedules under noise, one command:

    python tests/benchmarks/robustness.py

Twelve small models, eight noises at three strengths and none, in the manner of the 8,100 runs that
GreedyLR's authors published (Adam at 0.01, 200 steps); but that here the noise reaches the
gradients and the loss the schedules see, the same for all of them, that every rival's rate is
tuned for each model and noise, and that means stand beside medians. `agents/noises.py` says what
the noises are, `agents/problems/landscapes.py` the models, `agents/robustness.py` how they are
run. Needs the extra `agents` (Python 3.11).

Final losses are true ones, without noise, of the last weights. A comparison is one rival on one
model under one noise of one strength: the geometric mean over the seeds of the ratio of final
losses, ours by the rival's, from the same weights. Up to 1.01 it is as good or better, below
1 / 1.01 better, below 1 / 1.1 clearly better; above 1.01 worse, above 1.1 clearly worse. A final
loss counts as at least a millionth of the first one and at most e times it, as does that of a run
that diverged. Tuned rates are the best of ten, half a decade apart, by the final loss, over other
seeds.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's greetings

import keras_greedylr_agents  # noqa: F401, I001 - before TensorFlow
import numpy as np

from keras_greedylr_agents.noises import CONDITIONS, STEPS, STRENGTHS
from keras_greedylr_agents.problems.landscapes import LANDSCAPES, UNFIT
from keras_greedylr_agents.robustness import CONTESTANTS, OURS, RATE, RATES, RIVALS, study
from keras_greedylr_agents.verdicts import HEADS, cells, counted, rounded

USUAL = RATES.index(1.0)
CASES = {
    "published": f"same rate: {RATE:g}",
    "same": "same rate: " + ", ".join(f"{RATE * rate:g}" for rate in RATES),
    "rivals": f"rivals tuned, ours {RATE:g}",
    "both": "both tuned",
}


def ratios(logs: np.ndarray, ours: str, case: str) -> np.ndarray:
    """Geometric means over the seeds of ours by each rival's loss, [conditions, rates, rivals].

    Args:
        logs: Of one model, as `study` returns them.
        ours: Whose.
        case: A key of `CASES`.
    """
    means = logs.mean(axis=-1)  # [conditions, contestants, rates]
    mine, theirs = means[:, list(OURS).index(ours), :, None], means[:, len(OURS) :].swapaxes(1, 2)
    mine_at, theirs_at = {
        "published": ([USUAL], [USUAL]),
        "same": (slice(-1), slice(-1)),
        "rivals": ([USUAL], [-1]),
        "both": ([-1], [-1]),
    }[case]
    return np.exp(mine[:, mine_at] - theirs[:, theirs_at])


def levels(logs: dict[str, np.ndarray], name: str, rate: int) -> dict[str, float]:
    """Medians and means of a contestant's final losses, over all its runs."""
    sorts = {
        sort: np.concatenate(
            [
                part[:, list(CONTESTANTS).index(name), rate].ravel()
                for model, part in logs.items()
                if LANDSCAPES[model].sort == sort
            ]
            or [np.array([])]
        )
        for sort in ("network", "function")
    }
    found = {"": np.concatenate(list(sorts.values())), **sorts}
    return {
        f"{statistic}{sort and ', ' + sort + 's'}": float(measure(part))
        for sort, part in found.items()
        if len(part)
        for statistic, measure in (
            ("median", lambda x: np.exp(np.median(x))),
            ("mean", lambda x: np.exp(x).mean()),
            ("geometric mean", lambda x: np.exp(x.mean())),
        )
    }


def recovered(steps: list[np.ndarray]) -> dict[str, Any]:
    """Shares and the median over [models][spikes] steps until a run was back."""
    flat = np.concatenate(steps)
    hurt = flat[flat > 0]
    if not len(hurt):
        return {"spikes": len(flat), "raised": 0.0, "median steps": None, "not back": None}
    median = float(np.median(hurt))
    return {
        "spikes": len(flat),
        "raised": len(hurt) / len(flat),
        "median steps": median if np.isfinite(median) else None,
        "not back": float(np.isinf(hurt).mean()),
    }


def summarise(done: dict[str, Any], conditions: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Every table."""
    logs, excess = done["log_losses"], done["log_excess"]
    names = list(CONTESTANTS)

    def row(
        pick: Callable[[np.ndarray], np.ndarray],
        of: Sequence[str],
        logs: dict[str, np.ndarray] = logs,
        **what: str,
    ) -> dict[str, Any]:
        return {**what, **counted([pick(ratios(logs[model], **what)) for model in of])}

    def both(**what: str) -> dict[str, Any]:
        above = row(lambda ratio: ratio, list(logs), excess, **what)
        return {**row(lambda ratio: ratio, list(logs), **what), "above the floor": above}

    verdicts = [both(ours=ours, case=case) for ours in OURS for case in CASES]
    groups: dict[str, list] = {"rival": [], "noise": [], "strength": [], "model": [], "sort": []}
    for ours in OURS:
        for case in ("published", "rivals"):
            what = {"ours": ours, "case": case}
            for i, rival in enumerate(RIVALS):
                found = row(lambda ratio, i=i: ratio[..., i], list(logs), **what)
                groups["rival"].append({"of": rival, **found})
            for place, key in enumerate(("noise", "strength")):
                for part in dict.fromkeys(condition[place] for condition in conditions):
                    own = [condition[place] == part for condition in conditions]
                    found = row(lambda ratio, own=own: ratio[own], list(logs), **what)
                    groups[key].append({"of": f"{part}", **found})
            sorts = {model: LANDSCAPES[model].sort for model in logs}
            for key, member in (("model", {model: model for model in logs}), ("sort", sorts)):
                for part in dict.fromkeys(member.values()):
                    own = [model for model in logs if member[model] == part]
                    groups[key].append({"of": part, **row(lambda ratio: ratio, own, **what)})
    at = {f"{RATE:g}": USUAL, "tuned": -1}
    losses = [
        {"of": name, "rate": label, **levels(logs, name, rate)}
        for label, rate in at.items() for name in names
    ]  # fmt: skip
    recovery = [
        {"of": name, "rate": label}
        | recovered([part[:, names.index(name), rate] for part in done["recoveries"].values()])
        for label, rate in at.items() for name in names
    ]  # fmt: skip
    return {"verdicts": verdicts, "losses": losses, "recovery": recovery, "by": groups}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def markdown(summary: dict[str, Any]) -> str:
    """The report."""
    lines = [summary["heading"], "\n## Won and lost\n"]
    lines += [f"| | against | {HEADS} above the floor |", "| --- " * 9 + "|"]
    for row in summary["verdicts"]:
        found = [row["ours"], CASES[row["case"]], *cells(row), _short(row["above the floor"])]
        lines.append("| " + " | ".join(found) + " |")
    lines.append(
        f"\nOf a network's loss {UNFIT:g} is noise that no network can fit, and most end near it. "
        "Above the floor: as good or better / clearly worse by the rest of the loss alone."
    )
    lines += [
        "\n## Final losses\n",
        "Over all models, noises, strengths and seeds. The arithmetic mean over all is in effect "
        "that of the functions with the largest losses. Published, where the noise reached neither "
        "gradients nor schedules: median 0.148 (GreedyLR), 0.232 (cosine), 0.226 (restarts), 0.249 "
        "(exponential); mean over networks 0.0963 (GreedyLR), 0.0877 (cosine).\n",
    ]
    measures = [name for name in summary["losses"][0] if name not in ("of", "rate")]
    rows = [
        [row["of"], row["rate"], *(f"{row[name]:.3g}" for name in measures)]
        for row in summary["losses"]
    ]
    lines += table(["", "rate", *measures], rows)
    lines += [
        "\n## After a spike\n",
        "Of the spikes with at least 20 steps to the next one or the end: the share after which "
        "the true loss was more than 1.1 times what it had been before (or 1.1 thousandths of the "
        "first loss, if that is more); of those, the median of steps from the spike's begin until "
        "it was back under that (-: never), and the share in which it was not back in time "
        "(-: none was raised).\n",
    ]
    rows = [
        [row["of"], row["rate"], f"{row['raised']:.0%}", f"{row['median steps'] or '-'}",
         "-" if row["not back"] is None else f"{row['not back']:.0%}"]
        for row in summary["recovery"]
    ]  # fmt: skip
    lines += table(["", "rate", "loss raised", "median steps", "not back"], rows)
    for key, found in summary["by"].items():
        heads = [f"{ours}, {case}" for ours in OURS for case in (f"{RATE:g}", "rivals tuned")]
        lines.append(f"\n## By {key}\n\nAs good or better / clearly worse.\n")
        rows = []
        for of in dict.fromkeys(row["of"] for row in found):
            mine = [row for row in found if row["of"] == of]
            rows.append([of, *map(_short, mine)])
        lines += table([key, *heads], rows)
    return "\n".join(lines) + "\n"


def _short(row: dict[str, Any]) -> str:
    return f"{row['as good or better']:.0%} / {row['clearly worse']:.0%}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the study and writes its report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(LANDSCAPES))
    parser.add_argument("--noises", default=",".join(dict.fromkeys(c[0] for c in CONDITIONS)))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(""))
    options = parser.parse_args(arguments)
    models, noises = options.models.split(","), options.noises.split(",")
    conditions = [condition for condition in CONDITIONS if condition[0] in noises]
    done = study(models, conditions, options.seeds, lambda line: print(line, flush=True))
    heading = (
        f"{len(models)} models, {len(noises)} noises, {len(STRENGTHS)} strengths, "
        f"{len(CONTESTANTS)} schedules, {len(RATES)} rates and a tuned one, {options.seeds} seeds: "
        f"{done['runs']:,} runs of {STEPS} steps, those for tuning included. What was compared, "
        "and how, is said in `robustness.py`, which made this. Ratio: ours by the rival's, below 1 "
        "ours is better; mean ratios are geometric means. In brackets 95 % bootstrap intervals "
        "over the models. `horizon`: told the number of epochs. `paper`: at every step with "
        "patience 10, window 50, bound 10 % of the rate; `study`: at every step with patience 10, "
        "window 10, as in the published runs."
    )
    summary = {"heading": heading, "seeds": options.seeds, **summarise(done, conditions)}
    result = {
        **summary,
        "conditions": [list(condition) for condition in conditions],
        "contestants": list(CONTESTANTS),
        "rates": [*(RATE * rate for rate in RATES), "tuned"],
        "log_losses": {m: x.mean(axis=-1).tolist() for m, x in done["log_losses"].items()},
        "tuned": {model: (RATE * best).tolist() for model, best in done["tuned"].items()},
    }
    text = json.dumps(rounded(result), allow_nan=False)
    options.out.with_suffix(".json").write_text(text.replace('{"', '\n{"') + "\n")
    options.out.with_suffix(".md").write_text(markdown(summary))
    print(markdown(summary), f"\n{done['seconds']:.0f} s")


if __name__ == "__main__":
    main()
