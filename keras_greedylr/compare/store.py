"""The runs of a comparison on disk: each is a line of JSON, written when it is done.

`settings.json` says what was compared; a folder of other settings is refused. Runs may be added
to a folder: more seeds, rates or schedules, and those of a schedule that was edited.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

SETTINGS = "settings.json"
RUNS = "runs.jsonl"


class Task(NamedTuple):
    """Which run it is."""

    contestant: str
    multiple: float  # of the rate the model was compiled with
    seed: int
    tuning: bool = False
    made: int = 0  # checksum of what the contestant makes: one that was edited is another


class Run(NamedTuple):
    """What a run left."""

    task: Task
    history: dict[str, list[float]]  # metric -> value of each epoch
    rates: list[list[float]]  # [step, rate] wherever the rate may have moved
    steps: int  # in an epoch
    seconds: float


class Store:
    """The folder of one comparison.

    Args:
        folder: Path, made if need be.
        settings: JSON values; those of runs that may stand beside each other are equal.

    Raises:
        ValueError: if the folder holds a comparison of other settings, or something else.
    """

    def __init__(self, folder: str | os.PathLike, settings: dict[str, Any]):
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"`out` must be a folder. Received the file '{self.folder}'")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS
        if path.exists():
            self._check(path, json.loads(json.dumps(settings)))
        elif any(self.folder.iterdir()):
            raise ValueError(
                f"'{self.folder}' is not empty and holds no comparison. Name another folder."
            )
        else:
            path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    def _check(self, path: Path, settings: dict[str, Any]) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            names = sorted(set(found) | set(settings))
        except (ValueError, TypeError) as error:
            raise ValueError(f"'{path}' cannot be read: {error}. Delete its folder.") from error
        other = [name for name in names if found.get(name) != settings.get(name)]
        if other:
            what = ", ".join(
                f"{name} was {found.get(name)!r} and is {settings.get(name)!r}" for name in other
            )
            raise ValueError(
                f"'{self.folder}' holds a comparison of other settings: {what}. Name another "
                "folder, or delete this one."
            )

    def read(self) -> dict[Task, Run]:
        """Returns the runs there are; a line that was cut short is none."""
        path = self.folder / RUNS
        runs: dict[Task, Run] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                run = _from_json(json.loads(line))
            except (ValueError, TypeError, KeyError):
                continue
            runs[run.task] = run
        return runs

    def add(self, run: Run) -> None:
        """Appends a run."""
        line = json.dumps(_to_json(run), allow_nan=False) + "\n"
        # A line break first, should the last line have been cut short; one write, for several
        # processes append to the file.
        handle = os.open(self.folder / RUNS, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            end = os.lseek(handle, 0, os.SEEK_END)
            cut = end and os.pread(handle, 1, end - 1) != b"\n"
            os.write(handle, ("\n" * bool(cut) + line).encode())
        finally:
            os.close(handle)


def _to_json(run: Run) -> dict[str, Any]:
    history = {
        name: [value if math.isfinite(value) else None for value in values]
        for name, values in run.history.items()
    }
    rates = [[step, rate if math.isfinite(rate) else None] for step, rate in run.rates]
    fields = {**run.task._asdict(), **run._asdict(), "history": history, "rates": rates}
    del fields["task"]  # its own fields stand there
    return fields


def _from_json(content: dict[str, Any]) -> Run:
    history = {name: [_number(v) for v in values] for name, values in content["history"].items()}
    return Run(
        task=Task(*(content[name] for name in Task._fields)),
        history=history,
        rates=[[step, _number(rate)] for step, rate in content["rates"]],
        steps=content["steps"],
        seconds=content["seconds"],
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
