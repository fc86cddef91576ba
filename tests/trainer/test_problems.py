"""Splits belong to problems: HumanEval is never anything but test, MBPP+ has its every third as dev."""

import gzip
import json

import pytest

from dreamprm_cli.errors import ProblemError
from dreamprm_trainer.problems import read_jsonl, with_signature, with_splits


def test_humaneval_is_test_whatever_the_row_says():
    rows = [{"task_id": "HumanEval/1"}, {"task_id": "HumanEvalFix/1", "split": "train"}]
    assert [own for _, own in with_splits(rows)] == ["test", "test"]


def test_every_third_mbpp_plus_problem_by_number_is_dev():
    rows = [{"task_id": f"Mbpp/{n}"} for n in (100, 20, 3, 9, 8, 4)]
    assert {row["task_id"]: own for row, own in with_splits(rows)} == {
        "Mbpp/3": "train",
        "Mbpp/4": "train",
        "Mbpp/8": "dev",
        "Mbpp/9": "train",
        "Mbpp/20": "train",
        "Mbpp/100": "dev",
    }


def test_a_row_keeps_its_own_split():
    assert [own for _, own in with_splits([{"task_id": "LCB/1", "split": "dev"}])] == ["dev"]


CANONICAL = "import re\ndef turn(x: int, *, by=[1, 2]) -> int:\n    return x\ndef helper(y): return y\n"


def test_the_head_of_the_canonical_function_is_starter_code():
    row = {"task_id": "T/1", "entry_point": "turn", "starter_code": "", "canonical": CANONICAL}
    assert with_signature(row) == {**row, "starter_code": "def turn(x: int, *, by=[1, 2]) -> int:\n"}
    assert row["starter_code"] == ""


@pytest.mark.parametrize(
    "change",
    [
        {"starter_code": "def turn(a):"},
        {"canonical": None},
        {"canonical": "def turn(:"},
        {"entry_point": "Solution.turn"},
    ],
)
def test_a_row_that_gives_no_head_stays_as_it_is(change):
    row = {"task_id": "T/1", "entry_point": "turn", "starter_code": "", "canonical": CANONICAL, **change}
    assert with_signature(row) == row


def test_reads_plain_and_gzipped_lines(tmp_path):
    rows = [{"task_id": "é"}, {"task_id": "b"}]
    text = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    assert read_jsonl(tmp_path / "a.jsonl") == read_jsonl(tmp_path / "a.jsonl.gz") == rows


def test_a_bad_line_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"task_id": "a"}\n{oops\n', encoding="utf-8")
    with pytest.raises(ProblemError, match=r"a\.jsonl:2: not JSON"):
        read_jsonl(path)
    with pytest.raises(ProblemError, match="cannot read"):
        read_jsonl(tmp_path / "none.jsonl")
