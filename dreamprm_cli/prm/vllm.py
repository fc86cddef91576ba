"""A PRM that vLLM serves as a pooling model: `dreamprm prm export --format vllm FOLDER`, then `vllm serve FOLDER`.

vLLM gives the reward at every token; which of them end a step we know, as we send token ids and not text. So what is
read there, and where, is what is read here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.prm.checkpoint import load, resolve
from dreamprm_cli.prm.client import Client, own_token
from dreamprm_cli.prm.tokens import Tokens, read_tokenizer
from dreamprm_cli.prompts import prm_input
from dreamprm_cli.types import Problem, Step

PREFIX = "vllm+"
_NO_FOLDER = "add it to the address, vllm+http://HOST:PORT#FOLDER: a copy without model.safetensors will do"


class VllmScorer:
    """A Scorer over `vllm serve` at `vllm+http[s]://HOST:PORT[#FOLDER]`.

    FOLDER is the exported folder, for its tokenizer and settings; by default the one that the server was started with,
    where that is on this machine too. Raises ScorerError or CheckpointError.
    """

    device = "remote"

    def __init__(self, spec: str, token: str | None = None) -> None:
        url, _, named = spec.removeprefix(PREFIX).partition("#")
        self.client = Client(url, token or own_token())
        self.name = PREFIX + self.client.shown
        try:
            [served, *_] = self.client.get("/v1/models")["data"]
            self.model, self.max_tokens = str(served["id"]), int(served["max_model_len"])
            root = str(served.get("root") or "")
        except (KeyError, TypeError, ValueError):
            raise self.client.error("that is no vLLM server", "`dreamprm serve` is written http://HOST:PORT") from None
        try:
            folder = resolve(named or root)
        except CheckpointError:
            raise CheckpointError(f"the exported folder {named or root!r} is not here", _NO_FOLDER) from None
        checkpoint = load(folder)
        if not (folder / "tokenizer.json").is_file():
            raise CheckpointError(f"{folder} was not exported for vLLM: it has no tokenizer.json", _NO_FOLDER)
        self.forms, self.logprob_weight = checkpoint.forms, checkpoint.logprob_weight
        self.tokens = Tokens(read_tokenizer(folder), checkpoint.step_token)
        self.problem_limit = checkpoint.max_length - checkpoint.code_reserve

    def start(self, problem: Problem) -> VllmSession:
        return VllmSession(self, problem)


class VllmSession:
    """A ScoringSession: all steps of a call are scored by one request, a sequence a candidate."""

    def __init__(self, scorer: VllmScorer, problem: Problem) -> None:
        self._scorer = scorer
        self._problem, self.truncated = scorer.tokens.problem(prm_input(problem), scorer.problem_limit)
        self._past: dict[int, list[int]] = {}  # token ids of a candidate, the problem's first
        self.encoded_tokens = 0

    def append(self, steps: Sequence[tuple[int, Step]]) -> list[float]:
        """Rewards of (candidate, next step) pairs, in order; NaN for steps that are not scored, or do not fit."""
        ids: dict[int, list[int]] = {}
        reads = []
        for candidate, step in steps:
            sequence = ids.setdefault(candidate, list(self._past.get(candidate, self._problem)))
            tokens = self._scorer.tokens.step(step.source)
            reads.append(len(sequence) + tokens.read)
            sequence += tokens.ids
        rows = self._ask([sequence[: self._scorer.max_tokens] for sequence in ids.values()])
        by_candidate = dict(zip(ids, rows, strict=True))
        self._past |= ids
        rewards = []
        for (candidate, step), read in zip(steps, reads, strict=True):
            row = by_candidate[candidate]
            fits = read + 1 <= len(row) and len(ids[candidate]) <= self._scorer.max_tokens
            rewards.append(row[read] if step.scored and fits else math.nan)
        return rewards

    def drop(self, candidate: int) -> None:
        self._past.pop(candidate, None)

    def _ask(self, sequences: list[list[int]]) -> list[list[float]]:
        """The reward at every token of each sequence."""
        if not sequences:
            return []
        value = self._scorer.client.post(
            "/pooling",
            {"model": self._scorer.model, "task": "token_classify", "input": sequences, "encoding_format": "float"},
        )
        try:
            rows = [_rewards(row["data"]) for row in sorted(value["data"], key=lambda row: int(row["index"]))]
            if [len(row) for row in rows] != [len(sequence) for sequence in sequences]:
                raise ValueError("other numbers of rewards than of tokens")
        except (KeyError, TypeError, ValueError) as error:
            hint = "serve a folder that `dreamprm prm export --format vllm` wrote"
            raise self._scorer.client.error(f"a malformed answer ({error})", hint) from None
        self.encoded_tokens += sum(map(len, sequences))
        return rows


def _rewards(tokens: Any) -> list[float]:
    """One number a token, whether in a list of its own or not."""
    rewards = [float(token[0] if isinstance(token, list) else token) for token in tokens]
    if not all(0 <= reward <= 1 for reward in rewards):
        raise ValueError("rewards outside of [0, 1]")
    return rewards
