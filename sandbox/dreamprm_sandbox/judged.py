"""A pytest suite on the host: carries messages between the judge's container and the candidate's, and takes the
judge's account. The candidate's side is only ever a source of plain values; the tests never leave the judge's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dreamprm_cli.types import Status
from dreamprm_sandbox import carried, guard, judge, load, remote, served
from dreamprm_sandbox.bundle import bundle
from dreamprm_sandbox.compare import holds_opaque
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.slot import Fault, Job, Reply, Run, Slot, Tampered
from dreamprm_sandbox.submission import Files
from dreamprm_sandbox.suite import Judged
from dreamprm_sandbox.verdict import Outcome, failed, finished, status_of, story

_JUDGE_S = 20.0  # processor time the tests themselves may take between two questions
_JUDGE_TOTAL_S = 300.0
_WRONG = re.compile(r"assert\b|AssertionError|(_pytest\.outcomes\.)?Failed: DID NOT RAISE")


_CANDIDATE = bundle(load, carried, remote, served, main="served.serve")
_JUDGE = bundle(load, carried, remote, guard, judge, main="judge.main")


@dataclass(frozen=True, slots=True)
class Collected:
    """The tests of a suite, found without any program. `problem`: why there are none to be had."""

    ids: tuple[str, ...]
    problem: str = ""
    anomaly: bool = False


def collect(slot: Slot, suite: Judged, limits: Limits) -> Collected:
    """Which tests there are. Not one line of a program runs for it."""
    run = _begin(slot, _JUDGE, _generous(slot, limits))
    run.send([((dict(suite.files), list(suite.modules), list(suite.wanted), True, False), {})])
    reply = run.reply()
    if reply is None:
        return Collected((), f"collecting the tests met the {story(run.wait())}", anomaly=True)
    report = _report(reply)
    run.discard()
    if report["details"] or report["code"] not in (0, 5):
        place, text = next(iter(report["details"].items()), ("pytest", f"exit code {report['code']}"))
        return Collected((), f"{place}: {text}")
    return Collected(tuple(one for one in report["ids"] if not suite.only or _part(one) in suite.only))


def grade(judge_slot: Slot, slot: Slot, program: Files, suite: Judged, limits: Limits) -> Outcome:
    """Run the tests against the program. Raises Fault when the machine fails, and Refused for a program of several
    files of which none is the main one."""
    try:
        return _graded(judge_slot, slot, program, suite, limits)
    except Tampered as error:
        return Outcome("TAMPER", 0, len(suite.ids), 0.0, str(error), anomaly=True)


def _graded(judge_slot: Slot, slot: Slot, program: Files, suite: Judged, limits: Limits) -> Outcome:
    total = len(suite.ids)
    sources = dict(program.sources)
    if suite.prelude:
        sources[program.main] = f"{suite.prelude}\n{sources[program.main]}"
    if len(program.sources) == 1:  # one program: it is what every import of the tests means
        sources |= dict.fromkeys(suite.modules, sources[program.main])
    given = (sources, dict(program.data))
    question = (dict(suite.files), list(suite.modules), list(suite.wanted), False, suite.fail_fast)
    if suite.shared:
        return _shared(slot, (*question, given), suite, limits)
    candidate = _begin(slot, _CANDIDATE, limits)
    candidate.send([(given, {})])
    reply = candidate.reply()
    if reply is None or reply.tag != "V":
        return failed(candidate, reply, 0, total)
    judging = _begin(judge_slot, _JUDGE, _generous(judge_slot, limits))
    passed = 0
    try:
        judging.send([(question, {})])
        while True:
            reply = judging.reply()
            if reply is None:
                return _ended_early(judging, candidate, passed, total)
            if reply.tag != "V" or isinstance(reply.value, dict):
                return _judged(candidate, _report(reply), suite)
            passed, message = reply.value
            candidate.send([((message,), {})])
            answer = candidate.reply()
            if answer is None or answer.tag != "V":
                return failed(candidate, answer, min(passed, total - 1), total)
            if holds_opaque(answer.value):
                raise Tampered("an answer that is not made of plain values")
            judging.send([((answer.value,), {})])
    finally:
        judging.discard()


def _shared(slot: Slot, question: Any, suite: Judged, limits: Limits) -> Outcome:
    """Tests and program in one process."""
    long = replace(limits, time_limit_s=limits.total_time_limit_s)
    run = _begin(slot, _JUDGE, long)
    run.send([(question, {})])
    reply = run.reply()
    if reply is None or reply.tag != "V" or not isinstance(reply.value, dict):
        return failed(run, reply if reply is None or reply.tag != "V" else Reply("S"), 0, len(suite.ids))
    return _judged(run, _report(reply), suite)


def _begin(slot: Slot, code: str, limits: Limits) -> Run:
    """A run of a program of ours, loaded."""
    run = slot.start(Job("calls", code, "", "main"), limits)
    reply = run.reply()
    if reply is None or reply.tag != "L":
        raise Fault(f"a container cannot run the judge's code: {reply or story(run.wait())}")
    return run


def _generous(slot: Slot, limits: Limits) -> Limits:
    time_s = limits.time_limit_s + _JUDGE_S
    return replace(limits, time_limit_s=time_s, total_time_limit_s=_JUDGE_TOTAL_S, memory_mb=slot.memory_mb)


def _report(reply: Reply) -> dict[str, Any]:
    if reply.tag == "E":
        raise Fault(f"the judge failed: {reply.value}; is the image older than the program? (dreamprm sandbox build)")
    if reply.tag != "V" or not isinstance(reply.value, dict):
        raise Fault("the judge's account is damaged")
    return reply.value


def _ended_early(judging: Run, candidate: Run, passed: int, total: int) -> Outcome:
    """The tests met a limit or ended their process: whatever led them there, they did not pass."""
    end = judging.wait()
    return finished(candidate, status_of(end), min(passed, total - 1), total, f"the tests met the {story(end)}")


def _judged(run: Run, report: Mapping[str, Any], suite: Judged) -> Outcome:
    total = len(suite.ids)
    outcomes: Mapping[str, str] = report["outcomes"]
    won = [one for one in suite.ids if outcomes.get(one) == "passed"]
    parts = _parts(suite, outcomes)
    if report.get("broken"):
        raise Tampered(report["broken"])
    if report.get("trouble"):
        status: Status = "RE"
        detail = f"cannot be tested from outside: {report['trouble']}"
    elif not suite.only and tuple(report["ids"]) != suite.ids:
        status, detail = "RE", _first(report, "other tests were found than without the program")
    elif len(won) == total and (suite.only or report["code"] == 0):
        return replace(finished(run, "PASS", total, total), parts=parts)
    else:
        wanted = {name: text for name, text in report["details"].items() if name in suite.ids}
        name = next((one for one in suite.ids if outcomes.get(one) != "passed" and one in wanted), "")
        outcome, text = outcomes.get(name, ""), wanted.get(name, "")
        if not name:
            status, detail = "RE", _first(report, "not every test was reported")
        else:
            status = "WA" if outcome != "failed" or _WRONG.match(text) else "RE"
            status = "MLE" if text.startswith("MemoryError") else status
            detail = f"{name}: {text}" if outcome == "failed" else f"{name}: {outcome}: {text}"
    return replace(finished(run, status, min(len(won), total - 1), total, detail), parts=parts)


def _first(report: Mapping[str, Any], otherwise: str) -> str:
    return next((f"{name}: {text}" for name, text in report["details"].items()), otherwise)


def _part(one: str) -> str:
    """The class of a test's id, its file where there is none."""
    pieces = one.split("::")
    return pieces[1] if len(pieces) > 2 else pieces[0]


def _parts(suite: Judged, outcomes: Mapping[str, str]) -> tuple[tuple[str, bool], ...]:
    """(class or file, whether all of its tests passed); with `fail_fast` the later ones are not known, so none."""
    if suite.fail_fast:
        return ()
    parts: dict[str, bool] = {}
    for one in suite.ids:
        parts[_part(one)] = parts.get(_part(one), True) and outcomes.get(one) == "passed"
    return tuple(parts.items())
