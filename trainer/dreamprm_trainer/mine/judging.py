"""A module with another body in it, and what the tests that exercise the function say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dreamprm_cli.types import Status
from dreamprm_sandbox.workshop import Report, Workshop

_SLOWER = 5.0  # times what the repository's own body takes
_LEAST_S = 6.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """passed: the ids that did. failed: the first that did not (or where it stopped), with its reason."""

    status: Status
    passed: tuple[str, ...]
    failed: str = ""
    detail: str = ""
    seconds: float = 0.0


def judge(
    workshop: Workshop,
    path: str,
    data: bytes,
    tests: Sequence[str],
    seconds: float,
    fail_fast: bool = True,
) -> Judgement:
    """Run `tests` with `data` as the content of the file `path`. seconds: what the tests take without it."""
    report = workshop.run(
        _SLOWER * seconds + _LEAST_S,
        files={path: data},
        only=list(tests),
        tests=list(dict.fromkeys(test.partition("::")[0] for test in tests)),
        fail_fast=fail_fast,
    )
    passed = tuple(test for test in tests if report.outcomes.get(test) == "passed")
    status, failed = _status(report, tests, passed)
    detail = report.details.get(failed) or next(iter(report.errors.values()), report.said)
    return Judgement(status, passed, failed, "" if status == "PASS" else detail, sum(report.seconds.values()))


def _status(report: Report, tests: Sequence[str], passed: Sequence[str]) -> tuple[Status, str]:
    failed = next((test for test, outcome in report.outcomes.items() if outcome != "passed"), "")
    if failed:
        detail = report.details.get(failed, "")
        wrong = detail.startswith(("assert", "AssertionError", "Failed: DID NOT RAISE"))
        return ("MLE" if detail.startswith("MemoryError") else "WA" if wrong else "RE"), failed
    if report.ended in ("over", "hung"):
        return "TLE", report.at
    if len(passed) < len(tests) or report.ended != "done":
        syntax = any("SyntaxError" in why or "IndentationError" in why for why in report.errors.values())
        return ("CE" if syntax else "RE"), report.at
    return "PASS", ""
