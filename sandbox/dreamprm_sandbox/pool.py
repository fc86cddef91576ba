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
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

from dreamprm_cli.errors import ProblemError, SandboxUnavailable
from dreamprm_cli.types import Problem, Verdict
from dreamprm_sandbox import formats
from dreamprm_sandbox.cache import Cache, key
from dreamprm_sandbox.compare import holds_opaque
from dreamprm_sandbox.docker import Engine
from dreamprm_sandbox.formats import Mode, evalplus
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.slot import Fault, Slot
from dreamprm_sandbox.suite import UNKNOWN, Calls, Script, Suite
from dreamprm_sandbox.verdict import BEYOND, Outcome, Reference, grade, reference

_ATTEMPTS = 4
_RUNS_PER_CONTAINER = 2000
_AHEAD = 32  # jobs in flight for each worker: one slow program does not hold up the others


Trust = Literal["strong", "weak"]
Result = TypeVar("Result", Outcome, Reference)


class Sandbox:
    """Grades programs in containers. Thread-safe. Starts its first container when it is entered.

    workers: containers, one per processor by default. limits: for every program; a problem's own `time_limit_s`
    comes first. mode: "strict", or the public grader whose verdicts are wanted ("evalplus", "lcb", "humaneval").
    runtime: an engine runtime such as "runsc" (also DREAMPRM_SANDBOX_RUNTIME). cache: a file of verdicts that are
    known already; none by default. Raises SandboxUnavailable when there is no engine, when a limit is not in force,
    or when the machine keeps failing: never a verdict in its place.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        limits: Limits | None = None,
        mode: Mode = "strict",
        runtime: str | None = None,
        cache: Path | None = None,
    ) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.limits = limits or Limits()
        self.mode: Mode = mode
        self.cached = 0  # verdicts that came out of the cache
        self._engine = Engine(self.limits, runtime=runtime or os.environ.get("DREAMPRM_SANDBOX_RUNTIME") or None)
        self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix="sandbox")
        self._free: deque[Slot] = deque()
        self._turns = _Turns()
        self._cache = Cache(cache) if cache is not None else None
        self._prepared: dict[tuple[str, Mode], Prepared] = {}
        self._telling = threading.Lock()

    def __enter__(self) -> Sandbox:
        try:
            self._free.append(self._take())
        except Fault as fault:
            self.close()
            raise SandboxUnavailable(f"the sandbox does not start: {fault}", "look at the engine's log") from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers and remove the containers."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._engine.close()
        if self._cache is not None:
            self._cache.close()

    @property
    def isolation(self) -> str:
        """What keeps candidates in: engine, runtime, image."""
        return self._engine.isolation

    def run(self, problem: Problem, code: str, mode: Mode | None = None) -> Verdict:
        """One program against the problem's tests. Raises ProblemError for tests that cannot be run."""
        return self._executor.submit(self._judge, problem, code, mode or self.mode).result()

    def grade(self, jobs: Iterable[tuple[Problem, str]], mode: Mode | None = None) -> Iterator[Verdict]:
        """Verdicts in the order of the jobs, as they come; jobs are taken as needed, so they may be a generator."""
        waiting: deque[Future[Verdict]] = deque()
        try:
            for problem, code in jobs:
                waiting.append(self._executor.submit(self._judge, problem, code, mode or self.mode))
                while waiting and (waiting[0].done() or len(waiting) >= _AHEAD * self.workers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _judge(self, problem: Problem, code: str, mode: Mode) -> Verdict:
        prepared = self._prepare(problem, mode)
        name = key("verdict", code, prepared.key)
        if self._cache is not None and (known := self._cache.verdict(name)) is not None:
            self.cached += 1
            return known
        order = prepared.order(mode)
        suite = formats.ordered(prepared.suite, order)
        with self._turns.shared():
            outcome = self._attempt(problem, partial(grade, code=code, suite=suite, limits=prepared.limits))
        if outcome.contended:
            with self._turns.alone():
                outcome = self._attempt(problem, partial(grade, code=code, suite=suite, limits=prepared.limits))
        if outcome.failed is not None:
            prepared.failures[order[outcome.failed]] += 1
        trust: Trust = "weak" if isinstance(suite, Script) else "strong"
        seconds = round(outcome.cpu_s, 6)
        verdict = Verdict(outcome.status, outcome.passed, outcome.total, seconds, trust, self.isolation)
        if self._cache is not None:
            self._cache.keep_verdict(name, verdict)
        return verdict

    def _attempt(self, problem: Problem, work: Callable[[Slot], Result]) -> Result:
        """Do the work in a slot, again in a new container while the machine is at fault."""
        fault = Fault("not tried")
        for attempt in range(_ATTEMPTS):
            try:
                slot = self._take()
                try:
                    result = work(slot)
                except BaseException:
                    self._engine.discard(slot)
                    raise
            except Fault as error:
                fault = error
                time.sleep(0.2 * 2**attempt)
                continue
            self._give(slot, worn=result.anomaly)
            return result
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

    def _prepare(self, problem: Problem, mode: Mode) -> Prepared:
        """The problem's suite, with expected results, and its limits; made once."""
        known = self._prepared.get((problem.id, mode))
        if known is not None and known.problem is problem:
            return known
        limits = self.limits
        time_limit_s = formats.time_limit_s(problem, mode)
        if time_limit_s is not None:
            limits = replace(limits, time_limit_s=time_limit_s)
        suite = formats.suite(problem, mode)
        tests = key(problem.tests.payload, [(shown.input, shown.output) for shown in problem.tests.examples])
        if isinstance(suite, Calls) and suite.tests[0].expected is UNKNOWN:
            with self._telling:  # one at a time: the others would find it told
                told = self._told(problem, suite, key("reference", tests, mode, self._engine.image))
            pairs = zip(suite.tests, told.values, strict=True)
            calls = tuple(replace(call, expected=value) for call, value in pairs if value is not BEYOND)
            if not calls:
                raise ProblemError(f"{problem.id}: the reference solution needs more than the sandbox's limits")
            suite = replace(suite, tests=calls)
            slowest = evalplus.REFERENCE_FACTOR * told.slowest_s
            limits = replace(limits, time_limit_s=max(evalplus.MIN_TIME_LIMIT_S, slowest, limits.time_limit_s))
        name = key(tests, problem.entry_point, problem.tests.kind, mode, asdict(limits), self.isolation)
        made = Prepared(problem, suite, limits, name)
        self._prepared[problem.id, mode] = made
        return made

    def _told(self, problem: Problem, suite: Calls, name: str) -> Reference:
        """What the reference solution returns, out of the cache or out of the sandbox."""
        kept = self._cache.value(name) if self._cache is not None else None
        if isinstance(kept, dict) and len(kept["values"]) == len(suite.tests):
            return Reference(tuple(kept["values"]), kept["slowest_s"])
        generous = replace(self.limits, time_limit_s=60.0, total_time_limit_s=600.0)
        try:
            told = self._attempt(problem, partial(reference, suite=suite, limits=generous))
        except ValueError as error:
            raise ProblemError(f"{problem.id}: {error}") from None
        if self._cache is not None and not holds_opaque(told.values):
            self._cache.keep(name, {"values": told.values, "slowest_s": told.slowest_s})
        return told


@dataclass(frozen=True, slots=True)
class Prepared:
    """A problem ready to be graded. `failures` counts, for each test, the programs that it was the first to fail."""

    problem: Problem
    suite: Suite
    limits: Limits
    key: str
    failures: Counter[int] = field(default_factory=Counter)

    def order(self, mode: Mode) -> list[int]:
        """The tests, the most discriminating first; as given where a public grader's verdicts are wanted."""
        numbers = range(formats.count(self.suite))
        return list(numbers) if mode != "strict" else sorted(numbers, key=lambda number: -self.failures[number])


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
