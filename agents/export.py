"""From an agent to a policy's folder, which needs neither TF-Agents nor legacy Keras."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_greedylr import observation
from keras_greedylr.policy import CARD, FORMAT_VERSION, WEIGHTS, Layers, file_hashes

if TYPE_CHECKING:
    from tf_agents.agents.ppo import ppo_clip_agent

PACKAGES = ("keras-greedylr", "tensorflow", "tf-agents", "tf-keras", "numpy", "scikit-learn")


def actor_layers(agent: ppo_clip_agent.PPOClipAgent) -> Layers:
    """Returns the actor's weights without the actions' deviation, which only training needs."""
    weights = [variable.numpy() for variable in agent.actor_net.trainable_variables]
    *chain, _deviation = weights
    return list(zip(chain[::2], chain[1::2], strict=True))


def untrained_layers(seed: int, hidden: int = 64) -> Layers:
    """Returns a policy nobody trained: a control of evaluations."""
    rng = np.random.default_rng(seed)
    widths = (len(observation.NAMES), hidden, hidden, 1)
    layers = []
    for rows, columns in itertools.pairwise(widths):
        limit = (6.0 / (rows + columns)) ** 0.5  # Glorot's, as the actor's layers start
        kernel = rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)
        layers.append((kernel, np.zeros(columns, np.float32)))
    kernel, bias = layers[-1]
    return [*layers[:-1], (kernel * np.float32(0.01), bias)]  # as small as the actor's start


def write_policy(folder: Path, layers: Layers, **card: Any) -> None:
    """Writes a policy's folder, whole or not at all; a policy that is there is replaced.

    Args:
        folder: Where to.
        layers: The network.
        **card: What else the card says: `config`, `scores`, `command`, ...

    Raises:
        ValueError: if there is something at `folder` that is not a policy, or a weight is not
            finite.
        OSError: if it cannot be written; nothing is left behind then.
    """
    if not all(np.isfinite(array).all() for layer in layers for array in layer):
        raise ValueError("The policy's weights are not finite: its training has diverged.")
    check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _beside(folder) as written:
        module = _Module(layers)
        tf.saved_model.save(module, str(written), {"act": module.act})
        shutil.rmtree(written / "assets", ignore_errors=True)  # empty; git would not keep it
        arrays = {f"kernel_{i}": kernel for i, (kernel, _) in enumerate(layers)}
        arrays |= {f"bias_{i}": bias for i, (_, bias) in enumerate(layers)}
        np.savez(written / WEIGHTS, **arrays)
        text = json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "observation": {
                    "version": observation.VERSION,
                    "names": list(observation.NAMES),
                    "decisions": observation.DECISIONS,
                },
                "action": {
                    "stride": observation.STRIDE,
                    "start": observation.START,
                    "anchor": "cosine to zero",
                },
                **card,
                "versions": {"python": platform.python_version(), **_versions()},
                "files": file_hashes(written),
            },
            indent=2,
            allow_nan=False,
        )
        (written / CARD).write_text(text + "\n", encoding="utf-8")
        _replace(folder, written)


def check_target(folder: Path) -> None:
    """Raises ValueError if writing a policy to `folder` would destroy something else."""
    if not folder.exists() or _is_empty(folder):
        return
    try:
        own = set(json.loads((folder / CARD).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, TypeError, KeyError):
        raise ValueError(
            f"{folder} exists and is not a policy (it has no {CARD} that lists its files). Choose "
            "another folder."
        ) from None
    if others := sorted(set(file_hashes(folder)) - own):
        raise ValueError(
            f"{folder} holds {others[0]}, which is not the policy's and would be lost. Choose "
            "another folder."
        )


class _Module(tf.Module):
    """The network with TensorFlow alone; only its own variables are saved."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.layers = [(tf.Variable(kernel), tf.Variable(bias)) for kernel, bias in layers]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, len(observation.NAMES)], tf.float32, name="observation")
        ],
        autograph=False,
    )
    def act(self, observation: tf.Tensor) -> dict[str, tf.Tensor]:
        hidden = observation
        for kernel, bias in self.layers:
            hidden = tf.tanh(tf.matmul(hidden, kernel) + bias)
        return {"action": hidden[:, 0]}


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A temporary folder on the same disk, gone afterwards if it was not moved."""
    written = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    written.chmod(0o755)
    try:
        yield written
    finally:
        shutil.rmtree(written, ignore_errors=True)


def _replace(folder: Path, written: Path) -> None:
    """Moves `written` to `folder`; the old one, if any, goes only once the new one is there."""
    if not folder.exists():
        written.rename(folder)
        return
    with _beside(folder) as old:
        folder.rename(old / "old")
        try:
            written.rename(folder)
        except BaseException:  # Ctrl-C as well
            (old / "old").rename(folder)
            raise


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
