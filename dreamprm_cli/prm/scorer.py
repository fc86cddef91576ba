"""The local scorer: every token of a problem and of its candidates goes through the backbone once.

A session is a tree of tokens: the problem is its trunk, the candidates are its branches. `encode` packs the new steps
of any number of candidates, of any number of sessions that share an arena, into forwards without padding; a reward is
read of the states of its step's tokens (`pooling`). Live scoring, batches and the server all go through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from dreamprm_cli.prm.attention import Arena, Plan, Segment
from dreamprm_cli.prm.backbone import Backbone
from dreamprm_cli.prm.head import Head, step_rewards
from dreamprm_cli.prm.pooling import Pooling, pooled, positions, width
from dreamprm_cli.prm.tokens import StepTokens, Tokens
from dreamprm_cli.prompts import prm_input
from dreamprm_cli.types import Problem, Step

WAVE_TOKENS = {"cpu": 2048, "cuda": 16384}  # of one forward; bounds the memory of its activations


class PackedScorer:
    """A Scorer (see `dreamprm_cli.prm`) over a local backbone.

    layers:       whose states the head reads, counted from 1; default the last. See `Backbone.forward`.
    pooling:      which states of a step those are.
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
        pooling: Pooling = "last",
        head: Head | None = None,
        name: str = "features",
        forms: Sequence[str] = (),
        logprob_weight: float = 0.0,
        step_token: str | None = None,
        max_length: int = 4096,
        code_reserve: int = 1536,
    ) -> None:
        self.name = name
        self.forms, self.logprob_weight = tuple(forms), logprob_weight
        self.backbone = backbone
        self.device = str(backbone.device)
        self.layers = tuple(layers or (backbone.depth,))
        self.pooling: Pooling = pooling
        self.width = len(self.layers) * width(pooling) * backbone.shape.hidden  # of what the head reads, F
        self.head = head
        self.tokens = Tokens(backbone.tokenizer, step_token)
        self.max_length = max_length
        self.problem_limit = max_length - code_reserve

    def start(self, problem: Problem) -> PackedSession:
        """Encode the problem, once for all its candidates."""
        session = PackedSession(self, *self.tokens.problem(prm_input(problem), self.problem_limit))
        encode(self, [], opened=[session])
        return session

    def rewards(self, features: NDArray[np.float32], steps: Sequence[Step]) -> list[float]:
        """What the head says of features (len(steps), F), as `step_rewards`."""
        return step_rewards(self.head, features, steps)


class PackedSession:
    """A ScoringSession. Not for several threads at once.

    problem_ids, truncated: see `Tokens.problem`. arena: one that sessions share, or None for one of its own.
    """

    def __init__(
        self, scorer: PackedScorer, problem_ids: list[int], truncated: bool, arena: Arena | None = None
    ) -> None:
        self._scorer = scorer
        self.problem_ids, self.truncated = problem_ids, truncated
        self.arena = scorer.backbone.arena() if arena is None else arena
        self.trunk: torch.Tensor | None = None  # rows of the problem, once it is encoded
        self.rows: dict[int, torch.Tensor] = {}  # rows by candidate, the problem's first
        self.full: set[int] = set()  # candidates that ran out of positions
        self.encoded_tokens = 0

    def append(self, steps: Sequence[tuple[int, Step]]) -> list[float]:
        """Rewards of (candidate, next step) pairs, in order; NaN for steps that are not scored."""
        return self._scorer.rewards(self.append_features(steps), [step for _, step in steps])

    def append_features(self, steps: Sequence[tuple[int, Step]]) -> NDArray[np.float32]:
        """As `append`, but what the head reads: (len(steps), F), as `pooled`.

        Rows of steps that are not scored are there too. A row is NaN where a program ran out of positions.
        """
        tokens = self._scorer.tokens
        return encode(self._scorer, [(self, candidate, tokens.step(step.source)) for candidate, step in steps])

    def drop(self, candidate: int) -> None:
        """Free the rows of a finished candidate; its number may be used again for a new program."""
        self.full.discard(candidate)
        rows = self.rows.pop(candidate, None)
        if rows is not None:
            self.arena.give_back(rows[len(self.problem_ids) :])

    def close(self) -> None:
        """Free all rows: for sessions whose arena goes on without them."""
        for candidate in list(self.rows):
            self.drop(candidate)
        if self.trunk is not None:
            self.arena.give_back(self.trunk)
            self.trunk = None

    def length(self, candidate: int) -> int:
        """Tokens of the problem and of the candidate's steps so far."""
        rows = self.rows.get(candidate)
        return len(self.problem_ids) if rows is None else len(rows)


Turn = tuple[PackedSession, int, StepTokens]  # whose candidate gets which next step
_TRUNK = -1  # stands for a candidate where the problem itself is encoded


@dataclass(slots=True)
class _Piece:
    """New tokens of one sequence in one forward: consecutive steps of a candidate, or a problem.

    `reads` pairs the index in the answer with the positions, within `ids`, where it is read.
    """

    session: PackedSession
    candidate: int
    ids: list[int] = field(default_factory=list)
    reads: list[tuple[int, range]] = field(default_factory=list)


def encode(scorer: PackedScorer, turns: Sequence[Turn], opened: Sequence[PackedSession] = ()) -> NDArray[np.float32]:
    """Append steps to their candidates; what the head reads of each: (len(turns), F).

    Problems that are not encoded yet, of the turns' sessions and those `opened`, go into the same forwards. A row is
    NaN where a program ran out of positions. All sessions share one arena.
    """
    features = np.full((len(turns), scorer.width), np.nan, dtype=np.float32)
    sessions = {id(session): session for session in (*opened, *(session for session, _, _ in turns))}
    for wave in _waves(scorer, list(sessions.values()), turns):
        features[[index for piece in wave for index, _ in piece.reads]] = _forward(scorer, wave)
    return features


def _waves(scorer: PackedScorer, sessions: Sequence[PackedSession], turns: Sequence[Turn]) -> list[list[_Piece]]:
    """Problems, then steps by candidate, cut into forwards of bounded size."""
    backbone = scorer.backbone
    limit = WAVE_TOKENS[backbone.device.type]
    waves: list[list[_Piece]] = [[]]
    room = limit

    def place(piece: _Piece, ids: list[int], read: tuple[int, range] | None) -> _Piece:
        """The piece that the ids went to: `piece`, or a new one that continues it in the next wave."""
        nonlocal room
        if len(ids) > room and waves[-1]:
            waves.append([])
            room = limit
            piece = _Piece(piece.session, piece.candidate)
        if not piece.ids:
            waves[-1].append(piece)
        if read is not None:
            start = len(piece.ids)
            piece.reads.append((read[0], range(start + read[1].start, start + read[1].stop)))
        piece.ids += ids
        room -= len(ids)
        return piece

    for session in sessions:
        if session.trunk is None:
            place(_Piece(session, _TRUNK), session.problem_ids, None)
    by_candidate: dict[tuple[int, int], list[tuple[int, PackedSession, StepTokens]]] = {}
    for index, (session, candidate, tokens) in enumerate(turns):
        by_candidate.setdefault((id(session), candidate), []).append((index, session, tokens))
    for (_, candidate), steps in by_candidate.items():
        session = steps[0][1]
        length = session.length(candidate)
        piece = _Piece(session, candidate)
        for index, _, tokens in steps:
            length += len(tokens.ids)
            if candidate in session.full or length > backbone.shape.max_positions:
                session.full.add(candidate)
                break
            piece = place(piece, tokens.ids, (index, positions(scorer.pooling, tokens.read)))
    return [wave for wave in waves if wave]


def _forward(scorer: PackedScorer, wave: Sequence[_Piece]) -> NDArray[np.float32]:
    """One forward: (number of steps read, F). Sessions learn of their new rows at its end: an interrupted one, or one
    that fails, leaves them as they were."""
    backbone, device = scorer.backbone, scorer.backbone.device
    arena = wave[0].session.arena
    taken = [arena.take(len(piece.ids)) for piece in wave]
    trunks = {id(p.session): new for p, new in zip(wave, taken, strict=True) if p.candidate == _TRUNK}
    rows = []  # of each piece's whole sequence
    for piece, new in zip(wave, taken, strict=True):
        if piece.candidate == _TRUNK:
            rows.append(new)
            continue
        before = piece.session.rows.get(piece.candidate)
        if before is None:
            # A trunk of this same forward will do: a layer's keys and values are written before they are read.
            before = piece.session.trunk if piece.session.trunk is not None else trunks[id(piece.session)]
        rows.append(torch.cat([before, new]))
    counts = [len(piece.ids) for piece in wave]
    reads: list[int] = []
    offset = 0
    for piece in wave:
        reads += [offset + position for _, some in piece.reads for position in some]
        offset += len(piece.ids)
    try:
        states = backbone.forward(
            ids=torch.tensor([i for piece in wave for i in piece.ids], device=device),
            positions=torch.cat(
                [torch.arange(len(r) - n, len(r), device=device) for r, n in zip(rows, counts, strict=True)]
            ),
            rows=torch.cat(taken),
            arena=arena,
            plan=Plan([Segment(r, n) for r, n in zip(rows, counts, strict=True)], device),
            read=torch.tensor(reads, dtype=torch.long, device=device),
            layers=scorer.layers,
        ).cpu()
    except BaseException:
        for new in taken:
            arena.give_back(new)
        raise
    for piece, whole in zip(wave, rows, strict=True):
        if piece.candidate == _TRUNK:
            piece.session.trunk = whole
        else:
            piece.session.rows[piece.candidate] = whole
        piece.session.encoded_tokens += len(piece.ids)
    flat = states.numpy().reshape(len(reads), len(scorer.layers), backbone.shape.hidden)
    return pooled(scorer.pooling, flat, [len(some) for piece in wave for _, some in piece.reads])
