"""Why a value moved the rate, or why none came, in words."""

from __future__ import annotations

from collections.abc import Iterable

from keras_greedylr.rule import GreedyRule, GreedyState


def reason(monitor: str, rule: GreedyRule, before: GreedyState, after: GreedyState) -> str:
    """Says why the rate of `after` is another one than that of `before`."""
    if after.event == "reset":
        return f"reset after {rule.reset_after} cuts at min_lr"
    if after.ceiling is not None and after.learning_rate == rule.bound(after):
        return "the upper bound falls towards the end of the horizon"
    if before.cooldown_left or before.warmup_left:
        return f"{'cooldown' if before.cooldown_left else 'warmup'} carries on"
    did = "improved" if after.event == "raised" else "did not improve"
    return f"{monitor} {did} {rule.patience + 1} times running (now {after.metric:.6g})"


def absence(monitor: str, update_every: str | int, logs: Iterable[str]) -> str:
    """Says that a GreedyLR found nothing to look at in logs of these names."""
    names = sorted(name for name in logs if not name.startswith("learning_rate"))
    validated = any(name.startswith("val_") for name in logs)
    waits = monitor.startswith("val_") or update_every == "validation"
    hint = " No validation took place: pass `validation_data` to `fit`, mind `validation_freq`."
    return (
        f"GreedyLR(monitor='{monitor}', update_every={update_every!r}) found nothing to look at. "
        f"The metrics of this training are {names}.{hint if waits and not validated else ''}"
    )
