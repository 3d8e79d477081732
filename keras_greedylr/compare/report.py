"""A comparison as a table on the terminal, Markdown, CSV, JSON, pictures and TensorBoard logs."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from keras_greedylr.callbacks.event_file import EventFile
from keras_greedylr.compare import statistics
from keras_greedylr.compare.comparison import TUNING_GRID, Comparison
from keras_greedylr.compare.contestants import OWN_RATE
from keras_greedylr.compare.pictures import draw

NAME = "comparison"  # of the files


def write_report(comparison: Comparison, folder: str | os.PathLike) -> list[Path]:
    """Writes everything there is to say of a comparison; returns the files.

    They are `comparison.md`, `.csv` and `.json`, the pictures, and under `logs/` what
    `tensorboard --logdir` shows, with its HParams; what earlier reports left there stays.

    Example:

    >>> import tempfile
    >>> from keras_greedylr.compare import compare, write_report
    >>> from keras_greedylr.compare.problems import get_problem
    >>> model, data, *_ = get_problem("wine")
    >>> comparison = compare(model, data, ["constant"], seeds=1, epochs=1, verbose=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write_report(comparison, folder)]  # doctest: +ELLIPSIS
    ['comparison.md', 'comparison.csv', 'comparison.json', ...]
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for ending, text in (
        ("md", markdown(comparison)),
        ("csv", to_csv(comparison)),
        ("json", to_json(comparison)),
    ):
        files.append(folder / f"{NAME}.{ending}")
        files[-1].write_text(text, encoding="utf-8")
    write_events(comparison, folder / "logs")
    return [*files, *draw(comparison, folder)]


def heading(comparison: Comparison) -> str:
    """Returns what was compared, on what, and what the table shows, in a sentence or two.

    Example:

    >>> from keras_greedylr.compare import compare, heading
    >>> from keras_greedylr.compare.problems import get_problem
    >>> model, data, *_ = get_problem("wine")
    >>> comparison = compare(model, data, ["constant"], seeds=1, epochs=1, verbose=0)
    >>> heading(comparison).split(". ")[0]
    'val_loss after 1 epochs of 5 steps, lower is better'
    """
    problem, seeds = comparison.problem, len(comparison.at(comparison.reference))
    few = " (too narrow with fewer than five seeds)" if seeds < 5 else ""
    free = [name for name in comparison.own_rates if name in OWN_RATE]
    lines = [
        f"{comparison.metric} after {problem['epochs']} epochs of {problem['steps']} steps, "
        f"{'lower' if comparison.mode == 'min' else 'higher'} is better. "
        f"Initial rate {problem['rate']:g} ({problem['optimizer']}) times the number after x"
        + (", tuned for each." if comparison.tuned else ".")
        + (f" Of {' and '.join(free)} that number is the rate itself." if free else "")
        + f" {seeds} seeds; 95 % bootstrap intervals{few}; wins "
        f"seed by seed against {comparison.reference}, with the p of a sign test, each row by "
        f"itself (at best {2.0 ** (1 - seeds):.2g} here). "
        + (
            f"Target: {comparison.goal:.4g}; how many reach it in brackets. "
            if math.isfinite(comparison.goal)
            else f"No target: half of the runs of {comparison.reference} or more diverged. "
        )
        + f"Keras on {problem['backend']}."
    ]
    edge = [
        name
        for name, multiple in comparison.own_rates.items()
        if comparison.tuned and multiple in (TUNING_GRID[0], TUNING_GRID[-1])
    ]
    if edge:
        lines.append(f"Tuned to the end of the grid, a rate beyond may be better: {edge}.")
    return "\n".join(lines)


HEADS = {  # with the format of each cell
    "schedule": "{contestant}",
    "rate": "x{multiple:.3g}",
    "median": "{median:.3g} ({median_low:.3g}, {median_high:.3g})",
    "interq. mean": "{iqm:.3g} ({iqm_low:.3g}, {iqm_high:.3g})",
    "wins": "{win_rate:.0%}",
    "p": "{p:.2g}",
    "steps to target": "{steps_to_target:.0f} ({reached:.0%})",
    "diverged": "{diverged}",
    "seconds": "{seconds:.1f}",
}


def cells(row: dict[str, Any]) -> list[str]:
    """Returns a row of `Comparison.rows` as it is shown under `HEADS`."""
    return [cell.format_map(row) for cell in HEADS.values()]


def rich_table(comparison: Comparison) -> Table:
    """Returns the table for the terminal, the best median in bold.

    Example:

    >>> from keras_greedylr.compare import compare, rich_table
    >>> from keras_greedylr.compare.problems import get_problem
    >>> model, data, *_ = get_problem("wine")
    >>> comparison = compare(model, data, ["constant"], seeds=1, epochs=1, verbose=0)
    >>> table = rich_table(comparison)  # rich.print(table) shows it
    >>> table.row_count
    1
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in HEADS:
        # On two lines, that eighty characters do.
        stacked = head.replace(" ", "\n", 1) if len(head) > 8 else head
        # A name goes on in the next line; cut off it could be another's.
        table.add_column(
            stacked, justify="left" if head == "schedule" else "right", overflow="fold"
        )
    medians = {n: float(statistics.median(comparison.losses(n))) for n in comparison.own_rates}
    for row in comparison.rows:
        best = medians[row["contestant"]] == min(medians.values())
        stacked_cells = (escape(cell).replace(" (", "\n(") for cell in cells(row))
        table.add_row(*stacked_cells, style="bold" if best else None)
    return table


def rich_rates(comparison: Comparison) -> Table:
    """Returns the medians at each multiple of the rate for the terminal."""
    heads, rows = _medians(comparison)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in heads:
        table.add_column(head, justify="left" if head == heads[0] else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _medians(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table over the rates."""
    heads = ["median at", *(f"x{multiple:.3g}" for multiple in comparison.multiples)]
    rows = [
        [name, *(f"{point['median']:.4g}" for point in sensitivity(comparison, name))]
        for name in comparison.own_rates
    ]
    return heads, rows


def markdown(comparison: Comparison) -> str:
    """Returns heading and tables as Markdown."""
    lines = [heading(comparison), "", *_grid(HEADS, map(cells, comparison.rows))]
    if len(comparison.multiples) > 1:
        lines += ["", *_grid(*_medians(comparison))]
    return "\n".join(lines) + "\n"


def _grid(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    heads = list(heads)
    table = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in table]


def sensitivity(comparison: Comparison, contestant: str) -> list[dict[str, float]]:
    """Returns a contestant's median with its interval at each multiple of the rate."""
    sign = 1.0 if comparison.mode == "min" else -1.0
    points = []
    for multiple in comparison.multiples:
        losses = comparison.losses(contestant, multiple)
        value, *ends = (sign * v for v in statistics.estimate(losses, statistics.median))
        points.append({"multiple": multiple, "median": value, "low": min(ends), "high": max(ends)})
    return points


def to_csv(comparison: Comparison) -> str:
    """Returns the table's numbers as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(comparison.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(comparison.rows)
    return text.getvalue()


def to_json(comparison: Comparison) -> str:
    """Returns the table and the curves over rates as strict JSON; what is not finite is null."""
    content = {
        "problem": comparison.problem,
        "metric": comparison.metric,
        "mode": comparison.mode,
        "reference": comparison.reference,
        "target": comparison.goal,
        "tuned": comparison.tuned,
        "rows": comparison.rows,
        "rates": {name: sensitivity(comparison, name) for name in comparison.own_rates},
    }
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_events(comparison: Comparison, folder: Path) -> None:
    """Writes each run as TensorBoard shows one; schedule, multiple and seed are HParams."""
    for run in comparison.runs:
        name, multiple, seed = run.task[:3]
        place = folder / name.replace("/", "_") / f"x{multiple!r}" / f"seed-{seed}"
        shutil.rmtree(place, ignore_errors=True)  # of an earlier report, or of half a one
        events = EventFile(place)
        for metric, values in run.history.items():
            for epoch, value in enumerate(values):
                events.scalar(f"epoch_{metric}", value, epoch)
        for step, rate in run.rates:
            events.scalar("learning_rate", rate, int(step))
        events.hparams(
            {"schedule": name, "multiple": multiple, "seed": seed},
            {f"final_{metric}": values[-1] for metric, values in run.history.items()},
        )
        events.close()
