"""How far a comparison is, on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from keras_greedylr.compare.store import Run, Task


def watched(
    runs: Iterator[Run], tasks: Sequence[Task], missing: int, what: str, verbose: int
) -> Iterator[Run]:
    """Passes runs on, and shows how many of `tasks` are done and how long the rest may take."""
    if not verbose or not missing:
        yield from runs
        return
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[last]}")),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console) as progress:
        if missing < len(tasks):
            console.print(f"{len(tasks) - missing} of {len(tasks)} runs were done before")
        # Only those to be done: earlier ones would make the estimate too good.
        bar = progress.add_task(what, total=missing, last="")
        for run in runs:
            name, multiple, seed = run.task[:3]
            last = f"{escape(name)} x{multiple:.3g}, seed {seed}: {run.seconds:.1f} s"
            progress.update(bar, advance=1, last=last)
            yield run
