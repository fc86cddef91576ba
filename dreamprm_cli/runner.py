"""One run from open models to a saved program: drives `solve`, keeps the journal, feeds the view."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from dreamprm_cli import events as ev
from dreamprm_cli import store
from dreamprm_cli.policy import Policy
from dreamprm_cli.prm import Scorer
from dreamprm_cli.result import result
from dreamprm_cli.solve import Request, Verify, solve
from dreamprm_cli.types import Usage

EXTENSIONS = {
    "python": "py", "javascript": "js", "typescript": "ts", "java": "java", "cpp": "cpp", "go": "go", "rust": "rs",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """A run's place on disk and what happened in it before this process (empty for a new run)."""

    folder: Path
    request: Request
    policy: str
    prm: str | None
    settings: dict[str, Any]
    past: Sequence[ev.Event] = ()
    out: Path | None = None


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets; the second one is an ordinary KeyboardInterrupt."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    old = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def execute(
    run: Run,
    policy: Policy,
    scorer: Scorer | None,
    *,
    emit: Callable[[ev.Event], None],
    verify: Verify | None = None,
    overlap: bool = False,
    started: float | None = None,
) -> dict[str, Any]:
    """Run to the end or to the first Ctrl-C, journal and emit every event, write the chosen program; the result object.

    `started` is `time.monotonic()` when the user asked, so that `duration_ms` counts loading the models too.
    """
    begin = time.monotonic() if started is None else started
    origin = begin - (run.past[-1].t if run.past else 0.0)  # a resumed run's clock goes on where it stopped
    done, tested = store.finished(run.past)
    events = list(run.past)
    with ExitStack() as stack:
        journal = stack.enter_context(store.Journal(run.folder))
        stop = stack.enter_context(interruptible())

        def record(event: ev.Event) -> None:
            journal.append(event)
            events.append(event)
            emit(event)

        record(_opening(run, round(time.monotonic() - origin, 4)))
        chosen: int | None = None
        for event in solve(
            run.request, policy, scorer, finished=done, verdicts=tested, verify=verify,
            overlap=overlap, stop=stop, started=origin,
        ):  # fmt: skip
            record(event)
            if isinstance(event, ev.CandidateFinished):
                done[event.candidate] = event
            elif isinstance(event, ev.Chosen):
                chosen = event.chosen
        out = None
        if chosen is not None:
            extension = EXTENSIONS[run.request.problem.language]
            out = run.out or run.folder / f"solution.{extension}"
            code = done[chosen].code
            store.write_atomic(out, code if code.endswith("\n") else code + "\n")
        usage = _total([_past_usage(run.past), policy.usage()])
        now = time.monotonic()
        record(
            ev.RunFinished(
                t=round(now - origin, 4),
                interrupted=stop.is_set() and len(done) < run.request.n,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cost_usd=usage.cost_usd,
                duration_ms=round((now - begin) * 1000),
                out=str(out) if out else None,
            )
        )
    return result(events)


def _past_usage(past: Sequence[ev.Event]) -> Usage:
    rows = [Usage(e.input_tokens, e.output_tokens, e.cost_usd) for e in past if isinstance(e, ev.RunFinished)]
    return _total(rows)


def _total(usages: Sequence[Usage]) -> Usage:
    """Sum over the processes of a run. The cost is unknown as soon as one that used tokens does not know it."""
    costs = [u.cost_usd for u in usages if u.output_tokens or u.cost_usd is not None]
    known = [cost for cost in costs if cost is not None]
    return Usage(
        sum(u.input_tokens for u in usages),
        sum(u.output_tokens for u in usages),
        sum(known) if known and len(known) == len(costs) else None,
    )


def _opening(run: Run, t: float) -> ev.Event:
    if run.past:
        return ev.RunResumed(t=t)
    return ev.RunStarted(
        t=t, run=run.folder.name, problem=store.problem_json(run.request.problem), policy=run.policy, prm=run.prm,
        n=run.request.n, aggregation=run.request.aggregation, settings=run.settings,
    )  # fmt: skip
