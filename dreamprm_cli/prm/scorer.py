"""The local scorer: every token of a problem and of its candidates goes through the backbone once.

A session keeps the keys and values of the problem, shared by all candidates, and those of each candidate. `append`
packs the new steps of any number of candidates into one forward without padding; a reward is read at the last token of
its step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from dreamprm_cli.prm.attention import Plan, Segment
from dreamprm_cli.prm.backbone import Backbone
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.tokens import StepTokens, Tokens
from dreamprm_cli.prompts import prm_input
from dreamprm_cli.types import Problem, Step

_WAVE_TOKENS = {"cpu": 2048, "cuda": 16384}  # of one forward; bounds the memory of its activations


class PackedScorer:
    """A Scorer (see `dreamprm_cli.prm`) over a local backbone.

    layers:       whose states the head reads, counted from 1; default the last. See `Backbone.forward`.
    head:         None to extract features only; then `append` is an error.
    max_length:   tokens that problem and program should fit in together. Of these, `code_reserve` are kept for the
                  program: a statement that does not fit into the rest is shortened in its middle. The program itself
                  is never cut; it may go on up to the positions that the backbone has.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        layers: Sequence[int] | None = None,
        head: Head | None = None,
        name: str = "features",
        forms: Sequence[str] = (),
        step_token: str | None = None,
        max_length: int = 4096,
        code_reserve: int = 1536,
    ) -> None:
        self.name = name
        self.forms = tuple(forms)
        self.backbone = backbone
        self.device = str(backbone.device)
        self.layers = tuple(layers or (backbone.depth,))
        self.head = head
        self.tokens = Tokens(backbone.tokenizer, step_token)
        self.problem_limit = max_length - code_reserve

    def start(self, problem: Problem) -> PackedSession:
        """Encode the problem, once for all its candidates."""
        return PackedSession(self, problem)


@dataclass(slots=True)
class _Piece:
    """Consecutive steps of one candidate in one forward. `steps` pairs the index in the answer with the tokens."""

    candidate: int
    steps: list[tuple[int, StepTokens]] = field(default_factory=list)


class PackedSession:
    """A ScoringSession. Not for several threads at once."""

    def __init__(self, scorer: PackedScorer, problem: Problem) -> None:
        self._scorer = scorer
        self._arena = scorer.backbone.arena()
        self._rows: dict[int, torch.Tensor] = {}  # rows of the arena, the problem's first, by candidate
        self._full: set[int] = set()  # candidates that ran out of positions
        self.encoded_tokens = 0
        ids, self.truncated = scorer.tokens.problem(prm_input(problem), scorer.problem_limit)
        self._problem = self._arena.take(len(ids))
        self._forward([ids], [self._problem], [])

    def append(self, steps: Sequence[tuple[int, Step]]) -> list[float]:
        """Rewards of (candidate, next step) pairs, in order; NaN for steps that are not scored."""
        head = self._scorer.head
        if head is None:
            raise ValueError("this scorer was made for features and has no head")
        rewards = head.rewards(self.append_features(steps))
        return [float(r) if step.scored else math.nan for r, (_, step) in zip(rewards, steps, strict=True)]

    def append_features(self, steps: Sequence[tuple[int, Step]]) -> NDArray[np.float32]:
        """As `append`, but what the head reads: (len(steps), F), F = len(layers) * hidden size.

        Rows of steps that are not scored are there too. A row is NaN where a program ran out of positions.
        """
        width = len(self._scorer.layers) * self._scorer.backbone.shape.hidden
        features = np.full((len(steps), width), np.nan, dtype=np.float32)
        for wave in self._waves(steps):
            reads, offset = [], 0
            for piece in wave:
                for _, tokens in piece.steps:
                    reads.append(offset + tokens.read)
                    offset += len(tokens.ids)
            ids = [[i for _, tokens in piece.steps for i in tokens.ids] for piece in wave]
            rows = {
                piece.candidate: torch.cat([self._rows.get(piece.candidate, self._problem), self._arena.take(len(new))])
                for piece, new in zip(wave, ids, strict=True)
            }
            indices = [index for piece in wave for index, _ in piece.steps]
            features[indices] = self._forward(ids, list(rows.values()), reads)
            self._rows |= rows  # not before: an interrupted forward leaves the candidates as they were
        return features

    def drop(self, candidate: int) -> None:
        """Free the rows of a finished candidate; its number may be used again for a new program."""
        self._full.discard(candidate)
        rows = self._rows.pop(candidate, None)
        if rows is not None:
            self._arena.give_back(rows[len(self._problem) :])

    def _waves(self, steps: Sequence[tuple[int, Step]]) -> list[list[_Piece]]:
        """The steps grouped by candidate and cut into forwards of bounded size."""
        backbone = self._scorer.backbone
        limit = _WAVE_TOKENS[backbone.device.type]
        by_candidate: dict[int, list[tuple[int, StepTokens]]] = {}
        for index, (candidate, step) in enumerate(steps):
            by_candidate.setdefault(candidate, []).append((index, self._scorer.tokens.step(step.source)))
        waves: list[list[_Piece]] = [[]]
        room = limit
        for candidate, pairs in by_candidate.items():
            length = len(self._rows.get(candidate, self._problem))
            piece: _Piece | None = None
            for index, tokens in pairs:
                length += len(tokens.ids)
                if candidate in self._full or length > backbone.shape.max_positions:
                    self._full.add(candidate)
                    break
                if len(tokens.ids) > room and waves[-1]:
                    waves.append([])
                    room, piece = limit, None
                if piece is None:
                    piece = _Piece(candidate)
                    waves[-1].append(piece)
                piece.steps.append((index, tokens))
                room -= len(tokens.ids)
        return [wave for wave in waves if wave]

    def _forward(self, ids: list[list[int]], rows: list[torch.Tensor], reads: list[int]) -> NDArray[np.float32]:
        """Encode the new `ids` of sequences whose rows, old and new, are `rows`; states at packed positions `reads`."""
        backbone, device = self._scorer.backbone, self._scorer.backbone.device
        counts = [len(new) for new in ids]
        states = backbone.forward(
            ids=torch.tensor([i for new in ids for i in new], device=device),
            positions=torch.cat(
                [torch.arange(len(r) - n, len(r), device=device) for r, n in zip(rows, counts, strict=True)]
            ),
            rows=torch.cat([r[len(r) - n :] for r, n in zip(rows, counts, strict=True)]),
            arena=self._arena,
            plan=Plan([Segment(r, n) for r, n in zip(rows, counts, strict=True)], device),
            read=torch.tensor(reads, dtype=torch.long, device=device),
            layers=self._scorer.layers,
        )
        self.encoded_tokens += sum(counts)
        return states.cpu().numpy()
