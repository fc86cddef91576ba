"""One program, one suite, one slot -> one verdict. The host compares; what the candidate says is only a claim.

Lockstep: input i leaves this process when the result of input i-1 has been read. A machine's fault raises `Fault`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dreamprm_cli.types import Status
from dreamprm_sandbox import outfile
from dreamprm_sandbox.bundle import bundle
from dreamprm_sandbox.codec import Opaque
from dreamprm_sandbox.compare import holds_opaque
from dreamprm_sandbox.formats import count
from dreamprm_sandbox.limits import Limits
from dreamprm_sandbox.slot import End, Fault, Job, Reply, Run, Slot, Tampered
from dreamprm_sandbox.suite import UNKNOWN, Call, Calls, Case, Script, Streams


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict in the making. `contended`: a time limit was met on a busy machine; `anomaly`: replace the slot."""

    status: Status
    passed: int
    total: int
    cpu_s: float
    detail: str = ""
    failed: int | None = None  # the first test that was not passed
    contended: bool = False
    anomaly: bool = False
    parts: tuple[tuple[str, bool], ...] = ()  # test classes and whether each was passed


_BATCH = 32
_WITH_FILE = bundle(outfile, main="outfile.main")
# In place of a result that is too large to be compared.
BEYOND = Opaque("beyond the caps")


@dataclass(frozen=True, slots=True)
class Reference:
    """What the canonical solution returned for each input (or BEYOND), and the longest it took."""

    values: tuple[Any, ...]
    slowest_s: float
    anomaly: bool = False


def grade(slot: Slot, code: str, suite: Calls | Streams | Script, limits: Limits) -> Outcome:
    """Run the program against the suite, up to the first test it fails."""
    try:
        match suite:
            case Calls():
                return _calls(slot, code, suite, limits)
            case Streams():
                return _streams(slot, code, suite, limits)
            case Script():
                return _script(slot, code, suite, limits)
    except Tampered as error:
        return Outcome("TAMPER", 0, count(suite), 0.0, str(error), anomaly=True)


def reference(slot: Slot, suite: Calls, limits: Limits) -> Reference:
    """The expected results, told by the canonical solution. A result that no honest run could send, because it is
    beyond the caps, is left out (BEYOND). Raises ValueError when the solution fails otherwise."""
    values: list[Any] = []
    slowest = 0.0
    while len(values) < len(suite.tests):
        run = slot.start(Job("calls", suite.reference, suite.prelude, suite.entry_point), limits)
        first = run.reply()
        if first is None or first.tag != "L":
            raise ValueError(f"the reference solution does not load: {first or run.wait()}")
        reply: Reply | None = first
        for batch in batches(suite.tests[len(values) :]):
            run.send([(call.args, dict(call.kwargs)) for call in batch])
            for _ in batch:
                reply = run.reply()
                if reply is None or reply.tag != "V":
                    break
                values.append(reply.value)
                slowest = max(slowest, run.waited_s)
            if reply is None or reply.tag != "V":
                break
        run.wait() if reply is None else run.discard()
        if reply is None or reply.tag == "S" or _names(reply)[0] == "MemoryError":
            values.append(BEYOND)
        elif reply.tag not in "LV":
            raise ValueError(f"the reference solution fails on input {len(values) + 1}: {reply}")
    return Reference(tuple(values), slowest)


def _calls(slot: Slot, code: str, suite: Calls, limits: Limits) -> Outcome:
    run = slot.start(Job("calls", code, suite.prelude, suite.entry_point), limits)
    total, passed = len(suite.tests), 0
    reply = run.reply()
    if reply is None or reply.tag != "L":
        return failed(run, reply, passed, total)
    for batch in batches(suite.tests):
        run.send([(call.args, dict(call.kwargs)) for call in batch])
        for call in batch:
            reply = run.reply()
            if reply is None or reply.tag != "V":
                return failed(run, reply, passed, total)
            if not suite.accepts_opaque and holds_opaque(reply.value):
                return finished(run, "RE", passed, total, "the result is not a plain value")
            if not _right(suite, reply.value, call):
                return finished(run, "WA", passed, total, f"test {passed + 1}")
            passed += 1
    return finished(run, "PASS", passed, total)


def batches(tests: Sequence[Call]) -> Iterator[Sequence[Call]]:
    """One, two, four ... inputs on their way: a program that fails does so early, one that passes goes fast."""
    start, size = 0, 1
    while start < len(tests):
        yield tests[start : start + size]
        start, size = start + size, min(2 * size, _BATCH)


def _right(suite: Calls, got: Any, call: Call) -> bool:
    if call.expected is UNKNOWN:
        raise ValueError("expected results have not been told yet")
    return suite.compare(got, call)


def _streams(slot: Slot, code: str, suite: Streams, limits: Limits) -> Outcome:
    passed, total, cpu_s = 0, len(suite.cases), 0.0
    for case in suite.cases:
        outcome = _case(slot, code, suite, case, limits)
        cpu_s += outcome.cpu_s
        if outcome.status != "PASS":
            return replace(outcome, passed=passed, total=total, cpu_s=cpu_s, failed=passed)
        passed += 1
    return Outcome("PASS", passed, total, cpu_s)


def _case(slot: Slot, code: str, suite: Streams, case: Case, limits: Limits) -> Outcome:
    # Nobody prints many times what is asked for by mistake: the cap keeps floods from the host.
    cap = min(limits.output_bytes, 4 * len(case.stdout or "") + (1 << 18))
    stdin = case.stdin.encode("utf-8", "surrogatepass")
    if case.output_file:
        return _written(slot, code, suite, case, limits)
    assert case.stdout is not None
    if suite.harness:
        code = f"{suite.harness}\ngrade({code!r})\n"
    run = slot.start(Job("program", code, suite.prelude), limits, stdin=stdin, output_bytes=cap)
    end = run.wait()
    last: Reply | None = None
    while reply := run.reply():
        last = reply
    if last is not None and last.tag not in "CE":
        raise Tampered("a result where none was asked for")
    if last is not None or end.reason != "exited" or end.exit_code != 0 or end.oom_kills:
        return failed(run, last, 0, 1)
    printed = run.stdout.decode("utf-8", "replace")
    return finished(run, "PASS" if suite.compare(printed, case.stdout) else "WA", 0, 1)


def _written(slot: Slot, code: str, suite: Streams, case: Case, limits: Limits) -> Outcome:
    """A program that has to write a file. What is read of it is a claim, like everything it returns."""
    run = slot.start(Job("calls", _WITH_FILE, "", "main"), limits)
    reply = run.reply()
    if reply is None or reply.tag != "L":
        raise Fault(f"a container cannot run the harness: {reply}")
    source = f"{suite.prelude}\n{code}" if suite.prelude else code
    texts = [text.encode("utf-8", "surrogatepass") for text in (source, case.stdin)]
    most = 4 * len(case.content) + (1 << 18)
    run.send([((*texts, case.output_file, most, limits.output_bytes), {})])
    reply = run.reply()
    if reply is None or reply.tag != "V":
        return failed(run, reply, 0, 1)
    match reply.value:
        case {"status": int() as code_, "printed": bytes() as printed, "error": str() as error,
              "problem": str() as problem, "content": bytes() as content}:  # fmt: skip
            pass
        case _:
            raise Tampered("not the account of a run")
    if error in ("SyntaxError", "IndentationError", "TabError"):
        return finished(run, "CE", 0, 1, error)
    if len(printed) > limits.output_bytes:
        return finished(run, "OLE", 0, 1, "output limit")
    if code_ != 0:
        return finished(run, "MLE" if error == "MemoryError" else "RE", 0, 1, error or f"exit status {code_}")
    if problem:
        return finished(run, "FILE_ERROR", 0, 1, f"{case.output_file}: {problem}")
    right = suite.compare(content.decode("utf-8", "replace"), case.content) and (
        case.stdout is None or suite.compare(printed.decode("utf-8", "replace"), case.stdout)
    )
    return finished(run, "PASS" if right else "WA", 0, 1)


def _script(slot: Slot, code: str, suite: Script, limits: Limits) -> Outcome:
    run = slot.start(Job("script", code, suite.prelude, suite.entry_point), limits)
    reply = run.reply()
    if reply is None or reply.tag != "L":
        return failed(run, reply, 0, suite.count)
    nonce = secrets.token_bytes(16)
    run.send([{"tests": suite.code, "call_check": suite.call_check, "nonce": nonce}])
    reply = run.reply()
    if reply is not None and reply.tag == "P" and reply.value == nonce:
        return finished(run, "PASS", suite.count, suite.count)
    if reply is not None and reply.tag == "E" and _names(reply)[0] == "AssertionError":
        return finished(run, "WA", 0, suite.count, _names(reply)[1])
    return failed(run, reply, 0, suite.count)


def failed(run: Run, reply: Reply | None, passed: int, total: int) -> Outcome:
    """A program that raised, ended or was ended instead of giving the result that was due."""
    if reply is None:
        end = run.wait()
        return finished(run, status_of(end), passed, total, story(end))
    name, text = _names(reply)
    if reply.tag == "C":
        status: Status = "CE"
    elif reply.tag == "E":
        status = "MLE" if name == "MemoryError" else "RE"
    elif reply.tag == "S":
        status, text = "OLE", "the result is too large"
    else:
        raise Tampered("a reply out of turn")
    return finished(run, status, passed, total, f"{name}: {text}".strip(": "))


def _names(reply: Reply) -> tuple[str, str]:
    """(type, text) of a reported exception; what does not look like one was not written by us."""
    if reply.tag not in "CE":
        return "", ""
    match reply.value:
        case (str() as name, str() as text):
            return name, text
    raise Tampered("not an exception")


def status_of(end: End) -> Status:
    if end.oom_kills:
        return "MLE"
    if end.reason in ("cpu", "wall"):
        return "TLE"
    return "OLE" if end.reason == "output" else "RE"


def story(end: End) -> str:
    if end.reason == "exited":
        return f"killed by signal {-end.exit_code}" if end.exit_code < 0 else f"exit code {end.exit_code}"
    return {"cpu": "processor time", "wall": "wall time", "output": "output"}.get(end.reason, end.reason) + " limit"


def finished(run: Run, status: Status, passed: int, total: int, detail: str = "") -> Outcome:
    """End the run; what it did beside its results can still take a pass away."""
    end = run.end() if status == "PASS" else run.discard()
    if status == "PASS" and (end.oom_kills or end.reason == "output"):
        status, passed, detail = status_of(end), max(0, passed - 1), story(end)
    failed = None if status == "PASS" else min(passed, total - 1)
    contended = status == "TLE" and end.contended
    return Outcome(status, passed, total, end.cpu_s, detail, failed, contended, end.oom_kills > 0)
