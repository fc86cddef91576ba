import json
import math

import pytest

from dreamprm_cli import events as ev

SAMPLES = [
    ev.RunStarted(t=0.0, run="r", problem={"id": "p"}, policy="x", prm=None, n=2, aggregation="mean", settings={}),
    ev.RunResumed(t=0.5),
    ev.SampleStarted(t=1.0, candidate=0, seed=7),
    ev.TextArrived(t=1.5, candidate=0, text="def f", tokens=2, logprob=-0.25),
    ev.StepFinished(
        t=2.0, candidate=0, step=0, name="f", kind="function", source="def f(): ...\n", first_line=1, last_line=1
    ),
    ev.StepScored(t=2.5, candidate=0, step=0, reward=0.75),
    ev.CandidateFinished(
        t=3.0, candidate=0, code="def f(): ...\n", finish_reason="stop", seed=7, tokens=9, mean_logprob=-0.2,
        reward=0.75, adherence={"functions": 1},
    ),
    ev.TestsRan(t=3.5, candidate=0, status="PASS", passed=2, total=2, seconds=0.1, trust="strong"),
    ev.Notice(t=3.6, text="note"),
    ev.Chosen(t=4.0, chosen=0, ranking=[0]),
    ev.RunFinished(
        t=5.0, interrupted=False, input_tokens=1, output_tokens=9, cost_usd=None, duration_ms=5000, out="solution.py"
    ),
]  # fmt: skip


@pytest.mark.parametrize("event", SAMPLES, ids=lambda e: type(e).__name__)
def test_events_survive_the_journal(event):
    assert ev.from_json(json.loads(json.dumps(ev.to_json(event)))) == event


def test_every_event_has_a_sample_here():
    assert {type(e) for e in SAMPLES} == set(ev._KINDS.values())


def test_nan_is_null_in_json_and_nan_again_when_read():
    row = ev.to_json(ev.StepScored(t=0.0, candidate=0, step=0, reward=math.nan))
    assert row["reward"] is None
    event = ev.from_json(row)
    assert isinstance(event, ev.StepScored)
    assert math.isnan(event.reward)


def test_a_cost_that_is_unknown_stays_unknown():
    event = ev.from_json(ev.to_json(SAMPLES[-1]))
    assert isinstance(event, ev.RunFinished)
    assert event.cost_usd is None


@pytest.mark.parametrize("row", [{}, {"event": "Nonsense"}, {"event": "StepScored", "t": 0.0}, {"event": None}])
def test_damaged_events_are_value_errors(row):
    with pytest.raises(ValueError, match="event"):
        ev.from_json(row)


def test_fields_of_a_later_version_are_ignored():
    assert ev.from_json({"event": "RunResumed", "t": 1.0, "extra": 1}) == ev.RunResumed(t=1.0)
