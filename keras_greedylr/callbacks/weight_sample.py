"""A fixed sample of a model's weights, to see how far they move."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

SIZE = 2_048  # entries: what is read, moved to the host and kept, however large the model


class WeightSample:
    """Reads the same entries of the trainable weights each time it is called.

    The entries are spread over the variables in proportion to their size, so
    that ratios of norms over the sample estimate those over all weights, to
    about `1 / sqrt(2 * SIZE)`, 2 %. Models of up to `SIZE` weights are read whole.

    Args:
        model: A built model.
    """

    def __init__(self, model: keras.Model):
        sizes = np.array([int(np.prod(v.shape)) for v in model.trainable_variables], np.int64)
        total = int(sizes.sum())
        chosen = np.arange(total)
        if total > SIZE:
            # Every (total / SIZE)-th entry, jittered so as to follow no row of a matrix.
            spacing = total / SIZE
            jitter = np.random.default_rng(0).uniform(size=SIZE)
            chosen = ((np.arange(SIZE) + jitter) * spacing).astype(np.int64)
        starts = np.cumsum(sizes) - sizes
        self._places: list[tuple[int, Any]] = []
        for index, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            inside = chosen[(chosen >= start) & (chosen < start + size)] - start
            if len(inside):
                self._places.append((index, inside.astype("int32" if size < 2**31 else "int64")))

    def __call__(self, model: keras.Model) -> np.ndarray:
        """Returns the sampled entries, [n] float32, n at most `SIZE`."""
        variables = model.trainable_variables
        parts = [
            keras.ops.convert_to_numpy(
                keras.ops.take(
                    keras.ops.reshape(variables[index].value, (-1,)),
                    keras.ops.convert_to_tensor(inside, str(inside.dtype)),  # else of `floatx`
                )
            )
            for index, inside in self._places
        ]
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros(1, np.float32)
