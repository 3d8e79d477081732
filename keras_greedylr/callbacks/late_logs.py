"""Batch logs that Keras hands over in threads, brought back in order to the thread of `fit`.

On JAX a callback with a hook at each batch's end makes Keras wait for the batch's logs before it
dispatches the next one, and the device idles meanwhile. A hook that is `async_safe` is run in a
thread instead, whenever its logs are there. Here they are kept until somebody needs them, so that
what is done with them depends on no thread's timing.
"""

from __future__ import annotations

import threading
from typing import Any

MOST = 64  # reports that may be outstanding: what is kept stays small
PATIENCE = 600.0  # seconds for one batch; beyond, another callback's hook has failed in its thread


class LateLogs:
    """The reports of one `fit`; to be made in its thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._arrival = threading.Condition()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forgets the last epoch."""
        self._logs: dict[int, dict[str, Any]] = {}
        self.outstanding = 0  # reports of batches begun that were not taken yet

    def begin_batch(self) -> None:
        """Expects one more report."""
        self.outstanding += 1

    def arrive(self, batch: int, logs: dict[str, Any]) -> bool:
        """Keeps a report, or returns true where it comes in the thread of `fit`: use it at once."""
        if threading.get_ident() == self._thread:
            self.outstanding = max(self.outstanding - 1, 0)
            return True
        with self._arrival:
            self._logs[batch] = logs
            self._arrival.notify()
        return False

    def take(self) -> list[tuple[int, dict[str, Any]]]:
        """Returns the outstanding reports in order, with their indices; waits for them."""
        with self._arrival:
            while len(self._logs) < self.outstanding:
                if not self._arrival.wait(PATIENCE):
                    missing = self.outstanding - len(self._logs)
                    raise RuntimeError(
                        f"No logs came for {PATIENCE:g} s, and those of {missing} batches are due: "
                        "another callback's hook may have failed in its thread."
                    )
        return self.take_arrived()

    def take_arrived(self) -> list[tuple[int, dict[str, Any]]]:
        """The same without waiting, for the epoch's end.

        All have come by then, and a batch may have been begun for which there was no data.
        """
        with self._arrival:
            reports = sorted(self._logs.items())
            self._logs, self.outstanding = {}, 0
        return reports
