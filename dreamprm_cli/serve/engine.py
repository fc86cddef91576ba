"""What scores a batch of requests, of many clients and problems, at a time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from dreamprm_cli.prm import Scorer
from dreamprm_cli.prm.wire import ScoreAnswer, ScoreRequest

if TYPE_CHECKING:
    from dreamprm_cli.prm.tokens import StepTokens


class TooLarge(Exception):
    """A request that does not fit, however long one waits. Its text says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request made ready. tokens: an upper bound of what it sends through the backbone, and at least 1.

    What follows them is the tree engine's: marks[p][i] is a digest of the problem and program p's first i steps.
    """

    request: ScoreRequest
    tokens: int = 1
    problem_ids: list[int] = field(default_factory=list)
    truncated: bool = False
    steps: Sequence[Sequence[StepTokens]] = ()
    marks: Sequence[Sequence[bytes]] = ()


class Engine(Protocol):
    """name, device, forms, logprob_weight: of its Scorer. batch_tokens: how much is worth scoring at once."""

    name: str
    device: str
    forms: tuple[str, ...]
    logprob_weight: float
    batch_tokens: int

    def prepare(self, request: ScoreRequest) -> Job:
        """Make a request ready, in any thread. Raises TooLarge."""
        ...

    def score(self, jobs: Sequence[Job]) -> list[ScoreAnswer]:
        """Answers in order; in one thread only. An exception leaves the engine usable."""
        ...

    def cached_tokens(self) -> int:
        """Tokens whose keys and values are kept."""
        ...

    def reused_tokens(self) -> int:
        """Tokens that did not have to be encoded so far, because they were kept."""
        ...


class PlainEngine:
    """Any Scorer, request by request, nothing kept between them."""

    batch_tokens = 1

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.name, self.device, self.forms = scorer.name, scorer.device, scorer.forms
        self.logprob_weight = scorer.logprob_weight

    def prepare(self, request: ScoreRequest) -> Job:
        return Job(request)

    def score(self, jobs: Sequence[Job]) -> list[ScoreAnswer]:
        return [self._score(job.request) for job in jobs]

    def _score(self, request: ScoreRequest) -> ScoreAnswer:
        session = self._scorer.start(request.problem)
        rewards = iter(session.append([(i, step) for i, steps in enumerate(request.programs) for step in steps]))
        whole = [[next(rewards) for _ in steps] for steps in request.programs]
        return ScoreAnswer(
            tuple(tuple(row[known:]) for row, known in zip(whole, request.known, strict=True)),
            session.truncated,
            session.encoded_tokens,
        )

    def cached_tokens(self) -> int:
        return 0

    def reused_tokens(self) -> int:
        return 0


def engine_for(scorer: Scorer, cache_bytes: int) -> Engine:
    """The engine that makes the most of a scorer. cache_bytes: for problems and programs, where they can be kept."""
    if "dreamprm_cli.prm.scorer" in sys.modules:  # else nobody has made a packed scorer, and torch may be missing
        from dreamprm_cli.prm.scorer import PackedScorer
        from dreamprm_cli.serve.tree import TreeEngine

        if isinstance(scorer, PackedScorer):
            return TreeEngine(scorer, cache_bytes)
    return PlainEngine(scorer)
