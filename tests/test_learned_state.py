"""What LearnedLR writes into its state file, and what it refuses to read there."""

import json
import math

import keras
import numpy as np
import pytest

from keras_greedylr import LearnedLR
from keras_greedylr.callbacks.learned_state import CARRIED, LearnedState
from keras_greedylr.callbacks.loss_guard import LossGuard
from keras_greedylr.observation import History


def trained(path, **arguments):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = np.random.default_rng(0).standard_normal((50, 4)).astype("float32")
    learned = LearnedLR(state_path=path)
    model.fit(x, x.sum(axis=1), batch_size=1, verbose=0, callbacks=[learned], **arguments)
    return learned


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("learned") / "state.json"
    trained(path, epochs=5)
    return {**json.loads(path.read_text()), "finished": False}


def test_the_written_state_is_taken(content, tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(content))
    assert trained(path, epochs=10, initial_epoch=5)._done == 500


@pytest.mark.parametrize(
    "change, message",
    [
        ({"history": [None] * 21}, "`initial_rate` must be a finite number > 0"),
        ({"history": [1.0] * 20}, "`history` must have 21 numbers. Received: 20"),
        ({"history": [0.01, 1e-6, 1.0, None, *[0.5] * 16, 1e30]}, "`learning_rate` must be a"),
        ({"history": [-0.01, 1e-6, 1.0, *[0.5] * 17, 1e30]}, "`initial_rate` must be a finite"),
        ({"history": 5}, "`history` must be a list of numbers. Received: history=5"),
        ({"weights": None}, "`weights` must be a list of numbers. Received: weights=None"),
        ({"weights": ["a"]}, "`weights` must be a finite number. Received: weights='a'"),
        ({"movement": []}, "`movement` must be as long as `weights`. Received: 0 and 5 numbers"),
        ({"steps": 0}, "`steps` must be an integer >= 1. Received: steps=0"),
        ({"done": math.inf}, "`done` must be an integer >= 0. Received: done=inf"),
        ({"done": -(10**6)}, "`done` must be an integer >= 0. Received: done=-1000000"),
        ({"done": 10**400}, "integer division result too large for a float"),
        ({"decisions": 0.5}, "`decisions` must be an integer >= 0. Received: decisions=0.5"),
        ({"due": "no"}, "`due` must be true or false. Received: due='no'"),
        ({"sum": "1"}, "`sum` must be a finite number. Received: sum='1'"),
        ({"guard": {}}, "`guard` must have exactly the entries ['fast', 'slow', 'reports', "),
        (
            {"guard": {"fast": math.nan, "slow": 1.0, "reports": 3, "tripped": False}},
            "`fast` must be a finite number. Received: fast=nan",
        ),
        (
            {"guard": {"fast": 1.0, "slow": 1.0, "reports": 3, "tripped": 2}},
            "`tripped` must be true or false. Received: tripped=2",
        ),
    ],
)
def test_a_spoilt_state_is_refused(content, tmp_path, change, message):
    path = tmp_path / "state.json"
    state = {**content["epochs"]["5"], **change}
    path.write_text(json.dumps({**content, "epochs": {"5": state}}))
    with pytest.raises(ValueError) as error:
        trained(path, epochs=10, initial_epoch=5)
    assert str(error.value).startswith(f"State file '{path}' cannot be used: {message}")


@pytest.mark.parametrize("name", LearnedState._fields[:-1] + tuple(CARRIED))
def test_a_missing_entry_is_refused(content, tmp_path, name):
    path = tmp_path / "state.json"
    state = {key: value for key, value in content["epochs"]["5"].items() if key != name}
    path.write_text(json.dumps({**content, "epochs": {"5": state}}))
    with pytest.raises(ValueError) as error:
        trained(path, epochs=10, initial_epoch=5)
    assert str(error.value) == f"State file '{path}' cannot be used: '{name}'"


def test_what_is_not_finite_comes_back_as_not_known():
    rates = dict.fromkeys(("initial_rate", "min_rate", "max_rate", "bound"), np.ones(1, "f4"))
    rest = dict.fromkeys(History._fields, np.array([math.inf], "f4"))
    numbers = {"done": 3, "decisions": 2, "due": True, "validation": math.nan, "losses": 1}
    state = LearnedState(
        History(**{**rest, **rates}),
        np.array([1.0, math.nan], "f4"),
        np.array([-math.inf, 2.0], "f4"),
        LossGuard(1.0, 2.0, 3, True),
        None,
        {**numbers, "sum": math.inf, "sum_of_squares": 1e300},
    )
    values = json.loads(json.dumps(state.to_dict(), allow_nan=False))
    back = LearnedState.from_dict(values)
    assert back.to_dict() == state.to_dict()
    np.testing.assert_array_equal(back.weights, [1.0, math.nan])
    np.testing.assert_array_equal(back.movement, [math.nan, 2.0])
    assert back.history.bound == 1.0 and np.isnan(back.history.first_loss)
    assert back.guard == state.guard and back.steps is None
    assert {**back.carried, "validation": 0, "sum": 0} == {
        **state.carried, "validation": 0, "sum": 0,
    }  # fmt: skip
