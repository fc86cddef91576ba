"""The values every room speaks: frozen, standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

StepKind = Literal["function", "method", "class", "imports", "code"]
# stop: the policy ended the program; length: cut off at the token limit; error: the stream broke.
FinishReason = Literal["stop", "length", "error"]
Status = Literal["PASS", "WA", "RE", "CE", "TLE", "MLE", "OLE", "TAMPER", "REJECT", "FILE_ERROR"]


@dataclass(frozen=True, slots=True)
class Example:
    """One public example: standard input (or call arguments) and the output expected."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Tests:
    """Public examples, and the hidden tests as their file has them (`kind` names the format)."""

    __test__ = False  # the name is ours, not pytest's

    kind: str = "none"
    examples: tuple[Example, ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be solved. `entry_point` is None (a stdin program), "name" or "Solution.method". `context`: the module
    that the program becomes a part of, without it; empty where it stands alone."""

    id: str
    statement: str
    starter_code: str = ""
    entry_point: str | None = None
    tests: Tests = Tests()
    title: str = ""
    language: str = "python"
    time_limit_s: float | None = None
    context: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of a program. Lines count from 1, both ends included; sources of all steps join to the program."""

    name: str
    kind: StepKind
    source: str
    first_line: int
    last_line: int

    @property
    def scored(self) -> bool:
        """Imports and constants hold no logic to trust: they are read by the PRM but get no reward."""
        return self.kind != "imports"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One program out of N. `mean_logprob` is nats per token, NaN when the policy does not tell."""

    problem_id: str
    index: int
    code: str
    steps: tuple[Step, ...]
    finish_reason: FinishReason
    seed: int
    tokens: int
    mean_logprob: float = math.nan


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate and its rewards in [0, 1]; `step_rewards` runs along `candidate.steps`, NaN where not scored."""

    candidate: Candidate
    step_rewards: tuple[float, ...]
    reward: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests said. `trust` is weak where candidate and tests had to share a process. `detail` is one line that
    says why; `parts` are test classes (or files) and whether each was passed, where that is known."""

    status: Status
    passed: int
    total: int
    seconds: float
    trust: Literal["strong", "weak"]
    isolation: str = ""
    detail: str = ""
    parts: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class StepLabel:
    """Monte-Carlo counts of prefix 1..step_index of a candidate: `passes` of `rollouts` completions passed."""

    problem_id: str
    candidate_index: int
    step_index: int
    passes: int
    rollouts: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in and out, and what they cost in US dollars (None when the price is unknown)."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
