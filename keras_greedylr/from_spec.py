"""Functions that a command is given by the name of their file or module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

HERE = Path(__file__).parent
# Where files of somebody else than the user lie.
INSTALLED = ("<frozen", str(HERE), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))


class FromSpec:
    """A function of a file or module, looked up when it is called: other processes can, too.

    Args:
        spec: `"file.py:function"` or `"module:function"`.

    Raises:
        ValueError: if there is no such function, or if it fails.
    """

    def __init__(self, spec: str):
        self.spec = spec
        self._function()

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function itself, for those who ask for its source."""
        return self._function()

    def __call__(self, *arguments: Any) -> Any:
        """Calls it."""
        function = self._function()
        try:
            return function(*arguments)
        except Exception as error:
            given = ", ".join(type(argument).__name__ for argument in arguments)
            raise ValueError(f"{self.spec}({given}) failed: {_told(error)}") from error

    def _function(self) -> Callable[..., Any]:
        place, _, name = self.spec.rpartition(":")
        if not place or not name:
            raise ValueError(f"Expected FILE.py:FUNCTION or MODULE:FUNCTION, got {self.spec!r}.")
        try:
            module = _module(place)
        except Exception as error:
            raise ValueError(f"{self.spec!r} cannot be loaded: {_told(error)}") from error
        function = getattr(module, name, None)
        if not callable(function):
            raise ValueError(f"There is no function {name!r} in {place!r}.")
        if isinstance(function, keras.Model):  # which can be called, but does not make one
            raise ValueError(
                f"{self.spec!r} must be a function, for --model one that returns a compiled model. "
                f"Received: {type(function)}"
            )
        return function


def _told(error: Exception) -> str:
    """An exception, with the last line of the user's on its way."""
    lines = [
        f" ({Path(frame.filename).name}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(INSTALLED)
    ]
    return f"{type(error).__name__}: {error}" + "".join(lines[-1:])


def _module(place: str) -> Any:
    """A module by its name or its file, loaded once."""
    if not place.endswith(".py"):
        if "" not in sys.path:  # a command does not look where it is called
            sys.path.insert(0, "")
        return importlib.import_module(place)
    path = Path(place).resolve()
    name = str(path)  # files of the same name may lie in two folders
    if name not in sys.modules:
        if str(path.parent) not in sys.path:  # what lies beside it, as with `python place`
            sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(name, name)
        assert spec is not None and spec.loader is not None  # it ends with .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
