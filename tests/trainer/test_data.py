"""Sources become items of their own split; what must not be trained on is left out and counted."""

import json
from datetime import date

import pytest

from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_trainer.data import Source, load, unique

HUMANEVAL = {
    "task_id": "HumanEval/55",
    "entry_point": "fib",
    "prompt": 'def fib(n):\n    """Return the n-th Fibonacci number."""\n',
    "canonical_solution": "    return n if n < 2 else fib(n - 1) + fib(n - 2)\n",
    "test": "def check(candidate):\n    assert candidate(1) == 1\n",
}


def _problem(number, own_split="train", name="work", statement="Turn the matrix by ninety degrees.", **more):
    tests = {"kind": "asserts", "code": "assert True"}
    row = {"task_id": f"T/{number}", "statement": statement, "entry_point": name, "split": own_split, "tests": tests}
    return {**row, **more}


def _program(number, passed, sample=0, code="def work(x):\n    return x\n", **more):
    return {"task_id": f"T/{number}", "model": "qwen", "sample": sample, "solution": code, "passed": passed, **more}


@pytest.fixture
def files(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    write("humaneval.jsonl", [HUMANEVAL])
    write("set.jsonl", [
        _problem(1, date="2024-08-01"),
        _problem(2, "dev", statement="A much longer statement about matrices and how they are to be turned.",
                 date="2024-08-09T00:00:00", tests={"kind": "asserts", "code": "assert True", "n": 9}),
        _problem(3, name="fib"),
        _problem(4, quality="unverified"),
        _problem(5, statement="Turn it."),
    ])  # fmt: skip
    write("pool.jsonl", [
        _program(1, True), _program(1, False, 1, "def work(x):\n    return 1\n"), _program(1, True, 2, model="gpt-4"),
        _program(2, False, mean_logprob=-0.5, finish_reason="length", tokens=7), _program(3, True), _program(4, True),
        _program(5, None), _program(5, True, 1), _program(5, True, 2), _program(9, True),
    ])  # fmt: skip
    return tmp_path


def _load(files, **more):
    return load([Source("s", "set.jsonl", ("pool.jsonl",), **more)], [files / "none", files], "humaneval.jsonl")


def _names(loaded):
    return sorted((item.problem.id, item.sample, item.split) for item in loaded.items)


def test_what_is_kept_and_what_is_left_out(files):
    loaded = _load(files)
    assert _names(loaded) == [
        ("T/1", 0, "train"), ("T/1", 1, "train"), ("T/1", 2, "train"),
        ("T/2", 0, "dev"), ("T/5", 1, "train"), ("T/5", 2, "train"),
    ]  # fmt: skip
    assert loaded.left_out == {"s: problems that repeat one of HumanEval": 1, "s: programs without a verdict": 1}
    assert set(loaded.files) == {"set.jsonl", "pool.jsonl"}
    dev = next(item for item in loaded.items if item.split == "dev")
    assert (dev.mean_logprob, dev.finish_reason, dev.tokens, dev.passed) == (-0.5, "length", 7, False)
    assert "".join(step.source for step in dev.steps) == dev.code


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ({"splits": ("dev",)}, ["T/2"]),
        ({"models": ("gpt",)}, ["T/1"]),
        ({"mixed_only": True}, ["T/1", "T/1", "T/1"]),
        ({"mixed_only": ("train",)}, ["T/1", "T/1", "T/1", "T/2"]),
        ({"limit": 1}, ["T/2", "T/5", "T/5"]),
        ({"per_problem": 1}, ["T/1", "T/2", "T/5"]),
        ({"unverified": True, "splits": ("train",), "per_problem": 1}, ["T/1", "T/4", "T/5"]),
        ({"until": date(2024, 8, 1), "per_problem": 1}, ["T/1"]),
        ({"since": date(2024, 8, 1), "per_problem": 1}, ["T/1", "T/2"]),
        ({"since": date(2024, 8, 2), "until": date(2024, 9, 1)}, ["T/2"]),
        ({"min_tests": 10, "per_problem": 1}, ["T/1", "T/5"]),
    ],
)
def test_a_source_can_be_narrowed(files, setting, names):
    assert [name for name, _, _ in _names(_load(files, **setting))] == names


def test_problems_get_the_head_of_their_canonical_function(files):
    row = _problem(1, canonical="def work(x):\n    return x\n")
    (files / "headed.jsonl").write_text(json.dumps(row) + "\n")
    for signature, expected in ((False, ""), (True, "def work(x):\n")):
        source = Source("s", "headed.jsonl", ("pool.jsonl",), signature=signature)
        assert load([source], [files]).items[0].problem.starter_code == expected


def test_problems_of_other_days_are_counted(files):
    loaded = _load(files, since=date(2024, 8, 2))
    assert loaded.left_out["s: problems of other days"] == 4  # one too early, three without a date


def test_the_same_text_trains_once(files):
    assert len(unique(_load(files).items)) == 4


def test_method_labels_belong_to_their_steps(tmp_path):
    code = "import math\nclass Counter:\n    def add(self):\n        pass\n\n    def total(self):\n        pass\n"
    (tmp_path / "set.jsonl").write_text(json.dumps(_problem(1, name="Counter")) + "\n")
    row = _program(1, False, code=code, step_labels={"add": True, "total": False})
    (tmp_path / "pool.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = load([Source("s", "set.jsonl", ("pool.jsonl",))], [tmp_path]).items
    known = {step.name.rsplit(".", 1)[-1]: truth for step, truth in zip(item.steps, item.truth, strict=True)}
    assert (known["add"], known["total"]) == (True, False)
    assert [truth for step, truth in zip(item.steps, item.truth, strict=True) if step.kind != "method"] == [None] * (
        len(item.steps) - 2
    )


def test_mistakes_are_named(files):
    with pytest.raises(ProblemError, match=r"no file gone\.jsonl"):
        load([Source("s", "gone.jsonl", ())], [files])
    with pytest.raises(ConfigError, match="source 's'"):
        Source.of({"name": "s", "problems": "a", "pools": [], "oops": 1})
    with pytest.raises(ConfigError, match="source 's': since is no date"):
        Source.of({"name": "s", "problems": "a", "pools": [], "since": "2024-08-01"})
