"""Rollouts: enough and no more, none twice, the same counts whatever stopped the run."""

import json
import random
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.policy import Delta, Sampling, candidate_seed
from dreamprm_cli.types import Problem, Usage
from dreamprm_trainer.continuation import Streamed, Written
from dreamprm_trainer.journal import open_journal
from dreamprm_trainer.rollouts import Plan, Prefix, posterior_sd, roll_out

PROBLEMS = [Problem(f"P/{n}", "Do it.", entry_point="f") for n in range(3)]
PREFIXES = [Prefix(problem, f"def g{k}():\n    return {k}\n") for problem in PROBLEMS for k in range(4)]


class Writer:
    """Goes on with a random digit of each draw's own seed; dies after some programs, or breaks some off."""

    model = "writer"

    def __init__(self, dies_after=None, breaks=lambda index: False):
        self.written, self.dies_after, self.breaks = [], dies_after, breaks

    def run(self, beginnings):
        while (one := beginnings()) is not None:
            for index in one.indices:
                if len(self.written) == self.dies_after:
                    raise KeyboardInterrupt
                self.written.append((one.key, index))
                seed = candidate_seed(one.sampling.seed, index)
                code = f"{one.text}x = {random.Random(seed).randrange(10)}\n"
                yield Written(one.key, index, seed, code, 5, -1.0, "error" if self.breaks(index) else "stop")

    def close(self):
        pass


class Judge:
    """The digit decides, prefix k passing about k of 4 times; in threads, so that verdicts come late and mixed up."""

    def __init__(self, executor, unusable=()):
        self.executor, self.unusable = executor, unusable

    def ask(self, task_id, code):
        chance, digit = int(code.split("return ")[1][0]), int(code.split("x = ")[1])
        return self.executor.submit(lambda: {"passed": None if task_id in self.unusable else digit < 2.5 * chance})


@pytest.fixture
def executor():
    with ThreadPoolExecutor(3) as pool:
        yield pool


def _counts(tallies):
    return {tally.prefix.key: (sum(tally.outcomes), len(tally.outcomes)) for tally in tallies}


def _roll(path, writer, judge, plan=None, prefixes=PREFIXES):
    journal, known = open_journal(path)
    with journal:
        return _counts(roll_out(prefixes, writer, judge, plan or Plan(), Sampling(), journal, known))


def test_enough_when_the_first_agree_or_the_posterior_is_narrow_or_at_most():
    plan = Plan(first=4, more=2, most=16, spread=0.08)
    assert plan.enough([]) == 4
    assert plan.enough([True] * 4) == plan.enough([False] * 4) == 4
    assert plan.enough([True, True, True, False]) == 6
    assert plan.enough([True] * 3) == 4  # stopped before the first four: they are drawn first
    assert plan.enough([True, False] * 8) == 16
    narrow = [False] + [True] * 15
    assert posterior_sd(11, 12) > 0.081 > posterior_sd(13, 14)
    assert Plan(spread=0.081).enough(narrow) == 14
    assert Plan(16, 2, 16).enough([True] * 4) == 16


def test_agreeing_prefixes_are_cheap_and_the_others_get_more(tmp_path, executor):
    counts = _roll(tmp_path / "r.jsonl", Writer(), Judge(executor))
    for prefix in PREFIXES:
        passes, rollouts = counts[prefix.key]
        chance = int(prefix.text.split("return ")[1][0])
        assert (passes, rollouts) == (0, 4) if chance == 0 else 4 <= rollouts <= 16
        assert rollouts == 4 or 0 < passes < rollouts
    assert max(rollouts for _, rollouts in counts.values()) > 4


def test_a_stopped_run_draws_nothing_twice_and_counts_the_same(tmp_path, executor):
    whole = _roll(tmp_path / "whole.jsonl", Writer(), Judge(executor))
    for dies_after in (1, 7, 30, 61):
        path, written = tmp_path / f"{dies_after}.jsonl", []
        for attempt in (dies_after, None):
            writer = Writer(attempt)
            try:
                counts = _roll(path, writer, Judge(executor))
            except KeyboardInterrupt:
                with path.open("ab") as file:
                    file.write(b'{"prefix": "cut')
            written += writer.written
        assert counts == whole
        assert len(written) == len(set(written))


def test_programs_that_begin_alike_share_their_rollouts(tmp_path, executor):
    writer = Writer()
    counts = _roll(tmp_path / "r.jsonl", writer, Judge(executor), prefixes=[PREFIXES[1], PREFIXES[1], PREFIXES[1]])
    assert list(counts) == [PREFIXES[1].key]
    assert len(writer.written) == counts[PREFIXES[1].key][1]


def test_an_unusable_problem_and_a_broken_draw_do_not_hang(tmp_path, executor):
    judge = Judge(executor, unusable={"P/0"})
    counts = _roll(tmp_path / "r.jsonl", Writer(breaks=lambda index: index == 1), judge, Plan(4, 2, 4))
    assert {counts[prefix.key] for prefix in PREFIXES[:4]} == {(0, 0)}
    assert {counts[prefix.key][1] for prefix in PREFIXES[4:]} == {3}
    again = Writer()
    _roll(tmp_path / "r.jsonl", again, judge, Plan(4, 2, 4))
    assert sorted(again.written) == sorted((prefix.key, 1) for prefix in PREFIXES[4:])


class Scripted:
    """A local policy: it goes on from the prefill, and tells what it was asked."""

    name, prefills = "scripted", True

    def __init__(self):
        self.prefill = []

    def stream(self, prompt, indices, sampling):
        self.prefill.append(prompt.prefill)
        for index in indices:
            yield Delta(index, "x = ", -0.5, 2)
            yield Delta(index, f"{index}\n```\nThat is all.", -0.5, 3, "stop")

    def usage(self):
        return Usage()

    def close(self):
        pass


class Now:
    def ask(self, task_id, code):
        future = Future()
        future.set_result({"passed": True})
        return future


def test_the_prefix_stands_in_the_answer_as_code(tmp_path):
    policy = Scripted()
    _roll(tmp_path / "r.jsonl", Streamed(policy), Now(), prefixes=PREFIXES[:1])
    assert policy.prefill == ["```python\n" + PREFIXES[0].text]
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["solution"] for row in rows] == [f"{PREFIXES[0].text}x = {n}\n" for n in range(4)]
    assert {row["tokens"] for row in rows} == {5}


def test_a_model_that_answers_afresh_is_refused(tmp_path):
    policy = Scripted()
    policy.prefills = False
    with pytest.raises(ConfigError, match="cannot go on from a prefix"):
        _roll(tmp_path / "r.jsonl", Streamed(policy), Now(), prefixes=PREFIXES[:1])
