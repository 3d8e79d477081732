"""PPO holds all its variables and learns; a seed gives one policy; a kill costs an iteration."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tf_agents")
import keras_greedylr_agents  # noqa: F401, I001
import tensorflow as tf

from keras_greedylr import observation
from keras_greedylr.policy import act_with, load_policy
from keras_greedylr_agents import export
from keras_greedylr_agents.train import Config, Trainer

# a factorisation: its losses are rounded otherwise outside of a graph
TINY = Config(
    problems="nmf-gamma", runs=32, copies=2, iterations=3, epochs=2, minibatches=2, hidden=8
)


def flat(agent):
    return [v.numpy() for v in agent.actor_net.variables + agent._value_net.variables]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trainer before, its weights then, and after two iterations of three."""
    folder = tmp_path_factory.mktemp("one")
    trainer = Trainer(TINY, folder)
    before = flat(trainer.agent)
    metrics = [trainer.iterate() for _ in range(2)]
    return trainer, before, metrics, folder


def test_actor_and_critic_hold_their_variables_and_change(trained):
    trainer, before, _, _ = trained
    agent = trainer.agent
    assert len(agent.actor_net.trainable_variables) == 7  # three layers, and the deviation
    assert len(agent._value_net.trainable_variables) == 6
    changed = [not np.array_equal(old, new) for old, new in zip(before, flat(agent), strict=True)]
    assert all(changed)


def test_metrics_and_logs(trained):
    _, _, metrics, folder = trained
    assert {"return", "return/nmf-gamma", "entropy", "inner_steps_per_second"} <= set(metrics[0])
    assert all(np.isfinite(list(m.values())).all() for m in metrics)
    assert list((folder / "logs").glob("events*"))


def test_a_kill_costs_an_iteration_at_most(trained, tmp_path):
    trainer, _, _, folder = trained
    copy = shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(ValueError, match="Pass --resume"):
        Trainer(TINY, copy)
    with pytest.raises(ValueError, match=r"other settings: clip=0\.2, not 0\.3"):
        Trainer(Config(**{**TINY.__dict__, "clip": 0.3}), copy, resume=True)
    resumed = Trainer(TINY, copy, resume=True)
    assert int(resumed.iteration) == 2
    for mine, theirs in zip(flat(resumed.agent), flat(trainer.agent), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # the runs it goes on with are those the other would have gone on with, to the last bit
    ours, theirs = (tf.nest.flatten(t.environment._now) for t in (resumed, trainer))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)
    seen = []
    resumed.run(lambda i, _: seen.append(i))
    assert seen == [3]


def test_same_seed_same_policy_resumed_or_not(trained, tmp_path):
    trainer, _, _, folder = trained
    again = Trainer(TINY, tmp_path / "again")
    again.iterate(), again.iterate()
    for mine, theirs in zip(flat(again.agent), flat(trainer.agent), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    resumed = Trainer(TINY, shutil.copytree(folder, tmp_path / "copy"), resume=True)
    again.iterate(), resumed.iterate()  # the same noise on the actions, and Adam's own state
    for mine, theirs in zip(flat(again.agent), flat(resumed.agent), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_exported_policy_is_the_agents(trained, tmp_path):
    agent = trained[0].agent
    layers = export.actor_layers(agent)
    export.write_policy(tmp_path / "policy", layers, seed=0)
    step = trained[0].environment.current_time_step()
    greedy = agent.policy.action(step).action.numpy()
    for runtime in ("tensorflow", "numpy"):
        policy = load_policy(tmp_path / "policy", runtime)
        np.testing.assert_allclose(policy(step.observation.numpy()), greedy, atol=1e-6)


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    layers = export.untrained_layers(0, hidden=4)
    target = tmp_path / "policy"
    export.write_policy(target, layers, note="first")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(export.np, "savez", full)
        with pytest.raises(OSError, match="No space left"):
            export.write_policy(target, layers, note="second")
    assert load_policy(target, "numpy").card["note"] == "first"
    export.write_policy(target, layers, note="third")
    assert load_policy(target, "numpy").card["note"] == "third"
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]
    with pytest.raises(ValueError, match="weights are not finite"):
        export.write_policy(target, [(kernel * np.nan, bias) for kernel, bias in layers])
    assert load_policy(target, "numpy").card["note"] == "third"


THEIRS = {
    "no card": ({"thesis.tex": ""}, "exists and is not a policy"),
    "another's card": ({"policy.json": '{"Statement": []}', "a": ""}, "is not a policy"),
    "no object": ({"policy.json": "[1]"}, "is not a policy"),
    "one file more": ({"policy.json": '{"files": {"a": "0"}}', "a": "", "b/policy.json": ""},
                      "holds b/policy.json, which is not the policy's"),
}  # fmt: skip


@pytest.mark.parametrize("case", THEIRS)
def test_what_is_not_a_policys_is_not_lost(tmp_path, case):
    files, reason = THEIRS[case]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=reason):
        export.write_policy(tmp_path, export.untrained_layers(0, hidden=4))
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(files)


@pytest.mark.parametrize(
    "text, reason",
    [("", "cannot be read as JSON"), ("[]", "must hold an object"), ('{"more": 1}', "more=1, not")],
)
def test_a_spoilt_configuration_is_named(trained, tmp_path, text, reason):
    copy = shutil.copytree(trained[3], tmp_path / "copy")
    (copy / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"copy.*{reason}"):
        Trainer(TINY, copy, resume=True)


def test_a_start_that_failed_claims_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr("keras_greedylr_agents.train.make_agent", fail)
        Trainer(TINY, tmp_path / "one")
    assert int(Trainer(replace(TINY, clip=0.3), tmp_path / "one").iteration) == 0
    with pytest.raises(ValueError, match=r"pattern.*Received: .*b\[1\]"):
        Trainer(TINY, tmp_path / "b[1]")


@pytest.mark.parametrize("deviation", [1e-3, 0.3, 1e3])
def test_deviation_is_the_actors(tmp_path, deviation):
    trainer = Trainer(replace(TINY, deviation=deviation), tmp_path)
    step = trainer.environment.current_time_step()
    spread = trainer.agent.collect_policy.distribution(step).action.stddev()
    np.testing.assert_allclose(spread, deviation, rtol=1e-3)


WRONG = [
    {"runs": 0},
    {"runs": 30},  # fewer than one of each family in each minibatch
    {"problems": "digits-sgd", "runs": 7, "minibatches": 7, "copies": 4},  # four in all
    {"seed": 2**31},
    {"clip": 0.0},
    {"discount": 1.01},
    {"seed": -1},
    {"problems": "x"},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_config_is_checked(wrong):
    with pytest.raises(ValueError, match="Received"):
        Config(**wrong)
    Config(discount=1.0, trace=1.0, training_share=1.0)  # the largest there are


def test_untrained_policy_does_little():
    seen = np.random.default_rng(0).uniform(-4, 4, (9, len(observation.NAMES)))
    assert np.abs(act_with(export.untrained_layers(0))(seen.astype(np.float32))).max() < 0.05
