"""From programs to step labels: counts along the steps, clean outcomes at the end, files that later stages read."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_labels import PROBLEM, PROGRAM, Judging, policy

from dreamprm_cli.policy import Sampling
from dreamprm_cli.training import Progressed, StageStarted
from dreamprm_cli.types import Problem
from dreamprm_trainer.budget import Budget, Meter
from dreamprm_trainer.continuation import Streamed
from dreamprm_trainer.journal import write_rows
from dreamprm_trainer.label import (
    counted,
    grade_programs,
    inner_prefixes,
    roll_out_programs,
    sample_programs,
    step_data,
    totals,
)
from dreamprm_trainer.rollouts import Plan

CODE = "import math\n\n\ndef first(x):\n    return x\n\n\ndef second(x):\n    return first(x)\n\n\nLIMIT = 3\n"


def test_every_scored_step_but_the_last_is_rolled_out():
    prefixes = inner_prefixes(Problem("P", "Do it."), CODE)
    assert {number: prefix.text for number, prefix in prefixes.items()} == {
        1: "import math\n\n\ndef first(x):\n    return x\n\n\n"
    }
    assert inner_prefixes(Problem("P", "Do it."), "def only():\n    return 1\n") == {}
    assert inner_prefixes(Problem("P", "Do it."), "") == {}


def test_labels_are_counts_and_the_last_is_the_outcome():
    problem = Problem("P", "Do it.")
    (prefix,) = inner_prefixes(problem, CODE).values()

    class Three:
        outcomes = (True, False, True)

    row = {"task_id": "P", "solution": CODE, "passed": False}
    data = step_data(counted(row, problem, {prefix.key: Three()}), problem)
    assert (data["mc_pass"], data["mc_total"]) == ([0, 2, 0, 0], [0, 3, 0, 0])
    assert data["labels"] == [None, pytest.approx(2 / 3), 0.0, None]
    assert data["kinds"] == ["imports", "function", "function", "imports"]
    assert "".join(data["completions"]) == CODE
    without = step_data(counted({**row, "passed": None}, problem, {}), problem)
    assert without["labels"] == [None] * 4
    assert totals([data, without]) == {
        "problems": 1, "programs": 2, "passed": 0, "without_a_verdict": 1, "labelled_steps": 2, "rolled_out_steps": 1,
    }  # fmt: skip


def test_all_stages_in_one_folder(tmp_path):
    told = []
    judge = Judging()
    programs = sample_programs([PROBLEM], Streamed(policy()), 2, Sampling(), tmp_path, told.append)
    again = sample_programs([PROBLEM], Streamed(policy()), 2, Sampling(), tmp_path, told.append)
    assert programs == again
    assert [row["solution"] for row in programs] == [PROGRAM, PROGRAM]
    graded = grade_programs(programs, judge, told.append)
    assert [row["passed"] for row in graded] == [True, True]
    rows = roll_out_programs(
        graded, {"P": PROBLEM}, Streamed(policy()), judge, Plan(4, 2, 4), Sampling(), tmp_path, told.append
    )
    assert [row["mc_total"] for row in rows] == [[4, 4, 0]] * 2  # alike, so they share eight rollouts
    stages = [event for event in told if isinstance(event, StageStarted)]
    assert [(event.stage, event.total, event.done) for event in stages] == [
        ("sample", 2, 0), ("sample", 2, 2), ("grade", 2, 0), ("roll out", 2, 0),
    ]  # fmt: skip
    assert told[-1] == Progressed(done=2, tokens=told[-1].tokens)
    assert told[-1].tokens > 0
    spent = Meter(Budget(1, "rollouts"))
    spent.add(rollouts=1)
    later = roll_out_programs(
        graded,
        {"P": PROBLEM},
        Streamed(policy()),
        judge,
        Plan(4, 2, 4),
        Sampling(),
        tmp_path,
        told.append,
        spent,
    )
    assert later == rows  # what is begun is told whole, however little time there is


def test_no_new_prefix_is_begun_when_the_budget_is_spent(tmp_path):
    judge = Judging()
    graded = grade_programs([{"task_id": "P", "solution": PROGRAM}], judge, lambda progress: None)
    spent = Meter(Budget(1, "rollouts"))
    spent.add(rollouts=1)
    (row,) = roll_out_programs(
        graded, {"P": PROBLEM}, Streamed(policy()), judge, Plan(), Sampling(), tmp_path, lambda progress: None, spent
    )
    assert row["mc_total"] == [0, 0, 0]


def test_programs_of_held_out_problems_are_not_rolled_out(tmp_path):
    judge = Judging()
    graded = grade_programs([{"task_id": "P", "solution": PROGRAM}], judge, lambda progress: None)
    (row,) = roll_out_programs(
        graded, {"P": PROBLEM}, Streamed(policy()), judge, Plan(), Sampling(), tmp_path, lambda progress: None,
        held_out={"P"},
    )  # fmt: skip
    assert row["passed"] is True
    assert row["mc_total"] == [0, 0, 0]


def test_equal_rows_are_equal_files_and_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [step_data(counted({"task_id": "P", "solution": CODE, "passed": True}, PROBLEM, {}), PROBLEM)]
    for name in ("a.jsonl.gz", "b.jsonl.gz", "c.jsonl", "d.parquet"):
        write_rows(rows, tmp_path / name)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == (tmp_path / "c.jsonl").read_bytes()
    assert parquet.read_table(tmp_path / "d.parquet").to_pylist() == rows
    assert [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()] == rows


@pytest.mark.docker
def test_killed_at_any_moment_it_goes_on_and_repeats_nothing(tmp_path):
    """kill -9 of a real process, against the real sandbox: the labels are those of a run that nothing stopped."""
    command = [sys.executable, str(Path(__file__).parent / "scripted_labels.py")]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=120)
    folder = tmp_path / "killed"
    for lines in (1, 5, 9):
        process = subprocess.Popen([*command, str(folder)])
        rollouts = folder / "rollouts.jsonl"
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if rollouts.exists() and rollouts.read_bytes().count(b"\n") >= lines:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        assert process.wait(30) == -signal.SIGKILL
    subprocess.run([*command, str(folder)], check=True, timeout=120)
    assert (folder / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    drawn = [json.loads(line) for line in rollouts.read_text().splitlines()]
    verdicts = [json.loads(line)["program"] for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    assert len({(row["prefix"], row["index"]) for row in drawn}) == len(drawn)
    assert len(set(verdicts)) == len(verdicts)
