"""`train-agent`: trains, evaluates and tunes.

train-agent --problems nmf,networks --out my-policy --seed 0
train-agent evaluate my-policy
train-agent tune-greedy --out greedy.json
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # here only what Python brings: `main` explains what is missing, and Ctrl-C
    from rich.console import Console

EXTRA = ("tf_agents", "tensorflow", "tf_keras", "sklearn", "PIL", "scipy", "rich")  # `agents`
MINUTES = 12.0  # of training; what comes before and after takes up to three more


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 2 after saying what was wrong, or 130 after Ctrl-C."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # the compiler's chatter hides errors
    if missing := [name for name in EXTRA if importlib.util.find_spec(name) is None]:
        print(
            f"train-agent: No module named {', '.join(missing)}: "
            'pip install "keras-greedylr[agents]" with Python 3.11',
            file=sys.stderr,
        )
        return 2
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = arguments[0] if arguments and arguments[0] in COMMANDS else "train"
    if arguments[:1] == [command]:
        arguments = arguments[1:]
    run, make_parser, when_stopped = COMMANDS[command]
    try:
        from rich.console import Console

        console = Console(stderr=True)
        with _plain_errors():
            run(make_parser().parse_args(arguments), console)
    except (ValueError, OSError) as error:
        _say(console, f"train-agent: {error}", style="red")
        return 2
    except KeyboardInterrupt:
        print(f"\nStopped. {when_stopped}", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Turns TensorFlow's own errors, as of a full disk or memory, into what `main` says."""
    try:
        yield
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
            raise
        raise ValueError(f"TensorFlow: {error.message}") from error


def _train_parser() -> argparse.ArgumentParser:
    from keras_greedylr_agents.train import Config

    parser = argparse.ArgumentParser(
        prog="train-agent",
        description="Train a learned schedule. Other commands: evaluate, tune-greedy.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the policy")
    parser.add_argument(
        "--minutes", type=float,
        help="begin no iteration but the first after that; "
        f"default {MINUTES:g}, with --iterations no limit",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with what --out began")
    parser.add_argument(
        "--evaluate", choices=("quick", "none"), default="quick",
        help="what the policy is run on at the end: a little of the development families",
    )  # fmt: skip
    for field in fields(Config):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=None if field.name == "iterations" else field.default,  # is it asked for?
            help=f"default {field.default}",
        )
    return parser


def _train(options: argparse.Namespace, console: Console) -> None:
    import tensorflow as tf
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from keras_greedylr.policy import act_with
    from keras_greedylr.validation import check_float
    from keras_greedylr_agents import evaluate, export
    from keras_greedylr_agents.problems.families import FAMILIES
    from keras_greedylr_agents.train import Config, Trainer, use_threads

    given = {field.name: getattr(options, field.name) for field in fields(Config)}
    config = Config(**{name: value for name, value in given.items() if value is not None})
    minutes = options.minutes
    if minutes is None and options.iterations is None:
        minutes = MINUTES
    if minutes is not None:
        check_float("minutes", minutes, above=0.0)
    export.check_target(options.out)
    working = options.out.with_name(options.out.name + ".training")
    use_threads()
    tf.get_logger().setLevel("ERROR")
    trainer = Trainer(config, working, options.resume)
    if options.resume and not int(trainer.iteration):
        _say(console, f"{working} holds no iteration to go on from: training from the start.")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[state]}"))  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=config.iterations, state="")
        progress.update(task, completed=int(trainer.iteration))

        def report(iteration: int, metrics: dict[str, float]) -> None:
            state = (
                f"return {metrics['return']:+.3f}  worst {metrics['worst_return']:+.2f}  "
                f"{metrics['inner_steps_per_second']:,.0f} steps/s"
            )
            progress.update(task, completed=iteration, state=state)

        trainer.run(report, minutes)
    done = int(trainer.iteration)
    if done < config.iterations:
        of = f"{done} of {config.iterations} iterations"
        _say(console, f"stopped after {of}; --resume goes on")
    layers = export.actor_layers(trainer.agent)
    summary = None
    if options.evaluate == "quick":
        acts = {
            "learned": act_with(layers),
            "untrained": act_with(export.untrained_layers(config.seed, config.hidden)),
        }
        plan = evaluate.Plan(seeds=3, tuning_seeds=2, rates=(0.01, 1.0, 100.0))
        with console.status("evaluating on the development families") as status:
            outcomes = evaluate.evaluate(acts, FAMILIES["development"][::2], plan, status.update)
        summary = evaluate.summarise(outcomes, "learned")
    export.write_policy(
        options.out,
        layers,
        command=shlex.join(["train-agent", *_given(options)]),
        config=asdict(config),
        iterations=done,
        scores=_scores(summary),
    )
    _say(console, f"policy written to {options.out}")
    if summary is not None:
        _print(evaluate.markdown(summary))


def _given(options: argparse.Namespace) -> list[str]:
    """The options that made the policy, where they differ from their defaults."""
    parser = _train_parser()
    given = []
    for name, value in vars(options).items():
        if value != parser.get_default(name) and name not in ("resume", "evaluate"):
            # of a path only its name: a card goes to other machines
            value = value.name if isinstance(value, Path) else value
            given += [f"--{name.replace('_', '-')}", str(value)]
    return given


def _scores(summary: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the card keeps of an evaluation."""
    if summary is None:
        return None
    rows = {
        name: {loss: row[loss]["ratio"] for loss in ("validation", "training")}
        for name, row in summary["table"].items()
    }
    return {"problems": summary["problems"], "plan": summary["plan"], "ratio_to": rows}


def _evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train-agent evaluate", description="Run a policy against rivals and controls."
    )
    parser.add_argument("folder", help="a policy's folder, or the name of a shipped one")
    parser.add_argument("--split", choices=("development", "test"), default="test")
    parser.add_argument("--problems", default="nmf,networks", help="families of the split")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tuning-seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="of .json and .md")
    return parser


def _evaluate(options: argparse.Namespace, console: Console) -> None:
    from keras_greedylr.policy import act_with, load_policy
    from keras_greedylr.whole_file import check_writable, write_whole
    from keras_greedylr_agents import evaluate
    from keras_greedylr_agents.export import untrained_layers
    from keras_greedylr_agents.problems.families import select

    policy = load_policy(options.folder, runtime="numpy")
    if policy.folder in options.out.absolute().parents:
        raise ValueError(
            f"A policy with a file that is not its own is refused: write elsewhere than into "
            f"{policy.folder}. Received: --out {options.out}"
        )
    if options.out.name in ("", ".."):
        raise ValueError(f"`--out` is a name for two files. Received: --out {options.out}")
    # Not `with_suffix`: what follows a dot may tell one name from another.
    numbers, table = (options.out.with_name(options.out.name + end) for end in (".json", ".md"))
    check_writable(numbers)
    check_writable(table)
    plan = evaluate.Plan(seeds=options.seeds, tuning_seeds=options.tuning_seeds)
    problems = select(options.problems, options.split)
    config = policy.card.get("config") or {}
    acts = {
        "learned": policy.act,
        "untrained": act_with(untrained_layers(config.get("seed", 0), config.get("hidden", 64))),
    }
    begin = time.monotonic()
    with console.status("evaluating") as status:
        done = evaluate.evaluate(
            acts, problems, plan,
            lambda what: status.update(f"{what} done, {time.monotonic() - begin:.0f} s"),
        )  # fmt: skip
    # Whose figures these are: a card names its files by their hashes.
    files = policy.card["files"]
    summary = {**evaluate.summarise(done, "learned"), "split": options.split, "files": files}
    text = evaluate.markdown(summary)
    write_whole(numbers, evaluate.to_json(summary))
    write_whole(table, text)
    _print(text)
    _say(console, f"written to {numbers} and {table}")


def _tune_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train-agent tune-greedy",
        description="Find GreedyLR's parameters that do best over the training families.",
    )
    parser.add_argument("--split", choices=("training", "development"), default="training")
    parser.add_argument("--problems", default="nmf,networks", help="families of the split")
    parser.add_argument("--candidates", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("greedy.json"))
    return parser


def _tune(options: argparse.Namespace, console: Console) -> None:
    from keras_greedylr.whole_file import check_writable, write_whole
    from keras_greedylr_agents import tune
    from keras_greedylr_agents.problems.families import select

    problems = select(options.problems, options.split)
    check_writable(options.out)
    with console.status("tuning") as status:
        result = tune.tune_greedy(
            problems, options.candidates, options.seeds, options.seed, status.update
        )
    write_whole(options.out, tune.to_json(result))
    _print(f"best of {len(result)}: {result[0]}\ndefaults score 1; written to {options.out}\n")


def _say(console: Console, text: str, **style: Any) -> None:
    """Says a line as it is: a path that is broken in two could not be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, **style)


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


COMMANDS = {  # what it does, its options, and what to know after Ctrl-C
    "train": (
        _train,
        _train_parser,
        "Nothing but the last iteration is lost; the same command with --resume goes on.",
    ),
    "evaluate": (_evaluate, _evaluate_parser, "Nothing was written."),
    "tune-greedy": (_tune, _tune_parser, "Nothing was written."),
}

if __name__ == "__main__":
    sys.exit(main())
