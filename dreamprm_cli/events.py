"""What happens in a run, as frozen events. The journal, the live view, replay and resume all read these.

Every event knows `t`, seconds since the run started. `to_json` and `from_json` are the journal's line format.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from dreamprm_cli.types import FinishReason, Status, StepKind

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    t: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """The whole request, enough to resume it: `problem`, `settings` are plain JSON values."""

    run: str
    problem: dict[str, Any]
    policy: str
    prm: str | None
    n: int
    aggregation: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed(Event):
    """A later process goes on; candidates without CandidateFinished start again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleStarted(Event):
    candidate: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextArrived(Event):
    """Code (fences removed) of a candidate; `logprob` sums over `tokens`, NaN when unknown."""

    candidate: int
    text: str
    tokens: int
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    candidate: int
    step: int
    name: str
    kind: StepKind
    source: str
    first_line: int
    last_line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScored(Event):
    candidate: int
    step: int
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateFinished(Event):
    """All steps are known and scored. `reward` is the aggregate, NaN without a PRM or scored steps."""

    candidate: int
    code: str
    finish_reason: FinishReason
    seed: int
    tokens: int
    mean_logprob: float
    reward: float
    adherence: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestsRan(Event):
    candidate: int
    status: Status
    passed: int
    total: int
    seconds: float
    trust: str
    isolation: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """One line the user should see (a problem that was truncated, a fallback that was taken)."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen(Event):
    """Best first. `chosen` is None when there is no program to choose. `logprob_weight`: see `aggregate.standing`; 0
    where the rewards alone decide."""

    chosen: int | None
    ranking: list[int]
    logprob_weight: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """`interrupted` runs can be resumed. `out` is where the chosen program was written."""

    interrupted: bool
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    duration_ms: int
    out: str | None


_KINDS: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        RunStarted, RunResumed, SampleStarted, TextArrived, StepFinished, StepScored,
        CandidateFinished, TestsRan, Notice, Chosen, RunFinished,
    )
}  # fmt: skip


def to_json(event: Event) -> dict[str, Any]:
    """A JSON object; NaN becomes null, since JSON has none."""
    fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    for key, value in fields.items():
        if isinstance(value, float) and math.isnan(value):
            fields[key] = None
    return {"event": type(event).__name__, "schema_version": SCHEMA_VERSION, **fields}


def from_json(row: dict[str, Any]) -> Event:
    """The event of a journal line. Unknown fields are ignored; raises ValueError for an unknown or damaged event."""
    cls = _KINDS.get(str(row.get("event")))
    if cls is None:
        raise ValueError(f"unknown event {row.get('event')!r}")
    values: dict[str, Any] = {}
    for f in dataclasses.fields(cls):
        if f.name in row:
            value = row[f.name]
            values[f.name] = math.nan if value is None and f.type == "float" else value
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"damaged event {row.get('event')!r}: {error}") from None
