"""The solve path with a scripted policy and a scripted scorer: real splitter, fences, ranking and journal."""

import itertools
import json
import math
import threading

import pytest

from dreamprm_cli import events as ev
from dreamprm_cli import store
from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import Delta, Sampling
from dreamprm_cli.policy.scripted import ScriptedPolicy
from dreamprm_cli.prm.scripted import ScriptedScorer
from dreamprm_cli.result import result
from dreamprm_cli.runner import Run, execute
from dreamprm_cli.solve import Request, rank, solve
from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem, Usage, Verdict

PROBLEM = Problem(id="sum", statement="Print the sum.", title="Sum")
GOOD = 'def read():\n    """Good."""\n    return 1\n\n\ndef main():\n    """Good."""\n    print(read())\n\n\nmain()\n'
POOR = 'def main():\n    """Poor."""\n    print(0)\n\n\nmain()\n'
BROKEN = "def main(:\n    Good\n"
SCORER = ScriptedScorer({"Good": 0.9, "Poor": 0.2})


def run(texts, *, scorer=SCORER, n=None, **options):
    policy = ScriptedPolicy(texts)
    request = Request(PROBLEM, n or len(texts), Sampling())
    return list(solve(request, policy, scorer, **options))


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("overlap", [False, True])
def test_every_program_arrives_whole_is_split_scored_and_ranked(overlap):
    events = run([POOR, GOOD], overlap=overlap)
    finished = {e.candidate: e for e in of(events, ev.CandidateFinished)}
    assert finished[0].code == POOR
    assert finished[1].code == GOOD
    assert finished[1].reward == pytest.approx((0.9 + 0.9 + 0.5) / 3)
    assert finished[1].adherence["functions"] == 2
    assert of(events, ev.Chosen)[-1].ranking == [1, 0]
    for index, code in ((0, POOR), (1, GOOD)):
        steps = [e for e in of(events, ev.StepFinished) if e.candidate == index]
        assert [e.source for e in steps] == [s.source for s in split(code)]
        assert [e.step for e in of(events, ev.StepScored) if e.candidate == index] == list(range(len(steps)))


@pytest.mark.parametrize("overlap", [False, True])
def test_a_step_is_scored_while_its_program_is_still_being_written(overlap):
    events = run([GOOD], overlap=overlap)
    first_score = next(i for i, e in enumerate(events) if isinstance(e, ev.StepScored))
    last_text = max(i for i, e in enumerate(events) if isinstance(e, ev.TextArrived))
    if not overlap:  # with overlap the scripted text may all have come before the first score
        assert first_score < last_text
    assert events.index(of(events, ev.CandidateFinished)[0]) > first_score


@pytest.mark.parametrize("prefills", [True, False])
def test_a_program_that_goes_on_from_a_head_holds_it_once(prefills):
    head, body = 'def gap(a, b):\n    """Good."""\n', "    return abs(a - b)\n"
    problem = Problem("gap", "Say how far.", head, entry_point="gap", context="import math\n")
    policy = ScriptedPolicy([body if prefills else f"```python\n{head}{body}```"], prefills=prefills)
    events = list(solve(Request(problem, 1, Sampling()), policy, SCORER))
    assert of(events, ev.CandidateFinished)[0].code == head + body
    assert "".join(e.text for e in of(events, ev.TextArrived)) == head + body
    assert [e.source for e in of(events, ev.StepFinished)] == [head + body]


def test_a_candidate_that_fails_before_it_writes_has_no_program():
    """Else its head would count as one whose likelihood is unknown, and likelihoods would not rank the others."""
    head, body = 'def gap(a, b):\n    """Good."""\n', "    return abs(a - b)\n"
    problem = Problem("gap", "Say how far.", head, entry_point="gap", context="import math\n")
    policy = ScriptedPolicy(["", body], finish_reasons={0: "error"})
    finished = of(list(solve(Request(problem, 2, Sampling()), policy, SCORER)), ev.CandidateFinished)
    assert {e.candidate: e.code for e in finished} == {0: "", 1: head + body}


def test_without_a_prm_the_mean_log_probability_decides_and_rewards_are_unknown():
    events = run([POOR, GOOD], scorer=None)
    assert of(events, ev.StepScored) == []
    assert all(math.isnan(e.reward) for e in of(events, ev.CandidateFinished))
    assert of(events, ev.Chosen)[0].chosen is not None


def test_a_program_that_does_not_parse_ranks_below_one_that_does():
    assert of(run([BROKEN, POOR]), ev.Chosen)[0].ranking == [1, 0]


def test_programs_that_pass_their_tests_come_first_and_reward_ranks_within():
    def verify(candidate):
        passed = "Poor" in candidate.code
        return Verdict("PASS" if passed else "WA", int(passed), 1, 0.1, "strong")

    events = run([GOOD, POOR, GOOD], verify=verify)
    assert len(of(events, ev.TestsRan)) == 3
    assert of(events, ev.Chosen)[0].ranking[0] == 1


def test_nothing_but_white_space_is_not_a_choice():
    chosen = of(run(["\n \n"]), ev.Chosen)[0]
    assert chosen.chosen is None
    assert chosen.ranking == []


def test_a_chat_answer_loses_its_fences():
    chat = ScriptedPolicy([f"Here it is:\n```python\n{GOOD}```\nDone."], prefills=False)
    events = list(solve(Request(PROBLEM, 1, Sampling()), chat, SCORER))
    assert of(events, ev.CandidateFinished)[0].code == GOOD


@pytest.mark.parametrize("overlap", [False, True])
def test_an_engine_that_breaks_is_an_error_not_a_program(overlap):
    class Breaking(ScriptedPolicy):
        def stream(self, prompt, indices, sampling):
            yield Delta(indices[0], "def f", -0.1)
            raise PolicyError("the engine broke")

    with pytest.raises(PolicyError, match="the engine broke"):
        list(solve(Request(PROBLEM, 2, Sampling()), Breaking([GOOD, GOOD]), SCORER, overlap=overlap))


@pytest.mark.parametrize("overlap", [False, True])
def test_a_stop_keeps_what_is_finished(overlap):
    stop = threading.Event()
    kept = []
    request = Request(PROBLEM, 2, Sampling())
    for event in solve(request, ScriptedPolicy([POOR, GOOD * 20]), SCORER, stop=stop, overlap=overlap):
        kept.append(event)
        if isinstance(event, ev.CandidateFinished):
            stop.set()
    assert {e.candidate for e in of(kept, ev.CandidateFinished)} >= {0}
    assert of(kept, ev.Chosen)[0].chosen is not None


def test_rank_prefers_whole_programs_to_those_cut_off():
    def done(index, reason, reward):
        return ev.CandidateFinished(
            t=0.0, candidate=index, code="x = 1\n", finish_reason=reason, seed=0, tokens=1, mean_logprob=-1.0,
            reward=reward, adherence={"parses": True},
        )  # fmt: skip

    assert rank({0: done(0, "length", 0.9), 1: done(1, "stop", 0.1)}, {}) == [1, 0]


def test_rank_weighs_the_reward_and_the_log_probability():
    def done(index, reward, logprob):
        return ev.CandidateFinished(
            t=0.0, candidate=index, code="x = 1\n", finish_reason="stop", seed=0, tokens=1, mean_logprob=logprob,
            reward=reward, adherence={"parses": True},
        )  # fmt: skip

    close = {0: done(0, 0.55, -0.9), 1: done(1, 0.5, -0.1)}
    assert rank(close, {}) == [0, 1]
    assert rank(close, {}, 2.0) == [1, 0]  # 0.2 in log-odds against 1.6
    assert rank({0: done(0, 1.0, -0.9), 1: done(1, 0.5, -0.1)}, {}, 2.0) == [0, 1]
    assert rank({0: done(0, math.nan, -0.1), 1: done(1, 0.1, -3.0)}, {}, 2.0) == [1, 0]  # no step to score


@pytest.mark.parametrize(("known", "weight"), [(True, 2.0), (False, 0.0)])
def test_log_probability_counts_where_it_is_known_of_every_program(known, weight):
    scorer = ScriptedScorer({"POOR": 0.1}, logprob_weight=2.0)
    policy = ScriptedPolicy([GOOD, GOOD], logprob=-0.1 if known else math.nan)
    (chosen,) = of(list(solve(Request(PROBLEM, 2, Sampling()), policy, scorer)), ev.Chosen)
    assert chosen.logprob_weight == weight


def start(folder, texts, past=(), **options):
    policy = ScriptedPolicy(texts)
    request = Request(PROBLEM, len(texts), Sampling())
    events = []
    outcome = execute(
        Run(folder, request, policy.name, SCORER.name, {}, past, **options), policy, SCORER, emit=events.append
    )
    return outcome, events


def test_a_run_leaves_its_program_journal_and_result(tmp_path):
    outcome, events = start(tmp_path, [POOR, GOOD])
    assert outcome["chosen"] == 1
    assert (tmp_path / "solution.py").read_text() == GOOD
    assert outcome["out"] == str(tmp_path / "solution.py")
    assert store.read_journal(tmp_path) == events
    assert result(store.read_journal(tmp_path)) == outcome
    assert json.loads(json.dumps(outcome)) == outcome
    assert outcome["candidates"][1]["steps"][0] == {
        "name": "read", "kind": "function", "first_line": 1, "last_line": 5, "reward": 0.9,
    }  # fmt: skip


def test_a_killed_run_goes_on_with_what_it_lacks(tmp_path):
    (untouched := tmp_path / "whole").mkdir()
    (folder := tmp_path / "killed").mkdir()
    whole, events = start(untouched, [POOR, GOOD])
    cut = next(i for i, e in enumerate(events) if isinstance(e, ev.CandidateFinished)) + 1
    with store.Journal(folder) as journal:
        for event in events[:cut]:
            journal.append(event)
    resumed, later = start(folder, [POOR, GOOD], past=store.read_journal(folder))
    assert isinstance(later[0], ev.RunResumed)
    assert len({e.candidate for e in of(later, ev.SampleStarted)}) == 1
    assert [c["code"] for c in resumed["candidates"]] == [c["code"] for c in whole["candidates"]]
    assert [c["reward"] for c in resumed["candidates"]] == [c["reward"] for c in whole["candidates"]]
    assert all(b.t >= a.t for a, b in itertools.pairwise(later))


def test_usage_of_all_processes_of_a_run_is_summed_and_an_unknown_cost_stays_unknown(tmp_path):
    class Priced(ScriptedPolicy):
        def usage(self):
            return Usage(10, 20, 0.5)

    (first := tmp_path / "a").mkdir()
    request = Request(PROBLEM, 1, Sampling())
    one = execute(Run(first, request, "p", None, {}), Priced([GOOD]), None, emit=lambda _: None)
    assert (one["usage"], one["total_cost_usd"]) == ({"input_tokens": 10, "output_tokens": 20}, 0.5)
    past = store.read_journal(first)
    two = execute(Run(first, request, "p", None, {}, past), Priced([GOOD]), None, emit=lambda _: None)
    assert (two["usage"]["output_tokens"], two["total_cost_usd"]) == (40, 1.0)
