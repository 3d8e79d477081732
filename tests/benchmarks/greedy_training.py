"""Training for `greedy_defaults.py`: all runs of a problem are one batched network in NumPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from greedy_problems import Problem

BATCH = 32


def train(problem: Problem, schedules: Sequence, rates: Sequence[float], seeds: int) -> np.ndarray:
    """Final validation losses, [seeds, schedules, rates] float64, at most the untrained one."""
    runs = len(schedules) * len(rates)
    n, m = problem.train, problem.train + 512
    x, y = [], []
    for seed in range(seeds):
        inputs, targets = problem.data(seed)
        inputs = (inputs - inputs[:n].mean(0)) / inputs[:n].std(0)
        if problem.classes:
            targets = np.eye(problem.classes)[targets]
        else:
            targets = ((targets - targets[:n].mean()) / targets[:n].std())[:, None]
        x.append(inputs[:m])
        y.append(targets[:m])
    x, y = np.float32(x), np.float32(y)  # [seeds, examples, width]
    rngs = [np.random.default_rng(1000 + seed) for seed in range(seeds)]
    widths = (x.shape[-1], *problem.hidden, y.shape[-1])
    weights = []
    for fan_in, fan_out in itertools.pairwise(widths):
        scale = math.sqrt(6 / (fan_in + fan_out))
        kernels = np.float32([rng.uniform(-scale, scale, (1, fan_in, fan_out)) for rng in rngs])
        weights.append(np.repeat(kernels, runs, axis=1))  # [seeds, runs, fan_in, fan_out]
        weights.append(np.zeros((seeds, runs, 1, fan_out), np.float32))
    slots = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
    steps = [
        [schedule(rate, problem.epochs) for schedule in schedules for rate in rates]
        for _ in range(seeds)
    ]
    lr = np.tile(np.float32(rates), (seeds, len(schedules)))  # [seeds, runs]
    validation = (x[:, None, n:], y[:, None, n:])
    untrained = _forward(problem, weights, *validation)[0]
    count = 0
    for _ in range(problem.epochs):
        orders = np.stack([rng.permutation(n) for rng in rngs])
        losses = np.zeros((seeds, runs))
        for start in range(0, n, BATCH):
            batch = orders[:, start : start + BATCH, None]
            xb = np.take_along_axis(x, batch, 1)[:, None]
            yb = np.take_along_axis(y, batch, 1)[:, None]
            loss, gradients = _gradients(problem, weights, xb, yb)
            losses += loss * (xb.shape[2] / n)
            count += 1
            for w, g, (a, b) in zip(weights, gradients, slots, strict=True):
                _move(problem.optimizer, w, g, a, b, lr[:, :, None, None], count)
        for s in range(seeds):
            lr[s] = [step(loss) for step, loss in zip(steps[s], losses[s].tolist(), strict=True)]
    final = _forward(problem, weights, *validation)[0]
    final = np.where(np.isfinite(final), np.minimum(final, untrained), untrained)
    return final.reshape(seeds, len(schedules), len(rates)).astype(np.float64)


def _forward(problem: Problem, weights: list, x: np.ndarray, y: np.ndarray) -> tuple:
    """Mean losses [seeds, runs], the gradient of the output, and the layers' inputs."""
    inputs = [x]
    for layer in range(0, len(weights), 2):
        out = np.matmul(inputs[-1], weights[layer]) + weights[layer + 1]
        if layer + 2 < len(weights):
            out = np.tanh(out) if problem.activation == "tanh" else np.maximum(out, 0)
            inputs.append(out)
    if problem.classes:
        out = out - out.max(-1, keepdims=True)
        np.exp(out, out=out)
        out /= out.sum(-1, keepdims=True)
        loss = -np.log(np.maximum((out * y).sum(-1), 1e-7)).mean(-1)  # Keras clips here too
        return loss, out - y, inputs
    error = out - y
    return np.square(error[..., 0]).mean(-1), 2 * error, inputs


def _gradients(problem: Problem, weights: list, x: np.ndarray, y: np.ndarray) -> tuple:
    loss, delta, inputs = _forward(problem, weights, x, y)
    delta = delta / np.float32(x.shape[2])
    gradients: list = []
    for layer in range(len(weights) - 2, -1, -2):
        value = inputs[layer // 2]
        gradients[:0] = [np.swapaxes(value, -1, -2) @ delta, delta.sum(2, keepdims=True)]
        if layer:
            delta = delta @ np.swapaxes(weights[layer], -1, -2)
            delta *= (1 - value * value) if problem.activation == "tanh" else (value > 0)
    return loss, gradients


def _move(
    kind: str,
    w: np.ndarray,
    g: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    lr: np.ndarray,
    count: int,
) -> None:
    """One step of the optimizer, in place, with Keras' default coefficients (momentum 0.9)."""
    if kind == "sgd":
        w -= lr * g
    elif kind == "momentum":
        a *= np.float32(0.9)
        a -= lr * g
        w += a
    else:
        a += np.float32(0.1) * (g - a)
        b += np.float32(0.001) * (g * g - b)
        scale = np.float32(math.sqrt(1 - 0.999**count) / (1 - 0.9**count))
        w -= (lr * scale) * a / (np.sqrt(b) + np.float32(1e-7))
