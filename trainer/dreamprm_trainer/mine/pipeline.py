"""Mining from beginning to end: a repository -> `tasks.jsonl`, `pool.jsonl`, `pairs.jsonl` and `report.json`.

What is read from git is read anew each time and comes out the same; what was run is kept in `runs.jsonl` (append-only)
under a key of the commit, the image and the limits, and is not run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_trainer.journal import append, open_journal
from dreamprm_trainer.mine import duplicates, history, layout, split, tasks, usage
from dreamprm_trainer.mine.functions import Function, Module, Unreadable, module
from dreamprm_trainer.mine.repository import Damaged, Repository
from dreamprm_trainer.problems import Row

Say = Callable[[str], None]
At = Callable[[int, int], None]  # so many of so many functions have been tried with wrong bodies
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Options:
    """tests: run the suite; by: how to split; past: read the history; workers: containers; functions: so many of those
    that the suite covers are tried with wrong bodies, None for all."""

    tests: bool = True
    by: split.By = "file"
    past: bool = False
    workers: int = 1
    functions: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What git alone tells. fit: functions that can be tasks; named: those of them that the tests' text names."""

    modules: dict[str, Module]
    functions: tuple[Function, ...]
    fit: tuple[Function, ...]
    named: frozenset[str]
    tests: int
    left_out: tuple[tuple[str, str], ...]


def read(repository: Repository) -> Read:
    """All functions of the commit. Raises ProblemError where there are none."""
    modules: dict[str, Module] = {}
    left_out: list[tuple[str, str]] = []
    tests: list[bytes] = []
    for file in repository.files:
        if not layout.is_python(file.path):
            continue
        try:
            data = repository.read(file)
            if layout.is_test(file.path):
                tests.append(data)
            elif layout.is_source(file.path):
                modules[file.path] = module(file.path, data)
        except (Damaged, Unreadable) as error:
            left_out.append((file.path, str(error)))
    functions = tuple(one for each in modules.values() for one in each.functions)
    left_out += [(one.id, one.unfit) for one in functions if one.unfit]
    fit = tuple(one for one in functions if not one.unfit)
    if not fit:
        raise ProblemError(
            f"{repository.path}: nothing to mine: no Python function with a body among {len(repository.files)} files"
            + (f" ({len(left_out)} left out, such as {left_out[0][0]}: {left_out[0][1]})" if left_out else "")
        )
    return Read(modules, functions, fit, usage.names_in(tests), sum(map(layout.tests_in, tests)), tuple(left_out))


def mine(
    repository: Repository, out: Path, options: Options, say: Say = lambda line: None, at: At | None = None
) -> Row:
    """Mine into the folder `out`; the report, which is also in `out/report.json`. Raises ProblemError (nothing to
    mine), SandboxUnavailable, ConfigError."""
    started = time.monotonic()
    found = read(repository)
    source = tasks.Source(repository.path.resolve().name, repository.sha)
    say(f"{len(found.functions)} functions in {len(found.modules)} files, {found.tests} tests in the text")
    past = None
    if options.past or options.by == "time":
        past = history.read(repository, found.fit, _Clock(say, "commits read").at)
        say(f"{len(past.pairs)} pairs of before and after in the history")
    left_out = [*repository.left_out, *found.left_out]
    ran: Row = {}
    tested: dict[str, Row] = {}
    untested: dict[str, str] = {}
    if options.tests and found.tests == 0:
        left_out.append(("tests", "the repository holds none"))
    elif options.tests:
        ran, tested, untested, missed = _run(repository, found, out, options, past, say, at)
        left_out += missed

    def described(one: Function) -> bool:
        return bool(one.docstring) or (not options.tests and one.name in found.named)

    chosen = [one for one in found.fit if one.id in tested or described(one)]
    left_out += [
        (one.id, untested.pop(one.id, "neither a docstring nor a test that exercises it"))
        for one in found.fit
        if one.id not in tested and not described(one)
    ]
    parts = _split(found.fit, options, past)
    repeated = duplicates.across(
        [one for one in chosen if parts[one.id] == "train"], [one for one in chosen if parts[one.id] != "train"]
    )
    left_out += [(name, f"nearly {other}, which is held out") for name, other in sorted(repeated.items())]
    chosen = [one for one in chosen if one.id not in repeated]
    tested = {name: row for name, row in tested.items() if name not in repeated}
    if not chosen:
        raise ProblemError(f"{repository.path}: nothing to mine: no function has a docstring or a test that notices")
    survived = {one.id: past.survived_days(one.id) for one in chosen} if options.past and past is not None else None
    ids = {name: row["tests"] for name, row in tested.items()}
    made = tasks.rows(source, found.modules, chosen, parts, ids, survived)
    out.mkdir(parents=True, exist_ok=True)
    _write(map(_line, made), out / "tasks.jsonl")
    if options.tests:
        _write(map(_line, tasks.negatives(source, tested, parts)), out / "pool.jsonl")
    if options.past and past is not None:
        _write((_line(asdict(pair)) for pair in past.pairs), out / "pairs.jsonl")
    counts = {part: sum(parts[one.id] == part for one in chosen) for part in ("train", "dev", "test")}
    report: Row = {
        "schema_version": SCHEMA_VERSION,
        "repository": source.name,
        "commit": source.commit,
        "shallow": repository.shallow,
        "files": len(found.modules),
        "functions": len(found.functions),
        "covered": ran.get("covered"),
        "drawn": ran.get("drawn"),
        "tests": ran.get("tests", found.tests),
        "tasks": len(chosen),
        "with_killing_test": len(tested) if options.tests else None,
        "negatives": sum(len(row["killed"]) for row in tested.values()) if options.tests else None,
        "pairs": len(past.pairs) if options.past and past is not None else None,
        "splits": counts,
        "split_by": options.by,
        "environment": ran.get("environment"),
        "untested": [{"name": name, "why": why} for name, why in sorted(untested.items())],
        "left_out": [{"name": name, "why": why} for name, why in dict.fromkeys(left_out)],
        "seconds": round(time.monotonic() - started, 1),
    }
    _write([json.dumps(report, ensure_ascii=False, indent=1) + "\n"], out / "report.json")
    return report


def _split(functions: Sequence[Function], options: Options, past: history.History | None) -> dict[str, split.Split]:
    return split.by_file(functions) if options.by == "file" or past is None else split.by_time(functions, past.changed)


def _run(
    repository: Repository,
    found: Read,
    out: Path,
    options: Options,
    past: history.History | None,
    say: Say,
    at: At | None,
) -> tuple[Row, dict[str, Row], dict[str, str], list[tuple[str, str]]]:
    """(figures, function id -> what `negatives.refused` says and its canonical, function id -> why its tests are of no
    use, what is left out and why)."""
    from dreamprm_trainer.mine import environment, negatives, suite

    where = environment.prepare(repository, say)
    key = f"{where.key} history" if past is not None else where.key  # earlier bodies are wrong ones to try
    with ExitStack() as stack:
        journal, rows = open_journal(out / "runs.jsonl")
        stack.enter_context(journal)
        engine = where.engine()
        stack.callback(engine.close)
        shops = [stack.enter_context(where.workshop(engine)) for _ in range(options.workers)]
        kept = next((row["suite"] for row in rows if "suite" in row and row["key"] == where.key), None)
        if kept is None:
            modules = list(found.modules.values())
            explored = suite.explore(shops[0], modules, suite_s=where.suite_s, test_s=where.test_s, say=say)
            append(journal, {"key": where.key, "suite": explored.to_json()})
        else:
            explored = suite.Explored.from_json(kept)
        covered = [one for one in found.fit if one.id in explored.exercised]
        say(f"{len(explored.passing)} tests pass twice and exercise {len(covered)} functions")
        drawn = _drawn(covered, options.functions)
        done = {row["refused"]["function"]: row["refused"] for row in rows if "refused" in row and row["key"] == key}
        before = _before(past)
        writing = threading.Lock()
        tried = at or _Clock(say, "functions tried with wrong bodies", len(done)).at

        def one(shop: Any, function: Function) -> None:
            exercise = explored.exercised[function.id]
            others = negatives.candidates(function, exercise.lines, before.get(function.id, ()))
            own = found.modules[function.path]
            row = negatives.refused(shop, own, function, exercise.tests, explored.passing, others)
            with writing:
                append(journal, {"key": key, "refused": row})
                done[function.id] = row
                tried(sum(other.id in done for other in drawn), len(drawn))

        _share(shops, [function for function in drawn if function.id not in done], one)
    untested = {function.id: str(done[function.id]["why"]) for function in drawn if done[function.id]["why"]}
    tested = {
        function.id: {**done[function.id], "canonical": function.source}
        for function in drawn
        if function.id not in untested
    }
    ids = {function.id for function in drawn}
    untested |= {one.id: f"not drawn: --functions {options.functions}" for one in covered if one.id not in ids}
    figures = {
        "covered": len(covered),
        "drawn": len(drawn),
        "tests": len(explored.passing),
        "environment": environment.told(where),
    }
    return figures, tested, untested, list(explored.left_out)


def _drawn(functions: Sequence[Function], most: int | None) -> list[Function]:
    """At most so many, of all files alike; a larger number adds to those of a smaller one."""
    by_digest = sorted(functions, key=lambda one: hashlib.sha256(one.id.encode()).digest())
    ids = {one.id for one in by_digest[:most]}
    return [one for one in functions if one.id in ids]


def _share(shops: Sequence[Any], functions: Sequence[Function], work: Callable[[Any, Function], None]) -> None:
    """Each workshop takes the next function; the first error ends all."""
    waiting = iter(functions)
    turn = threading.Lock()
    failed = threading.Event()

    def serve(shop: Any) -> None:
        while not failed.is_set():
            with turn:
                function = next(waiting, None)
            if function is None:
                return
            try:
                work(shop, function)
            except BaseException:
                failed.set()
                raise

    with ThreadPoolExecutor(len(shops), thread_name_prefix="mine") as executor:
        for future in [executor.submit(serve, shop) for shop in shops]:
            future.result()


def _before(past: history.History | None) -> Mapping[str, list[str]]:
    """What functions were before commits that changed tests too, the newest first."""
    found: dict[str, list[str]] = {}
    for pair in past.pairs if past is not None else ():
        found.setdefault(pair.id, []).append(pair.before)
    return found


class _Clock:
    """Says how far it is, every few seconds."""

    def __init__(self, say: Say, what: str, done: int = 0) -> None:
        self._say, self._what, self._before = say, what, done
        self._started = self._told = time.monotonic()

    def at(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told < 10.0 and done < total:
            return
        self._told = now
        left_s = (now - self._started) / max(1, done - self._before) * (total - done)
        self._say(f"{done}/{total} {self._what}, {left_s / 60:.0f} min left")


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _write(lines: Iterable[str], path: Path) -> None:
    """All of the file or none."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.writelines(lines)
    scratch.replace(path)
