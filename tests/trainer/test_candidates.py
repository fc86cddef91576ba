"""Pools as users have them: with verdicts, without, half of each, and broken in every way."""

import json
import math

import pytest

from dreamprm_cli.errors import ProblemError
from dreamprm_trainer.agreement import NONE
from dreamprm_trainer.candidates import agreement, check, graded, joined, mixed, read

ADD = {"task_id": "add", "statement": "Add.", "entry_point": "add", "tests": [{"input": [1, 2], "output": 3}]}
SUM = {
    "task_id": "sum", "statement": "Sum.",
    "tests": {"kind": "stdin", "cases": [{"stdin": "1 2", "stdout": "3"}, {"stdin": "4 4", "stdout": "8"}]},
}  # fmt: skip
LOOP = {
    "task_id": "loop", "statement": "Loop.", "entry_point": "add",
    "tests": {"kind": "asserts", "code": "for n in range(3):\n    assert add(n, n) == 2 * n"},
}  # fmt: skip
RIGHT, WRONG = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"


@pytest.fixture
def pool(tmp_path):
    """Writes problems and samples, and reads them."""

    def make(samples, problems=(ADD, SUM, LOOP)):
        for name, rows in (("problems.jsonl", problems), ("pool.jsonl", samples)):
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read(tmp_path / "problems.jsonl", tmp_path / "pool.jsonl")

    return make


def test_a_pool_with_verdicts_needs_no_sandbox(pool, tmp_path):
    found = pool(
        [
            {"task_id": "add", "solution": RIGHT, "passed": True, "mean_logprob": -0.25, "finish_reason": "length"},
            {"task_id": "sum", "solution": "print(3)", "passed": False, "model": "m", "tokens": 4},
            {"task_id": "add", "solution": WRONG, "passed": False, "mean_logprob": None},
            {"task_id": "add", "solution": "x", "passed": None},
        ]
    )
    first, second, third = found.items
    assert [(item.problem.id, item.passed, item.sample) for item in found.items] == [
        ("add", True, 0), ("sum", False, 0), ("add", False, 1),
    ]  # fmt: skip
    assert (first.mean_logprob, first.finish_reason) == (-0.25, "length")
    assert math.isnan(third.mean_logprob)
    assert (second.model, second.tokens, second.finish_reason) == ("m", 4, "stop")
    assert first.problem.statement == "Add."
    assert [step.name for step in first.steps] == ["add"]
    assert found.left_out == {"programs without a verdict": 1}
    assert set(found.files) == {"problems.jsonl", "pool.jsonl"}
    assert graded(found, tmp_path / "cache") is found
    check(found, "pool.jsonl")


def test_completions_go_on_from_the_prompt(pool):
    prompt = 'def add(a, b):\n    """Add."""\n'
    row = {"task_id": "H/0", "prompt": prompt, "entry_point": "add", "test": "def check(candidate):\n    pass\n"}
    found = pool([{"task_id": "H/0", "completion": "    return a + b\n", "passed": True}], [row])
    assert found.items[0].code == prompt + "    return a + b\n"


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "holds no programs"),
        ([{"task_id": "other", "solution": "x"}], "no problem 'other'"),
        ([{"task_id": "add", "text": "x"}], "no 'solution'"),
        ([{"task_id": "add", "solution": "x", "passed": "yes"}], "'passed' must be true, false or null"),
        ([{"task_id": "add", "solution": "x", "passed": 1}], "'passed' must be true, false or null"),
        (
            [{"task_id": "add", "solution": "x", "passed": True, "mean_logprob": "low"}],
            "'mean_logprob' must be a number",
        ),
        ([{"task_id": "add", "solution": "x", "passed": True, "finish_reason": 3}], "'finish_reason' must be text"),
        ([{"task_id": "add", "files": {"solution.py": "x"}, "passed": True}], "several files"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(pool, samples, said):
    with pytest.raises(ProblemError, match=said) as error:
        pool(samples)
    assert "pool.jsonl" in error.value.message
    assert "\n" not in error.value.message


def test_a_pool_without_a_choice_is_told(pool):
    same = [{"task_id": "add", "solution": RIGHT, "passed": True}, {"task_id": "sum", "solution": "", "passed": False}]
    with pytest.raises(ProblemError, match="no problem has both") as error:
        check(pool(same), "pool.jsonl")
    assert error.value.hint
    with pytest.raises(ProblemError, match="nothing is left to rank"):
        check(pool([{"task_id": "add", "solution": RIGHT, "passed": None}]), "pool.jsonl")
    check(pool([{"task_id": "add", "solution": RIGHT}]), "pool.jsonl")  # not known yet


def test_only_problems_with_a_choice_can_be_kept(pool):
    outcomes = [("add", True), ("sum", False), ("add", False), ("loop", True), ("sum", False)]
    found = pool([{"task_id": name, "solution": RIGHT, "passed": passed} for name, passed in outcomes])
    kept = mixed(found)
    assert [(item.problem.id, item.passed) for item in kept.items] == [("add", True), ("add", False)]
    assert [sample.task_id for sample in kept.samples] == ["add", "add"]
    assert kept.left_out == {"programs of problems that all of them pass, or all fail": 3}
    assert mixed(kept) == kept


def test_pools_of_several_sets_are_one(pool, tmp_path):
    first = pool(
        [
            {"task_id": "add", "solution": RIGHT, "passed": True},
            {"task_id": "add", "solution": WRONG, "passed": None},
            {"task_id": "add", "solution": "x"},
        ],
        [ADD],
    )
    second = pool(
        [{"task_id": "sum", "solution": "print(3)"}, {"task_id": "sum", "solution": "print(4)", "passed": None}], [SUM]
    )
    whole = joined([first, second])
    assert [item.problem.id for item in whole.items] == ["add", "add", "sum"]
    assert [sample.task_id for sample in whole.samples] == ["add", "add", "sum"]
    assert whole.todo == {1, 2}
    assert whole.left_out == {"programs without a verdict": 2}
    assert set(whole.tests) == {"add", "sum"}
    assert sorted(name.partition(" ")[0] for name in whole.files) == 2 * ["pool.jsonl"] + 2 * ["problems.jsonl"]
    assert set(whole.files.values()) == {*first.files.values(), *second.files.values()}
    assert joined([first]) is first
    with pytest.raises(ProblemError, match="problem add is in two of the sets"):
        joined([first, second, first])


def test_the_head_that_was_asked_for_can_be_given(tmp_path):
    row = {**ADD, "entry_point": "total", "canonical": RIGHT.replace("add", "total")}
    (tmp_path / "problems.jsonl").write_text(json.dumps(row))
    (tmp_path / "pool.jsonl").write_text(json.dumps({"task_id": "add", "solution": RIGHT, "passed": False}))
    problems = [
        read(tmp_path / "problems.jsonl", tmp_path / "pool.jsonl", signature=wanted).items[0].problem
        for wanted in (False, True)
    ]
    assert [problem.starter_code for problem in problems] == ["", "def total(a, b):\n"]


def test_problems_that_repeat_those_of_another_set_can_be_left_out(tmp_path):
    other = {**ADD, "task_id": "plus/7", "entry_point": "other", "statement": "Fold laundry by colour and fabric."}
    rows = {"problems": [ADD, SUM], "pool": [], "loose": [other], "same": [{**other, "entry_point": "Add"}]}
    rows["pool"] = [{"task_id": name, "solution": RIGHT, "passed": True} for name in ("add", "sum", "add")]
    paths = {name: tmp_path / f"{name}.jsonl" for name in rows}
    for name, path in paths.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
    unlike = {name: read(paths["problems"], paths["pool"], unlike=[paths[name]]) for name in ("loose", "same")}
    assert [item.problem.id for item in unlike["loose"].items] == ["add", "sum", "add"]
    assert not unlike["loose"].left_out
    assert [item.problem.id for item in unlike["same"].items] == ["sum"]
    assert unlike["same"].left_out == {"programs of problems like those of same.jsonl": 2}
    assert "same.jsonl" in unlike["same"].files
    with pytest.raises(ProblemError, match="no file"):
        read(paths["problems"], paths["pool"], unlike=[tmp_path / "missing.jsonl"])


@pytest.mark.docker
def test_programs_without_a_verdict_are_graded_once(pool, tmp_path, capsys):
    broken = {**ADD, "task_id": "broken", "entry_point": None}
    samples = [
        {"task_id": "add", "solution": RIGHT}, {"task_id": "add", "solution": WRONG, "passed": True},
        {"task_id": "sum", "solution": "print(sum(map(int, input().split())))"}, {"task_id": "sum", "solution": "1/0"},
        {"task_id": "broken", "solution": RIGHT},
    ]  # fmt: skip
    found = graded(pool(samples, [ADD, SUM, broken]), tmp_path / "cache")
    assert [item.passed for item in found.items] == [True, True, True, False]
    assert [sample.index for sample in found.samples] == [0, 1, 2, 3]
    assert found.left_out == {"programs whose tests cannot be run": 1}
    assert graded(pool(samples, [ADD, SUM, broken]), tmp_path / "cache") == found
    assert graded(found, tmp_path / "nothing") is found


@pytest.mark.docker
def test_programs_of_a_problem_that_agree_are_one_group(pool, tmp_path):
    rows = [
        ("add", RIGHT), ("sum", "print(sum(map(int, input().split())))"), ("add", "add = lambda a, b: b + a\n"),
        ("add", WRONG), ("add", "def add(a, b): 1 / 0"), ("sum", "print(3)"), ("loop", RIGHT), ("sum", "print(' 3')"),
    ]  # fmt: skip
    found = pool([{"task_id": task, "solution": code, "passed": True} for task, code in rows])
    group, silent = agreement(found, tmp_path / "cache")
    assert silent == 1  # the inputs of a loop are no list
    assert group[0] == group[2]
    assert group[5] == group[7]
    assert group[4] == group[6] == NONE
    assert len({group[0], group[1], group[3], group[5], NONE}) == 5
