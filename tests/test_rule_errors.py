"""What the rule and its state refuse, and in what words."""

import json
import math

import numpy as np
import pytest

from keras_greedylr import GreedyRule, GreedyState

START = GreedyRule().init(0.1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"factor": 0.0}, "`factor` must be a finite number > 0 and < 1. Received: factor=0.0"),
        ({"factor": 1.0}, "`factor` must be a finite number > 0 and < 1. Received: factor=1.0"),
        ({"factor": "0.5"}, "`factor` must be a finite number > 0 and < 1. Received: factor='0.5'"),
        ({"patience": -1}, "`patience` must be an integer >= 0. Received: patience=-1"),
        ({"patience": 1.5}, "`patience` must be an integer >= 0. Received: patience=1.5"),
        ({"patience": True}, "`patience` must be an integer >= 0. Received: patience=True"),
        ({"min_delta": -1e-9}, "`min_delta` must be a finite number >= 0. Received: min_delta="),
        ({"min_delta": math.nan}, "`min_delta` must be a finite number >= 0. Received: min_delta="),
        ({"min_delta": 10**400}, "`min_delta` must be a finite number >= 0. Received: min_delta="),
        (
            {"min_delta_mode": "relative"},
            "`min_delta_mode` must be one of ('rel', 'abs'). Received: min_delta_mode='relative'",
        ),
        ({"window": 0}, "`window` must be an integer >= 1. Received: window=0"),
        ({"cooldown": -1}, "`cooldown` must be an integer >= 0. Received: cooldown=-1"),
        ({"warmup": None}, "`warmup` must be an integer >= 0. Received: warmup=None"),
        (
            {"phases": "wait"},
            "`phases` must be one of ('carry_on', 'hold'). Received: phases='wait'",
        ),
        ({"min_lr": -0.1}, "`min_lr` must be a finite number >= 0. Received: min_lr=-0.1"),
        ({"max_lr": 0.0}, "`max_lr` must be a finite number > 0. Received: max_lr=0.0"),
        ({"max_lr": math.inf}, "`max_lr` must be a finite number > 0. Received: max_lr=inf"),
        (
            {"min_lr": 0.1, "max_lr": 0.01},
            "`max_lr` must not be below `min_lr`. Received: min_lr=0.1, max_lr=0.01",
        ),
        ({"reset_after": 0}, "`reset_after` must be an integer >= 1. Received: reset_after=0"),
        ({"horizon": 0}, "`horizon` must be an integer >= 1. Received: horizon=0"),
        ({"horizon": 1.5}, "`horizon` must be an integer >= 1. Received: horizon=1.5"),
        ({"mode": "auto"}, "`mode` must be one of ('min', 'max'). Received: mode='auto'"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError) as error:
        GreedyRule(**arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan, None, "0.1", True])
def test_initial_rates_out_of_range(rate):
    with pytest.raises(ValueError) as error:
        GreedyRule().init(rate)
    expected = "`learning_rate` must be a finite number > 0. Received: learning_rate="
    assert str(error.value) == f"{expected}{rate!r}"


@pytest.mark.parametrize(
    "state, values, message",
    [
        (START, (None,), "`metric` must be a number. Received: metric=None"),
        (START, (1.0, "low"), "`metric` must be a number. Received: metric='low'"),
        (START, ({"loss": 1.0},), "`metric` must be a number. Received: metric={'loss': 1.0}"),
        (START, (np.ones(2),), "`metric` must be a number. Received: metric=array([1., 1.])"),
        ({}, (1.0,), "`state` must be a GreedyState, as `init` returns it. Received: state={}"),
        (0.1, (1.0,), "`state` must be a GreedyState, as `init` returns it. Received: state=0.1"),
    ],
)
def test_what_update_refuses(state, values, message):
    with pytest.raises(ValueError) as error:
        GreedyRule().update(state, *values)
    assert str(error.value) == message


def test_numpys_numbers_are_taken_as_pythons():
    rule = GreedyRule(
        factor=np.float64(0.5), patience=np.int64(0), cooldown=np.int32(2), min_lr=np.float32(0)
    )
    state = rule.update(rule.init(np.float32(0.25)), 1.0, 2.0)
    assert json.loads(state.to_json())["learning_rate"] == 0.25
    assert {type(value) for value in (rule.factor, rule.min_lr)} == {float}
    assert {type(value) for value in (rule.patience, rule.cooldown)} == {int}


def _state_json(**changes):
    return json.dumps({**GreedyRule().init(0.01)._asdict(), **changes})


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "Expecting value"),
        (_state_json()[:-1], "Expecting ',' delimiter"),
        ("[]", "A GreedyState has exactly the fields"),
        ("{}", "A GreedyState has exactly the fields"),
        (_state_json(extra=1), "A GreedyState has exactly the fields"),
        (_state_json(learning_rate=0), "`learning_rate` must be a finite number > 0"),
        (_state_json(learning_rate=math.inf), "`learning_rate` must be a finite number > 0"),
        (_state_json(initial_learning_rate=None), "`initial_learning_rate` must be a finite"),
        (_state_json(best=math.nan), "`best` must be a finite number"),
        (_state_json(metric="1"), "`metric` must be a finite number"),
        (_state_json(window=3), "`window` must be a list"),
        (_state_json(window=[None]), "`window` must be a finite number"),
        (_state_json(good=-1), "`good` must be an integer >= 0"),
        (_state_json(bad=0.5), "`bad` must be an integer >= 0"),
        (_state_json(event="raise"), "`event` must be one of"),
    ],
)
def test_broken_states_are_refused(text, message):
    with pytest.raises(ValueError) as error:
        GreedyState.from_json(text)
    assert message in str(error.value)
