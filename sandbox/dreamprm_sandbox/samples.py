"""Programs to grade, out of the files that benchmarks use.

Several files: `{"task_id", "files": {path: text}}`, or `"archive"`: a tar or zip in base64, which is read in memory.
EvalPlus: JSON Lines (plain or gzip) of `{"task_id", "solution" | "completion"}`; pools have the same form.
LiveCodeBench custom evaluation: a JSON list of `{"question_id", "code_list": [...]}`.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox.submission import Program


@dataclass(frozen=True, slots=True)
class Sample:
    """`index` counts the programs of the file from 0. `code` is a text, texts by path, or an archive."""

    task_id: str
    index: int
    code: Program


def read(path: Path, problems: Mapping[str, Problem]) -> list[Sample]:
    """All programs of a file, in its order. Raises ProblemError naming the place."""
    return [entry.sample for entry in entries(path, problems)]


@dataclass(frozen=True, slots=True)
class Entry:
    """A program with all that its file says of it, and where."""

    sample: Sample
    row: Mapping[str, Any]
    where: str


def entries(path: Path, problems: Mapping[str, Problem]) -> list[Entry]:
    """As `read`, with the rows that the programs came from."""
    found = [
        Entry(Sample(task_id, index, code), row, where)
        for index, (task_id, code, row, where) in enumerate(_programs(path, problems))
    ]
    if not found:
        raise ProblemError(f"{path}: holds no programs")
    return found


def _programs(path: Path, problems: Mapping[str, Problem]) -> Iterator[tuple[str, Program, Mapping[str, Any], str]]:
    for where, row in rows(path):
        task_id = str(row.get("task_id", row.get("question_id")))
        if task_id not in problems:
            raise ProblemError(f"{where}: no problem {task_id!r}", "problems and samples must share their task_id")
        if isinstance(codes := row.get("code_list"), list):
            programs = codes
        elif "files" in row or "archive" in row:
            yield task_id, _files(row, where), row, where
            continue
        elif "solution" in row:
            programs = [row["solution"] or ""]  # nothing written is a program that fails
        elif isinstance(completion := row.get("completion"), str):
            programs = [problems[task_id].starter_code + completion]
        else:
            raise ProblemError(f"{where}: no 'solution', 'completion' or 'code_list'")
        for code in programs:
            if not isinstance(code, str):
                raise ProblemError(f"{where}: a program must be text")
            yield task_id, code, row, where


def _files(row: Mapping[str, Any], where: str) -> Program:
    """A submission of several files, not opened yet: what it may not hold makes a verdict."""
    if "archive" in row:
        try:
            return base64.b64decode(row["archive"], validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise ProblemError(f"{where}: 'archive' is not base64") from None
    files = row["files"]
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise ProblemError(f"{where}: 'files' must be an object of texts by path")
    return files


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) for each row of a file of JSON Lines (plain or gzip) or of one JSON list. Raises ProblemError."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ProblemError(f"cannot read {path}: {said}") from None
    if text.lstrip().startswith("["):
        parts = [(f"{path}: entry {number}", row) for number, row in enumerate(_json(text, str(path)), 1)]
    else:
        lines = enumerate(text.split("\n"), 1)
        parts = [(f"{path}:{number}", _json(line, f"{path}:{number}")) for number, line in lines if line.strip()]
    for where, row in parts:
        if not isinstance(row, dict):
            raise ProblemError(f"{where}: not an object")
        yield where, row


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"{where}: not JSON: {error}") from None
