"""What a report says, of runs made by hand."""

import csv
import io
import json
import math

import pytest

pytest.importorskip("scipy")
pytest.importorskip("rich")
from rich.console import Console

from keras_greedylr.compare import heading, rich_table, write_report
from keras_greedylr.compare.comparison import TUNING_GRID, Comparison
from keras_greedylr.compare.report import markdown, rich_rates, sensitivity, to_csv, to_json
from keras_greedylr.compare.store import Run, Task

PROBLEM = {"epochs": 2, "steps": 13, "rate": 0.05, "optimizer": "SGD", "backend": "some"}


def compared(curves, seeds=6, mode="min", metric="val_loss", own=None, tuned=False, target=None):
    """Of curves by contestant, or by contestant and multiple; alike for all seeds."""
    curves = {key if isinstance(key, tuple) else (key, 1.0): c for key, c in curves.items()}
    runs = [
        Run(Task(*key, seed), {metric: curve}, [[0, 0.05 * key[1]]], 13, 2.0)
        for key, curve in curves.items()
        for seed in range(seeds)
    ]
    own = own or {name: 1.0 for name, _ in curves}
    return Comparison(runs, own, metric, mode, next(iter(own)), target, PROBLEM, tuned)


TWO = {"constant": [3.0, 2.0], "greedy": [1.5, 1.0]}
SAID = (
    "val_loss after 2 epochs of 13 steps, lower is better. Initial rate 0.05 (SGD) times the "
    "number after x. 6 seeds; 95 % bootstrap intervals; wins seed by seed against constant, with "
    "the p of a sign test, each row by itself (at best 0.031 here). Target: 2; how many reach it "
    "in brackets. Keras on some."
)
NARROW = "intervals (too narrow with fewer than five seeds);"
EDGE = "Tuned to the end of the grid, a rate beyond may be better: ['greedy']."
HEADINGS = {  # a comparison, what is said otherwise, and in which place
    "plain": (compared(TWO), "", ""),
    "higher": (compared(TWO, mode="max"), "lower", "higher"),
    "a target": (compared(TWO, target=1.25), "Target: 2;", "Target: 1.25;"),
    "diverged": (
        compared({"constant": [3.0, math.nan], "greedy": [1.5, 1.0]}),
        "Target: 2; how many reach it in brackets.",
        "No target: half of the runs of constant or more diverged.",
    ),
    "of its own": (
        compared({"constant": [3.0, 2.0], "prodigy": [1.5, 1.0], "line-search": [2.0, 1.0]}),
        "after x.",
        "after x. Of prodigy and line-search that number is the rate itself.",
    ),
}


@pytest.mark.parametrize("case", HEADINGS)
def test_the_heading(case):
    comparison, instead, said = HEADINGS[case]
    assert heading(comparison) == SAID.replace(instead, said, 1)


@pytest.mark.parametrize("seeds, best", [(1, "1"), (4, "0.12"), (5, "0.062"), (6, "0.031")])
def test_the_heading_says_what_so_few_seeds_can_tell(seeds, best):
    said = heading(compared(TWO, seeds))
    assert f" {seeds} seeds; " in said and f"(at best {best} here)" in said
    assert (NARROW in said) == (seeds < 5)


def test_rates_are_tuned_over_three_decades():
    half = math.sqrt(10.0)
    assert pytest.approx([0.1 / half, 0.1, 1 / half, 1.0, half, 10.0, 10 * half]) == TUNING_GRID


@pytest.mark.parametrize("multiple", [TUNING_GRID[0], TUNING_GRID[1], TUNING_GRID[-1]])
def test_the_heading_says_where_the_grid_was_too_short(multiple):
    runs = {"constant": [3.0, 2.0], ("greedy", multiple): [1.5, 1.0]}
    own = {"constant": 1.0, "greedy": multiple}
    lines = heading(compared(runs, own=own, tuned=True)).splitlines()
    assert lines[0] == SAID.replace("after x.", "after x, tuned for each.")
    assert lines[1:] == ([] if multiple == TUNING_GRID[1] else [EDGE])
    assert len(heading(compared(runs, own=own)).splitlines()) == 1  # it was asked for


ROWS = """
| schedule | rate | median | interq. mean | wins | p | steps to target | diverged | seconds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| constant | x1 | 2 (2, 2) | 2 (2, 2) | 50% | 1 | 26 (100%) | 0 | 2.0 |
| greedy | x1 | 1 (1, 1) | 1 (1, 1) | 100% | 0.031 | 13 (100%) | 0 | 2.0 |
| a\\|b | x1 | inf (inf, inf) | inf (inf, inf) | 0% | 0.031 | inf (0%) | 6 | 2.0 |
"""
THREE = {**TWO, "a|b": [3.0, math.inf]}


def test_the_table_in_each_form():
    comparison = compared(THREE)
    assert markdown(comparison) == SAID + "\n" + ROWS
    (constant, greedy, broken) = csv.DictReader(io.StringIO(to_csv(comparison)))
    assert constant["contestant"] == "constant" and greedy["median"] == "1.0"
    assert broken["steps_to_target"] == "inf"
    told = json.loads(to_json(comparison))
    assert told["target"] == 2.0 and told["rows"][2]["median"] is None
    assert [row["diverged"] for row in told["rows"]] == [0, 0, 6]
    table = rich_table(comparison)
    heads = [column.header for column in table.columns]
    assert heads == ["schedule", "rate", "median", "interq.\nmean", "wins", "p", "steps\nto target",
                     "diverged", "seconds"]  # fmt: skip
    console = Console(width=100, force_terminal=True, color_system="standard")
    with console.capture() as shown:
        console.print(table)
    bold = [line for line in shown.get().splitlines() if "\x1b[1m" in line]
    assert any("greedy" in line for line in bold)
    assert not any("constant" in line or "a|b" in line for line in bold)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_curve_over_rates(mode):
    curves = {("constant", x): [3.0, last] for x, last in ((0.1, 4.0), (1.0, 2.0), (10.0, 5.0))}
    curves["greedy", 1.0], curves["greedy", 10.0] = [1.0, 1.0], [1.0, math.nan]
    comparison = compared(curves, mode=mode)
    worst = math.inf if mode == "min" else -math.inf
    assert [tuple(point.values()) for point in sensitivity(comparison, "greedy")] == [
        (1.0, 1.0, 1.0, 1.0),
        (10.0, worst, worst, worst),
    ]  # not at a rate that only one was run at
    assert markdown(comparison).endswith(
        f"| median at | x1 | x10 |\n| --- | --- | --- |\n| constant | 2 | 5 |\n"
        f"| greedy | 1 | {worst} |\n"
    )
    table = rich_rates(comparison)
    assert [column.header for column in table.columns] == ["median at", "x1", "x10"]
    assert table.row_count == 2


def test_a_report_makes_the_folders_it_needs(tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "some" / "where"
    paths = write_report(compared(THREE), folder)
    assert {path.parent for path in paths} == {folder} and all(path.exists() for path in paths)
    assert (folder / "comparison.md").read_text() == SAID + "\n" + ROWS
    assert {path.name for path in (folder / "logs").iterdir()} == set(THREE)
