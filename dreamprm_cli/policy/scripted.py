"""A policy without a model: plays given texts, for tests and demonstrations. Nothing in it is random."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence

from dreamprm_cli.policy import Delta, Sampling
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import Usage


class ScriptedPolicy:
    """Candidate k gets `texts[k % len(texts)]`, `chunk` characters a delta, all candidates in turn.

    Every piece counts as one token of log-probability -0.1. A text longer than `max_tokens` pieces ends with "length".
    """

    name = "scripted"
    prefills = True

    def __init__(self, texts: Sequence[str], *, chunk: int = 4) -> None:
        if not texts or chunk < 1:
            raise ValueError("a script needs at least one text, and pieces of at least one character")
        self._texts = list(texts)
        self._chunk = chunk
        self._tokens = 0

    def stream(self, prompt: Prompt, indices: Sequence[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """See `Policy.stream`."""
        for piece in itertools.zip_longest(*(self._candidate(index, sampling.max_tokens) for index in indices)):
            for delta in piece:
                if delta is not None:
                    self._tokens += delta.tokens
                    yield delta

    def _candidate(self, index: int, max_tokens: int) -> list[Delta]:
        text = self._texts[index % len(self._texts)]
        pieces = [text[start : start + self._chunk] for start in range(0, len(text), self._chunk)]
        kept = pieces[:max_tokens]
        reason = "stop" if len(kept) == len(pieces) else "length"
        return [Delta(index, piece, -0.1) for piece in kept] + [Delta(index, "", 0.0, 0, reason)]  # type: ignore[arg-type]

    def usage(self) -> Usage:
        return Usage(0, self._tokens)

    def close(self) -> None:
        pass
