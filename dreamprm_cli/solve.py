"""Solve a problem: sample N programs, split them into steps, score each step, choose. A generator of events.

This is the single execution path: the terminal, `--json`, the journal and resume all consume these events.

On one CPU the policy and the PRM take turns (`overlap=False`): the policy's stream is not advanced while steps
are scored. With a GPU or a remote policy both work at once (`overlap=True`) and steps that pile up are scored
in one packed forward.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from dreamprm_cli import events as ev
from dreamprm_cli.aggregate import aggregate, standing
from dreamprm_cli.fence import FenceExtractor
from dreamprm_cli.policy import Delta, Policy, Sampling, candidate_seed
from dreamprm_cli.prm import Scorer, ScoringSession
from dreamprm_cli.prompts import Form, cof_prompt, problem_form
from dreamprm_cli.steps import StreamSplitter, adherence, split
from dreamprm_cli.types import Candidate, FinishReason, Problem, Step, Verdict

_Inbox = queue.SimpleQueue[Delta | BaseException | None]
Verify = Callable[[Candidate], Verdict]
_UNFAMILIAR: dict[Form, str] = {
    "stdin": "this PRM has not learned from programs that read standard input: its rewards say little here",
    "function": "this PRM has not learned from problems with a named function: its rewards say little here",
    "class": "this PRM has not learned from problems with a class: its rewards say little here",
}
PENDING = 4  # steps that wait for each other on a CPU: products of a few hundred rows are quicker a token than of 80
_POLL_S = 0.1  # how soon a stop request is noticed while a stream is silent


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: `n` programs for `problem`, step rewards folded by `aggregation`."""

    problem: Problem
    n: int = 8
    sampling: Sampling = field(default_factory=Sampling)
    aggregation: str = "mean"


@dataclass(slots=True)
class _Draft:
    """A candidate being written."""

    index: int
    seed: int
    extractor: FenceExtractor
    splitter: StreamSplitter
    pieces: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    tokens: int = 0
    logprob: float = 0.0
    finish_reason: FinishReason | None = None

    def feed(self, delta: Delta) -> tuple[str, list[Step]]:
        """Take in a delta; the new code in it, and the steps it completed."""
        self.tokens += delta.tokens
        self.logprob += delta.logprob
        text = self.extractor.feed(delta.text)
        steps = self.splitter.feed(text)
        if delta.finish_reason is not None:
            self.finish_reason = delta.finish_reason
            rest = self.extractor.finish()
            text += rest
            steps += self.splitter.feed(rest) + self.splitter.finish()
        self.pieces.append(text)
        self.steps += steps
        return text, steps

    def candidate(self, problem: Problem) -> Candidate:
        assert self.finish_reason is not None
        return Candidate(
            problem_id=problem.id,
            index=self.index,
            code="".join(self.pieces),
            steps=tuple(self.steps),
            finish_reason=self.finish_reason,
            seed=self.seed,
            tokens=self.tokens,
            mean_logprob=self.logprob / self.tokens if self.tokens else math.nan,
        )


class _Scoring:
    """Steps waiting to be scored, at most one batch of them being scored.

    Inline, a batch is scored where it is submitted. With a pool, in its thread, and `wake` is called when it ends.
    """

    def __init__(self, session: ScoringSession, pool: ThreadPoolExecutor | None, wake: Callable[[], None]) -> None:
        self._session = session
        self._pool = pool
        self._wake = wake
        self._waiting: list[tuple[int, Step]] = []
        self._batch: list[tuple[int, Step]] = []
        self._running: Future[list[float]] | None = None

    def add(self, candidate: int, steps: Sequence[Step]) -> None:
        self._waiting += [(candidate, step) for step in steps]

    def collect(self, *, least: int = 1, wait: bool = False) -> list[tuple[int, float]]:
        """(candidate, reward) of the steps scored since the last call, in order.

        Starts the next batch when at least `least` steps are waiting; with `wait`, ends them all.
        """
        results: list[tuple[int, float]] = []
        while True:
            if self._running is not None and (wait or self._running.done()):
                rewards = self._running.result()
                results += [(candidate, r) for (candidate, _), r in zip(self._batch, rewards, strict=True)]
                self._running = None
            if self._running is not None or len(self._waiting) < (1 if wait else least):
                return results
            self._batch, self._waiting = self._waiting, []
            self._running = self._submit(self._batch)

    def drop(self, candidate: int) -> None:
        """Free the cache of a candidate whose steps are all scored; in the PRM's thread, a session has only one."""
        if self._pool is not None:
            self._pool.submit(self._session.drop, candidate)
        else:
            self._session.drop(candidate)

    def _submit(self, batch: list[tuple[int, Step]]) -> Future[list[float]]:
        if self._pool is not None:
            future = self._pool.submit(self._session.append, batch)
            future.add_done_callback(lambda _: self._wake())
            return future
        done: Future[list[float]] = Future()
        done.set_result(self._session.append(batch))
        return done


def solve(
    request: Request,
    policy: Policy,
    scorer: Scorer | None,
    *,
    finished: Mapping[int, ev.CandidateFinished] | None = None,
    verdicts: Mapping[int, ev.TestsRan] | None = None,
    verify: Verify | None = None,
    overlap: bool = False,
    stop: threading.Event | None = None,
    started: float | None = None,
) -> Iterator[ev.Event]:
    """Sample, split, score, test and choose.

    finished, verdicts: candidates of an earlier process (resume); they are not sampled again.
    verify:  runs a candidate's tests in the sandbox; None means that tests are not run.
    overlap: policy and PRM may compute at the same time (not on one CPU).
    stop:    set it to end the run early; what is finished is kept and ranked.
    started: `time.monotonic()` at t = 0 of the events.

    Raises PolicyError, CheckpointError or SandboxUnavailable when a part is broken. A bad program is data.
    """
    origin = time.monotonic() if started is None else started
    stop = stop or threading.Event()
    done = dict(finished or {})
    tested = dict(verdicts or {})

    def now() -> float:
        return round(time.monotonic() - origin, 4)

    def run_tests(candidate: Candidate) -> Iterator[ev.Event]:
        if verify is not None and candidate.index not in tested and not stop.is_set():
            v = verify(candidate)
            tested[candidate.index] = ev.TestsRan(
                t=now(), candidate=candidate.index, status=v.status, passed=v.passed, total=v.total,
                seconds=v.seconds, trust=v.trust, isolation=v.isolation, detail=v.detail,
            )  # fmt: skip
            yield tested[candidate.index]

    for index, old in sorted(done.items()):
        yield from run_tests(_restore(request.problem, index, old))
    missing = [index for index in range(request.n) if index not in done]
    if missing and not stop.is_set():
        for event in _sample(request, policy, scorer, missing, overlap, stop, now):
            yield event
            if isinstance(event, ev.CandidateFinished):
                done[event.candidate] = event
                yield from run_tests(_restore(request.problem, event.candidate, event))
    weight = scorer.logprob_weight if scorer is not None and _likelihoods_known(done) else 0.0
    ranking = rank(done, tested, weight)
    yield ev.Chosen(t=now(), chosen=ranking[0] if ranking else None, ranking=ranking, logprob_weight=weight)


def rank(
    done: Mapping[int, ev.CandidateFinished], tested: Mapping[int, ev.TestsRan], logprob_weight: float = 0.0
) -> list[int]:
    """Candidates with any code, best first.

    Programs that pass their tests come first, then whole programs (they parse and were not cut off), then the
    reward decides, with so much of the mean log-probability (see `standing`); without rewards that alone does.
    """

    def stands(event: ev.CandidateFinished) -> float:
        return standing(event.reward, event.mean_logprob, logprob_weight) if logprob_weight else event.reward

    def key(index: int) -> tuple[float, ...]:
        event = done[index]
        verdict = tested.get(index)
        whole = event.finish_reason == "stop" and bool(event.adherence.get("parses", True))
        return (
            float(verdict is not None and verdict.status == "PASS"),
            float(whole),
            -math.inf if math.isnan(event.reward) else stands(event),
            -math.inf if math.isnan(event.mean_logprob) else event.mean_logprob,
            -index,
        )

    return sorted((i for i, event in done.items() if event.code.strip()), key=key, reverse=True)


def _likelihoods_known(done: Mapping[int, ev.CandidateFinished]) -> bool:
    """Whether the policy said of every program how likely it found it."""
    return not any(math.isnan(event.mean_logprob) for event in done.values() if event.code.strip())


def cautions(problem: Problem, scorer: Scorer, session: ScoringSession) -> list[str]:
    """What a user should know of the rewards for this problem; empty when there is nothing."""
    found = []
    if scorer.forms and problem_form(problem) not in scorer.forms:
        found.append(_UNFAMILIAR[problem_form(problem)])
    if session.truncated:
        found.append("the problem is longer than the PRM reads; its middle was left out (never code)")
    return found


def _restore(problem: Problem, index: int, event: ev.CandidateFinished) -> Candidate:
    return Candidate(
        problem_id=problem.id, index=index, code=event.code, steps=tuple(split(event.code, problem.language)),
        finish_reason=event.finish_reason, seed=event.seed, tokens=event.tokens, mean_logprob=event.mean_logprob,
    )  # fmt: skip


def _sample(
    request: Request,
    policy: Policy,
    scorer: Scorer | None,
    indices: Sequence[int],
    overlap: bool,
    stop: threading.Event,
    now: Callable[[], float],
) -> Iterator[ev.Event]:
    """Stream the candidates `indices` through splitter and PRM."""
    problem = request.problem
    drafts = {
        index: _Draft(
            index,
            candidate_seed(request.sampling.seed, index),
            FenceExtractor(policy.prefills),
            StreamSplitter(problem.language),
        )
        for index in indices
    }
    prompt = cof_prompt(problem)
    begun = dict.fromkeys(indices, prompt.begun if policy.prefills else "")  # of those that have not written yet
    session = scorer.start(problem) if scorer is not None else None
    if scorer is not None and session is not None:
        for text in cautions(problem, scorer, session):
            yield ev.Notice(t=now(), text=text)
    seen: set[int] = set()

    def completed(draft: _Draft) -> bool:
        return draft.finish_reason is not None and (session is None or len(draft.rewards) == len(draft.steps))

    def finish(draft: _Draft) -> ev.Event:
        candidate = draft.candidate(problem)
        if scoring is not None:
            scoring.drop(draft.index)
        return ev.CandidateFinished(
            t=now(),
            candidate=draft.index,
            code=candidate.code,
            finish_reason=candidate.finish_reason,
            seed=candidate.seed,
            tokens=candidate.tokens,
            mean_logprob=candidate.mean_logprob,
            reward=aggregate(draft.rewards, request.aggregation),
            adherence=adherence(candidate.code, problem.language).to_json(),
        )

    with ExitStack() as stack:
        arrivals: Generator[Delta | None, None, None] = policy.stream(prompt, indices, request.sampling)
        pool = None
        inbox: _Inbox = queue.SimpleQueue()
        if overlap:
            pool = stack.enter_context(ThreadPoolExecutor(max_workers=1, thread_name_prefix="prm"))
            arrivals = _pumped(arrivals, inbox, stop)
        stack.callback(arrivals.close)
        scoring = _Scoring(session, pool, lambda: inbox.put(None)) if session is not None else None

        def scored(*, least: int = 1, wait: bool = False) -> Iterator[ev.Event]:
            for index, reward in scoring.collect(least=least, wait=wait) if scoring is not None else ():
                draft = drafts[index]
                yield ev.StepScored(t=now(), candidate=index, step=len(draft.rewards), reward=reward)
                draft.rewards.append(reward)
                if completed(draft):
                    yield finish(draft)

        for delta in arrivals:
            if stop.is_set():
                break
            if delta is not None:
                draft = drafts[delta.candidate]
                if draft.index not in seen:
                    seen.add(draft.index)
                    yield ev.SampleStarted(t=now(), candidate=draft.index, seed=draft.seed)
                if delta.text:
                    delta = replace(delta, text=begun.pop(draft.index, "") + delta.text)
                first = len(draft.steps)
                text, steps = draft.feed(delta)
                if text or delta.tokens:
                    yield ev.TextArrived(
                        t=now(), candidate=draft.index, text=text, tokens=delta.tokens, logprob=delta.logprob
                    )
                for number, step in enumerate(steps, first):
                    yield ev.StepFinished(
                        t=now(), candidate=draft.index, step=number, name=step.name, kind=step.kind,
                        source=step.source, first_line=step.first_line, last_line=step.last_line,
                    )  # fmt: skip
                if scoring is not None:
                    scoring.add(draft.index, steps)
                if completed(draft):
                    yield finish(draft)
            writing = sum(draft.finish_reason is None for draft in drafts.values())
            at_once = overlap or delta is None or delta.finish_reason is not None
            yield from scored(least=1 if at_once else min(PENDING, writing))
        if stop.is_set():
            yield ev.Notice(t=now(), text="stopping; programs that are finished are kept")
        yield from scored(wait=True)


def _pumped(
    deltas: Generator[Delta | None, None, None],
    inbox: queue.SimpleQueue[Delta | BaseException | None],
    stop: threading.Event,
) -> Generator[Delta | None, None, None]:
    """Run `deltas` in a thread. Yields None now and then, so that the caller can look at the PRM or at `stop`."""
    end = StopIteration()  # the mark that the stream has ended
    halt = threading.Event()

    def pump() -> None:
        try:
            for delta in deltas:
                if halt.is_set():
                    return
                inbox.put(delta)
            inbox.put(end)
        except BaseException as error:
            inbox.put(error)
        finally:
            deltas.close()  # here: a generator can only be closed by the thread that runs it

    thread = threading.Thread(target=pump, name="policy", daemon=True)
    thread.start()
    try:
        while not stop.is_set():
            try:
                item = inbox.get(timeout=_POLL_S)
            except queue.Empty:
                item = None
            if item is end:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        halt.set()
        thread.join(timeout=5)
