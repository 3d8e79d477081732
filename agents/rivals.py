"""Who sets the rates of an evaluation: fixed schedules, rules that watch, and policies.

A controller belongs to one rollout of P runs. It names the rates of the first interval from the
rates it was given, then after each interval those of the next.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from keras_greedylr import GreedyLR, observation
from keras_greedylr.callbacks.greedy_lr import MAX_LR_RATIO, MIN_LR_RATIO
from keras_greedylr.observation import Interval
from keras_greedylr.policy import Act
from keras_greedylr_agents.greedy import BatchedGreedyRule, GreedyParameters


class Controller(Protocol):
    """What sets the rates of P runs."""

    def first(self, rates: np.ndarray, bound: np.ndarray | None) -> np.ndarray:
        """Returns the first interval's rates [P], `rates` being those asked for.

        `bound` [P] are rates above which it is not stable, or `None`.
        """

    def next(self, seen: Interval, bound: np.ndarray | None) -> np.ndarray:
        """Returns the next interval's rates [P], after what the last one showed."""


class Fixed:
    """A schedule: rate = given rate * shape(progress)."""

    def __init__(self, shape: Callable[[float], float]) -> None:
        self.shape = shape

    def first(self, rates: np.ndarray, bound: np.ndarray | None) -> np.ndarray:
        """Returns the schedule's start."""
        self.rates = rates
        return rates * self.shape(0.0)

    def next(self, seen: Interval, bound: np.ndarray | None) -> np.ndarray:
        """Returns the schedule at the interval's start."""
        return self.rates * self.shape(float(seen.progress[0]))


def cosine(progress: float) -> float:
    """Half a cosine to zero."""
    return 0.5 * (1.0 + np.cos(np.pi * progress))


def one_cycle(progress: float) -> float:
    """A cosine up from a 25th over the first 30 %, then down to a 10,000th."""
    if progress < 0.3:
        return 1.0 - (1.0 - 1 / 25) * cosine(progress / 0.3)
    return 1e-4 + (1.0 - 1e-4) * cosine((progress - 0.3) / 0.7)


def restarts(progress: float) -> float:
    """Three half cosines, each twice as long as the one before."""
    for begin, end in ((0, 1), (1, 3), (3, 7)):
        if progress < end / 7:
            return cosine((7 * progress - begin) / (end - begin))
    return 0.0


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "step": lambda progress: 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01,
    "exponential": lambda progress: 0.01**progress,
    "linear": lambda progress: 1.0 - progress,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "cyclic": lambda progress: 0.1 + 0.9 * abs(1.0 - 2.0 * ((4.0 * progress + 0.5) % 1.0)),
}


class Plateau:
    """ReduceLROnPlateau on the validation loss, or on the loss where there is none."""

    factor, patience, min_delta = 0.3, 2, 1e-4

    def first(self, rates: np.ndarray, bound: np.ndarray | None) -> np.ndarray:
        """Returns the rates as they are."""
        self.rates = np.array(rates)
        self.best, self.wait = np.full((2, len(rates)), np.inf), np.zeros((2, len(rates)), int)
        self.validated = np.zeros(len(rates), bool)
        return self.rates

    def next(self, seen: Interval, bound: np.ndarray | None) -> np.ndarray:
        """Cuts where the monitored loss has not improved for longer than `patience`."""
        self.validated |= np.isfinite(seen.validation_loss)
        for i, (loss, mine) in enumerate(
            ((seen.validation_loss, self.validated), (seen.loss, ~self.validated))
        ):
            there = ~np.isnan(loss)
            better = there & (loss < self.best[i] - self.min_delta)
            self.best[i] = np.where(better, loss, self.best[i])
            self.wait[i] = np.where(better, 0, self.wait[i] + there)
            cut = mine & (self.wait[i] >= self.patience)
            self.rates = np.where(cut, self.rates * self.factor, self.rates)
            self.wait[i] = np.where(cut, 0, self.wait[i])
        return self.rates


class HandWritten:
    """Raises the rate for at most the first 30 %, backs off at a spike, then a cosine to zero.

    What one writes in five minutes instead of training a policy.
    """

    rise, back_off, until, spike = 1.6, 3.0, 0.3, 1.3

    def first(self, rates: np.ndarray, bound: np.ndarray | None) -> np.ndarray:
        """Returns the rates as they are."""
        self.rates = np.array(rates)
        self.rising = np.ones(len(rates), bool)
        self.average = self.validation = np.full(len(rates), np.inf)
        return self.rates

    def next(self, seen: Interval, bound: np.ndarray | None) -> np.ndarray:
        """Moves the base rate, and applies the cosine to it."""
        progress = float(seen.progress[0])
        spiked = ~(seen.loss < self.spike * self.average)
        worse = seen.validation_loss > self.validation  # false where there is none
        back = self.rising & (spiked & np.isfinite(self.average) | worse)
        back |= ~np.isfinite(seen.loss)
        self.rising &= ~back & (progress < self.until)
        self.rates = np.where(back, self.rates / self.back_off, self.rates)
        self.rates = np.where(self.rising, self.rates * self.rise, self.rates)
        known = np.where(np.isfinite(self.average), self.average, seen.loss)
        self.average = np.where(np.isfinite(seen.loss), 0.5 * known + 0.5 * seen.loss, self.average)
        self.validation = np.fmin(self.validation, seen.validation_loss)
        past = max(progress - self.until, 0.0) / (1.0 - self.until)
        return self.rates * cosine(past)


class Greedy:
    """GreedyLR on the interval's mean loss.

    Args:
        parameters: Of the rule; the bounds are not taken from them.
        min_ratio, max_ratio: Bounds, as multiples of the given rate: the callback's if left out.
    """

    def __init__(
        self,
        parameters: GreedyParameters,
        min_ratio: float = MIN_LR_RATIO,
        max_ratio: float = MAX_LR_RATIO,
    ) -> None:
        self.parameters = parameters
        self.ratios = min_ratio, max_ratio

    def first(self, rates: np.ndarray, bound: np.ndarray | None) -> np.ndarray:
        """Returns the rates as they are."""
        low, high = (rates * ratio for ratio in self.ratios)
        self.rule = BatchedGreedyRule(self.parameters._replace(min_lr=low, max_lr=high), rates)
        return self.rule.rate

    def next(self, seen: Interval, bound: np.ndarray | None) -> np.ndarray:
        """Updates the rule."""
        return self.rule.update(seen.loss)


class AsShipped(Greedy):
    """GreedyLR with the callback's defaults."""

    def __init__(self, horizon: int = 0) -> None:
        defaults = inspect.signature(GreedyLR).parameters
        names = set(GreedyParameters._fields) & set(defaults) - {"min_lr", "max_lr", "horizon"}
        own = {name: defaults[name].default for name in names}
        super().__init__(GreedyParameters(**own, horizon=horizon))


class Learned:
    """A policy, as the callback drives it; but that it is told the bound where there is one."""

    def __init__(self, act: Act) -> None:
        self.act = act

    def first(self, rates: np.ndarray, bound: np.ndarray | None) -> np.ndarray:
        """Returns the rates a policy starts at: cautious ones where there is no bound."""
        self.history = observation.init(np, rates.astype(np.float32), bound=bound)
        return observation.rate(np, self.history)

    def next(self, seen: Interval, bound: np.ndarray | None) -> np.ndarray:
        """Returns what the policy's actions make of the rates."""
        self.history, observed = observation.observe(np, self.history, seen, bound)
        self.history, rates = observation.apply_action(np, self.history, self.act(observed))
        return rates


class SideBySide:
    """Several controllers, each with runs of its own among the P; for problems without a bound.

    Args:
        controllers: Whose runs are trained together.
        owner: [P], the place among them of the one each run belongs to.
    """

    def __init__(self, controllers: Sequence[Controller], owner: np.ndarray) -> None:
        self.parts = [(c, owner == i) for i, c in enumerate(controllers)]
        self.runs = len(owner)

    def first(self, rates: np.ndarray, bound: np.ndarray | None) -> np.ndarray:
        """Returns each one's first rates."""
        return self._gather(lambda controller, own: controller.first(rates[own], bound))

    def next(self, seen: Interval, bound: np.ndarray | None) -> np.ndarray:
        """Returns each one's next rates."""
        with np.errstate(all="ignore"):  # diverged runs are part of the study
            return self._gather(
                lambda controller, own: controller.next(
                    Interval(*(field[own] for field in seen)), bound
                )
            )

    def _gather(self, ask: Callable[[Controller, np.ndarray], np.ndarray]) -> np.ndarray:
        rates = np.empty(self.runs, np.float32)
        for controller, own in self.parts:
            rates[own] = ask(controller, own)
        return rates


RIVALS: dict[str, Callable[[], Controller]] = {
    **{name: lambda shape=shape: Fixed(shape) for name, shape in SHAPES.items()},
    "plateau": Plateau,
    "hand-written": HandWritten,
    "greedy": AsShipped,
    "greedy, horizon": lambda: AsShipped(observation.DECISIONS),
}
