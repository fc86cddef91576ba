"""A scorer without a model, for tests and demonstrations: a reward per word found in a step's source."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dreamprm_cli.types import Problem, Step


class ScriptedScorer:
    """Rewards steps by `words`: the first word that occurs in a step's source gives its reward, else `default`."""

    name = "scripted"
    device = "cpu"
    forms: tuple[str, ...] = ()

    def __init__(self, words: Mapping[str, float], default: float = 0.5, logprob_weight: float = 0.0) -> None:
        self.logprob_weight = logprob_weight
        self._words = dict(words)
        self._default = default

    def start(self, problem: Problem) -> ScriptedSession:
        return ScriptedSession(self._words, self._default)


class ScriptedSession:
    truncated = False

    def __init__(self, words: Mapping[str, float], default: float) -> None:
        self.encoded_tokens = 0
        self._words = words
        self._default = default

    def append(self, steps: Sequence[tuple[int, Step]]) -> list[float]:
        self.encoded_tokens += sum(len(step.source.split()) for _, step in steps)
        return [self._reward(step) if step.scored else math.nan for _, step in steps]

    def _reward(self, step: Step) -> float:
        return next((reward for word, reward in self._words.items() if word in step.source), self._default)

    def drop(self, candidate: int) -> None:
        pass
