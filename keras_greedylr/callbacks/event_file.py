"""TensorBoard's event files, written without TensorFlow.

The records and summaries are tensorboardX's. Its `SummaryWriter` is not used:
it hands each entry to another thread through a queue that `flush` does not wait
for, and names files by the second, so that two trainings can overwrite each other.
"""

from __future__ import annotations

import itertools
import os
import time
import weakref
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 10.0  # the most a crash can lose

_NUMBER = itertools.count()


class EventFile:
    """A new event file in a folder; buffered, flushed every `FLUSH_SECONDS` it is written to.

    It closes itself with its last user, or with Python: an interrupted training
    loses nothing.

    Args:
        folder: Path, made if need be.
    """

    def __init__(self, folder: Path):
        # Here, for they are slow to import and not every program logs.
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event

        self._summary, self._event = summary, Event
        folder.mkdir(parents=True, exist_ok=True)
        unique = f".{os.getpid()}.{next(_NUMBER)}"
        self._writer = EventsWriter(str(folder / "events"), unique)
        self._flushed_at = time.monotonic()
        self.close = weakref.finalize(self, self._writer.close)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a number."""
        self._write(self._summary.Summary(value=[{"tag": tag, "simple_value": value}]), step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Writes a text card."""
        card = self._summary.text(tag, markdown)
        card.value[0].tag = tag  # as given, without tensorboardX's suffix
        self._write(card, step)

    def hparams(self, parameters: dict[str, Any], metrics: dict[str, float]) -> None:
        """Writes what the HParams view shows of a run: what it was given, how it ended."""
        for summary in self._summary.hparams(parameters, metrics):
            self._write(summary, 0)
        for tag, value in metrics.items():
            self.scalar(tag, value, 0)

    def flush(self) -> None:
        """Hands what is buffered to the operating system."""
        self._writer.flush()
        self._flushed_at = time.monotonic()

    def _write(self, content: object, step: int) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=content))
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self.flush()
