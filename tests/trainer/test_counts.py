"""What a price counts: programs that are there, those that are planned, and problems that are only expected."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("torch")

from dreamprm_cli.errors import ProblemError
from dreamprm_trainer.counts import CHARACTERS, count
from dreamprm_trainer.data import Source
from dreamprm_trainer.recipe import Label, read_recipe

CODE = "def first(x):\n    return x\n\n\ndef second(x):\n    return first(x)\n"


@pytest.fixture
def files(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    tests = {"kind": "asserts", "code": "assert True", "n": 3}
    write("p.jsonl", [
        {
            "task_id": f"T/{n}", "statement": "Do it.", "entry_point": "second" if n else None, "split": split,
            "tests": tests,
        }
        for n, split in enumerate(("train", "train", "train", "dev"))
    ])  # fmt: skip
    write("q.jsonl", [
        {"task_id": f"T/{n}", "model": "m", "sample": 0, "solution": CODE, "passed": True} for n in (0, 1, 1, 3)
    ])  # fmt: skip
    return tmp_path


@pytest.fixture
def recipe(files, recipe_text):
    (files / "x.toml").write_text(recipe_text)
    return read_recipe(files / "x.toml")


def _planned(recipe, policy):
    label = Label(policy=policy, rollout_policy=policy, n=100)
    return replace(recipe, sources=(Source("a", "p.jsonl", ("missing.jsonl",)),), label=label)


def test_programs_that_are_there_are_counted(recipe, files):
    found = count(recipe, [files])
    assert (found.train.problems, dict(found.train.functions)) == (2, {2: 3})
    assert (found.held_out.problems, dict(found.held_out.functions)) == (1, {2: 1})
    assert found.function_tokens == pytest.approx(len(CODE) / CHARACTERS / 2)
    assert found.problem_tokens > 5
    assert found.assumed == ()


def test_programs_that_are_not_there_are_planned(recipe, files):
    found = count(_planned(recipe, "some-large-model"), [files])
    assert (found.train.problems, dict(found.train.functions)) == (3, {8: 300})
    assert found.function_tokens == 80
    assert found.assumed == ("a: the form of its programs, which are not here yet",)
    small = count(_planned(recipe, "qwen2.5-coder-0.5b"), [files])
    assert small.train.functions[4] == 47  # one problem of three reads standard input
    assert small.train.functions[1] == 174
    assert 30 < small.function_tokens < 50


def test_problems_that_are_not_there_are_expected(recipe, tmp_path):
    with pytest.raises(ProblemError, match=r"no file p\.jsonl"):
        count(recipe, [tmp_path / "elsewhere"])
    asked = replace(recipe, sources=(replace(recipe.sources[0], expected=40),))
    found = count(asked, [tmp_path / "elsewhere"])
    assert (found.train.problems, dict(found.train.functions)) == (40, {8: 40})
    assert found.problem_tokens == 600
    assert len(found.assumed) == 2
