"""Each distinct program is graded once, whatever stops the run and however the pool grows."""

import json

import pytest

from dreamprm_trainer.label import label, write
from dreamprm_trainer.problems import read_jsonl


class Grader:
    """Passes programs that say `right`; appends one verdict a line and can die after a few."""

    def __init__(self, dies_after=None):
        self.ran = []
        self.dies_after = dies_after

    def __call__(self, samples, verdicts):
        first = len(read_jsonl(verdicts)) if verdicts.exists() else 0
        with verdicts.open("a") as file:
            for row in read_jsonl(samples)[first:]:
                if len(self.ran) == self.dies_after:
                    raise KeyboardInterrupt
                self.ran.append((row["task_id"], row["solution"]))
                status = "PASS" if "right" in row["solution"] else row["solution"].split()[0]
                file.write(json.dumps({"status": status, "passed": 1, "total": 2}) + "\n")


def _pool(*programs):
    return [
        {"task_id": task, "model": "m", "sample": n, "solution": code, "seed": n}
        for n, (task, code) in enumerate(programs)
    ]


PROGRAMS = (("a", "right 1"), ("a", "WA 2"), ("a", "right 1"), ("b", "right 1"), ("b", " \n"), ("b", "FILE_ERROR"))


def test_every_row_gets_the_verdict_of_its_program(tmp_path):
    grader = Grader()
    rows = label(_pool(*PROGRAMS), tmp_path / "x.todo", grader)
    assert [row["passed"] for row in rows] == [True, False, True, True, False, None]
    assert [row["status"] for row in rows] == ["PASS", "WA", "PASS", "PASS", "EMPTY", "FILE_ERROR"]
    assert (rows[0]["tests_passed"], rows[0]["tests_total"], rows[0]["seed"]) == (1, 2, 0)
    assert len(grader.ran) == len(set(grader.ran)) == 4


def test_a_killed_run_and_a_grown_pool_repeat_nothing(tmp_path):
    todo = tmp_path / "x.todo"
    first, second, third = Grader(dies_after=2), Grader(), Grader()
    with pytest.raises(KeyboardInterrupt):
        label(_pool(*PROGRAMS), todo, first)
    assert [row["passed"] for row in label(_pool(*PROGRAMS), todo, second)] == [True, False, True, True, False, None]
    more = label(_pool(*PROGRAMS, ("a", "right 3"), ("b", "right 1")), todo, third)
    assert [row["passed"] for row in more[-2:]] == [True, True]
    assert [len(g.ran) for g in (first, second, third)] == [2, 2, 1]


def test_programs_without_a_verdict_have_no_label(tmp_path):
    rows = label(_pool(("a", "right 1")), tmp_path / "x.todo", lambda samples, verdicts: None)
    assert [(row["passed"], row["status"]) for row in rows] == [(None, None)]


def test_equal_pools_are_equal_files(tmp_path):
    rows = label(_pool(*PROGRAMS), tmp_path / "x.todo", Grader())
    write(rows, tmp_path / "a.jsonl.gz")
    write(rows, tmp_path / "b.jsonl.gz")
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert read_jsonl(tmp_path / "a.jsonl.gz") == rows
