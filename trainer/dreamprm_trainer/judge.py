"""Verdicts of programs, kept in a file: each distinct program of a problem runs once, whatever stops the run.

Programs with one syntax tree are one program (comments, blank lines and quotes do not count), so rollouts that say the
same in other words cost nothing. A verdict is kept under a digest of the tests as well: with other tests it runs anew.
"""

from __future__ import annotations

import ast
import hashlib
import json
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem, Verdict
from dreamprm_trainer.journal import append, open_journal
from dreamprm_trainer.problems import Row

Grade = Callable[[Problem, str], Verdict]  # runs a program in the sandbox; raises ProblemError for unusable tests

_EMPTY: Row = {"status": "EMPTY", "passed": False, "tests_passed": 0, "tests_total": 0}


class Judge:
    """Asks `grade` for what the file at `path` does not know. Close it, or use it as a context manager.

    problems: task id -> Problem with its tests, as the sandbox reads them. workers: programs under way at once.
    limits: told to the digest, so that other limits are other verdicts. Raises ConfigError when another process
    writes to the file.
    """

    def __init__(
        self, problems: Mapping[str, Problem], path: Path, grade: Grade, workers: int = 1, limits: object = None
    ) -> None:
        self._problems, self._grade = problems, grade
        self._limits = repr(limits)
        self._tests: dict[str, str] = {}
        self._file, rows = open_journal(path)
        self._writing = threading.Lock()
        self._known: dict[str, Future[Row]] = {row["program"]: _done(row) for row in rows}
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="judge")
        self.ran = 0

    def ask(self, task_id: str, code: str) -> Future[Row]:
        """`{status, passed, tests_passed, tests_total}`; passed is None where the tests cannot be run."""
        if not code.strip():
            return _done(_EMPTY)
        name = self._name(task_id, code)
        if name not in self._known:
            self._known[name] = self._executor.submit(self._run, name, task_id, code)
        return self._known[name]

    def _run(self, name: str, task_id: str, code: str) -> Row:
        row: Row = {"program": name, "task_id": task_id}
        try:
            verdict = self._grade(self._problems[task_id], code)
        except ProblemError as error:
            row |= {"status": None, "passed": None, "tests_passed": None, "tests_total": None, "reason": error.message}
        else:
            row |= {
                "status": verdict.status,
                "passed": None if verdict.status == "FILE_ERROR" else verdict.status == "PASS",
                "tests_passed": verdict.passed,
                "tests_total": verdict.total,
            }
        with self._writing:
            append(self._file, row)
            self.ran += 1
        return row

    def _name(self, task_id: str, code: str) -> str:
        """One digest for all programs of a problem that are the same program, under the same tests and limits."""
        if task_id not in self._tests:
            problem = self._problems[task_id]
            tests = [task_id, problem.tests.kind, problem.entry_point, dict(problem.tests.payload)]
            text = json.dumps(tests, sort_keys=True, default=str) + self._limits
            self._tests[task_id] = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        return hashlib.sha256((self._tests[task_id] + syntax_key(code)).encode(errors="surrogatepass")).hexdigest()[:32]

    def close(self) -> None:
        """Give up what has not begun; what is under way is finished and kept."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._file.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def syntax_key(code: str) -> str:
    """The same for programs with the same syntax tree; the text itself where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in a stranger's strings
            return ast.dump(ast.parse(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code


def _done(row: Mapping[str, Any]) -> Future[Row]:
    future: Future[Row] = Future()
    future.set_result(dict(row))
    return future
