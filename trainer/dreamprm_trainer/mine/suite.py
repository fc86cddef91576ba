"""A repository's suite before any change: which tests pass twice, and which function each of them exercises.

The first run is under coverage with a context for every test, the second one plain. Tests that fail, hang, end their
process or change their mind are left out by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dreamprm_sandbox.workshop import Report, Workshop
from dreamprm_trainer.mine.functions import Module
from dreamprm_trainer.problems import Row

_MOST_RESTARTS = 25


@dataclass(frozen=True, slots=True)
class Exercise:
    """tests: those that exercise the function, the most telling first, at most 60; number: how many there are in all;
    lines: of the module, that they run."""

    tests: tuple[str, ...]
    number: int
    lines: tuple[int, ...]


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
    found = workshop.collect()
    left_out = {name: f"cannot be collected: {why}" for name, why in found.errors.items()}
    if found.code not in (0, 1, 5) or (found.ended != "done" and not found.ids):
        left_out.setdefault("pytest", found.said or f"collecting the tests ended early ({found.ended})")
    cover = {
        one.path: [(function.body_line, function.last_line) for function in one.functions]
        for one in modules
        if one.functions
    }
    say(f"{len(found.ids)} tests collected; running them under coverage ...")
    first, problems = _whole(workshop, suite_s, test_s, cover=cover)
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
    exercised = {}
    for one in modules:
        for function, (tests, number, lines) in zip(one.functions, first.cover.get(one.path, ()), strict=False):
            kept = tuple(test for test in tests if test in passing)
            if kept:
                exercised[function.id] = Exercise(kept, number, tuple(lines))
    return Explored(passing, exercised, tuple(sorted(left_out.items())))


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
