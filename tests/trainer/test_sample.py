"""Sampling writes each candidate once, however often it is stopped."""

import json
import math

import pytest

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.policy import Delta, Sampling, candidate_seed
from dreamprm_cli.policy.scripted import ScriptedPolicy
from dreamprm_cli.types import Problem, Usage
from dreamprm_trainer.continuation import Beginning, Streamed, program
from dreamprm_trainer.journal import append, open_journal
from dreamprm_trainer.problems import choose
from dreamprm_trainer.sample import draw

PROBLEMS = [Problem("a", "Add.", entry_point="add"), Problem("b", "Subtract.", entry_point="sub")]


class Echo:
    """A policy that writes its seed, in fences as a chat service does, two deltas a candidate."""

    name = "echo"
    prefills = False

    def __init__(self, dies_after=math.inf):
        self.asked = []
        self.dies_after = dies_after

    def stream(self, prompt, indices, sampling):
        for index in indices:
            if len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            self.asked.append((prompt.user, index))
            yield Delta(index, "Sure:\n```python\n", -1.0, 4)
            yield Delta(index, f"x = {candidate_seed(sampling.seed, index)}\n```\nDone.", -2.0, 8, "stop")

    def usage(self):
        return Usage()

    def close(self):
        pass


def _write(pool, policy, done):
    for row in draw(PROBLEMS, Streamed(policy), 2, Sampling(), done):
        append(pool, row)


def test_rows_hold_the_program_and_how_it_was_drawn():
    rows = list(draw(PROBLEMS, Streamed(Echo()), 2, Sampling(seed=3), set()))
    assert [(row["task_id"], row["sample"]) for row in rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert all(row["solution"] == f"x = {row['seed']}\n" for row in rows)
    assert rows[0] == {
        "task_id": "a",
        "model": "echo",
        "sample": 0,
        "solution": rows[0]["solution"],
        "seed": rows[0]["seed"],
        "finish_reason": "stop",
        "tokens": 12,
        "mean_logprob": -0.25,
    }
    assert len({row["seed"] for row in rows}) == 4


def test_a_stopped_run_goes_on_without_sampling_twice(tmp_path):
    path = tmp_path / "pools" / "p.jsonl"
    first = Echo(dies_after=3)
    pool, rows = open_journal(path)
    assert rows == []
    with pool, pytest.raises(KeyboardInterrupt):
        _write(pool, first, set())
    with path.open("ab") as file:
        file.write(b'{"task_id": "b", "sample": 1, "mod')  # the kill came in the middle of a line
    pool, rows = open_journal(path)
    assert [(row["task_id"], row["sample"]) for row in rows] == [("a", 0), ("a", 1), ("b", 0)]
    second = Echo()
    with pool:
        _write(pool, second, {(row["task_id"], row["sample"]) for row in rows})
    assert len(second.asked) == 1
    whole = [json.loads(line) for line in path.read_text().splitlines()]
    alone = list(draw(PROBLEMS, Streamed(Echo()), 2, Sampling(), set()))
    assert whole == alone


def test_two_processes_do_not_write_one_pool(tmp_path):
    path = tmp_path / "p.jsonl"
    pool, _ = open_journal(path)
    with pool, pytest.raises(ConfigError, match="another process"):
        open_journal(path)


def test_a_pool_that_is_cut_at_every_byte_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "p.jsonl"
    lines = [json.dumps({"task_id": "é", "sample": n}, ensure_ascii=False).encode() + b"\n" for n in range(3)]
    content = b"".join(lines)
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        pool, rows = open_journal(path)
        pool.close()
        assert path.read_bytes() == b"".join(lines[: len(rows)])
        assert len(rows) == content[:cut].count(b"\n")


def test_choose_keeps_the_split_and_enough_tests_and_prefers_short_statements():
    rows = [
        {"task_id": f"T/{n}", "statement": "x" * length, "split": own, "tests": {"kind": "asserts", "code": "", "n": n}}
        for n, length, own in ((30, 9, "train"), (20, 5, "train"), (19, 1, "train"), (40, 2, "dev"))
    ]
    assert [p.id for p in choose(rows, "train", 20, True, None)] == ["T/20", "T/30"]
    assert [p.id for p in choose(rows, "all", 20, False, 2)] == ["T/30", "T/20"]


def test_choose_keeps_the_rows_that_meet_the_conditions():
    kinds = [("easy", "stdin"), ("easy", "asserts"), ("hard", "stdin")]
    rows = [
        {"task_id": f"T/{n}", "statement": "Do it.", "split": "train", "difficulty": level, "tests": {"kind": kind}}
        for n, (level, kind) in enumerate(kinds)
    ]
    assert [p.id for p in choose(rows, "train", where=["difficulty=easy", "tests.kind=stdin"])] == ["T/0"]
    assert [p.id for p in choose(rows, "train", where=["tests.kind=stdin"])] == ["T/0", "T/2"]
    assert choose(rows, "train", where=["tests.kind.more=stdin"]) == []


@pytest.mark.parametrize(
    ("text", "prefilled", "code"),
    [("x = 1\n```\nbye", True, "x = 1\n"), ("x = 1", True, "x = 1"), ("Well.\n```python\ny\n```", False, "y\n")],
)
def test_program_is_what_stands_in_the_fence(text, prefilled, code):
    assert program(text, prefilled) == code


def test_a_program_begins_with_the_head_or_the_prefix_that_it_goes_on_from():
    head = 'def add(a, b):\n    """Add."""\n'
    problem = Problem("a", "Add.", head, entry_point="add", context="import math\n")
    policy = ScriptedPolicy(["    return 1\n"])
    [fresh] = Streamed(policy).write(Beginning("a", problem, (0,), Sampling()))
    [rolled] = Streamed(policy).write(Beginning("a", problem, (0,), Sampling(), f"{head}    print(2)\n"))
    assert fresh.code == f"{head}    return 1\n"
    assert rolled.code == f"{head}    print(2)\n    return 1\n"
