"""A program runs once, however often it is asked for and whatever stops the run."""

import json
import threading

import pytest

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_cli.types import Problem, Tests, Verdict
from dreamprm_trainer.judge import Judge, syntax_key


def _problem(name, code="assert right"):
    return Problem(name, "Do it.", tests=Tests("asserts", payload={"tests": {"code": code}}))


PROBLEMS = {name: _problem(name) for name in ("a", "b", "unusable")}


class Grader:
    def __init__(self):
        self.ran = []

    def __call__(self, problem, code):
        self.ran.append((problem.id, code))
        if problem.id == "unusable":
            raise ProblemError("no tests that can be run")
        status = "FILE_ERROR" if "broken" in code else "PASS" if "right" in code else "WA"
        return Verdict(status, int(status == "PASS"), 1, 0.0, "strong")


def test_programs_with_one_syntax_tree_run_once(tmp_path):
    grader = Grader()
    with Judge(PROBLEMS, tmp_path / "v.jsonl", grader) as judge:
        same = [judge.ask("a", code) for code in ("right = 1\n", "right = 1  # so\n", "right=1", "right = (1)\n")]
        other = judge.ask("b", "right = 1\n")
        assert [future.result()["passed"] for future in [*same, other]] == [True] * 5
    assert grader.ran == [("a", "right = 1\n"), ("b", "right = 1\n")]


def test_what_is_in_the_file_is_not_run_again(tmp_path):
    path = tmp_path / "v.jsonl"
    programs = ["right", "wrong", "x = = 2", "broken"]
    with Judge(PROBLEMS, path, Grader()) as judge:
        first = [judge.ask("a", code).result() for code in programs]
    with path.open("ab") as file:
        file.write(b'{"program": "cut off by a k')
    again = Grader()
    with Judge(PROBLEMS, path, again) as judge:
        assert [judge.ask("a", code).result() for code in programs] == first
        assert judge.ran == 0
    assert again.ran == []
    assert [row["passed"] for row in first] == [True, False, False, None]


def test_other_tests_or_limits_are_other_verdicts(tmp_path):
    path, grader = tmp_path / "v.jsonl", Grader()
    for problems, limits in ((PROBLEMS, 1), ({"a": _problem("a", "assert other")}, 1), (PROBLEMS, 2), (PROBLEMS, 1)):
        with Judge(problems, path, grader, limits=limits) as judge:
            judge.ask("a", "right").result()
    assert len(grader.ran) == 3


def test_an_empty_program_fails_without_being_run_and_unusable_tests_give_no_label(tmp_path):
    grader = Grader()
    with Judge(PROBLEMS, tmp_path / "v.jsonl", grader) as judge:
        assert judge.ask("a", " \n").result()["passed"] is False
        row = judge.ask("unusable", "right").result()
    assert (row["status"], row["passed"], row["reason"]) == (None, None, "no tests that can be run")
    assert grader.ran == [("unusable", "right")]


def test_two_processes_do_not_write_one_file(tmp_path):
    path = tmp_path / "v.jsonl"
    with Judge(PROBLEMS, path, Grader()), pytest.raises(ConfigError, match="another process"):
        Judge(PROBLEMS, path, Grader())


def test_closing_keeps_what_is_under_way_and_gives_up_the_rest(tmp_path):
    path = tmp_path / "v.jsonl"
    begun, release = threading.Event(), threading.Event()

    def slow(problem, code):
        begun.set()
        release.wait(10)
        return Verdict("PASS", 1, 1, 0.0, "strong")

    judge = Judge(PROBLEMS, path, slow)
    futures = [judge.ask("a", f"x = {n}") for n in range(3)]
    begun.wait(10)
    threading.Timer(0.05, release.set).start()
    judge.close()
    assert [future.cancelled() for future in futures] == [False, True, True]
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 1


def test_a_text_that_is_no_program_is_its_own_key():
    assert syntax_key("x = = 1") == "x = = 1"
    assert syntax_key("x = 1\0") == "x = 1\0"
    assert syntax_key("(" * 5000) == "(" * 5000
    assert syntax_key("x = '\\d'") == syntax_key('x = "\\\\d"')
