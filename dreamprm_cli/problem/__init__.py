"""Problems from files: a markdown file (or standard input), or a row of a JSON Lines set, `FILE.jsonl#TASK_ID`.

Whatever cannot be used raises ProblemError: one line that says what is wrong, and where.
"""

from __future__ import annotations

import difflib
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.problem.markdown import parse_markdown
from dreamprm_cli.problem.rows import Row, problem_of_row, task_id_of_row
from dreamprm_cli.types import Problem

__all__ = ["load_problem", "load_problem_set", "parse_markdown", "problem_of_row", "read_rows", "read_text"]

_SET_REF = re.compile(r"(?P<file>.+?\.jsonl(?:\.gz)?)(?:#(?P<task>.*))?", re.DOTALL)


def load_problem(ref: str, stdin: TextIO | None = None) -> Problem:
    """The problem that `ref` names: a markdown file, `-` for markdown on standard input, or `FILE.jsonl[.gz]#TASK_ID`.

    A set with one row needs no TASK_ID. Raises ProblemError.
    """
    if ref == "-":
        return parse_markdown(read_text(ref, stdin), "<stdin>", problem_id="stdin")
    match = _SET_REF.fullmatch(ref)
    if match and not (match["task"] and Path(ref).is_file()):
        return _pick(Path(match["file"]), match["task"])
    path = Path(ref)
    if path.suffix == ".json" and path.is_file():
        raise ProblemError(f"{path}: neither markdown nor JSON Lines", "name a set FILE.jsonl, one problem a line")
    return parse_markdown(read_text(ref), ref, problem_id=path.stem, folder=path.parent)


def read_text(ref: str, stdin: TextIO | None = None) -> str:
    """The text of a file, gzipped or not, or of standard input for `-`; line ends become "\\n".

    Raises ProblemError when it cannot be read, is binary or holds nothing.
    """
    if ref == "-":
        return _read_stdin(stdin or sys.stdin)
    return _decode(_read(Path(ref)), ref)


def load_problem_set(path: str | Path) -> list[Problem]:
    """All problems of a JSON Lines file, in its order. Raises ProblemError; two rows of one id are an error."""
    return [problem_of_row(row, where) for where, row, _ in read_rows(Path(path))]


def read_rows(path: Path) -> Iterator[tuple[str, Row, str]]:
    """(`FILE:LINE`, row, task id) for each row of a JSON Lines file, gzipped or not; blank lines are skipped.

    Raises ProblemError for a file that cannot be read, is empty, or has a line that is no JSON object or a second
    row of one id.
    """
    seen: dict[str, str] = {}
    # Not splitlines: JSON strings may hold line separators other than "\n".
    for number, line in enumerate(_decode(_read(path), str(path)).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        row = _json_object(line, where)
        task_id = task_id_of_row(row, where)
        if task_id in seen:
            raise ProblemError(f"{where}: task id {task_id!r} occurs twice (first at {seen[task_id]})")
        seen[task_id] = where
        yield where, row, task_id
    if not seen:
        raise ProblemError(f"{path}: holds no problems")


def _pick(path: Path, task: str | None) -> Problem:
    rows = {task_id: (where, row) for where, row, task_id in read_rows(path)}
    if not task:
        if len(rows) > 1:
            raise ProblemError(f"{path}: holds {len(rows)} problems", f"name one of them: {path}#{next(iter(rows))}")
        task = next(iter(rows))
    if task not in rows:
        close = difflib.get_close_matches(task, rows, n=1, cutoff=0.3)
        raise ProblemError(f"{path}: no task {task!r}", f"did you mean {path}#{close[0]}?" if close else "")
    where, row = rows[task]
    return problem_of_row(row, where)


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ProblemError(f"{where}: not valid JSON: {said}") from None
    except RecursionError:
        raise ProblemError(f"{where}: JSON nested too deep") from None
    if not isinstance(row, dict):
        raise ProblemError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
    return row


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ProblemError(f"there is no file {path}", _nearby(path)) from None
    except IsADirectoryError:
        raise ProblemError(f"{path} is a directory, not a file", _nearby(path / "*")) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ProblemError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ProblemError(f"{path}: damaged gzip file ({error})") from None


def _read_stdin(stream: TextIO) -> str:
    raw = getattr(stream, "buffer", None)  # the bytes, whatever encoding the locale gave the stream
    if isinstance(raw, (io.BufferedIOBase, io.RawIOBase)):
        return _decode(raw.read(), "<stdin>")
    return _decode(stream.read().encode("utf-8", "surrogateescape"), "<stdin>")


def _decode(data: bytes, where: str) -> str:
    if b"\0" in data:
        raise ProblemError(f"{where}: a binary file, not text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProblemError(f"{where}:{line}: not UTF-8 text ({error.reason})") from None
    if not text.strip():
        raise ProblemError(f"{where}: empty")
    return text.replace("\r\n", "\n")


def _nearby(path: Path) -> str:
    """A hint naming a file of a fitting kind close to the one asked for."""
    kinds = {".md", ".jsonl", ".gz", path.suffix}
    try:
        names = [p.name for p in path.parent.iterdir() if p.is_file() and p.suffix in kinds]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1) or (sorted(names)[:1] if path.name == "*" else [])
    return f"did you mean {path.parent / close[0]}?" if close else ""
