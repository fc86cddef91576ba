"""A policy without a model, for tests and demonstrations: it plays given texts, a few characters at a time."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence

from dreamprm_cli.policy import Delta, Sampling
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import FinishReason, Usage


class ScriptedPolicy:
    """Candidate i plays `texts[i % len(texts)]`; the candidates take turns, `chunk` characters each.

    A chunk counts as one token of log-probability `logprob` nats. Longer texts than `max_tokens` chunks end with
    "length", others with "stop" or with what `finish_reasons` says for their index. `prefills` as in Policy: texts
    are bare programs when True, whole answers with fences when False. `pause_s` paces a demonstration.
    """

    name = "scripted"

    def __init__(
        self,
        texts: Sequence[str],
        *,
        chunk: int = 8,
        logprob: float = -0.1,
        finish_reasons: Mapping[int, FinishReason] | None = None,
        prefills: bool = True,
        pause_s: float = 0.0,
    ) -> None:
        """Raises ValueError when there is nothing to play."""
        if not texts or chunk < 1:
            raise ValueError("a script needs at least one text, and chunks of at least one character")
        self.prefills = prefills
        self._texts = tuple(texts)
        self._chunk = chunk
        self._logprob = logprob
        self._finish_reasons = dict(finish_reasons or {})
        self._pause_s = pause_s
        self._input_tokens = 0
        self._output_tokens = 0

    def stream(self, prompt: Prompt, indices: Sequence[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """See `Policy.stream`. Prompt and seed change nothing."""
        self._input_tokens += len(f"{prompt.system} {prompt.user}".split())
        live = [(index, self._play(index, sampling.max_tokens)) for index in indices]
        while live:
            for part in list(live):
                delta = next(part[1])
                if self._pause_s:
                    time.sleep(self._pause_s)
                self._output_tokens += delta.tokens
                if delta.finish_reason:
                    live.remove(part)
                yield delta

    def _play(self, index: int, max_tokens: int) -> Generator[Delta, None, None]:
        text = self._texts[index % len(self._texts)]
        pieces = [text[start : start + self._chunk] for start in range(0, len(text), self._chunk)] or [""]
        reason: FinishReason = self._finish_reasons.get(index, "stop")
        if len(pieces) > max_tokens:
            pieces, reason = pieces[:max_tokens], "length"
        for place, piece in enumerate(pieces):
            yield Delta(index, piece, self._logprob, 1, reason if place == len(pieces) - 1 else None)

    def usage(self) -> Usage:
        """Words of the prompts, chunks of the answers."""
        return Usage(self._input_tokens, self._output_tokens)

    def close(self) -> None:
        pass
