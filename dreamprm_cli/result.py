"""The machine-readable result of a run: `dreamprm solve --json` and `result.json`, folded from its events."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from dreamprm_cli import events as ev


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def result(events: Iterable[ev.Event]) -> dict[str, Any]:
    """One JSON object (keys as in the conventions): what was asked, every finished candidate, the choice, the cost.

    Works on an interrupted run too: candidates that were not finished are absent. Raises ValueError without RunStarted.
    """
    start: ev.RunStarted | None = None
    steps: dict[int, dict[int, dict[str, Any]]] = {}
    candidates: dict[int, dict[str, Any]] = {}
    out: dict[str, Any] = {"chosen": None, "ranking": [], "logprob_weight": 0.0}
    notices: list[str] = []
    for event in events:
        match event:
            case ev.RunStarted():
                start = event
            case ev.SampleStarted():
                steps[event.candidate] = {}
            case ev.StepFinished():
                steps.setdefault(event.candidate, {})[event.step] = {
                    "name": event.name, "kind": event.kind, "first_line": event.first_line,
                    "last_line": event.last_line, "reward": None,
                }  # fmt: skip
            case ev.StepScored():
                steps[event.candidate][event.step]["reward"] = _number(event.reward)
            case ev.CandidateFinished():
                rows = steps.get(event.candidate, {})
                candidates[event.candidate] = {
                    "index": event.candidate, "code": event.code, "reward": _number(event.reward),
                    "steps": [rows[k] for k in sorted(rows)], "finish_reason": event.finish_reason,
                    "mean_logprob": _number(event.mean_logprob), "tokens": event.tokens, "seed": event.seed,
                    "adherence": event.adherence, "verdict": None,
                }  # fmt: skip
            case ev.TestsRan():
                if event.candidate in candidates:
                    candidates[event.candidate]["verdict"] = {
                        "status": event.status, "passed": event.passed, "total": event.total,
                        "seconds": event.seconds, "trust": event.trust, "isolation": event.isolation,
                        "detail": event.detail,
                    }  # fmt: skip
            case ev.Notice():
                notices.append(event.text)
            case ev.Chosen():
                out.update(chosen=event.chosen, ranking=event.ranking, logprob_weight=event.logprob_weight)
            case ev.RunFinished():
                out.update(
                    interrupted=event.interrupted,
                    usage={"input_tokens": event.input_tokens, "output_tokens": event.output_tokens},
                    total_cost_usd=event.cost_usd,
                    duration_ms=event.duration_ms,
                    out=event.out,
                )
    if start is None:
        raise ValueError("events of a run begin with RunStarted")
    return {
        "schema_version": ev.SCHEMA_VERSION,
        "run": start.run,
        "problem": start.problem.get("id"),
        "policy": start.policy,
        "prm": start.prm,
        "aggregation": start.aggregation,
        "candidates": [candidates[index] for index in sorted(candidates)],
        "notices": notices,
        **out,
    }
