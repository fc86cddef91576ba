"""The packed scorer as an engine: problems and unfinished programs of all clients in one tree of tokens."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from dreamprm_cli.prm.scorer import WAVE_TOKENS, PackedScorer, PackedSession, Turn, encode
from dreamprm_cli.prm.wire import ScoreAnswer, ScoreRequest
from dreamprm_cli.prompts import prm_input
from dreamprm_cli.serve.engine import Job, TooLarge


@dataclass(slots=True)
class _Kept:
    """A problem that is encoded, and the programs that may go on: candidate numbers by digest, oldest first."""

    session: PackedSession
    programs: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    next_candidate: int = 0

    def new_candidate(self) -> int:
        self.next_candidate += 1
        return self.next_candidate


class TreeEngine:
    """The packed scorer: one forward for all requests of a batch, problems and unfinished programs kept.

    Keys and values live in one arena of `cache_bytes`; what was used last stays. A request that says "steps 1..k are
    known" finds the program as it was after step k, or has it encoded again when it is kept no more.
    """

    def __init__(self, scorer: PackedScorer, cache_bytes: int) -> None:
        backbone = scorer.backbone
        self._scorer = scorer
        self.name, self.device, self.forms = scorer.name, scorer.device, scorer.forms
        self.logprob_weight = scorer.logprob_weight
        # A batch takes at most half, so that it fits whatever is kept of its own problems.
        self.capacity = max(cache_bytes // backbone.token_bytes, 2 * scorer.max_length)
        self.batch_tokens = min(WAVE_TOKENS[backbone.device.type], self.capacity // 2)
        self._arena = backbone.arena(self.capacity)
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # by problem, least recently used first
        self._reused = 0

    def prepare(self, request: ScoreRequest) -> Job:
        tokens = self._scorer.tokens
        ids, truncated = tokens.problem(prm_input(request.problem), self._scorer.problem_limit)
        root = hashlib.blake2b(repr(ids).encode(), digest_size=16).digest()
        steps = [[tokens.step(step.source) for step in program] for program in request.programs]
        marks = []
        for program in request.programs:
            chain = [root]
            for step in program:
                source = step.source.encode("utf-8", "surrogatepass")
                chain.append(hashlib.blake2b(source, key=chain[-1], digest_size=16).digest())
            marks.append(chain)
        total = len(ids) + sum(len(step.ids) for program in steps for step in program)
        if total > self.capacity // 2:
            raise TooLarge(f"{total} tokens: at most {self.capacity // 2} a request")
        return Job(request, total, ids, truncated, steps, marks or [[root]])

    def score(self, jobs: Sequence[Job]) -> list[ScoreAnswer]:
        self._make_room(jobs)
        turns: list[Turn] = []
        spans: list[list[tuple[_Kept, int, int]]] = []  # per job and program: where, which candidate, first step
        opened, before = [], []
        for job in jobs:
            kept = self._problem(job)
            opened.append(kept.session)
            before.append(0 if kept.session.trunk is None and kept.session not in opened[:-1] else len(job.problem_ids))
            spans.append([self._continue(kept, job, index) for index in range(len(job.steps))])
            for (_, candidate, first), steps in zip(spans[-1], job.steps, strict=True):
                turns += [(kept.session, candidate, step) for step in steps[first:]]
        try:
            features = encode(self._scorer, turns, opened)
        except BaseException:
            for kept, candidate, _ in (span for row in spans for span in row):
                kept.session.drop(candidate)
            raise
        answers, at = [], 0
        for job, row, found in zip(jobs, spans, before, strict=True):
            rewards, encoded = [], len(job.problem_ids) - found
            self._reused += found
            for index, (kept, candidate, first) in enumerate(row):
                new, known = job.request.programs[index][first:], job.request.known[index]
                count = len(new)
                scored = self._scorer.rewards(features[at : at + count], new)
                at += count
                rewards.append(tuple(scored[known - first :]))
                encoded += sum(len(step.ids) for step in job.steps[index][first:])
                self._reused += sum(len(step.ids) for step in job.steps[index][:first])
                self._keep(kept, candidate, job.marks[index][-1] if job.request.keep else None)
            answers.append(ScoreAnswer(tuple(rewards), job.truncated, encoded))
        return answers

    def cached_tokens(self) -> int:
        return self._arena.used

    def reused_tokens(self) -> int:
        return self._reused

    def _problem(self, job: Job) -> _Kept:
        root = job.marks[0][0]
        if root not in self._kept:
            self._kept[root] = _Kept(PackedSession(self._scorer, job.problem_ids, job.truncated, self._arena))
        self._kept.move_to_end(root)
        return self._kept[root]

    @staticmethod
    def _continue(kept: _Kept, job: Job, index: int) -> tuple[_Kept, int, int]:
        """A candidate that holds the most of the known steps, now this program's alone, and its first missing step."""
        for first in range(job.request.known[index], 0, -1):
            candidate = kept.programs.pop(job.marks[index][first], None)
            if candidate is not None:
                return kept, candidate, first
        return kept, kept.new_candidate(), 0

    @staticmethod
    def _keep(kept: _Kept, candidate: int, mark: bytes | None) -> None:
        if mark is None or mark in kept.programs or candidate not in kept.session.rows:
            kept.session.drop(candidate)
        else:
            kept.programs[mark] = candidate

    def _make_room(self, jobs: Sequence[Job]) -> None:
        """Forget the least recently used problems, then programs of the batch's own, until all its tokens fit."""
        needed = sum(job.tokens for job in jobs)
        batch = {job.marks[0][0] for job in jobs}
        for root in [root for root in self._kept if root not in batch]:
            if self._arena.used + needed <= self.capacity:
                return
            self._kept.pop(root).session.close()
        for root in batch & self._kept.keys():
            kept = self._kept[root]
            while kept.programs and self._arena.used + needed > self.capacity:
                _, candidate = kept.programs.popitem(last=False)
                kept.session.drop(candidate)
