"""A schedule's state on disk: whole or not at all, versioned, strict JSON.

The file holds the states after the last few epochs, not only the last, because
whatever restores the weights (`keras.callbacks.BackupAndRestore`) may go back
to an epoch before it when training was killed between the two writes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from keras_greedylr.whole_file import write_whole

FORMAT = 1
KEPT_EPOCHS = 3  # BackupAndRestore keeps two at most, and lags by one


class SavedStates(NamedTuple):
    """What a state file holds."""

    finished: bool  # the last `fit` came to its end
    epochs: dict[int, Any]  # epochs done -> the schedule's state then, JSON values

    def after(self, epoch: int) -> Any:
        """The state a `fit` that begins at `epoch` goes on from.

        Raises:
            ValueError: if training was cut off and begins at an epoch whose
                state the file does not hold.
        """
        last = self.epochs[max(self.epochs)]
        if self.finished:
            return last
        if epoch in self.epochs:
            return self.epochs[epoch]
        if epoch == 0:  # weights were restored by other means, epochs count anew
            return last
        raise ValueError(
            f"Training begins at epoch {epoch}, but the state file holds only the states after "
            f"{sorted(self.epochs)} epochs. Restore the weights that belong to one of these, or "
            "delete the state file to start the schedule afresh."
        )


def write_states(path: str | os.PathLike, config: dict[str, Any], states: SavedStates) -> None:
    """Replaces the file at `path` in one step; a crash leaves the old or the new one.

    Args:
        path: Where the file is; its folder is made if need be.
        config: JSON values that say whose state this is.
        states: The states; all but the last `KEPT_EPOCHS` are dropped.
    """
    kept = sorted(states.epochs)[-KEPT_EPOCHS:]
    content = {
        "format": FORMAT,
        "config": config,
        "finished": states.finished,
        "epochs": {str(epoch): states.epochs[epoch] for epoch in kept},
    }
    text = json.dumps(content, allow_nan=False, indent=1)
    write_whole(path, text)


def read_states(path: str | os.PathLike, config: dict[str, Any]) -> SavedStates | None:
    """Reads the file at `path`; None where there is none.

    Raises:
        ValueError: if the file is damaged, of another format, or was written
            under another configuration.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _damaged(path, str(error)) from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict) or "format" not in content:
        raise _damaged(path, "it has no `format`")
    if content["format"] != FORMAT:
        raise ValueError(
            f"State file '{path}' has format {content['format']!r}; this version of "
            f"keras-greedylr reads format {FORMAT}."
        )
    if set(content) != {"format", "config", "finished", "epochs"}:
        raise _damaged(path, f"its entries are {sorted(content)}")
    if content["config"] != json.loads(json.dumps(config)):
        raise ValueError(
            f"State file '{path}' belongs to another configuration: "
            f"{_differences(content['config'], config)}. Use the configuration it was written "
            "with, or delete the file to start the schedule afresh."
        )
    epochs = content["epochs"]
    if not isinstance(epochs, dict) or not epochs or not all(map(_is_epoch, epochs)):
        raise _damaged(path, "it holds no epochs")
    if not all(isinstance(state, dict) for state in epochs.values()):
        raise _damaged(path, "it holds what is no state")
    if not isinstance(content["finished"], bool):
        raise _damaged(path, f"`finished` is {content['finished']!r}")
    return SavedStates(content["finished"], {int(key): epochs[key] for key in epochs})


def _is_epoch(key: str) -> bool:
    return key.isdecimal() and len(key) < 19  # longer ones Python may refuse to read


def _damaged(path: str | os.PathLike, why: str) -> ValueError:
    return ValueError(
        f"State file '{path}' is damaged or was cut short ({why}). Nothing was read from it. "
        "Delete it to start the schedule afresh."
    )


def _differences(stored: Any, config: dict[str, Any]) -> str:
    if not isinstance(stored, dict):
        return f"the file has {stored!r}"
    names = sorted(set(stored) | set(config))
    if stored.get("schedule") != config.get("schedule"):  # whose arguments are others anyway
        names = ["schedule"]
    return ", ".join(
        f"{name} is {stored.get(name)!r} in the file and {config.get(name)!r} here"
        for name in names
        if stored.get(name) != json.loads(json.dumps(config.get(name)))
    )
