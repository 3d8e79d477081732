"""Why a value moved the rate, in words."""

from __future__ import annotations

from keras_greedylr.rule import GreedyRule, GreedyState


def reason(monitor: str, rule: GreedyRule, before: GreedyState, after: GreedyState) -> str:
    """Says why the rate of `after` is another one than that of `before`."""
    if after.event == "reset":
        return f"reset after {rule.reset_after} cuts at min_lr"
    if after.ceiling is not None and after.learning_rate < before.learning_rate * rule.factor:
        return "the upper bound falls towards the end of the horizon"
    if after.ceiling is not None and (after.good or after.bad):  # no run came to its end here
        return "the upper bound falls towards the end of the horizon"
    if before.cooldown_left or before.warmup_left:
        return f"{'cooldown' if before.cooldown_left else 'warmup'} carries on"
    did = "improved" if after.event == "raised" else "did not improve"
    return f"{monitor} {did} {rule.patience + 1} times running (now {after.metric:.6g})"
