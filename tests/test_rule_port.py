"""The rule against the Hugging Face port itself, where transformers is installed."""

import numpy as np
import pytest
from helpers import states_of

from keras_greedylr import GreedyRule

torch = pytest.importorskip("torch")
optimization = pytest.importorskip("transformers.optimization")


def random_case(seed):
    """Arguments of the rule, and values whose sums have no rounding errors: 32nds."""
    rng = np.random.default_rng(seed)
    rule = GreedyRule(
        factor=float(rng.uniform(0.3, 0.95)),
        patience=int(rng.integers(0, 6)),
        min_delta=float(rng.choice([0.0, 1e-4, 0.03])),
        min_delta_mode=str(rng.choice(["rel", "abs"])),
        window=int(rng.integers(1, 8)),
        cooldown=int(rng.integers(0, 5)),
        warmup=int(rng.integers(0, 5)),
        phases="hold",
        min_lr=float(10 ** rng.uniform(-5, -3)),
        max_lr=float(10 ** rng.uniform(-2, 0)),
        reset_after=int(rng.integers(1, 6)) if seed % 2 else None,
        mode=str(rng.choice(["min", "max"])),
    )
    trend = np.linspace(0.0, rng.uniform(-2.0, 2.0), 250)
    values = 4.0 + trend + rng.normal(0.0, rng.uniform(0.05, 0.6), 250)
    return rule, (np.maximum(np.round(32 * values), 1) / 32).tolist()


def rates_of_port(rule, learning_rate, values):
    """The rate the port holds after each value."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=learning_rate)
    scheduler = optimization.GreedyLR(
        optimizer,
        mode=rule.mode,
        factor=rule.factor,
        patience=rule.patience,
        threshold=rule.min_delta,
        threshold_mode=rule.min_delta_mode,
        cooldown=rule.cooldown,
        warmup=rule.warmup,
        min_lr=rule.min_lr,
        max_lr=rule.max_lr,
        eps=0.0,
        smooth=rule.window > 1,
        window_size=rule.window,
        reset_start=rule.reset_after or 10**9,
    )
    rates = []
    for value in values:
        scheduler.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("seed", range(40))
def test_rates_are_those_of_the_port(seed):
    rule, values = random_case(seed)
    rates = [state.learning_rate for state in states_of(rule, 0.003, values)]
    assert len(set(rates)) > 2
    np.testing.assert_allclose(rates, rates_of_port(rule, 0.003, values), rtol=1e-9, atol=0)
