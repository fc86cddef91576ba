"""`Sandbox`: a pool of warm containers that grades programs.

    with Sandbox(workers=2) as box:
        for verdict in box.grade((problem, code) for code in programs):
            ...

Covered: order, retries when the machine fails, one isolated retry when time was short on a busy machine, replacing
containers. Not covered: what the tests mean (formats), how one program is graded (verdict), the engine (docker).
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from dreamprm_cli.errors import ConfigError, ProblemError, SandboxUnavailable
from dreamprm_cli.types import Problem, Verdict
from dreamprm_sandbox import formats, judged
from dreamprm_sandbox.bundle import beside
from dreamprm_sandbox.cache import Cache, key
from dreamprm_sandbox.compare import holds_opaque
from dreamprm_sandbox.docker import Engine, own_runtime
from dreamprm_sandbox.formats import Mode, evalplus
from dreamprm_sandbox.judged import Collected
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.outputs import Inputs, Outputs, observe
from dreamprm_sandbox.slot import Fault, Slot
from dreamprm_sandbox.submission import Files, Program, Refused, taken_apart
from dreamprm_sandbox.suite import UNKNOWN, Calls, Judged, Script, Suite
from dreamprm_sandbox.verdict import BEYOND, Outcome, Reference, grade, reference

_ATTEMPTS = 4  # at least, and for so many seconds: an engine that is started again needs a while
_PATIENCE_S = 45.0
_LONGEST_PAUSE_S = 2.0
_RUNS_PER_CONTAINER = 2000
_AHEAD = 32  # jobs in flight for each worker: one slow program does not hold up the others
_PAUSE_S = 0.02  # for so long verdicts are collected when nothing else is to be done: waking up for each costs too


Trust = Literal["strong", "weak"]
Result = TypeVar("Result", Outcome, Reference, Collected, Outputs)
Told = TypeVar("Told")
Task = TypeVar("Task")


class Sandbox:
    """Grades programs in containers. Thread-safe. Starts its first container when it is entered.

    workers: containers, one per processor by default. limits: for every program; a problem's own `time_limit_s`
    comes first. mode: "strict", or the public grader whose verdicts are wanted ("evalplus", "lcb", "humaneval").
    runtime: an engine runtime such as "runsc" (also DREAMPRM_SANDBOX_RUNTIME). cache: a file of verdicts that are
    known already; none by default. shared: pytest suites import the program into their own process, where tests can
    do anything with it, and it with them (trust: weak). Raises SandboxUnavailable when there is no engine, when a
    limit is not in force, or when the machine keeps failing: never a verdict in its place.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        limits: Limits | None = None,
        mode: Mode = "strict",
        runtime: str | None = None,
        cache: Path | None = None,
        shared: bool = False,
    ) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.limits = limits or Limits()
        self.mode: Mode = mode
        self.shared = shared
        self.left_out: dict[str, int] = {}  # problem -> inputs whose reference result is too large to be compared
        self.cached = 0  # verdicts that came out of the cache
        self._engine = Engine(self.limits, runtime=runtime or own_runtime())
        self._executor = ThreadPoolExecutor(self.workers, thread_name_prefix="sandbox")
        self._free: deque[Slot] = deque()
        self._turns = _Turns()
        self._cache = Cache(cache) if cache is not None else None
        self._prepared: dict[tuple[str, Mode], Prepared] = {}
        self._unusable: dict[tuple[str, Mode], tuple[Problem, ProblemError]] = {}
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
    def width(self) -> int:
        """How many calls of `run` keep all containers busy."""
        return self.workers

    @property
    def isolation(self) -> str:
        """What keeps candidates in: engine, runtime, image."""
        return self._engine.isolation

    def run(self, problem: Problem, code: Program, mode: Mode | None = None) -> Verdict:
        """One program (a text, texts by path, or an archive) against the problem's tests. Raises ProblemError for tests
        that cannot be run."""
        return self._executor.submit(self._judge, problem, code, mode or self.mode).result()

    def grade(self, jobs: Iterable[tuple[Problem, Program]], mode: Mode | None = None) -> Iterator[Verdict]:
        """Verdicts in the order of the jobs, as they come; jobs are taken as needed, so they may be a generator."""
        return self._in_order(jobs, partial(self._judge, mode=mode or self.mode))

    def _in_order(self, jobs: Iterable[tuple[Task, Program]], judge: Callable[[Task, Program], Told]) -> Iterator[Told]:
        waiting: deque[Future[Told]] = deque()
        try:
            for task, code in jobs:
                waiting.append(self._executor.submit(judge, task, code))
                if len(waiting) >= _AHEAD * self.workers and not waiting[0].done():
                    wait([waiting[len(waiting) // 2]], _PAUSE_S)
                while waiting and (waiting[0].done() or len(waiting) >= _AHEAD * self.workers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def prepare(self, problem: Problem, mode: Mode | None = None) -> int:
        """Read the problem's tests, and run what only they need: a reference solution, collecting a pytest suite. How
        many tests there are. Raises ProblemError, also for a reference that fails, and ConfigError for no tests."""
        return formats.count(self._executor.submit(self._prepare, problem, mode or self.mode).result().suite)

    def each(
        self, jobs: Iterable[tuple[Problem, Program]], mode: Mode | None = None
    ) -> Iterator[Verdict | ProblemError]:
        """As `grade`; where a problem's tests cannot be run, its ProblemError stands for each verdict."""
        return self._in_order(jobs, partial(self._judge_if_usable, mode=mode or self.mode))

    def outputs(self, jobs: Iterable[tuple[Inputs, Program]]) -> Iterator[str | None]:
        """What each program gives on its problem's inputs (see `outputs.inputs`), as a digest; None where it fails.
        Programs of several files have none."""
        return self._in_order(jobs, self._observe)

    def _observe(self, asked: Inputs, code: Program) -> str | None:
        if not isinstance(code, str):
            return None
        name = key("outputs", code, asked.name, asdict(asked.limits), self.isolation)
        known = self._cache.value(name) if self._cache is not None else None
        if isinstance(known, dict):
            self.cached += 1
            digest: str | None = known["digest"]
            return digest
        work = partial(observe, code=code, asked=asked)
        with self._turns.shared():
            seen = self._attempt(asked.problem, work)
        if seen.contended:
            with self._turns.alone():
                seen = self._attempt(asked.problem, work)
        if self._cache is not None:
            self._cache.keep(name, {"digest": seen.digest})
        return seen.digest

    def _judge_if_usable(self, problem: Problem, code: Program, mode: Mode) -> Verdict | ProblemError:
        if (known := self._unusable.get((problem.id, mode))) is not None and known[0] is problem:
            return known[1]
        try:
            return self._judge(problem, code, mode)
        except ProblemError as error:
            self._unusable[problem.id, mode] = (problem, error)
            return error

    def _judge(self, problem: Problem, code: Program, mode: Mode) -> Verdict:
        prepared = self._prepare(problem, mode)
        name = ""
        if self._cache is not None:
            name = key("verdict", _named(code), prepared.key)
        if self._cache is not None and (known := self._cache.verdict(name)) is not None:
            self.cached += 1
            return known
        order = prepared.order(mode)
        suite = formats.ordered(prepared.suite, order)
        try:
            outcome = self._outcome(problem, code, suite, prepared.limits)
        except Refused as refusal:
            outcome = Outcome("REJECT", 0, formats.count(suite), 0.0, str(refusal))
        if outcome.failed is not None and not isinstance(suite, Judged):
            prepared.failures[order[outcome.failed]] += 1
        weak = isinstance(suite, Script) or (isinstance(suite, Judged) and suite.shared)
        trust: Trust = "weak" if weak else "strong"
        seconds = round(outcome.cpu_s, 6)
        detail, parts = outcome.detail, outcome.parts
        verdict = Verdict(
            outcome.status, outcome.passed, outcome.total, seconds, trust, self.isolation, detail=detail, parts=parts
        )
        if self._cache is not None:
            self._cache.keep_verdict(name, verdict)
        return verdict

    def _outcome(self, problem: Problem, code: Program, suite: Suite, limits: Limits) -> Outcome:
        """Run it, and once more, alone, when time was short on a busy machine. Raises Refused."""
        work, slots = _work(code, suite, limits)
        with self._turns.shared():
            outcome = self._attempt(problem, work, slots)
        if outcome.contended:
            with self._turns.alone():
                outcome = self._attempt(problem, work, slots)
        return outcome

    def _attempt(self, problem: Problem, work: Callable[..., Result], slots: int = 1) -> Result:
        """Do the work in as many slots as it needs, again in new containers while the machine is at fault."""
        fault, attempt, patience_ends = Fault("not tried"), 0, time.monotonic() + _PATIENCE_S
        while attempt < _ATTEMPTS or time.monotonic() < patience_ends:
            taken: list[Slot] = []
            try:
                try:
                    while len(taken) < slots:
                        taken.append(self._take(fresh=attempt > 0))
                    result = work(*taken)
                except BaseException:
                    for slot in taken:
                        self._engine.discard(slot)
                    raise
            except Fault as error:
                fault = error
                time.sleep(min(0.2 * 2**attempt, _LONGEST_PAUSE_S))
                attempt += 1
                continue
            for slot in taken:
                self._give(slot, worn=result.anomaly)
            return result
        raise SandboxUnavailable(
            f"the sandbox failed {attempt} times in a row on {problem.id}: {fault}",
            "look at the engine's log; nothing was labelled",
        )

    def _take(self, fresh: bool = False) -> Slot:
        """`fresh`: not one of the free ones, whose containers may all have gone together."""
        try:
            return self._engine.start() if fresh else self._free.pop()
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
        if isinstance(suite, Judged):
            suite = replace(suite, shared=suite.shared or self.shared)
            suite = self._collected(problem, suite, limits)
            contents = {path: hashlib.sha256(content).hexdigest() for path, content in suite.files.items()}
            tests = key(tests, contents, suite.modules, suite.shared)
        if isinstance(suite, Calls) and suite.tests[0].expected is UNKNOWN:
            with self._telling:  # one at a time: the others would find it told
                told = self._told(problem, suite, key("reference", tests, mode, self._engine.image))
            pairs = zip(suite.tests, told.values, strict=True)
            calls = tuple(replace(call, expected=value) for call, value in pairs if value is not BEYOND)
            if not calls:
                raise ProblemError(f"{problem.id}: the reference solution needs more than the sandbox's limits")
            if len(calls) < len(suite.tests):
                self.left_out[problem.id] = len(suite.tests) - len(calls)
            suite = replace(suite, tests=calls)
            slowest = evalplus.REFERENCE_FACTOR * told.slowest_s
            limits = replace(limits, time_limit_s=max(evalplus.MIN_TIME_LIMIT_S, slowest, limits.time_limit_s))
        name = key(tests, problem.entry_point, problem.tests.kind, mode, asdict(limits), self.isolation)
        made = Prepared(problem, suite, limits, name)
        self._prepared[problem.id, mode] = made
        return made

    def _collected(self, problem: Problem, suite: Judged, limits: Limits) -> Judged:
        """The suite with its tests, found without any program; `shared` where even a right program cannot be tested
        from outside."""
        found = self._attempt(problem, partial(judged.collect, suite=suite, limits=limits))
        if found.problem:
            raise ProblemError(f"{problem.id}: the tests cannot be collected: {found.problem}")
        if not found.ids:
            raise ConfigError(f"{problem.id}: the suite holds no tests", "a program passes only what was tested")
        suite = replace(suite, ids=found.ids)
        if suite.reference and self._outcome(problem, suite.reference, suite, limits).status != "PASS":
            suite = replace(suite, shared=True)
            if (outcome := self._outcome(problem, suite.reference, suite, limits)).status != "PASS":
                raise ProblemError(f"{problem.id}: the reference solution fails: {outcome.status} {outcome.detail}")
        return suite

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


def _named(code: Program) -> Any:
    """What tells this program from others."""
    if isinstance(code, bytes):
        return hashlib.sha256(code).hexdigest()
    return code if isinstance(code, str) else list(code.items())


def _work(code: Program, suite: Suite, limits: Limits) -> tuple[Callable[..., Outcome], int]:
    """What grades the program, and how many slots it needs. Raises Refused."""
    if isinstance(suite, Judged):
        program = Files({"solution": code}, {}) if isinstance(code, str) else taken_apart(code)
        if suite.shared:
            return (lambda slot: judged.grade(slot, slot, program, suite, limits)), 1
        return (lambda judge, slot: judged.grade(judge, slot, program, suite, limits)), 2
    if isinstance(code, str):
        return partial(grade, code=code, suite=suite, limits=limits), 1
    program = taken_apart(code)
    suite = replace(suite, prelude="\n".join(filter(None, (beside(program), suite.prelude))))
    return partial(grade, code=program.sources[program.main], suite=suite, limits=limits), 1


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
