"""Planted programs: the truth of every step follows from which mutant failed."""

import gzip
import json

import pytest

from dreamprm_trainer import plant
from dreamprm_trainer.plant import items, runnable

PROGRAM = '''def double(x):
    """Twice x."""
    return x * 2


def quadruple(x):
    """Four times x."""
    return double(double(x)) + 0
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One problem set of two problems, the second's reference wrong."""
    rows = [
        {
            "task_id": f"P/{number}",
            "statement": "Four times x.",
            "entry_point": "quadruple",
            "split": "train" if number == 0 else "dev",
            "tests": {"kind": "asserts", "code": "assert quadruple(3) == 12\n"},
            "canonical": PROGRAM if number == 0 else PROGRAM.replace("* 2", "* 3"),
        }
        for number in range(2)
    ]
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    monkeypatch.setattr(plant, "SOURCES", {"set.jsonl.gz": ()})
    return tmp_path


def _run(todo):
    """Runs these few known programs here; real ones run in the sandbox only."""
    verdicts = []
    for _, code in todo:
        space = {}
        try:
            exec(code, space)
            verdicts.append(space["quadruple"](3) == 12)
        except Exception:
            verdicts.append(False)
    return verdicts


def test_mutants_fail_correct_programs_pass_and_wrong_references_are_left_out(folder):
    rows = plant.plant([folder], _run)
    assert [row["task_id"] for row in rows] == ["P/0"] * len(rows)
    assert rows[0]["passed"]
    assert rows[0]["first_wrong"] is None
    assert rows[0]["solution"] == PROGRAM
    assert len(rows) == 3
    assert {row["first_wrong"] for row in rows[1:]} == {0, 1}
    assert not any(_run([(None, row["solution"]) for row in rows[1:]]))
    assert plant.plant([folder], _run) == rows


def test_prefixes_are_right_up_to_the_mutant(folder):
    rows = plant.plant([folder], _run)
    made = items(rows, [folder])
    for row, item in zip(rows, made, strict=True):
        assert "".join(step.source for step in item.steps) == row["solution"]
        wrong = {None: (True, True), 0: (False, False), 1: (True, False)}[row["first_wrong"]]
        assert item.truth == wrong
        assert item.split == "train"


def test_a_class_suite_becomes_a_script_that_fails_with_its_tests():
    code = (
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(Two().two(), 2)\n"
    )
    row = {
        "task_id": "C/0",
        "statement": "A class.",
        "starter_code": "class Two:\n    pass\n",
        "entry_point": "Two",
        "split": "train",
        "tests": {"kind": "classeval", "code": code, "prelude": ""},
    }
    problem = runnable(row)
    assert problem.tests.kind == "asserts"
    script = problem.tests.payload["tests"]["code"]
    good = "class Two:\n    def two(self):\n        return 2\n"
    for program, passes in ((good, True), (good.replace("2\n", "3\n"), False)):
        assert _script(program + script) is passes


def _script(text):
    """Whether the text runs to its end as a main module of its own."""
    import subprocess
    import sys

    return subprocess.run([sys.executable, "-"], input=text, text=True, capture_output=True).returncode == 0


@pytest.mark.docker
def test_the_sandbox_gives_the_same_verdicts(folder, tmp_path):
    rows = plant.plant([folder], plant.sandboxed(tmp_path / "todo.jsonl"))
    assert rows == plant.plant([folder], _run)
