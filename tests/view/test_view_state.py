from __future__ import annotations

import dataclasses
import math
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st
from view_kit import Run, screen

from dreamprm_cli import events as ev
from dreamprm_cli.view import demo
from dreamprm_cli.view.grid import render
from dreamprm_cli.view.report import render_report
from dreamprm_cli.view.state import ViewState, fold, fold_all


def test_the_fold_is_a_function_of_the_events() -> None:
    events = list(demo.events(5))
    whole = fold_all(events)
    for cut in (0, 1, 7, len(events) // 2, len(events)):
        before = fold_all(events[:cut])
        kept = dataclasses.replace(before)
        assert reduce(fold, events[cut:], before) == whole
        assert before == kept, "a fold changed the state it was given"


def test_events_from_the_journal_fold_to_the_same_state() -> None:
    events = list(demo.events(4))
    assert repr(fold_all(ev.from_json(ev.to_json(e)) for e in events)) == repr(fold_all(events))


def test_a_candidates_life() -> None:
    run = Run(n=2)
    assert [c.status for c in fold_all(run.events).rows()] == ["waiting", "waiting"]
    run.add(ev.SampleStarted, candidate=1, seed=9).text(1, "def main():", tokens=4)
    state = fold_all(run.events)
    assert state.candidates[1].status == "writing"
    assert state.candidates[1].unfinished == "def main():"
    assert state.tokens == 4
    run.candidate(1, [("main", 0.5), ("other", 1.0)], adherence={"parses": True})
    run.add(ev.TestsRan, candidate=1, status="WA", passed=1, total=3, seconds=0.1, trust="weak")
    done = fold_all(run.events).candidates[1]
    assert (done.status, done.reward, done.finish_reason, done.seed) == ("finished", 0.75, "stop", 1)
    assert [(s.step.name, s.reward) for s in done.steps] == [("main", 0.5), ("other", 1.0)]
    assert done.verdict is not None
    assert (done.verdict.status, done.verdict.passed, done.verdict.trust) == ("WA", 1, "weak")
    assert done.adherence == {"parses": True}
    assert done.unfinished == ""


def test_text_of_a_finished_step_is_forgotten() -> None:
    run = Run().text(0, "def a():\n    pass\ndef b").step(0, 0, "a", "def a():\n    pass\n")
    assert fold_all(run.events).candidates[0].unfinished == "def b"
    run.text(0, "():").step(0, 1, "b", "def b():")
    assert fold_all(run.events).candidates[0].unfinished == ""


def test_only_the_tail_of_long_text_is_kept() -> None:
    run = Run()
    for number in range(3000):
        run.text(0, f"line {number}\n")
    candidate = fold_all(run.events).candidates[0]
    assert len(candidate.unfinished) <= 4000
    assert candidate.unfinished.endswith("line 2999\n")
    long = "".join(f"line {number}\n" for number in range(2999))
    run.step(0, 0, "long", long)
    assert fold_all(run.events).candidates[0].unfinished == "line 2999\n"


def test_a_score_before_its_step_waits_for_it() -> None:
    run = Run().add(ev.StepScored, candidate=0, step=1, reward=0.25)
    run.step(0, 0, "a").step(0, 1, "b")
    steps = fold_all(run.events).candidates[0].steps
    assert [(s.step.name, s.reward) for s in steps] == [("a", None), ("b", 0.25)]


def test_reward_before_the_end_is_that_of_the_steps_so_far() -> None:
    run = Run().step(0, 0, "imports", reward=math.nan, kind="imports").step(0, 1, "a", reward=0.5)
    run.step(0, 2, "b", reward=1.0).step(0, 3, "c")
    state = fold_all(run.events)
    assert state.candidates[0].reward is None
    assert state.reward_of(state.candidates[0]) == 0.75
    fewer = fold_all(run.events[:3])
    assert fewer.reward_of(fewer.candidates[0]) is None


def test_an_aggregation_this_version_does_not_know_gives_no_reward() -> None:
    state = fold_all(Run(aggregation="future").step(0, 0, "a", reward=0.5).events)
    assert state.reward_of(state.candidates[0]) is None


def test_imports_have_no_cell() -> None:
    run = Run().step(0, 0, "imports", reward=math.nan, kind="imports").step(0, 1, "a", reward=0.5)
    assert [s.step.name for s in fold_all(run.events).candidates[0].cells] == ["a"]


def test_no_prm_leaves_the_reward_undefined() -> None:
    run = Run(prm=None).candidate(0, [("a", math.nan)])
    candidate = fold_all(run.events).candidates[0]
    assert candidate.reward is not None
    assert math.isnan(candidate.reward)
    assert candidate.steps[0].reward is None


def test_the_policys_own_token_count_wins() -> None:
    run = Run().text(0, "x", tokens=3)
    run.add(
        ev.CandidateFinished, candidate=0, code="x", finish_reason="stop", seed=0, tokens=10, mean_logprob=-1.0,
        reward=0.5, adherence={},
    )  # fmt: skip
    state = fold_all(run.events)
    assert (state.tokens, state.candidates[0].tokens) == (10, 10)


def test_resume_keeps_what_is_finished_and_the_clock() -> None:
    run = Run(n=3).candidate(0, [("a", 0.5)]).add(ev.SampleStarted, candidate=1, seed=1).text(1, "def b")
    run.end([0], interrupted=True)
    before = fold_all(run.events)
    assert before.interrupted
    for restart in (0.0, before.elapsed, before.elapsed + 3):
        state = fold(before, ev.RunResumed(t=restart))
        assert [state.candidates[i].status for i in range(3)] == ["finished", "waiting", "waiting"]
        assert (state.interrupted, state.over, state.chosen, state.ranking, state.out) == (False, False, None, (), None)
        assert state.elapsed == max(before.elapsed, restart)
        assert fold(state, ev.Notice(t=restart + 1, text="on")).elapsed == pytest.approx(state.elapsed + 1)


def test_a_candidate_that_starts_again_forgets_its_steps() -> None:
    run = Run().text(0, "def a").step(0, 0, "a", reward=0.1).add(ev.SampleStarted, candidate=0, seed=0)
    candidate = fold_all(run.events).candidates[0]
    assert (candidate.steps, candidate.unfinished, candidate.tokens) == ((), "", 0)


def test_speed_is_of_the_last_seconds_and_falls_when_nothing_comes() -> None:
    run = Run().add(ev.SampleStarted, candidate=0, seed=0)
    for _ in range(100):  # one token every 0.1 s
        run.text(0, "x")
    state = fold_all(run.events)
    assert state.speed(state.elapsed) == pytest.approx(10, rel=0.05)
    later = state.speed(state.elapsed + 5)
    assert later is not None
    assert later < 6
    over = fold_all([*run.events, *Run(n=0).end([]).events[1:]])
    assert over.speed(over.elapsed) == pytest.approx(10, rel=0.05)


def test_speed_is_unknown_before_text() -> None:
    assert fold_all(Run().events).speed(3.0) is None


def test_title_falls_back_to_the_id_and_the_statement() -> None:
    for problem, title in (
        ({"id": "p1"}, "p1"),
        ({"statement": "\n# Sum two numbers\nmore"}, "Sum two numbers"),
        ({}, ""),
    ):
        assert fold_all(Run(problem=problem).events).title == title


def test_notices_are_bounded() -> None:
    run = Run()
    for number in range(200):
        run.add(ev.Notice, text=f"notice {number}")
    notices = fold_all(run.events).notices
    assert notices[-1] == "notice 199"
    assert len(notices) == 50


def test_zero_candidates() -> None:
    state = fold_all(Run(n=0).end([], out=None).events)
    assert (state.rows(), state.chosen, state.over) == ([], None, True)


_INDEX = st.sampled_from([0, 1, 5, 70])
_STEP = st.sampled_from([-1, 0, 1, 3, 10**9])
_TEXT = st.sampled_from(["", "def f():\n", "x", "\x1b[2J", "合并", "class A:\n    def b(self):\n\t\tpass"])
_REWARD = st.sampled_from([0.0, 0.5, 1.0, math.nan, -2.0, 7.0])
_EVENTS = st.one_of(
    st.builds(
        ev.RunStarted, t=st.just(0.0), run=_TEXT, problem=st.just({}), policy=_TEXT, prm=st.none() | _TEXT,
        n=st.integers(0, 5), aggregation=st.sampled_from(["mean", "x"]), settings=st.just({}),
    ),
    st.builds(ev.RunResumed, t=st.floats(0, 9)),
    st.builds(ev.SampleStarted, t=st.floats(0, 9), candidate=_INDEX, seed=st.just(0)),
    st.builds(ev.TextArrived, t=st.floats(0, 9), candidate=_INDEX, text=_TEXT, tokens=st.integers(0, 9),
              logprob=st.just(math.nan)),
    st.builds(ev.StepFinished, t=st.floats(0, 9), candidate=_INDEX, step=_STEP, name=_TEXT,
              kind=st.sampled_from(["function", "imports", "code"]), source=_TEXT,
              first_line=st.integers(0, 9), last_line=st.integers(0, 9)),
    st.builds(ev.StepScored, t=st.floats(0, 9), candidate=_INDEX, step=_STEP, reward=_REWARD),
    st.builds(ev.CandidateFinished, t=st.floats(0, 9), candidate=_INDEX, code=_TEXT,
              finish_reason=st.sampled_from(["stop", "length", "error"]), seed=st.just(0), tokens=st.integers(0, 9),
              mean_logprob=_REWARD, reward=_REWARD, adherence=st.just({"verdict": "ok", "parses": True})),
    st.builds(ev.TestsRan, t=st.floats(0, 9), candidate=_INDEX, status=st.sampled_from(["PASS", "WA", "TLE"]),
              passed=st.just(1), total=st.just(2), seconds=st.just(0.1), trust=st.sampled_from(["strong", "weak"])),
    st.builds(ev.Notice, t=st.floats(0, 9), text=_TEXT),
    st.builds(ev.Chosen, t=st.floats(0, 9), chosen=st.none() | _INDEX, ranking=st.lists(_INDEX, unique=True)),
    st.builds(ev.RunFinished, t=st.floats(0, 9), interrupted=st.booleans(), input_tokens=st.just(1),
              output_tokens=st.just(2), cost_usd=st.none() | st.just(0.5), duration_ms=st.just(5),
              out=st.none() | _TEXT),
)  # fmt: skip


@given(st.lists(_EVENTS, max_size=25), st.sampled_from([1, 7, 20, 40, 80, 200]), st.sampled_from([1, 3, 24]))
def test_events_in_any_order_can_be_shown(events: list[ev.Event], width: int, height: int) -> None:
    state = ViewState.initial()
    for event in events:
        later = fold(state, event)
        assert isinstance(event, ev.RunStarted) or later.elapsed >= state.elapsed
        state = later
    assert len(screen(render(state, width, height), width)) <= height
    screen(render_report(state, max(width, 20)), max(width, 20))
