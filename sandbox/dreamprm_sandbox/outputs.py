"""What a program gives back on a suite's inputs, as one digest: to tell which programs agree, not which are right.

Covered: functions and programs with standard streams. Not covered: tests that share the process with the program, and
pytest suites: their inputs cannot be taken apart. What the tests expect is taken off before anything runs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.types import Problem
from dreamprm_sandbox import formats
from dreamprm_sandbox.codec import Opaque
from dreamprm_sandbox.compare import holds_opaque
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.slot import End, Job, Reply, Run, Slot, Tampered
from dreamprm_sandbox.suite import UNKNOWN, Calls, Streams
from dreamprm_sandbox.verdict import batches

_MOST = 64  # inputs of a problem: a program that is wrong seldom agrees with others on so many
_DIGITS = 9  # of a float that count: sums in another order are the same result
_EXACT = 1 << 53

Test = TypeVar("Test")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a problem's tests, without what is expected of them. `name` tells them from others."""

    problem: Problem
    suite: Calls | Streams
    limits: Limits

    @property
    def name(self) -> str:
        if isinstance(self.suite, Calls):
            given = [(call.args, dict(call.kwargs)) for call in self.suite.tests]
            return repr((self.suite.entry_point, self.suite.prelude, given))
        return repr((self.suite.prelude, [case.stdin for case in self.suite.cases]))


@dataclass(frozen=True, slots=True)
class Outputs:
    """`digest` is None where the program failed on an input, gave what is no plain value, or nothing on any input."""

    digest: str | None
    contended: bool = False  # a time limit was met on a busy machine
    anomaly: bool = False  # replace the slot


def inputs(problem: Problem, limits: Limits | None = None) -> Inputs:
    """At most 64 inputs, evenly taken. Raises ProblemError where the tests have none that can be told from the rest,
    and ConfigError for an empty list of tests."""
    suite = formats.suite(problem)
    limits = limits or Limits()
    if problem.time_limit_s is not None:
        limits = replace(limits, time_limit_s=problem.time_limit_s)
    match suite:
        case Calls(tests=tests):
            calls = tuple(replace(call, expected=UNKNOWN) for call in _some(tests))
            return Inputs(problem, replace(suite, tests=calls, reference=""), limits)
        case Streams(cases=cases) if not any(case.output_file for case in cases):
            return Inputs(problem, replace(suite, cases=tuple(replace(c, stdout=None) for c in _some(cases))), limits)
    raise ProblemError(f"{problem.id}: the inputs of its tests cannot be taken apart from the rest")


def _some(tests: Sequence[Test]) -> list[Test]:
    step = max(1.0, len(tests) / _MOST)
    return [tests[int(number * step)] for number in range(min(len(tests), _MOST))]


def observe(slot: Slot, code: str, asked: Inputs) -> Outputs:
    """Run the program on every input, up to the first that it fails on."""
    try:
        if isinstance(asked.suite, Calls):
            return _called(slot, code, asked.suite, asked.limits)
        return _printed(slot, code, asked.suite, asked.limits)
    except Tampered:
        return Outputs(None, anomaly=True)


def _called(slot: Slot, code: str, suite: Calls, limits: Limits) -> Outputs:
    digest, silent = hashlib.sha256(), True
    run = slot.start(Job("calls", code, suite.prelude, suite.entry_point), limits)
    for number, reply in enumerate(_replies(run, suite)):
        if reply is None:
            return _nothing(run.wait())
        if reply.tag != ("V" if number else "L") or holds_opaque(reply.value):
            return _nothing(run.discard())
        if number:
            silent = silent and reply.value is None
            digest.update(f"{form(reply.value)}\n".encode("utf-8", "surrogatepass"))
    end = run.end()
    if silent or end.oom_kills or end.reason == "output":
        return _nothing(end)
    return Outputs(digest.hexdigest())


def _replies(run: Run, suite: Calls) -> Iterator[Reply | None]:
    """That the program is loaded, and its results."""
    yield run.reply()
    for batch in batches(suite.tests):
        run.send([(call.args, dict(call.kwargs)) for call in batch])
        for _ in batch:
            yield run.reply()


def _printed(slot: Slot, code: str, suite: Streams, limits: Limits) -> Outputs:
    digest, silent = hashlib.sha256(), True
    for case in suite.cases:
        stdin = case.stdin.encode("utf-8", "surrogatepass")
        run = slot.start(Job("program", code, suite.prelude), limits, stdin=stdin)
        end = run.wait()
        if run.reply() is not None or end.reason != "exited" or end.exit_code != 0 or end.oom_kills:
            return _nothing(end)
        words = bytes(run.stdout).split()
        silent = silent and not words
        digest.update(b" ".join(words) + b"\n")
    return Outputs(None if silent else digest.hexdigest())


def _nothing(end: End) -> Outputs:
    return Outputs(None, end.reason in ("cpu", "wall") and end.contended, end.oom_kills > 0)


def form(value: Any) -> str:
    """A plain value as text, the same for what a test would take for equal: lists and tuples, 1, 1.0 and True, floats
    in their first nine digits, sets and dicts in any order."""
    match value:
        case bool() | int():
            return hex(value)
        case float():
            whole = math.isfinite(value) and value.is_integer() and abs(value) < _EXACT
            return hex(int(value)) if whole else format(value, f".{_DIGITS}g")
        case complex():
            return f"complex({form(value.real)},{form(value.imag)})"
        case str() | bytes() | bytearray():
            return repr(value)
        case list() | tuple():
            return f"[{','.join(map(form, value))}]"
        case set() | frozenset():
            return f"{{{','.join(sorted(map(form, value)))}}}"
        case dict():
            return f"{{{','.join(sorted(f'{form(key)}:{form(entry)}' for key, entry in value.items()))}}}"
        case Opaque():
            raise ValueError("not a plain value")
    return repr(value)
