"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Replaces the file at `path` in one step; a crash leaves the old or the new one.

    Args:
        path: Where the file is; its folder is made if need be.
        text: All it is to hold, written as UTF-8.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`, whose files nobody else may read.
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def check_writable(path: Path) -> None:
    """Raises before long work what writing its result to `path` would raise after it.

    Raises:
        ValueError: if `path` is no file's name, or a folder's.
        OSError: if there can be no file.
    """
    if path.name in ("", "..") or path.is_dir():
        raise ValueError(f"A file's name is expected. Received: {path}, which is a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    probe = path.with_name(f"{path.name}.{os.getpid()}")
    probe.touch()
    probe.unlink()
