"""What is to be seen of a run, folded from its events. Pure values: the same events give the same state.

A fold costs the same however long the run is: text that belongs to a finished step is forgotten, and only the tail of
the text still being written is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from dreamprm_cli import events as ev
from dreamprm_cli.aggregate import AGGREGATIONS, aggregate
from dreamprm_cli.types import FinishReason, Step, Usage, Verdict

CandidateStatus = Literal["waiting", "writing", "finished", "error"]

_TAIL = 4000  # characters of unfinished text that are kept
_STEPS = 10_000  # a step number beyond this is damage
_NOTICES = 50
_WINDOW = 10  # marks, at least _MARK_S apart, over which the speed is measured
_MARK_S = 0.5
_UNSEEN = Step("", "code", "", 0, 0)  # stands in for a step whose score came before the step itself


@dataclass(frozen=True, slots=True)
class StepView:
    """A step and its reward: None while it is not scored, NaN when it never is."""

    step: Step
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class CandidateView:
    """One program. `reward` is None until it is finished; `unfinished` is the end of its text beyond its last step."""

    index: int
    status: CandidateStatus = "waiting"
    steps: tuple[StepView, ...] = ()
    unfinished: str = ""
    pending: int = 0  # characters that arrived beyond the last finished step
    tokens: int = 0
    code: str | None = None
    reward: float | None = None
    finish_reason: FinishReason | None = None
    mean_logprob: float = math.nan
    seed: int | None = None
    adherence: Mapping[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None

    @property
    def program(self) -> str:
        """The whole code, or as much of it as its finished steps hold."""
        return self.code if self.code is not None else "".join(s.step.source for s in self.steps)

    @property
    def cells(self) -> tuple[StepView, ...]:
        """The steps that hold logic; imports and constants are never scored and need no cell."""
        return tuple(s for s in self.steps if s.step.scored)


@dataclass(frozen=True, slots=True)
class ViewState:
    """The whole screen's knowledge. Times are seconds, `elapsed` never runs backwards, also over a resume."""

    run: str = ""
    title: str = ""
    language: str = "python"
    policy: str = ""
    prm: str | None = None
    n: int = 0
    aggregation: str = "mean"
    candidates: Mapping[int, CandidateView] = field(default_factory=dict)
    tokens: int = 0
    elapsed: float = 0.0
    notices: tuple[str, ...] = ()
    chosen: int | None = None
    ranking: tuple[int, ...] = ()
    logprob_weight: float = 0.0
    usage: Usage | None = None
    duration_ms: int | None = None
    out: str | None = None
    interrupted: bool = False
    over: bool = False  # RunFinished was seen, and no resume after it
    resumed: bool = False
    offset: float = 0.0  # added to the events' own times
    window: tuple[tuple[float, int], ...] = ()  # (elapsed, tokens) marks
    writing_s: float = 0.0  # time between first and last text
    last_text: float | None = None

    @staticmethod
    def initial() -> ViewState:
        return ViewState()

    def rows(self) -> list[CandidateView]:
        """By rank once there is one (candidates without code last), by index before: rows do not jump while running."""
        ranked = [self.candidates[i] for i in self.ranking if i in self.candidates]
        return ranked + [self.candidates[i] for i in sorted(self.candidates.keys() - set(self.ranking))]

    def count(self, *statuses: CandidateStatus) -> int:
        return sum(c.status in statuses for c in self.candidates.values())

    def reward_of(self, candidate: CandidateView) -> float | None:
        """The candidate's reward; before it is finished, that of the steps scored so far. None: nothing yet."""
        if candidate.reward is not None:
            return candidate.reward
        rewards = [s.reward for s in candidate.steps if s.reward is not None]
        if self.aggregation not in AGGREGATIONS or all(math.isnan(r) for r in rewards):
            return None
        return aggregate(rewards, self.aggregation)

    def speed(self, elapsed: float) -> float | None:
        """Tokens per second: of the last seconds while running, over the whole writing afterwards. None: not known."""
        if self.over or self.ranking:
            return self.tokens / self.writing_s if self.writing_s > 0 else None
        if not self.window or elapsed - self.window[0][0] < _MARK_S:
            return None
        return (self.tokens - self.window[0][1]) / (elapsed - self.window[0][0])


def fold_all(events: Iterable[ev.Event]) -> ViewState:
    """The state after all `events`."""
    return reduce(fold, events, ViewState.initial())


def fold(state: ViewState, event: ev.Event) -> ViewState:
    """The state after one more event. Never raises on a well-typed event, whatever the order of events."""
    if isinstance(event, ev.RunResumed):
        return _resume(state, event)
    state = replace(state, elapsed=max(state.elapsed, state.offset + event.t))
    match event:
        case ev.RunStarted():
            return _start(event)
        case ev.SampleStarted():
            fresh = CandidateView(event.candidate, status="writing", seed=event.seed)
            return replace(_with(state, fresh), last_text=_either(state.last_text, state.elapsed))
        case ev.TextArrived():
            return _write(state, event)
        case ev.StepFinished():
            return _with(state, _add_step(_get(state, event.candidate), event))
        case ev.StepScored():
            return _with(state, _score(_get(state, event.candidate), event))
        case ev.CandidateFinished():
            return _finish(state, event)
        case ev.TestsRan():
            verdict = Verdict(
                event.status, event.passed, event.total, event.seconds,
                "strong" if event.trust == "strong" else "weak", event.isolation,
            )  # fmt: skip
            return _with(state, replace(_get(state, event.candidate), verdict=verdict))
        case ev.Notice():
            return replace(state, notices=(*state.notices, event.text)[-_NOTICES:])
        case ev.Chosen():
            return replace(
                state, chosen=event.chosen, ranking=tuple(event.ranking), logprob_weight=event.logprob_weight
            )
        case ev.RunFinished():
            return replace(
                state,
                over=True,
                interrupted=event.interrupted,
                usage=Usage(event.input_tokens, event.output_tokens, event.cost_usd),
                duration_ms=event.duration_ms,
                out=event.out,
            )
    return state


def _start(event: ev.RunStarted) -> ViewState:
    problem = event.problem
    title = str(problem.get("title") or problem.get("id") or "")
    if not title:
        title = next((line.strip("# ") for line in str(problem.get("statement", "")).splitlines() if line.strip()), "")
    return ViewState(
        run=event.run,
        title=title,
        language=str(problem.get("language") or "python"),
        policy=event.policy,
        prm=event.prm,
        n=event.n,
        aggregation=event.aggregation,
        candidates={index: CandidateView(index) for index in range(event.n)},
        elapsed=max(0.0, event.t),
    )


def _resume(state: ViewState, event: ev.RunResumed) -> ViewState:
    """Finished candidates stay, the others start again; the clock goes on, whether or not the events' times do."""
    kept = {
        index: c if c.status in ("finished", "error") else CandidateView(index)
        for index, c in state.candidates.items()
    }  # fmt: skip
    return replace(
        state, candidates=kept, resumed=True, over=False, interrupted=False, chosen=None, ranking=(), usage=None,
        duration_ms=None, out=None, window=(), last_text=None,
        offset=max(0.0, state.elapsed - event.t), elapsed=max(state.elapsed, event.t),
    )  # fmt: skip


def _get(state: ViewState, index: int) -> CandidateView:
    return state.candidates.get(index) or CandidateView(index)


def _with(state: ViewState, candidate: CandidateView) -> ViewState:
    return replace(state, candidates={**state.candidates, candidate.index: candidate})


def _write(state: ViewState, event: ev.TextArrived) -> ViewState:
    candidate = _get(state, event.candidate)
    pending = candidate.pending + len(event.text)
    candidate = replace(
        candidate,
        status=_begun(candidate),
        unfinished=(candidate.unfinished + event.text)[-min(_TAIL, pending) :] if pending else "",
        pending=pending,
        tokens=candidate.tokens + event.tokens,
    )
    tokens = state.tokens + event.tokens
    window = state.window
    if not window or state.elapsed - window[-1][0] >= _MARK_S:
        window = (*window, (state.elapsed, tokens))[-_WINDOW:]
    since = _either(state.last_text, state.elapsed)
    return replace(
        _with(state, candidate), tokens=tokens, window=window,
        writing_s=state.writing_s + state.elapsed - since, last_text=state.elapsed,
    )  # fmt: skip


def _add_step(candidate: CandidateView, event: ev.StepFinished) -> CandidateView:
    if not 0 <= event.step < _STEPS:
        return candidate
    step = Step(event.name, event.kind, event.source, event.first_line, event.last_line)
    steps = _padded(candidate.steps, event.step)
    reward = steps[event.step].reward if event.step < len(steps) else None
    pending = max(0, candidate.pending - len(event.source))
    return replace(
        candidate,
        status=_begun(candidate),
        steps=(*steps[: event.step], StepView(step, reward), *steps[event.step + 1 :]),
        pending=pending,
        unfinished=candidate.unfinished[-pending:] if pending else "",
    )


def _score(candidate: CandidateView, event: ev.StepScored) -> CandidateView:
    if not 0 <= event.step < _STEPS:
        return candidate
    steps = _padded(candidate.steps, event.step + 1)
    scored = StepView(steps[event.step].step, event.reward)
    return replace(candidate, steps=(*steps[: event.step], scored, *steps[event.step + 1 :]))


def _begun(candidate: CandidateView) -> CandidateStatus:
    return "writing" if candidate.status == "waiting" else candidate.status


def _either(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _padded(steps: tuple[StepView, ...], size: int) -> tuple[StepView, ...]:
    return steps + (StepView(_UNSEEN),) * (size - len(steps))


def _finish(state: ViewState, event: ev.CandidateFinished) -> ViewState:
    candidate = _get(state, event.candidate)
    finished = replace(
        candidate,
        status="error" if event.finish_reason == "error" else "finished",
        code=event.code,
        reward=event.reward,
        finish_reason=event.finish_reason,
        mean_logprob=event.mean_logprob,
        seed=event.seed,
        adherence=event.adherence,
        unfinished="",
        pending=0,
        tokens=event.tokens,
    )
    # The policy's own count is right where pieces of text are missing from the journal or hold no count.
    return replace(_with(state, finished), tokens=state.tokens + event.tokens - candidate.tokens)
