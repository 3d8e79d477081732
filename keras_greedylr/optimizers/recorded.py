"""Many small operations on a GPU started as one, on PyTorch.

PyTorch starts each operation by itself, which takes the host some ten microseconds, longer than a
GPU needs for a scalar. A CUDA graph is a record of operations that is started as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

WARMUP = 3  # calls before the recording, for what they load must not be loaded within it


class Recorded:
    """A function of tensors on a GPU that reads and writes variables, recorded as a CUDA graph.

    The first calls run the function itself. A graph knows variables by their addresses: where one
    has been put elsewhere all begins anew.

    Args:
        function: Takes tensors and returns nothing. It must not wait for the GPU.
    """

    def __init__(self, function: Callable[..., None]):
        self._function = function
        self._known: list[Any] = []
        self._calls = 0
        self._graph: Any = None
        self._inputs: list[Any] = []

    def __call__(self, variables: Sequence[keras.Variable], *inputs: Any) -> None:
        """Runs the function, which uses these variables, on the inputs."""
        import torch

        values = [variable._value for variable in variables]  # `value` takes ten times as long
        known: list[Any] = [(x.data_ptr(), x.dtype, x.device) for x in values]
        known += [(x.dtype, x.device) for x in inputs]
        if known != self._known:
            self._known, self._calls, self._graph = known, 0, None
        self._calls += 1
        if self._calls <= WARMUP or torch.cuda.is_current_stream_capturing():
            self._function(*inputs)
            return
        if self._graph is None:
            self._record(inputs)
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()

    def _record(self, inputs: Sequence[Any]) -> None:
        import torch

        self._inputs = [torch.empty_like(x) for x in inputs]
        device, graph = inputs[0].device, torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            stream = torch.cuda.Stream(device)  # PyTorch's own is on the GPU of the first recording
            # Other threads, those that load data, may use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._function(*self._inputs)
        self._graph = graph
