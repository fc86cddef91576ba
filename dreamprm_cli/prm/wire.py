"""A scoring request and its answer as JSON: what the server reads is what the remote scorer writes.

    {"problem": TEXT or {"statement", "starter_code", "entry_point", "language"},
     "programs": [[{"source", "kind"}, ...], ...],    the steps of each program, from its first
     "known": [2, ...],                               how many of them have been scored before (default 0)
     "keep": true}                                    the programs will go on: what is computed is worth keeping
    -> {"rewards": [[0.9, null, ...], ...],           of the steps that are not known; null where there is none
        "truncated": false, "encoded_tokens": 120}

A request says all that its answer depends on: a server may forget anything at any time, and any of several may answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from dreamprm_cli.steps import LANGUAGES
from dreamprm_cli.types import Problem, Step, StepKind

MAX_PROGRAMS, MAX_STEPS = 256, 4096  # of one request; steps of all its programs together


class RequestError(ValueError):
    """What is wrong with a request, in a line."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Programs of one problem; the first `known[i]` steps of program i need no reward."""

    problem: Problem
    programs: tuple[tuple[Step, ...], ...]
    known: tuple[int, ...]
    keep: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "problem": {
                "statement": self.problem.statement,
                "starter_code": self.problem.starter_code,
                "entry_point": self.problem.entry_point,
                "language": self.problem.language,
            },
            "programs": [[{"source": s.source, "kind": s.kind} for s in steps] for steps in self.programs],
            "known": list(self.known),
            "keep": self.keep,
        }


@dataclass(frozen=True, slots=True)
class ScoreAnswer:
    """`rewards[i]` is of program i's steps that were not known, NaN where a step has none.

    encoded_tokens: those that went through the backbone for this request.
    """

    rewards: tuple[tuple[float, ...], ...]
    truncated: bool
    encoded_tokens: int

    def to_json(self) -> dict[str, Any]:
        return {
            "rewards": [[number(reward) for reward in rewards] for rewards in self.rewards],
            "truncated": self.truncated,
            "encoded_tokens": self.encoded_tokens,
        }


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def parse_request(value: Any) -> ScoreRequest:
    """A request from its JSON. Raises RequestError."""
    programs = _list(_field(value, "programs", None), "programs")
    if len(programs) > MAX_PROGRAMS:
        raise RequestError(f"{len(programs)} programs: at most {MAX_PROGRAMS} a request")
    steps = tuple(tuple(_step(step) for step in _list(program, "a program")) for program in programs)
    if sum(map(len, steps)) > MAX_STEPS:
        raise RequestError(f"{sum(map(len, steps))} steps: at most {MAX_STEPS} a request")
    known = _list(_field(value, "known", [0] * len(steps)), "known")
    if len(known) != len(steps):
        raise RequestError("`known` must have a number for each program")
    for count, program in zip(known, steps, strict=True):
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= len(program):
            raise RequestError("`known` must hold numbers of steps")
    keep = _field(value, "keep", False)
    if not isinstance(keep, bool):
        raise RequestError("`keep` must be true or false")
    return ScoreRequest(parse_problem(value), steps, tuple(known), keep)


def parse_problem(value: Any) -> Problem:
    """The problem of a request's JSON. Raises RequestError."""
    about = _field(value, "problem", None)
    if isinstance(about, str):
        about = {"statement": about}
    statement, starter = _field(about, "statement", None), _field(about, "starter_code", "")
    entry_point = _field(about, "entry_point", None)
    language = _field(value, "language", None) or _field(about, "language", None) or "python"
    for name, text in (("statement", statement), ("starter_code", starter), ("entry_point", entry_point)):
        if not isinstance(text, str) and not (name == "entry_point" and text is None):
            raise RequestError(f"the problem's `{name}` must be text")
    if language not in LANGUAGES:
        raise RequestError(f"`language` must be one of {', '.join(LANGUAGES)}")
    return Problem(id="remote", statement=statement, starter_code=starter, entry_point=entry_point, language=language)


def parse_answer(value: Any, expected: Sequence[int]) -> ScoreAnswer:
    """An answer from its JSON; `expected[i]` rewards of program i. Raises ValueError for what is no such answer."""
    rows = value["rewards"]
    rewards = tuple(tuple(math.nan if r is None else float(r) for r in row) for row in rows)
    if [len(row) for row in rewards] != list(expected):
        raise ValueError("other numbers of rewards than of steps")
    if not all(math.isnan(r) or 0 <= r <= 1 for row in rewards for r in row):
        raise ValueError("rewards outside of [0, 1]")
    return ScoreAnswer(rewards, bool(value["truncated"]), int(value["encoded_tokens"]))


def _step(value: Any) -> Step:
    source, kind = _field(value, "source", None), _field(value, "kind", "code")
    if not isinstance(source, str):
        raise RequestError("a step's `source` must be text")
    if kind not in get_args(StepKind):
        raise RequestError(f"a step's `kind` must be one of {', '.join(get_args(StepKind))}")
    return Step(name="", kind=kind, source=source, first_line=0, last_line=0)


def _field(value: Any, name: str, default: Any) -> Any:
    if not isinstance(value, dict):
        raise RequestError(f"a JSON object with `{name}` is expected")
    return value.get(name, default)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise RequestError(f"{name} must be a list")
    return value
