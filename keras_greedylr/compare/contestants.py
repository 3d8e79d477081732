"""Who takes part: what each contestant makes of a model, an initial rate and a budget of steps.

A contestant is a function from a `Setting` to what drives the rate: nothing, a
`LearningRateSchedule` that takes the place of the model's rate, a callback, an optimizer that
takes the place of the model's, or a list of these. `CONTESTANTS` has those of the package by
their names.

>>> from keras_greedylr.compare import CONTESTANTS
>>> sorted(CONTESTANTS)[:5]
['constant', 'cosine', 'cyclic', 'exponential', 'greedy']
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
from keras.optimizers import LossScaleOptimizer
from keras.optimizers import schedules as of_keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_greedylr import schedules
from keras_greedylr.callbacks import GreedyLR, LearnedLR
from keras_greedylr.callbacks.schedule import check_free, read_rate, single_optimizers
from keras_greedylr.optimizers import (
    ArmijoLineSearch,
    HypergradientDescent,
    LineSearchModel,
    Prodigy,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    SwapScheduleFreeWeights,
)

WARMUP = "+warmup"  # after a fixed schedule's name: a linear warmup before it
WARMUP_SHARE = 20  # one in so many steps


class Setting(NamedTuple):
    """What a contestant has to go by.

    Example:

    >>> import keras
    >>> from keras_greedylr.compare import Setting
    >>> def halving(setting):
    ...     period = setting.steps // 3
    ...     return keras.optimizers.schedules.ExponentialDecay(setting.rate, period, 0.5)
    >>> adam = keras.optimizers.Adam(0.8)
    >>> schedule = halving(Setting(0.8, 1.0, 30, epochs=3, optimizer=adam, validated=True))
    >>> [round(float(schedule(step)), 3) for step in (0, 10, 30)]
    [0.8, 0.4, 0.1]
    """

    rate: float  # the initial learning rate
    multiple: float  # how many times the rate the model was compiled with that is
    steps: int  # training steps there will be
    epochs: int  # and epochs
    optimizer: keras.optimizers.Optimizer  # the model's own, at `rate`
    validated: bool  # whether there is validation data

    @property
    def warmup_steps(self) -> int:
        """Steps of a warmup, where one is asked for."""
        return max(self.steps // WARMUP_SHARE, 1)


Part: TypeAlias = LearningRateSchedule | keras.callbacks.Callback | keras.optimizers.Optimizer
Contestant: TypeAlias = Callable[[Setting], Part | Sequence[Part] | None]


# Fixed schedules: functions of the rate and of the steps there will be.


def _step(rate: float, steps: int) -> LearningRateSchedule:
    boundaries = [max(steps // 2, 1), max(3 * steps // 4, 2)]
    return of_keras.PiecewiseConstantDecay(boundaries, [rate, 0.1 * rate, 0.01 * rate])


def _wsd(rate: float, steps: int) -> LearningRateSchedule:
    warmup, decay = max(steps // WARMUP_SHARE, 1), max(steps // 5, 1)
    return schedules.WarmupStableDecay(rate, warmup, max(steps - warmup - decay, 0), decay)


FIXED: dict[str, Callable[[float, int], LearningRateSchedule]] = {
    "step": _step,
    "exponential": lambda rate, steps: of_keras.ExponentialDecay(rate, steps, 0.01),
    "linear": lambda rate, steps: of_keras.PolynomialDecay(rate, steps, 0.0),
    "polynomial": lambda rate, steps: of_keras.PolynomialDecay(rate, steps, 0.0, power=2.0),
    "cosine": lambda rate, steps: of_keras.CosineDecay(rate, steps),
    # three cycles, each twice as long as the one before
    "restarts": lambda rate, steps: of_keras.CosineDecayRestarts(rate, -(-steps // 7)),
    "cyclic": lambda rate, steps: schedules.Cyclic(0.1 * rate, rate, max(steps // 8, 1)),
    "one-cycle": lambda rate, steps: schedules.OneCycle(rate, steps),
    "wsd": _wsd,
    "inverse-sqrt": lambda rate, steps: schedules.InverseSquareRoot(rate, max(steps // 20, 1)),
}


# The others.


def _plateau(setting: Setting) -> Part:
    # Keras' patience of ten epochs would outlast most comparisons.
    return keras.callbacks.ReduceLROnPlateau(
        "val_loss" if setting.validated else "loss", patience=max(setting.epochs // 10, 1)
    )


# What an optimizer in the place of the model's takes over from it.
KEPT = ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor",
        "gradient_accumulation_steps")  # fmt: skip
AVERAGES = ("use_ema", "ema_momentum", "ema_overwrite_frequency")


def _kept(setting: Setting, *more: str) -> dict[str, Any]:
    return {name: getattr(setting.optimizer, name) for name in (*KEPT, *more)}


def _schedule_free(setting: Setting) -> Sequence[Part]:
    is_sgd = isinstance(setting.optimizer, keras.optimizers.SGD)
    make = ScheduleFreeSGD if is_sgd else ScheduleFreeAdamW
    return [make(setting.rate, **_kept(setting)), SwapScheduleFreeWeights()]


def _line_search(setting: Setting) -> Part:
    # It looks for the rate itself: where it begins is its own default.
    return ArmijoLineSearch(setting.multiple, max_learning_rate=10.0 * setting.multiple)


OWN_RATE = ("line-search", "prodigy")  # begin at the multiple itself: they look for the rate

CONTESTANTS: dict[str, Contestant] = {
    "constant": lambda setting: None,
    **{
        name: lambda setting, make=make: make(setting.rate, setting.steps)  # type: ignore[misc]
        for name, make in FIXED.items()
    },
    "plateau": _plateau,
    "greedy": lambda setting: GreedyLR(),
    "learned": lambda setting: LearnedLR(),
    # the multiplicative form, whose own rate does not depend on the gradient's scale
    "hypergradient": lambda setting: HypergradientDescent(
        setting.optimizer, 0.02, mode="multiplicative"
    ),
    "line-search": _line_search,
    "schedule-free": _schedule_free,
    "prodigy": lambda setting: Prodigy(setting.multiple, **_kept(setting, *AVERAGES)),
}


def resolve(name: str) -> Contestant:
    """Returns the contestant of a name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name in CONTESTANTS:
        return CONTESTANTS[name]
    plain = name.removesuffix(WARMUP)
    if plain != name and (plain in FIXED or plain == "constant"):
        return lambda setting: _warmed_up(plain, setting)
    raise ValueError(
        f"Schedules must be among {list(CONTESTANTS)}; {WARMUP!r} may follow constant and the "
        f"fixed ones. Received: {name!r}"
    )


def _warmed_up(name: str, setting: Setting) -> LearningRateSchedule:
    warmup = setting.warmup_steps
    if name == "constant":
        return schedules.Warmup(setting.rate, warmup)
    return schedules.Warmup(FIXED[name](setting.rate, max(setting.steps - warmup, 1)), warmup)


# What is made of a model.

STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")


class Equipped(NamedTuple):
    """A model ready for `fit`."""

    model: keras.Model
    callbacks: list[keras.callbacks.Callback]
    own_graph: bool  # whether the rate, or the optimizer, is part of what gets compiled


def check_model(model: Any) -> float:
    """Returns the rate a model was compiled with.

    Raises:
        ValueError: if it is no compiled model with one optimizer whose rate is a float.
    """
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ValueError(
            f"`build_model()` must return a compiled keras.Model. Received: {type(model)}"
        )
    optimizers = single_optimizers(model)
    check_free(model.optimizer, "compare")
    if len(optimizers) > 1:
        raise ValueError(
            "A model that is compared must have one optimizer. "
            f"Received: {[optimizer.name for optimizer in optimizers]}"
        )
    return read_rate(optimizers[0], "compare")


def ask(
    contestant: Contestant, model: keras.Model, multiple: float, **budget: Any
) -> Sequence[Part]:
    """Returns what a contestant makes of a model, which is left as it is; see `equip`.

    Raises:
        ValueError: if it makes something else than a contestant may.
    """
    rate = check_model(model) * multiple
    copy = _copy(single_optimizers(model)[0], rate)
    made = contestant(Setting(rate=rate, multiple=multiple, optimizer=copy, **budget))
    parts = [] if made is None else list(made) if isinstance(made, Sequence) else [made]
    news = [part for part in parts if not isinstance(part, keras.callbacks.Callback)]
    kinds = (LearningRateSchedule, keras.optimizers.Optimizer)
    if len(news) > 1 or not all(isinstance(new, kinds) for new in news):
        raise ValueError(
            "A contestant must return None, callbacks, and at most one LearningRateSchedule "
            f"or optimizer. Received: {made!r}"
        )
    own = [name for name in STEPS if getattr(type(model), name) is not getattr(keras.Model, name)]
    if own and any(isinstance(new, ArmijoLineSearch) for new in news):
        raise ValueError(
            "ArmijoLineSearch trains and evaluates with steps of its own and cannot take part with "
            f"a model that has others. Received: a {type(model).__name__} with {', '.join(own)}"
        )
    return parts


def equip(model: keras.Model, contestant: Contestant, multiple: float, **budget: Any) -> Equipped:
    """Gives a model what a contestant makes of it.

    Args:
        model: Compiled and not trained yet; it is changed.
        contestant: Called with the `Setting`.
        multiple: The initial rate, as a multiple of the one the model was compiled with.
        **budget: The other fields of `Setting`.
    """
    parts = ask(contestant, model, multiple, **budget)
    optimizer = single_optimizers(model)[0]
    optimizer.learning_rate = check_model(model) * multiple
    callbacks = [part for part in parts if isinstance(part, keras.callbacks.Callback)]
    new: Any = next((part for part in parts if part not in callbacks), None)
    if isinstance(new, LearningRateSchedule):
        new = _copy(optimizer, new)
    if isinstance(new, ArmijoLineSearch):
        compiled = {**model._compile_config.config, "optimizer": new}
        model = LineSearchModel(model)
        model.compile(**compiled)
    elif new is not None:
        _exclude_alike(new, optimizer)
        # under mixed_float16
        around = model.optimizer
        if around is not optimizer and not isinstance(new, LossScaleOptimizer):
            config = {**around.get_config(), "inner_optimizer": new}
            new = LossScaleOptimizer(**config)
        model.optimizer = new
    return Equipped(model, callbacks, new is not None)


def _copy(optimizer: Any, learning_rate: Any) -> Any:
    """The same optimizer, without its state, at another rate."""
    config = {**optimizer.get_config(), "learning_rate": learning_rate}
    return _exclude_alike(type(optimizer).from_config(config), optimizer)


def _exclude_alike(new: Any, optimizer: Any) -> Any:
    """Leaves out of weight decay what `optimizer` leaves out, unless `new` was told what to."""
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(optimizer, name) and not hasattr(new, name):  # in no configuration
            setattr(new, name, getattr(optimizer, name))
    return new
