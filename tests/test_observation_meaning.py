"""Each feature against its meaning, worked out anew from all that was measured.

A shipped policy was trained on these very numbers: a change of any needs a new VERSION.
"""

import math

import numpy as np
import pytest
from test_observation import f32, run_of

from keras_greedylr import observation
from keras_greedylr.observation import NAMES, NO_BOUND


def average(losses, decay):
    """A moving average that begins at the first loss."""
    mean = losses[0]
    for loss in losses[1:]:
        mean = decay * mean + (1 - decay) * loss
    return mean


def of_losses(measured):
    """What is seen of the training losses of one run, the last interval's being the newest."""
    now, sound = measured[-1], [m for m in measured if math.isfinite(m.loss)]
    losses, broken = [m.loss for m in sound], not math.isfinite(now.loss)
    before = losses if broken or len(losses) == 1 else losses[:-1]
    loss = average(losses, 0.5) if broken else now.loss
    limit = 4 * broken
    return {
        "loss_total": math.log(loss / losses[0]) / 2 + limit,
        "loss_best": math.log(loss / min(losses)) + limit,
        "loss_stale": 4 * (now.progress - sound[int(np.argmin(losses))].progress),
        "loss_change": 4 * math.log(loss / average(before, 0.5)) + limit,
        "loss_trend": 4 * math.log(average(losses, 0.5) / average(losses, 0.9)),
        "loss_noise": -4 if broken else math.log(now.loss_std / now.loss) + 2,
        "loss_broken": broken,
    }


def of_validation(measured):
    """What is seen of the validation losses: nothing before the first."""
    now, fresh = measured[-1], [m for m in measured if math.isfinite(m.validation_loss)]
    names = [name for name in NAMES if name.startswith("validat")]
    if not fresh:
        return dict.fromkeys(names, 0)
    losses = [m.validation_loss for m in fresh]
    training = [m.loss for m in measured if math.isfinite(m.loss)]
    loss = now.loss if math.isfinite(now.loss) else average(training, 0.5)
    return {
        "validated": 1,
        "validation_total": math.log(losses[-1] / losses[0]) / 2,
        "validation_best": 4 * math.log(losses[-1] / min(losses)),
        "validation_stale": 4 * (now.progress - fresh[int(np.argmin(losses))].progress),
        "validation_gap": math.log(losses[-1] / loss),
        "validation_age": 8 * (now.progress - fresh[-1].progress),
    }


def of_weights(measured):
    """What is seen of the weights."""
    now, moved = measured[-1], [math.log(m.movement) for m in measured]
    return {
        "movement": (moved[-1] + 4) / 2,
        "movement_change": moved[-1] - moved[-2] if len(moved) > 1 else 0,
        "alignment": now.alignment,
        "norm": math.log(now.norm / measured[0].norm),
    }


def of_rate(rate, initial, progress, now, bound, action):
    """What is seen of the rate in force, which was set when `progress` was done."""
    multiplier = math.log2(rate / initial / cosine(progress))
    known = bound < NO_BOUND
    return {
        "progress": 2 * now - 1,
        "multiplier": multiplier / 7,
        "action": action,
        "bounded": known,
        "room": math.log2(bound / (initial * 2**multiplier * cosine(now))) / 4 if known else 0,
    }


def cosine(progress):
    """Half a cosine, from 1 to 0."""
    return (1 + math.cos(math.pi * progress)) / 2


@pytest.mark.parametrize("bound", [NO_BOUND, 300.0])
@pytest.mark.parametrize("broken", [False, True])
def test_each_feature_is_what_its_name_says(broken, bound):
    rng, runs, initial = np.random.default_rng(7), 6, 0.1
    intervals = run_of(8, runs, broken=broken)
    history = observation.init(np, np.full(runs, initial, f32), bound=np.full(runs, bound, f32))
    initial = initial if bound == NO_BOUND else bound / 16
    rates, action, progress = observation.rate(np, history), np.zeros(runs, f32), 0.0
    for t, interval in enumerate(intervals):
        history, seen = observation.observe(np, history, interval)
        now = float(interval.progress[0])
        for run in range(runs):
            of_run = [
                type(interval)(*(float(value[run]) for value in m)) for m in intervals[: t + 1]
            ]
            expected = {
                **of_losses(of_run),
                **of_validation(of_run),
                **of_weights(of_run),
                **of_rate(rates[run], initial, progress, now, bound, action[run]),
            }
            wanted = np.clip([expected[name] for name in NAMES], -4, 4)
            np.testing.assert_allclose(seen[run], wanted, atol=5e-5, err_msg=f"interval {t}")
        action, progress = rng.uniform(-0.7, 0.7, runs).astype(f32), now
        history, rates = observation.apply_action(np, history, action)
        assert bound == NO_BOUND or (rates < bound).all()  # else it says no multiplier
