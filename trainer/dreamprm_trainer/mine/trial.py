"""`dreamprm solve --target`: a function of a working tree as a problem, and programs for it tried with its tests.

All that a later process needs to go on is in the problem's tests (kind `target`): where the repository is, which tests
exercise the function and how long they take, and a digest of all files, without which none of that holds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.models import cache_dir
from dreamprm_cli.types import Candidate, Problem, Tests, Verdict
from dreamprm_sandbox.workshop import Workshop
from dreamprm_trainer.mine import environment, layout, suite, worktree
from dreamprm_trainer.mine.environment import Environment
from dreamprm_trainer.mine.functions import Module, Unreadable, module
from dreamprm_trainer.mine.grading import graded
from dreamprm_trainer.mine.placing import head
from dreamprm_trainer.mine.repository import Repository
from dreamprm_trainer.mine.statement import Surroundings, brief, context, unfenced
from dreamprm_trainer.mine.target import Target, find

KIND = "target"
_TOLD = 5  # tests that are left out, by name
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """A target of the working tree `folder`. verify: what its tests say of a candidate; None where there are none."""

    folder: Path
    target: Target
    verify: Callable[[Candidate], Verdict] | None

    def fits(self, program: str) -> bytes | None:
        """The target's file with the program in it; None for one that does not fit."""
        try:
            return self.target.changed(program)
        except Unreadable:
            return None


def problem(repo: Path, name: str, given: Problem | None, *, tests: bool, say: Say = lambda line: None) -> Problem:
    """The target as a problem, with the tests that exercise it if `tests`: those are found by running the suite once.

    given: what else is to be said of it. Raises ProblemError, ConfigError, SandboxUnavailable.
    """
    with Repository(repo) as repository:
        files = dict(worktree.contents(repository))
        target = find(files, name, given.starter_code if given else "")
        around = _around(files, target)
        payload: dict[str, Any] = {
            "repository": str(worktree.top(repository)), "target": target.function.id,
            "starter": given.starter_code if given else "", "sha256": hashlib.sha256(target.data).hexdigest(),
        }  # fmt: skip
        if tests:
            payload |= _mapped(repository, files, target, around, say)
    function = target.function
    said = Surroundings(around).statement(function, lambda other: True)
    return Problem(
        id=f"{Path(payload['repository']).name}:{function.id}",
        statement=f"{given.statement.strip()}\n\n{said}" if given else said,
        starter_code=unfenced(brief(head(function))),
        entry_point=".".join(function.qualname.split(".")[-2:]),
        tests=Tests(KIND, payload=payload),
        title=function.qualname,
        context=context(target.module, function, lambda other: False),
    )


@contextmanager
def opened(asked: Problem) -> Iterator[Trial]:
    """What `problem` returned, to be worked on. Raises ProblemError where the repository is not as it was then."""
    payload = asked.tests.payload
    with ExitStack() as stack:
        repository = stack.enter_context(Repository(Path(payload["repository"])))
        files = dict(worktree.contents(repository))
        target = find(files, payload["target"], payload["starter"])
        if hashlib.sha256(target.data).hexdigest() != payload["sha256"]:
            raise ProblemError(f"{target.path} has changed since the run began", "begin a new one")
        folder = worktree.top(repository)
        seconds: Mapping[str, float] = payload.get("seconds", {})
        if not seconds:
            yield Trial(folder, target, None)
            return
        where = environment.prepare(repository, files=_runnable(files, target).items())
        if where.key != payload["key"]:
            raise ProblemError(f"{folder} has changed since the run began", "begin a new one")
        engine = where.engine()
        stack.callback(engine.close)
        chosen = replace(where.checkout, tests=sorted({test.partition("::")[0] for test in seconds}))
        shop = stack.enter_context(Workshop(engine, chosen))

        def verify(candidate: Candidate) -> Verdict:
            def write() -> bytes:
                return target.changed(candidate.code)

            return graded(shop, target.path, write, list(seconds), sum(seconds.values()), engine.isolation)

        yield Trial(folder, target, verify)


def _mapped(
    repository: Repository, files: Mapping[str, bytes], target: Target, around: Sequence[Module], say: Say
) -> dict[str, Any]:
    """Which tests exercise the target, as JSON values."""
    if not any(
        layout.is_test(path) and layout.tests_in(data) for path, data in files.items() if layout.is_python(path)
    ):
        say(f"{repository.path} holds no tests: the rewards alone decide")
        return {}
    where = environment.prepare(repository, say, _runnable(files, target).items())
    found = _exercising(where, target, around, say)
    for name, why in found.left_out[:_TOLD]:
        say(f"left out: {name}: {why}")
    if len(found.left_out) > _TOLD:
        say(f"left out: {len(found.left_out) - _TOLD} more")
    if not found.seconds:
        say(f"no test exercises {target.function.qualname}: the rewards alone decide")
        return {}
    some = f"the {len(found.seconds)} most telling of " if found.number > len(found.seconds) else ""
    exercise = "test exercises" if found.number == 1 else "tests exercise"
    failing = f"; {len(found.failing)} fail now" if found.failing else ""
    say(f"{some}{found.number} {exercise} {target.function.qualname}{failing}")
    return {"key": where.key, "seconds": dict(found.seconds), "failing": dict(found.failing), "number": found.number}


def _exercising(where: Environment, target: Target, around: Sequence[Module], say: Say) -> suite.Mapped:
    """The tests that exercise the target: the suite is run once for it, until a file of the repository or something of
    its image changes."""
    kept = cache_dir() / "mapped" / f"{where.key}-{hashlib.sha256(target.function.id.encode()).hexdigest()[:12]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = suite.Mapped.from_json(json.loads(kept.read_text(encoding="utf-8")))
        say("nothing has changed since the suite was run for it")
        return known
    own = module(target.path, where.checkout.files[target.path])
    modules = [own if one.path == target.path else one for one in around]
    with ExitStack() as stack:
        engine = where.engine()
        stack.callback(engine.close)
        shop = stack.enter_context(where.workshop(engine))
        found = suite.exercising(shop, modules, target.function, suite_s=where.suite_s, test_s=where.test_s, say=say)
    if found.seconds:
        kept.parent.mkdir(parents=True, exist_ok=True)
        scratch = kept.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps(found.to_json()), encoding="utf-8")
        scratch.replace(kept)
    return found


def _runnable(files: Mapping[str, bytes], target: Target) -> dict[str, bytes]:
    return {**files, target.path: target.runnable()}


def _around(files: Mapping[str, bytes], target: Target) -> list[Module]:
    """The target's module, and those that call something of its name or define a class that its signature names."""
    function = target.function
    marks = [function.name.encode(), *(f"class {name}".encode() for name in function.annotations)]
    found = [target.module]
    for path in sorted(files):
        if path != target.path and layout.is_source(path) and any(mark in files[path] for mark in marks):
            try:
                found.append(module(path, files[path]))
            except Unreadable:
                continue
    return found
