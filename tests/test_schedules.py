"""The fixed schedules against their papers' equations, on the running backend."""

import doctest
import math
import sys

import keras
import numpy as np
import pytest
from keras.optimizers.schedules import CosineDecay, ExponentialDecay

from keras_greedylr import schedules
from keras_greedylr.schedules import (
    Cyclic,
    InverseSquareRoot,
    OneCycle,
    Warmup,
    WarmupStableDecay,
)

# Every schedule with its rates at some steps, by hand.
SCHEDULES = {
    "triangular": (
        Cyclic(0.1, 0.5, step_size=4),
        {0: 0.1, 1: 0.2, 4: 0.5, 6: 0.3, 8: 0.1, 12: 0.5, 2**26 + 1: 0.2},
    ),
    "triangular2": (
        Cyclic(0.1, 0.5, step_size=4, mode="triangular2"),
        {0: 0.1, 4: 0.5, 8: 0.1, 10: 0.2, 12: 0.3, 20: 0.2, 28: 0.15},
    ),
    "exp_range": (
        Cyclic(0.1, 0.5, step_size=4, mode="exp_range", gamma=0.9),
        {0: 0.1, 1: 0.1 + 0.1 * 0.9, 4: 0.1 + 0.4 * 0.9**4, 13: 0.1 + 0.3 * 0.9**13},
    ),
    "one-cycle": (
        OneCycle(0.8, 100, warmup_fraction=0.4, initial_divisor=8, final_divisor=100),
        {0: 0.1, 20: 0.45, 40: 0.8, 60: 0.45, 80: 0.1, 90: 0.0505, 100: 0.001, 500: 0.001},
    ),
    "one-cycle by default": (OneCycle(1.0, 100), {0: 0.1, 45: 1.0, 90: 0.1, 100: 1e-5}),
    "one-cycle, no fall": (
        OneCycle(0.8, 10, warmup_fraction=0.5, initial_divisor=8, final_divisor=100),
        {0: 0.1, 5: 0.8, 9: 0.24, 10: 0.001},
    ),
    "one-cycle of one step": (OneCycle(0.8, 1, 0.5, 8.0, final_divisor=1.0), {0: 0.1, 1: 0.1}),
    # As PyTorch's OneCycleLR, whose phases are counted from its last step.
    "one-cycle, fastai": (
        OneCycle(0.5, 100, 0.3, 25.0, 1e4, anneal="cosine", three_phase=False),
        {0: 0.02, 15: 0.26, 30: 0.5, 65: 0.250001, 100: 2e-6},
    ),
    "wsd, linear": (
        WarmupStableDecay(0.4, 10, 20, 40, alpha=0.5),
        {0: 0.0, 5: 0.2, 10: 0.4, 30: 0.4, 50: 0.3, 70: 0.2, 99: 0.2},
    ),
    "wsd, sqrt": (
        WarmupStableDecay(0.4, 0, 20, 40, decay="sqrt"),
        {0: 0.4, 20: 0.4, 30: 0.2, 60: 0.0},
    ),
    "wsd, nothing but one step": (WarmupStableDecay(0.4, 0, 0, 1, alpha=1), {0: 0.4, 1: 0.4}),
    "wsd, cosine": (
        WarmupStableDecay(0.4, 0, 20, 40, decay="cosine"),
        {0: 0.4, 30: 0.2 * (1 + math.sqrt(0.5)), 40: 0.2, 60: 0.0},
    ),
    "inverse square root": (
        InverseSquareRoot(0.6, timescale=100),
        {0: 0.6, 300: 0.3, 800: 0.2, 9900: 0.06},
    ),
    "warmup": (
        Warmup(ExponentialDecay(0.8, 10, 0.5), 4, initial_learning_rate=0.4),
        {0: 0.4, 1: 0.5, 4: 0.8, 14: 0.4, 24: 0.2},
    ),
    "warmup to a constant": (Warmup(0.3, 3), {0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3, 99: 0.3}),
    "no warmup": (Warmup(InverseSquareRoot(0.6, timescale=1), 0), {0: 0.6, 3: 0.3}),
}


@pytest.mark.parametrize(("schedule", "rates"), SCHEDULES.values(), ids=SCHEDULES)
def test_contract(schedule, rates, make_model, regression, tmp_path):
    # It reaches the rates of its equation, whatever kind of number the step is.
    for step, rate in rates.items():
        for kind in (int, np.int32, lambda step: keras.ops.convert_to_tensor(step, "int32")):
            assert float(schedule(kind(step))) == pytest.approx(rate, rel=2e-6, abs=1e-8)

    # It serialises.
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()

    # It fits, and goes with the optimizer into a `.keras` file.
    model = make_model()
    model.compile(keras.optimizers.SGD(schedule), loss="mse")
    model.fit(*regression, epochs=2, batch_size=32, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for trained in (model, loaded):
        expected = float(schedule(14))  # 203 samples are 7 batches
        assert float(trained.optimizer.learning_rate) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("steps", [7, 30, 70])
def test_warmup_is_the_one_keras_has(steps):
    ours = Warmup(CosineDecay(0.1, 50, alpha=0.1), 20)
    keras_own = CosineDecay(0.0, 50, alpha=0.1, warmup_target=0.1, warmup_steps=20)
    assert float(ours(steps)) == pytest.approx(float(keras_own(steps)), rel=1e-6)


def test_warmup_takes_unsigned_steps():
    decay = ExponentialDecay(0.1, 10, 0.5)
    assert float(Warmup(decay, 4)(keras.ops.cast(3, "uint8"))) == pytest.approx(0.075)


@pytest.mark.parametrize("step", [1, 100, 399, 400, 401, 10_000])
def test_warmup_and_inverse_square_root_are_the_transformer(step):
    # Vaswani et al. 2017, equation 3, for 512 units and 400 warmup steps.
    peak = 512**-0.5 * 400**-0.5
    schedule = Warmup(InverseSquareRoot(peak, timescale=400), 400)
    expected = 512**-0.5 * min(step**-0.5, step * 400**-1.5)
    assert float(schedule(step)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclic_is_the_papers_code(mode):
    base, peak, step_size, gamma = 0.001, 0.006, 7, 0.99
    schedule = Cyclic(base, peak, step_size, mode, gamma)
    for step in range(50):
        cycle = math.floor(1 + step / (2 * step_size))
        x = abs(step / step_size - 2 * cycle + 1)
        scale = {"triangular": 1, "triangular2": 1 / 2 ** (cycle - 1), "exp_range": gamma**step}
        expected = base + (peak - base) * max(0, 1 - x) * scale[mode]
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)
    assert float(Cyclic(base, base, step_size, mode)(3)) == pytest.approx(base)  # no cycle


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cyclic(0.0, 1.0, 3), "initial_learning_rate=0.0"),
        (lambda: Cyclic(0.2, 0.1, 3), "maximal_learning_rate=0.1"),
        (lambda: Cyclic(0.1, float("nan"), 3), "maximal_learning_rate=nan"),
        (lambda: Cyclic(0.1, 0.2, 2.5), "step_size=2.5"),
        (lambda: Cyclic(0.1, 0.2, 0), "step_size=0"),
        (lambda: Cyclic(0.1, 0.2, 3, "sawtooth"), "one of .*triangular2.*mode='sawtooth'"),
        (lambda: Cyclic(0.1, 0.2, 3, "exp_range", 1.1), "gamma=1.1"),
        (lambda: Cyclic(0.1, 0.2, 3, "exp_range", 0.0), "gamma=0.0"),
        (lambda: OneCycle(-1.0, 3), "maximal_learning_rate=-1.0"),
        (lambda: OneCycle(1.0, 0), "decay_steps=0"),
        (lambda: OneCycle(1.0, 3, 0.6), "warmup_fraction=0.6"),
        (lambda: OneCycle(1.0, 3, 0.0), "warmup_fraction=0.0"),
        (lambda: OneCycle(1.0, 3, 1.0, three_phase=False), "warmup_fraction=1.0"),
        (lambda: OneCycle(1.0, 3, final_divisor=0.5), "final_divisor=0.5"),
        (lambda: OneCycle(1.0, 3, three_phase="no"), "three_phase='no'"),
        (lambda: OneCycle(1.0, 3, initial_divisor=0.5), "initial_divisor=0.5"),
        (lambda: OneCycle(1.0, 3, anneal="step"), "anneal='step'"),
        (lambda: WarmupStableDecay(0.1, -1, 2, 3), "warmup_steps=-1"),
        (lambda: WarmupStableDecay(0.1, 1, 2, 0), "decay_steps=0"),
        (lambda: WarmupStableDecay(0.0, 1, 2, 3), "learning_rate=0.0"),
        (lambda: WarmupStableDecay(0.1, 1, -2, 3), "stable_steps=-2"),
        (lambda: WarmupStableDecay(0.1, 1, 2, 3, alpha=2), "alpha=2"),
        (lambda: WarmupStableDecay(0.1, 1, 2, 3, alpha=-0.1), "alpha=-0.1"),
        (lambda: WarmupStableDecay(0.1, 1, 2, 3, decay="exp"), "decay='exp'"),
        (lambda: InverseSquareRoot(float("nan"), 3), "initial_learning_rate=nan"),
        (lambda: InverseSquareRoot(0.1, 0), "timescale=0"),
        (lambda: Warmup("cosine", 3), "LearningRateSchedule or a positive float.*'cosine'"),
        (lambda: Warmup(0.1, None), "warmup_steps=None"),
        (lambda: Warmup(0.1, 3, -0.1), "initial_learning_rate=-0.1"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", schedules.__all__)
def test_examples_run(name):
    result = doctest.testmod(sys.modules[getattr(schedules, name).__module__])
    assert result.attempted > 0
    assert result.failed == 0
