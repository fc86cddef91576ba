"""A run on disk: its folder, the journal of events (JSON Lines), and what a later process needs to resume it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.events import CandidateFinished, Event, RunStarted, TestsRan, from_json, to_json
from dreamprm_cli.types import Example, Problem, Tests

JOURNAL = "journal.jsonl"
RESULT = "result.json"


def new_run(runs_dir: Path, problem_id: str) -> Path:
    """Make the folder of a new run, named by time and problem; unique also when two start in one second.

    A `runs_dir` that is new is one that git does not look at: runs are no part of the project they lie in."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", problem_id).strip("-").lower()[:40] or "problem"
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}"
    if not runs_dir.exists():
        runs_dir.mkdir(parents=True, exist_ok=True)
        (runs_dir / ".gitignore").write_text("*\n", encoding="utf-8")
    for suffix in ("", *(f"-{k}" for k in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            folder = runs_dir / f"{stem}{suffix}"
            folder.mkdir()
            return folder
    raise FileExistsError(f"{runs_dir / stem} and 998 others exist")


def find_run(runs_dir: Path, ref: str) -> Path:
    """The folder of a run, from its path (or its journal's), its name, the start of it, or `last`. ProblemError."""
    place = Path(ref)
    if place.name == JOURNAL and place.is_file():
        return place.parent
    if ref and (place / JOURNAL).is_file():
        return place
    runs = sorted(p.parent for p in runs_dir.glob(f"*/{JOURNAL}"))
    matches = runs[-1:] if ref == "last" else [run for run in runs if run.name.startswith(ref)]
    exact = [run for run in matches if run.name == ref]
    if len(exact or matches) == 1:
        return (exact or matches)[0]
    if matches:
        raise ProblemError(f"{ref!r} names {len(matches)} runs", f"one of: {', '.join(m.name for m in matches[-5:])}")
    known = ", ".join(run.name for run in runs[-3:]) or "none yet"
    raise ProblemError(f"no run {ref!r} in {runs_dir}", f"the newest runs: {known}")


class Journal:
    """Appends events to a run's journal, each line flushed, so that a killed process loses at most one line."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        if self.path.exists():
            _drop_torn_line(self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def append(self, event: Event) -> None:
        self._file.write(json.dumps(to_json(event), ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line without its newline: what a kill in the middle of a write leaves."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def read_journal(folder: Path) -> list[Event]:
    """All whole events of a run. Raises ProblemError when the journal is missing, empty or damaged."""
    path = folder / JOURNAL
    try:
        data = path.read_bytes()
        lines = data[: data.rfind(b"\n") + 1].decode("utf-8").split("\n")  # what follows is a torn line
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemError(f"cannot read {path}: {error}", "give a run's folder or name") from None
    events: list[Event] = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            events.append(from_json(json.loads(line)))
        except (ValueError, AttributeError) as error:
            raise ProblemError(f"{path}:{number}: not an event ({error})", "the journal is damaged") from None
    if not events or not isinstance(events[0], RunStarted):
        raise ProblemError(f"{path} does not begin with the start of a run", "the run ended before anything was kept")
    return events


def finished(events: Sequence[Event]) -> tuple[dict[int, CandidateFinished], dict[int, TestsRan]]:
    """Candidates and verdicts that a resumed run keeps."""
    done = {e.candidate: e for e in events if isinstance(e, CandidateFinished)}
    tested = {e.candidate: e for e in events if isinstance(e, TestsRan) and e.candidate in done}
    return done, tested


def problem_json(problem: Problem) -> dict[str, Any]:
    """A problem as plain JSON values."""
    row = dataclasses.asdict(problem)
    row["tests"]["examples"] = list(row["tests"]["examples"])
    return row


def problem_from_json(row: Mapping[str, Any]) -> Problem:
    """The inverse of `problem_json`."""
    tests = row["tests"]
    examples = tuple(Example(**example) for example in tests["examples"])
    return Problem(**{**row, "tests": Tests(tests["kind"], examples, tests["payload"])})


def write_atomic(path: Path, text: str) -> None:
    """Replace a file's content at once: a reader sees the old text or the new, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
