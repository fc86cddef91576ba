"""Append-only JSON Lines that survive `kill -9`: what is on a line is done and never done again."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import IO

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.problems import Row


def open_journal(path: Path) -> tuple[IO[bytes], list[Row]]:
    """The file, locked for this process and ready to append to, and its complete rows.

    A last line that a kill cut short is removed. Raises ConfigError when another process writes to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(f"{path} is being written by another process", "give each run an --out of its own") from None
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        file.truncate(len(whole))
    return file, [json.loads(line) for line in whole.splitlines() if line.strip()]


def append(journal: IO[bytes], row: Row) -> None:
    """One line, on disk before this returns."""
    journal.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    journal.flush()
    os.fsync(journal.fileno())
