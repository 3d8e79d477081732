"""The command `keras-greedylr`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

import keras_greedylr
from keras_greedylr.from_spec import FromSpec

EXTRA = ("matplotlib", "rich", "scipy", "sklearn")  # what the extra `compare` brings
HERE = Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments given, or the program's, and returns its exit status.

    It is 2 after saying what was wrong, and 130 after Ctrl-C.
    """
    parser = make_parser()
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        wrong = f"{error}: pip install 'keras-greedylr[compare]'"
    except (ValueError, OSError) as error:
        if isinstance(error, ValueError) and not _is_explained(error):
            raise
        wrong = str(error)
    except KeyboardInterrupt:
        return 130
    print(f"{parser.prog}: {wrong}", file=sys.stderr)
    return 2


def _is_explained(error: Exception) -> bool:
    """Whether this package raised it; of another's, out of a `fit`, one has to see from where."""
    raised = getattr(error.__cause__, "tb", "")  # in another process: a text
    raised = raised or "".join(traceback.format_tb(error.__traceback__))
    return HERE in Path(re.findall(r'File "(.+?)"', raised)[-1]).parents


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser: a sub-command is a parser here whose default for `run` does the work."""
    parser = argparse.ArgumentParser(
        prog="keras-greedylr",
        description="Learning-rate schedules for Keras that watch the training run.",
        epilog="In Python: model.fit(..., callbacks=[keras_greedylr.GreedyLR()])",
    )
    parser.add_argument("--version", action="version", version=_versions())
    parser.set_defaults(run=lambda arguments: _help(parser))
    commands = parser.add_subparsers(metavar="command")
    _add_compare(commands)
    _add_find_lr(commands)
    return parser


# keras-greedylr compare


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="train a model under several schedules, report which did best",
        description="Train a model under several schedules and report what came of it. The same "
        "command goes on where it was stopped.",
    )
    _add_model(parser)
    parser.add_argument(
        "--schedules", default="greedy,learned,cosine,constant",
        help="names, or FILE.py:FUNCTION of your own, separated by commas "
        f"(default: %(default)s){_there_are('--schedules')}",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=6, help="runs of each (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="default: the problem's, or 10")
    parser.add_argument("--metric", help="default: val_loss, or loss without validation data")
    parser.add_argument("--mode", choices=("auto", "min", "max"), default="auto")
    parser.add_argument(
        "--rates", type=_numbers, default=(1.0,),
        help="multiples of the model's rate to run at as well: 0.01,0.1,1,10",
    )  # fmt: skip
    parser.add_argument("--tune", action="store_true", help="tune each schedule's rate first")
    parser.add_argument("--target", type=float, help="default: what the reference ends with")
    parser.add_argument("--reference", help="default: the first schedule")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("comparison"),
        help="folder of runs and report (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape

    from keras_greedylr.compare import compare, heading, rich_table, write_report
    from keras_greedylr.compare.report import rich_rates
    from keras_greedylr.compare.runner import hush

    hush()
    source = _source(arguments)
    names = list(filter(None, map(str.strip, arguments.schedules.split(","))))
    if len(set(names)) < len(names):
        raise ValueError(f"--schedules must be different names. Received: {names}")
    schedules = {name: FromSpec(name) if ":" in name else None for name in names}
    try:
        comparison = compare(
            source.build_model,
            source.data,
            schedules,
            seeds=arguments.seeds,
            epochs=_given(arguments.epochs, source.epochs),
            batch_size=_given(arguments.batch_size, source.batch_size),
            metric=arguments.metric,
            mode=arguments.mode,
            rates=arguments.rates,
            tune=arguments.tune,
            target=arguments.target,
            reference=arguments.reference,
            jobs=arguments.jobs,
            out=arguments.out,
        )
    except KeyboardInterrupt:
        print(
            f"\nStopped. What was done is in {arguments.out}; the same command goes on from there.",
            file=sys.stderr,
        )
        return 130
    paths = write_report(comparison, arguments.out)  # first: printing can fail, as into `head`
    console = Console()
    console.print(rich_table(comparison), escape(heading(comparison)), sep="\n", highlight=False)
    if len(comparison.multiples) > 1:
        console.print(rich_rates(comparison))
    print(*paths, sep="\n")
    print(f"tensorboard --logdir {arguments.out / 'logs'}")
    return 0


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


# keras-greedylr find-lr


def _add_find_lr(commands: Any) -> None:
    parser = commands.add_parser(
        "find-lr",
        help="suggest a learning rate",
        description="Train at rates that grow from batch to batch and suggest one.",
    )
    _add_model(parser)
    parser.add_argument("--min-lr", type=float, default=1e-6, help="default: %(default)s")
    parser.add_argument("--max-lr", type=float, default=10.0, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=100, help="batches (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("find-lr"),
        help="folder of picture and numbers (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=_find_lr)


def _find_lr(arguments: argparse.Namespace) -> int:
    from keras_greedylr.compare.data import fit_arguments, without_validation
    from keras_greedylr.compare.pictures import draw_range_test
    from keras_greedylr.find_lr import find_lr
    from keras_greedylr.whole_file import check_writable, write_whole

    source = _source(arguments)
    data = fit_arguments(source.data, _given(arguments.batch_size, source.batch_size))
    limits = {name: getattr(arguments, name) for name in ("min_lr", "max_lr", "steps")}
    picture = arguments.out / "find-lr.png"
    check_writable(picture)  # a test whose result has no place is lost
    keras.utils.set_random_seed(0)
    test = find_lr(source.build_model(), **without_validation(data), **limits)
    draw_range_test(test, picture)
    numbers = {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in test._asdict().items()
    }
    text = json.dumps(numbers, indent=1, allow_nan=False) + "\n"
    write_whole(arguments.out / "find-lr.json", text)
    end = ", where the loss blew up" if test.blew_up else ""
    print(
        f"{len(test.rates)} batches, from {test.rates[0]:.2g} to {test.rates[-1]:.2g}{end}.\n"
        f"Suggested rate: {test.suggestion:.2g}"
    )
    if test.doubt:
        print(test.doubt.replace("min_lr", "--min-lr").replace("max_lr", "--max-lr"))
    print(f"The picture: {picture}")
    return 0


# The model and its data.


class Source(NamedTuple):
    """A model and what it is trained on."""

    build_model: Callable[[], keras.Model]
    data: Any
    epochs: int
    batch_size: int


def _add_model(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--problem", help=f"one that comes with the package{_there_are('--problem')}")
    what.add_argument("--model", help="FILE.py:FUNCTION that returns a compiled model")
    parser.add_argument("--data", help="FILE.py:FUNCTION that returns (x, y, x_val, y_val)")
    parser.add_argument(
        "--batch-size", type=int,
        help="of arrays that come without one of their own (default: the problem's, or 32)",
    )  # fmt: skip


def _there_are(option: str) -> str:
    """The names an option takes, for its help, which also has to do without the extra."""
    try:
        from keras_greedylr.compare.contestants import CONTESTANTS
        from keras_greedylr.compare.problems import PROBLEMS
    except ModuleNotFoundError:
        return ""
    names = {"--schedules": list(CONTESTANTS), "--problem": list(PROBLEMS)}[option]
    return f"; there are {', '.join(names)}"


def _source(arguments: argparse.Namespace) -> Source:
    if arguments.problem is not None:
        from keras_greedylr.compare.problems import get_problem

        if arguments.data is not None:
            raise ValueError("--data goes with --model: a problem has its own.")
        return Source(*get_problem(arguments.problem))
    if arguments.data is None:
        raise ValueError("--model needs --data FILE.py:FUNCTION.")
    return Source(FromSpec(arguments.model), FromSpec(arguments.data), 10, 32)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"expected numbers such as 0.1,1,10, got {text!r}"
        raise argparse.ArgumentTypeError(message) from error


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def _versions() -> str:
    """What a report of a bug has to name."""
    return (
        f"keras-greedylr {keras_greedylr.__version__}, "
        f"Keras {keras.__version__} on {keras.backend.backend()}"
    )
