"""A repository's suite before any change: which tests pass twice, and which function each of them exercises.

The first run is under coverage with a context for every test, the second one plain. Tests that fail, hang, end their
process or change their mind are left out by name. `exercising` asks for one function only, which may be broken: there
tests that fail count too.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dreamprm_sandbox.workshop import Report, Workshop
from dreamprm_trainer.mine.functions import Function, Module
from dreamprm_trainer.problems import Row

_MOST_RESTARTS = 25
_FAILING_S = 1.0


@dataclass(frozen=True, slots=True)
class Exercise:
    """tests: those that exercise the function, the most telling first, at most 60; number: how many there are in all;
    lines: of the module, that they run."""

    tests: tuple[str, ...]
    number: int
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mapped:
    """seconds: test id -> what it takes, for those that exercise the function, the most telling first, at most 60.
    failing: those of them that fail now, with the reason. number: how many there are. left_out: what could not be run,
    and why."""

    seconds: Mapping[str, float]
    failing: Mapping[str, str]
    number: int
    left_out: tuple[tuple[str, str], ...]

    def to_json(self) -> Row:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Row) -> Mapped:
        return cls(row["seconds"], row["failing"], row["number"], tuple((name, why) for name, why in row["left_out"]))


@dataclass(frozen=True, slots=True)
class Explored:
    """passing: tests that pass twice, in the suite's order, with their seconds. exercised: function id -> Exercise."""

    passing: Mapping[str, float]
    exercised: Mapping[str, Exercise]
    left_out: tuple[tuple[str, str], ...]

    def to_json(self) -> Row:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Row) -> Explored:
        exercised = {
            name: Exercise(tuple(one["tests"]), one["number"], tuple(one["lines"]))
            for name, one in row["exercised"].items()
        }
        return cls(row["passing"], exercised, tuple((name, why) for name, why in row["left_out"]))


def explore(
    workshop: Workshop,
    modules: Sequence[Module],
    *,
    suite_s: float,
    test_s: float,
    say: Callable[[str], None] = lambda line: None,
) -> Explored:
    """Run the suite twice. suite_s: seconds for each run; test_s: for each test."""
    found, left_out = _collected(workshop)
    say(f"{len(found.ids)} tests collected; running them under coverage ...")
    first, problems = _whole(workshop, suite_s, test_s, cover=_ranges(modules))
    left_out |= problems
    once = [name for name in found.ids if first.outcomes.get(name) == "passed"]
    for name, outcome in first.outcomes.items():
        if outcome != "passed":
            detail = first.details.get(name, "")
            left_out.setdefault(name, f"{outcome} before any change{f': {detail}' if detail else ''}")
    for name in found.ids:
        if name not in first.outcomes:
            left_out.setdefault(name, "not run")
    say(f"{len(once)} passed; running those once more ...")
    second, problems = _whole(workshop, suite_s, test_s, only=once) if once else (Report(), {})
    left_out |= problems
    passing = {name: second.seconds[name] for name in once if second.outcomes.get(name) == "passed"}
    for name in once:
        if name not in passing:
            left_out.setdefault(name, f"flaky: passed, then {second.outcomes.get(name, 'was not reported')}")
    exercised = _exercised(modules, first, passing)
    return Explored(passing, exercised, tuple(sorted(left_out.items())))


def exercising(
    workshop: Workshop,
    modules: Sequence[Module],
    function: Function,
    *,
    suite_s: float,
    test_s: float,
    say: Callable[[str], None] = lambda line: None,
) -> Mapped:
    """Run the suite once, under coverage: the tests that reach the body of one of the modules' functions."""
    found, left_out = _collected(workshop)
    say(f"{len(found.ids)} tests collected; running them under coverage ...")
    report, problems = _whole(workshop, suite_s, test_s, cover=_ranges(modules))
    ran = {name for name, outcome in report.outcomes.items() if outcome in ("passed", "failed")}
    one = _exercised(modules, report, ran).get(function.id, Exercise((), 0, ()))
    failing = {name: report.details.get(name, "") for name in one.tests if report.outcomes[name] == "failed"}
    # One that fails may fail early, or late because of what is to be mended.
    seconds = {name: _FAILING_S if name in failing else report.seconds[name] for name in one.tests}
    return Mapped(seconds, failing, one.number, tuple(sorted((left_out | problems).items())))


def _collected(workshop: Workshop) -> tuple[Report, dict[str, str]]:
    """The tests there are, and what keeps others from being collected."""
    found = workshop.collect()
    left_out = {name: f"cannot be collected: {why}" for name, why in found.errors.items()}
    if found.code not in (0, 1, 5) or (found.ended != "done" and not found.ids):
        left_out.setdefault("pytest", found.said or f"collecting the tests ended early ({found.ended})")
    return found, left_out


def _ranges(modules: Sequence[Module]) -> dict[str, list[tuple[int, int]]]:
    return {
        one.path: [(function.body_line, function.last_line) for function in one.functions]
        for one in modules
        if one.functions
    }


def _exercised(modules: Sequence[Module], report: Report, kept: Container[str]) -> dict[str, Exercise]:
    """Function id -> the tests among `kept` that reached its body; functions without one are not in it."""
    found = {}
    for one in modules:
        for function, (tests, number, lines) in zip(one.functions, report.cover.get(one.path, ()), strict=False):
            if some := tuple(test for test in tests if test in kept):
                found[function.id] = Exercise(some, number, tuple(lines))
    return found


def _whole(workshop: Workshop, suite_s: float, test_s: float, **question: Any) -> tuple[Report, dict[str, str]]:
    """A run of the suite to its end, without the tests that it cannot pass by: (report, test -> why)."""
    problems: dict[str, str] = {}
    report = Report()
    for _ in range(_MOST_RESTARTS):
        report = workshop.run(suite_s, test_limit_s=test_s, silent_s=2 * test_s + 10, skip=list(problems), **question)
        if report.ended == "over":  # what was run by then is what there is
            question["only"] = [name for name in report.outcomes if name not in problems]
            problems |= dict.fromkeys(
                set(report.ids) - set(question["only"]), f"the suite takes more than {suite_s:.0f} s"
            )
            suite_s *= 2
        elif report.ended == "done" or not report.at:
            break
        else:
            problems[report.at] = "hangs before any change" if report.ended == "hung" else "ends the process it runs in"
    if report.ended != "done":
        problems.setdefault("the suite", f"it cannot be run to its end ({report.ended})")
    elif report.code not in (0, 1, 5):
        problems.setdefault("pytest", report.said or f"exit code {report.code}")
    return report, problems
