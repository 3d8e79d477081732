"""How the studies say who is better: shares of comparisons, with the losses beside the wins.

A comparison is a ratio of final losses, ours by a rival's: below 1 ours is better.
"""

from __future__ import annotations

from typing import Any

import numpy as np

AS_GOOD, CLEARLY = 1.01, 1.1

VERDICTS = {
    "as good or better": lambda ratio: ratio <= AS_GOOD,
    "better": lambda ratio: ratio < 1 / AS_GOOD,
    "clearly better": lambda ratio: ratio < 1 / CLEARLY,
    "worse": lambda ratio: ratio > AS_GOOD,
    "clearly worse": lambda ratio: ratio > CLEARLY,
}
HEADS = "as good or better | better | clearly better | **worse** | **clearly worse** | mean ratio |"


def counted(per_problem: list[np.ndarray]) -> dict[str, Any]:
    """Returns shares of the verdicts over [problems][...] ratios, the first with its interval.

    The interval is a 95 % bootstrap over the problems; the mean ratio is a geometric one.
    """
    flat = np.concatenate([ratio.ravel() for ratio in per_problem])
    row: dict[str, Any] = {"comparisons": len(flat)}
    row |= {name: float(np.mean(verdict(flat))) for name, verdict in VERDICTS.items()}
    shares = np.array([np.mean(ratio <= AS_GOOD) for ratio in per_problem])
    drawn = np.random.default_rng(0).integers(len(shares), size=(2000, len(shares)))
    row["interval"] = np.quantile(shares[drawn].mean(axis=1), (0.025, 0.975)).tolist()
    row["mean ratio"] = float(np.exp(np.log(flat).mean()))
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """Returns a row of `counted` as cells of a table under `HEADS`."""
    low, high = row["interval"]
    shares = [f"{row[verdict]:.0%}" for verdict in VERDICTS]
    shares[0] += f" [{low:.0%}, {high:.0%}]"
    return [*shares, f"{row['mean ratio']:.2f}"]


def rounded(value: Any) -> Any:
    """Returns results with four digits, for a file."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
