"""The command `keras-greedylr`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import keras

import keras_greedylr


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments given, or the program's, and returns its exit status."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    return arguments.run(arguments)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser: a sub-command is a parser here whose default for `run` does the work."""
    parser = argparse.ArgumentParser(
        prog="keras-greedylr",
        description="Learning-rate schedules for Keras that watch the training run.",
        epilog="In Python: model.fit(..., callbacks=[keras_greedylr.GreedyLR()])",
    )
    parser.add_argument("--version", action="version", version=_versions())
    parser.set_defaults(run=lambda arguments: _help(parser))
    return parser


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def _versions() -> str:
    """What a report of a bug has to name."""
    return (
        f"keras-greedylr {keras_greedylr.__version__}, "
        f"Keras {keras.__version__} on {keras.backend.backend()}"
    )
