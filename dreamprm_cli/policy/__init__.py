"""Policies: models that write programs. One protocol, one file per engine.

`open_policy("gguf:PATH")` and friends return a Policy; engines are imported only when chosen.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import FinishReason, Usage


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw. `seed` is of the run; each candidate derives its own from it with `candidate_seed`."""

    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of one candidate's completion, as it arrives.

    `logprob` is the sum over the `tokens` tokens of this piece, in nats of the untempered model
    distribution; NaN when the engine does not tell. The last delta of a candidate carries `finish_reason`.
    """

    candidate: int
    text: str
    logprob: float = math.nan
    tokens: int = 1
    finish_reason: FinishReason | None = None


class Policy(Protocol):
    """A source of programs.

    name:     what the user would type to get this policy again.
    prefills: True when the completion continues `prompt.prefill` (local engines); False when the
              model answers afresh and the program sits in a fenced block (chat services).
    """

    name: str
    prefills: bool

    def stream(self, prompt: Prompt, indices: Sequence[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """Complete `prompt` once per candidate index, interleaved as the engine produces them.

        A prefilling engine ends a candidate before the closing fence and does not emit the fence.
        Every index ends with exactly one delta that has a finish_reason. The same indices, sampling
        and prompt give the same text on a deterministic engine. Closing the iterator stops all work.
        Raises PolicyError when the engine is broken; one bad completion is a finish_reason, not an error.
        """
        ...

    def usage(self) -> Usage:
        """Tokens and cost since this policy was opened."""
        ...

    def close(self) -> None: ...


def candidate_seed(seed: int, index: int) -> int:
    """The seed of one candidate: 31 bits, the same for any N, order or engine."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (index + 1) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ (mixed >> 31)) & 0x7FFFFFFF
