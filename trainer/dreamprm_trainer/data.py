"""A recipe's sources -> graded programs in steps, each with the split of its problem.

A source is a problem set and one or more pools of programs of it. Programs without a verdict, and those of problems
that repeat a HumanEval problem, are left out; what was left out, and why, is counted.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem, Step
from dreamprm_trainer.overlap import near_duplicates
from dreamprm_trainer.problems import Row, problem_of, read_jsonl, test_count, with_signature, with_splits


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of a recipe.

    problems, pools: files; a relative path is looked up in the recipe's folder, then in the data folder.
    models:          keep programs whose model has one of these as a part of its name (empty: all).
    splits:          keep problems of these splits.
    limit:           at most this many problems of each split, short statements first; per_problem: programs of each.
    mixed_only:      keep problems with both passing and failing programs only; in some splits where these are named.
    unverified:      keep problems whose tests are marked unverified.
    signature:       problems without starter code get the head of their canonical function.
    min_tests:       keep problems with at least so many tests, where the file says how many there are.
    since, until:    keep problems dated between these days, both included; what has no date is left out.
    expected:        how many problems there should be: a price can be told where the files are not at hand.
    """

    name: str
    problems: str
    pools: tuple[str, ...]
    models: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train", "dev")
    limit: int | None = None
    per_problem: int | None = None
    mixed_only: bool | tuple[str, ...] = False
    unverified: bool = False
    signature: bool = False
    min_tests: int = 0
    since: date | None = None
    until: date | None = None
    expected: int | None = None

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Source:
        """From a TOML table. Raises ConfigError for unknown or missing keys."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        for key in ("since", "until"):
            if not isinstance(values.get(key), date | None):
                raise ConfigError(f"source {table.get('name', '?')!r}: {key} is no date", f"{key} = 2024-08-01")
        try:
            source = cls(**values)
        except TypeError as error:
            raise ConfigError(f"source {table.get('name', '?')!r}: {str(error).partition('() ')[2] or error}") from None
        if not isinstance(source.mixed_only, bool) and not set(source.mixed_only) <= set(source.splits):
            raise ConfigError(
                f"source {source.name!r}: mixed_only names splits that are not read", "true, or some of them"
            )
        return source


@dataclass(frozen=True, slots=True)
class Item:
    """One graded program. `truth` runs along `steps`: what is known of the step itself, None where nothing is.

    passes, rollouts: also along `steps`, the Monte-Carlo counts of the prefix that ends with each (0 rollouts: none
    were made); empty for a program of which no prefix has any.
    """

    source: str
    split: str
    problem: Problem
    model: str
    sample: int
    code: str
    steps: tuple[Step, ...]
    passed: bool
    truth: tuple[bool | None, ...]
    finish_reason: str = "stop"
    mean_logprob: float = math.nan
    tokens: int = 0
    passes: tuple[int, ...] = ()
    rollouts: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """Names the program's text, whoever wrote it."""
        return hashlib.sha256(self.code.encode(errors="surrogatepass")).hexdigest()[:24]


@dataclass(slots=True)
class Loaded:
    """Items of all sources, the rows of their problems (task_id -> row), the files they came from (name -> SHA-256) and
    what was left out (reason -> count)."""

    items: list[Item] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def load(
    sources: Sequence[Source], folders: Sequence[Path], reference: str | None = None, ungraded: bool = False
) -> Loaded:
    """Items of `sources`; files are looked up in `folders`, in that order.

    reference: the HumanEval set whose near-duplicates are dropped from all sources but itself.
    ungraded:  keep programs without a verdict too, as if they had failed (to encode them while they are graded).
    """
    loaded = Loaded()
    humaneval = read_jsonl(find(reference, folders)) if reference else []
    for source in sources:
        loaded.files[source.problems] = digest(find(source.problems, folders))
        rows = problem_rows(source, folders, humaneval, loaded.left_out)
        pool: dict[str, list[Row]] = defaultdict(list)
        for name in source.pools:
            file = find(name, folders)
            loaded.files[name] = digest(file)
            for row in read_jsonl(file):
                if row["task_id"] not in rows:
                    continue
                if source.models and not any(part in row["model"] for part in source.models):
                    continue
                if row.get("passed") is None and not ungraded:
                    loaded.left_out[f"{source.name}: programs without a verdict"] += 1
                    continue
                pool[row["task_id"]].append(row)
        for task_id in _limited(source, pool, rows):
            problem = problem_of(rows[task_id][0])
            loaded.rows[task_id] = rows[task_id][0]
            for row in pool[task_id][: source.per_problem]:
                loaded.items.append(_item(source, rows[task_id][1], problem, row))
    return loaded


def problem_rows(
    source: Source, folders: Sequence[Path], humaneval: Sequence[Row], left_out: Counter[str]
) -> dict[str, tuple[Row, str]]:
    """task_id -> row and split of the problems that a source is about, before any program of them is looked at."""
    every = {row["task_id"]: (row, own) for row, own in with_splits(read_jsonl(find(source.problems, folders)))}
    rows = {task_id: kept for task_id, kept in every.items() if kept[1] in source.splits}
    if source.since or source.until:
        other = {task_id for task_id, (row, _) in rows.items() if not _dated(source, row)}
        left_out[f"{source.name}: problems of other days"] += len(other)
        rows = {task_id: kept for task_id, kept in rows.items() if task_id not in other}
    if "test" not in source.splits and humaneval:
        repeats = near_duplicates((row for row, _ in rows.values()), humaneval)
        left_out[f"{source.name}: problems that repeat one of HumanEval"] += len(repeats)
        rows = {task_id: kept for task_id, kept in rows.items() if task_id not in repeats}
    tested = {task_id: kept for task_id, kept in rows.items() if _tested(source, kept[0])}
    if not source.signature:
        return tested
    return {task_id: (with_signature(row), own) for task_id, (row, own) in tested.items()}


def _tested(source: Source, row: Row) -> bool:
    """Whether the problem's tests are good enough."""
    enough = test_count(row) >= source.min_tests
    return enough and (source.unverified or row.get("quality") != "unverified")


def _dated(source: Source, row: Row) -> bool:
    try:
        day = date.fromisoformat(str(row.get("date", ""))[:10])
    except ValueError:
        return False
    return (source.since or day) <= day <= (source.until or day)


def _limited(source: Source, pool: Mapping[str, Sequence[Row]], rows: Mapping[str, tuple[Row, str]]) -> list[str]:
    chosen = list(pool)
    if source.mixed_only:
        asked = source.splits if isinstance(source.mixed_only, bool) else source.mixed_only
        mixed = {task_id for task_id in chosen if len({row["passed"] for row in pool[task_id]}) == 2}
        chosen = [task_id for task_id in chosen if task_id in mixed or rows[task_id][1] not in asked]
    if source.limit is None:
        return chosen
    chosen.sort(key=lambda task_id: _length(rows[task_id][0]))
    by_split: dict[str, list[str]] = defaultdict(list)
    for task_id in chosen:
        by_split[rows[task_id][1]].append(task_id)
    return [task_id for some in by_split.values() for task_id in some[: source.limit]]


def _length(row: Row) -> int:
    return len(row.get("prompt") or row.get("statement") or "") + len(row.get("starter_code") or "")


def _item(source: Source, own_split: str, problem: Problem, row: Row) -> Item:
    steps = tuple(split(row["solution"]))
    passed = bool(row.get("passed"))
    logprob = row.get("mean_logprob")
    return Item(
        source=source.name,
        split=own_split,
        problem=problem,
        model=row["model"],
        sample=int(row.get("sample", 0)),
        code=row["solution"],
        steps=steps,
        passed=passed,
        truth=_truth(steps, row.get("step_labels") or {}),
        finish_reason=row.get("finish_reason", "stop"),
        mean_logprob=math.nan if logprob is None else float(logprob),
        tokens=int(row.get("tokens", 0)),
        passes=_counts(row, "mc_pass", steps),
        rollouts=_counts(row, "mc_total", steps),
    )


def _truth(steps: Sequence[Step], labels: Mapping[str, bool]) -> tuple[bool | None, ...]:
    """Method labels by the last part of the step's name."""
    return tuple(labels.get(step.name.rsplit(".", 1)[-1]) if step.kind == "method" else None for step in steps)


def _counts(row: Row, key: str, steps: Sequence[Step]) -> tuple[int, ...]:
    """Raises ProblemError where there are counts that do not run along the steps (another splitter made them)."""
    given = row.get(key)
    if given is None:
        return ()
    if len(given) != len(steps):
        raise ProblemError(
            f"{row['task_id']}: {key} has {len(given)} entries, the program {len(steps)} steps", "label the pool anew"
        )
    return tuple(map(int, given))


def unique(items: Iterable[Item]) -> list[Item]:
    """One item for each text of a problem: what is sampled twice must not count twice in training."""
    seen: dict[tuple[str, str], Item] = {}
    for item in items:
        seen.setdefault((item.problem.id, item.key), item)
    return list(seen.values())


def find(name: str, folders: Sequence[Path]) -> Path:
    """The first `folder / name` that exists. Raises ProblemError naming all places looked at."""
    found = locate(name, folders)
    if found is None:
        places = ", ".join(map(str, folders))
        raise ProblemError(f"no file {name} in {places}", "give the folder of the data with --data")
    return found


def locate(name: str, folders: Sequence[Path]) -> Path | None:
    """The first `folder / name` that exists."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
