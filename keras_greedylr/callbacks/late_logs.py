"""Batch logs kept until somebody needs them: many at a time cost less than one by one.

On JAX a callback with a hook at each batch's end makes Keras wait for the batch's logs before it
dispatches the next one, and the device idles meanwhile. A hook that is `async_safe` is run in a
thread instead, whenever its logs are there. From here they come back in order to the thread of
`fit`, so that what is done with them depends on no thread's timing.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

MOST = 256  # batches that may be outstanding: what is kept stays small
PATIENCE = 600.0  # seconds for one batch; beyond, another callback's hook has failed in its thread

Report = tuple[int, dict[str, Any]]  # the index Keras gives with a batch's logs, and the logs


class LateLogs:
    """The reports of one `fit`; to be made in its thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        # Threads, not their numbers: those are used again.
        self._strangers = {*threading.enumerate()} - {threading.current_thread()}
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forgets the last epoch."""
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self.put = self._reports.put
        self.outstanding = 0  # reports of batches begun that were not taken yet

    def strange(self) -> bool:
        """Whether this is a thread of before, with a report of a `fit` that was broken off."""
        return threading.current_thread() in self._strangers

    def at_once(self) -> bool:
        """Whether reports come in the thread of `fit`, each at its batch's end."""
        return threading.get_ident() == self._thread

    def waiting(self) -> bool:
        """Whether there are reports, here or on their way, that were not taken."""
        return self.outstanding > 0 or not self._reports.empty()

    def take(self) -> list[Report]:
        """Returns the outstanding reports in order; waits for them."""
        try:
            reports = [self._reports.get(timeout=PATIENCE) for _ in range(self.outstanding)]
        except queue.Empty:
            raise RuntimeError(
                f"No logs came for {PATIENCE:g} s, and {self.outstanding} batches' are due: "
                "another callback's hook may have failed in its thread."
            ) from None
        self.outstanding = 0
        return sorted(reports, key=_index)

    def take_arrived(self) -> list[Report]:
        """The same without waiting, for the epoch's end.

        All have come by then, and a batch may have been begun for which there was no data.
        """
        self.outstanding = self._reports.qsize()
        return self.take()


def _index(report: Report) -> int:
    return report[0]
