"""Rows in files: append-only JSON Lines that survive `kill -9` (what is on a line is done and never done again), and
whole files written at once."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
from collections.abc import Sequence
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


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """JSON Lines or Parquet, by the name's ending; gzip (`.gz`) without a time stamp, so equal rows are equal files."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), scratch, compression="zstd")
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        scratch.write_bytes(gzip.compress(text, 9, mtime=0) if path.suffix == ".gz" else text)
    scratch.replace(path)
