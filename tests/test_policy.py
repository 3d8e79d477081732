"""Policies load only whole and of a known version, and their two runtimes agree."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_greedylr import observation
from keras_greedylr.policy import CARD, SHIPPED, file_hashes, load_policy

WIDTH = len(observation.NAMES)
SEEN = np.random.default_rng(0).uniform(-4, 4, (64, WIDTH)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(SHIPPED / "default", tmp_path / "policy")


def test_weights_give_actions():
    actions = load_policy("default", runtime="numpy")(SEEN)
    assert actions.shape == (64,) and actions.dtype == np.float32
    assert np.abs(actions).max() <= 1 and actions.std() > 0.01
    assert load_policy().decisions == observation.DECISIONS


def test_the_report_is_of_the_policy_that_is_shipped():
    report = Path(__file__).parent / "benchmarks" / "learned_schedule.json"
    assert json.loads(report.read_text())["files"] == file_hashes(SHIPPED / "default")


def test_runtimes_agree(folder):
    pytest.importorskip("tensorflow")
    by_graph, by_weights = (
        load_policy(folder, runtime)(SEEN) for runtime in ("tensorflow", "numpy")
    )
    np.testing.assert_allclose(by_graph, by_weights, atol=1e-6)


def test_loading_needs_neither_agents_nor_their_libraries(folder):
    pytest.importorskip("tensorflow")
    program = (
        "import sys, numpy as np; from keras_greedylr.policy import load_policy;"
        f"load_policy({str(folder)!r}, 'tensorflow')(np.zeros((1, {WIDTH}), np.float32));"
        "assert not {'tf_agents', 'tensorflow_probability', 'tf_keras'} & set(sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def _card(change):
    def damage(folder):
        card = json.loads((folder / CARD).read_text())
        change(card)
        (folder / CARD).write_text(json.dumps(card))

    return damage


def _flip(name):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return damage


def _other_weights(folder):
    np.savez(folder / "weights.npz", kernel_0=np.zeros((WIDTH, 1)), oops=np.zeros(1))
    _card(lambda card: card.update(files=file_hashes(folder)))(folder)


def _not_finite(folder):
    with np.load(folder / "weights.npz") as arrays:
        weights = {name: array * np.nan for name, array in arrays.items()}
    np.savez(folder / "weights.npz", **weights)
    _card(lambda card: card.update(files=file_hashes(folder)))(folder)


DAMAGES = {
    "changed weights": (_flip("weights.npz"), "weights.npz was changed"),
    "changed program": (_flip("saved_model.pb"), "saved_model.pb was changed"),
    "missing file": (lambda f: (f / "weights.npz").unlink(), "weights.npz is missing"),
    "file too many": (lambda f: (f / "extra").write_text("x"), "extra is not part of"),
    "no card": (lambda f: (f / CARD).unlink(), "Not a policy: there is no"),
    "card no JSON": (lambda f: (f / CARD).write_text("{"), "cannot be read as JSON"),
    "card no object": (lambda f: (f / CARD).write_text("[]"), "must hold an object"),
    "format": (_card(lambda c: c.update(format_version=9)), "format_version 1 only. Received: 9"),
    "observation": (
        _card(lambda c: c["observation"].update(version=9)),
        f"observation version {observation.VERSION} only. Received: 9",
    ),
    "names": (
        _card(lambda c: c["observation"]["names"].append("mood")),
        "observation names",
    ),
    "no observation": (_card(lambda c: c.pop("observation")), "`observation` must be an object"),
    "no hashes": (_card(lambda c: c.pop("files")), "`files` must list"),
    "not finite": (_not_finite, "layer 0 holds weights that are not finite"),
    "unknown arrays": (_other_weights, "must hold kernel_0, bias_0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_with_the_reason(folder, damage):
    change, reason = DAMAGES[damage]
    change(folder)
    with pytest.raises(ValueError, match=reason) as error:
        load_policy(folder, runtime="numpy")
    assert str(folder) in str(error.value)


def test_a_folder_of_a_shipped_ones_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    assert load_policy("default").folder.is_absolute()
    for path in ("./default", Path("default"), "."):
        with pytest.raises(ValueError, match=r"Not a policy: there is no (default/)?policy\.json"):
            load_policy(path)


def test_a_copy_made_from_somewhere_else(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    policy = load_policy(folder.name, "numpy")
    monkeypatch.chdir(folder)
    assert copy.deepcopy(policy).folder == policy.folder == folder


def test_a_path_that_tensorflow_takes_for_a_pattern(folder):
    folder = folder.rename(folder.with_name("b[1]"))
    assert load_policy(folder).runtime == "numpy"  # on every backend
    with pytest.raises(ValueError, match=r"pass runtime='numpy'\. Received: .*b\[1\]"):
        load_policy(folder, "tensorflow")


def test_unknown_names():
    with pytest.raises(ValueError, match=r"shipped policies \['default'\]"):
        load_policy("no such policy")
    with pytest.raises(ValueError, match="Expected a folder written by `train-agent`"):
        load_policy(__file__)
    with pytest.raises(ValueError, match="`runtime` must be one of"):
        load_policy(runtime="jax")
    with pytest.raises(ValueError, match=r"the name of a shipped one\. Received: 3"):
        load_policy(3)
    with pytest.raises(ValueError, match=rf"shape \[B, {WIDTH}\]. Received: shape \[3\]"):
        load_policy(runtime="numpy")([0.0] * 3)
