"""Notices that a loss runs away, sooner than a policy would."""

from __future__ import annotations

import math
from dataclasses import dataclass

# A loss whose average over the last batches is so many times that of the batches before.
JUMP = 4.0
FAST, SLOW = 0.9, 0.99  # decays of the two averages, per report
SETTLE = 20  # reports before the averages mean anything


@dataclass
class LossGuard:
    """Trips at most once in an interval: the policy sees at its end what it was about.

    Args:
        fast, slow: The two averages.
        reports: Finite losses seen.
        tripped: Whether it has tripped in this interval.
    """

    fast: float = 0.0
    slow: float = 0.0
    reports: int = 0
    tripped: bool = False

    def begin_interval(self) -> None:
        """Makes it ready to trip again."""
        self.tripped = False

    def trips(self, loss: float) -> bool:
        """Returns whether, with this loss, it trips: one not finite, or far above its average."""
        if self.tripped:
            return False
        if math.isfinite(loss):
            self.reports += 1
            first = self.reports == 1
            self.fast = loss if first else FAST * self.fast + (1.0 - FAST) * loss
            self.slow = loss if first else SLOW * self.slow + (1.0 - SLOW) * loss
            self.tripped = self.reports > SETTLE and self.fast > JUMP * self.slow > 0.0
        else:
            self.tripped = True
        if self.tripped:
            self.slow = self.fast  # what counts from now on is a further jump
        return self.tripped
