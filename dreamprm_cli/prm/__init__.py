"""Process reward models: score every step of a program in [0, 1]. Torch is imported only when one is opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dreamprm_cli.types import Problem, Step


class ScoringSession(Protocol):
    """One problem, its KV computed once, and the caches of the candidates being scored against it."""

    truncated: bool  # the problem statement had to be shortened
    encoded_tokens: int  # tokens that went through the backbone so far, the problem's included

    def append(self, steps: Sequence[tuple[int, Step]]) -> list[float]:
        """Append (candidate index, next step) pairs to their caches in one packed forward; rewards in order.

        A candidate may come several times, its steps in program order. Steps with `scored` False are
        encoded and get NaN. Nothing is ever encoded twice.
        """
        ...

    def drop(self, candidate: int) -> None:
        """Free the cache of a finished candidate."""
        ...


class Scorer(Protocol):
    """A loaded PRM checkpoint.

    device: "cpu", a torch device such as "cuda:0", or "remote". forms: kinds of problem it has learned from,
    empty when unknown. logprob_weight: of the policy's mean log-probability beside its rewards, where programs are
    ranked (`aggregate.standing`); 0 for none.
    """

    name: str
    device: str
    forms: tuple[str, ...]
    logprob_weight: float

    def start(self, problem: Problem) -> ScoringSession:
        """Encode the problem. Raises CheckpointError when the backbone cannot be loaded, ScorerError for a server's
        troubles."""
        ...


def score_programs(session: ScoringSession, programs: Sequence[Sequence[Step]]) -> list[list[float]]:
    """Rewards of whole programs: one `append` of all their steps (the batch call folds the streaming one)."""
    flat = [(index, step) for index, steps in enumerate(programs) for step in steps]
    rewards = iter(session.append(flat))
    return [[next(rewards) for _ in steps] for steps in programs]
