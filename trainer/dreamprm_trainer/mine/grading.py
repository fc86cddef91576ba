"""Programs for mined tasks, graded by the repository's own tests: what `judge.Judge` and `solve` ask.

A program is what `placing` takes: the function or a class around it, with what it needs beside it.
Trust is weak: the tests share a process with the program.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem, Verdict
from dreamprm_sandbox.workshop import Workshop
from dreamprm_trainer.mine import environment
from dreamprm_trainer.mine.functions import Function, Module, Unreadable, encoded, module
from dreamprm_trainer.mine.judging import judge
from dreamprm_trainer.mine.placing import placed
from dreamprm_trainer.mine.repository import Repository


class Grader:
    """Grades programs for the tasks of a folder that `mine` wrote. Thread-safe; use it as a context manager.

    repo: the repository, read at the commit that was mined. Raises ProblemError, SandboxUnavailable.
    """

    def __init__(self, repo: Path, mined: Path, workers: int = 1) -> None:
        with ExitStack() as stack:
            commit = json.loads((mined / "report.json").read_text(encoding="utf-8"))["commit"]
            repository = stack.enter_context(Repository(repo, commit))
            where = environment.prepare(repository)
            engine = where.engine()
            stack.callback(engine.close)
            self._files = where.checkout.files
            self._seconds = _seconds(mined / "runs.jsonl", where.key)
            self._modules: dict[str, Module] = {}
            self._shops: queue.SimpleQueue[Workshop] = queue.SimpleQueue()
            for _ in range(workers):
                self._shops.put(stack.enter_context(where.workshop(engine)))
            self._stack = stack.pop_all()
            self.isolation = engine.isolation

    def grade(self, problem: Problem, code: str) -> Verdict:
        """What the task's tests say of the program. Raises ProblemError for a task without tests."""
        row = problem.tests.payload
        tests = row["tests"].get("ids") if isinstance(row.get("tests"), dict) else None
        if not tests:
            raise ProblemError(f"{problem.id}: no test of the repository notices a wrong body")
        function, own = self._function(row["path"], row["qualname"])
        budget = sum(self._seconds.get(test, 1.0) for test in tests)
        shop = self._shops.get()
        try:
            return graded(
                shop, function.path, lambda: encoded(own, placed(own, function, code)), tests, budget, self.isolation
            )
        finally:
            self._shops.put(shop)

    def _function(self, path: str, qualname: str) -> tuple[Function, Module]:
        if path not in self._modules:
            try:
                self._modules[path] = module(path, self._files[path])
            except (KeyError, Unreadable) as error:
                raise ProblemError(f"{path}: not in the repository as it was mined ({error})") from None
        for one in self._modules[path].functions:
            if one.qualname == qualname:
                return one, self._modules[path]
        raise ProblemError(f"{path}: no function {qualname}")

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def graded(
    workshop: Workshop, path: str, write: Callable[[], bytes], tests: Sequence[str], seconds: float, isolation: str
) -> Verdict:
    """What the tests say of the file that `write` makes, which raises Unreadable where the program is of no use."""
    try:
        data = write()
    except Unreadable as error:
        return Verdict("CE", 0, len(tests), 0.0, "weak", isolation, detail=str(error))
    found = judge(workshop, path, data, tests, seconds)
    detail = f"{found.failed}: {found.detail}" if found.failed else found.detail
    return Verdict(found.status, len(found.passed), len(tests), found.seconds, "weak", isolation, detail=detail)


def _seconds(runs: Path, key: str) -> Mapping[str, float]:
    """What each test took without any change."""
    try:
        rows = [json.loads(line) for line in runs.read_bytes().splitlines() if line.endswith(b"}")]
    except (OSError, ValueError):
        return {}
    return next((row["suite"]["passing"] for row in rows if row["key"] == key and "suite" in row), {})
