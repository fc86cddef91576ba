"""`Sandbox`: a pool of warm containers that grades programs.

    with Sandbox(workers=2) as box:
        for verdict in box.grade((problem, code) for code in programs):
            ...

Covered: order, retries when the machine fails, one isolated retry when time was short on a busy machine, replacing
containers. Not covered: what the tests mean (formats), how one program is graded (verdict), the engine (docker).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType

from dreamprm_cli.errors import ProblemError, SandboxUnavailable
from dreamprm_cli.types import Problem, Verdict
from dreamprm_sandbox import formats
from dreamprm_sandbox.docker import Engine
from dreamprm_sandbox.formats import evalplus
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.slot import Fault, Slot
from dreamprm_sandbox.suite import UNKNOWN, Calls, Script, Suite
from dreamprm_sandbox.verdict import Outcome, Reference, grade, reference

_ATTEMPTS = 4
_RUNS_PER_CONTAINER = 2000
_AHEAD = 32  # jobs in flight for each worker: one slow program does not hold up the others


class Sandbox:
    """Grades programs in containers. Thread-safe. Starts its first container when it is entered.

    workers: containers, one per processor by default. limits: for every program; a problem's own `time_limit_s`
    comes first. runtime: an engine runtime such as "runsc". Raises SandboxUnavailable when there is no engine, when
    a limit is not in force, or when the machine keeps failing: never a verdict in its place.
    """

    def __init__(self, workers: int | None = None, *, limits: Limits | None = None, runtime: str | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.limits = limits or Limits()
        self._engine = Engine(self.limits, runtime=runtime)
        self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix="sandbox")
        self._free: deque[Slot] = deque()
        self._turns = _Turns()
        self._suites: dict[str, tuple[Problem, Suite]] = {}
        self._references: dict[str, Reference] = {}
        self._reference_lock = threading.Lock()

    def __enter__(self) -> Sandbox:
        self._free.append(self._take())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers and remove the containers."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._engine.close()

    @property
    def isolation(self) -> str:
        return self._engine.isolation

    def run(self, problem: Problem, code: str) -> Verdict:
        """One program against the problem's tests. Raises ProblemError for tests that cannot be run."""
        return self._executor.submit(self._judge, problem, code).result()

    def grade(self, jobs: Iterable[tuple[Problem, str]]) -> Iterator[Verdict]:
        """Verdicts in the order of the jobs, as they come; jobs are taken as needed, so they may be a generator."""
        waiting: deque[Future[Verdict]] = deque()
        try:
            for problem, code in jobs:
                waiting.append(self._executor.submit(self._judge, problem, code))
                while waiting and (waiting[0].done() or len(waiting) >= _AHEAD * self.workers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _judge(self, problem: Problem, code: str) -> Verdict:
        suite, limits = self._prepared(problem)
        with self._turns.shared():
            outcome = self._attempt(code, suite, limits, problem)
        if outcome.contended:
            with self._turns.alone():
                outcome = self._attempt(code, suite, limits, problem)
        trust = "weak" if isinstance(suite, Script) else "strong"
        seconds = round(outcome.cpu_s, 6)
        return Verdict(outcome.status, outcome.passed, outcome.total, seconds, trust, self.isolation)  # type: ignore[arg-type]

    def _attempt(self, code: str, suite: Suite, limits: Limits, problem: Problem) -> Outcome:
        """Grade, again in a new container while the machine is at fault."""
        fault = Fault("not tried")
        for attempt in range(_ATTEMPTS):
            try:
                slot = self._take()
                try:
                    outcome = grade(slot, code, suite, limits)
                except BaseException:
                    self._engine.discard(slot)
                    raise
            except Fault as error:
                fault = error
                time.sleep(0.2 * 2**attempt)
                continue
            self._give(slot, worn=outcome.anomaly)
            return outcome
        raise SandboxUnavailable(
            f"the sandbox failed {_ATTEMPTS} times in a row on {problem.id}: {fault}",
            "look at the engine's log; nothing was labelled",
        )

    def _take(self) -> Slot:
        try:
            return self._free.pop()
        except IndexError:
            return self._engine.start()

    def _give(self, slot: Slot, worn: bool) -> None:
        if worn or slot.runs >= _RUNS_PER_CONTAINER:
            self._engine.discard(slot)
        else:
            self._free.append(slot)

    def _prepared(self, problem: Problem) -> tuple[Suite, Limits]:
        """The problem's suite, its expected results known, and its limits."""
        limits = self.limits
        if problem.time_limit_s is not None:
            limits = replace(limits, time_limit_s=problem.time_limit_s)
        known = self._suites.get(problem.id)
        suite = known[1] if known is not None and known[0] is problem else formats.suite(problem)
        if isinstance(suite, Calls) and suite.tests[0].expected is UNKNOWN:
            with self._reference_lock:
                told = self._references.get(problem.id) or self._tell(problem, suite, limits)
                self._references[problem.id] = told
            tests = tuple(replace(call, expected=value) for call, value in zip(suite.tests, told.values, strict=True))
            suite = replace(suite, tests=tests)
            slowest = evalplus.REFERENCE_FACTOR * told.slowest_s
            limits = replace(limits, time_limit_s=max(evalplus.MIN_TIME_LIMIT_S, slowest, limits.time_limit_s))
        self._suites[problem.id] = (problem, suite)
        return suite, limits

    def _tell(self, problem: Problem, suite: Calls, limits: Limits) -> Reference:
        slot = self._take()
        try:
            told = reference(slot, suite, replace(limits, time_limit_s=60.0, total_time_limit_s=600.0))
        except ValueError as error:
            self._engine.discard(slot)
            raise ProblemError(f"{problem.id}: {error}") from None
        except BaseException:
            self._engine.discard(slot)
            raise
        self._give(slot, worn=False)
        return told


class _Turns:
    """Many share, or one is alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._sharing = 0
        self._alone = False
        self._waiting_alone = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._alone and not self._waiting_alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._condition:
                self._sharing -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._condition:
            self._waiting_alone += 1
            self._condition.wait_for(lambda: not self._alone and not self._sharing)
            self._waiting_alone -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._condition:
                self._alone = False
                self._condition.notify_all()
