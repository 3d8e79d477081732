"""120 traces of the Hugging Face port, and the rule that each is of."""

import json
from pathlib import Path

from keras_greedylr import GreedyRule

GOLDEN = json.loads((Path(__file__).parent / "golden" / "greedy_traces.json").read_text())


def golden_rule(config):
    """The rule of a case's `config`, the port's arguments in our names."""
    return GreedyRule(
        factor=config["factor"],
        patience=config["patience"],
        min_delta=config["threshold"],
        min_delta_mode=config["threshold_mode"],
        window=config["window_size"] if config["smooth"] else 1,
        cooldown=config["cooldown"],
        warmup=config["warmup"],
        phases="hold",
        min_lr=config["min_lr"],
        max_lr=config["max_lr"],
        reset_after=config["reset_start"] or None,
        mode=config["mode"],
    )
