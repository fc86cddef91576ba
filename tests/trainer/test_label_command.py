"""`dreamprm train label`: what can be wrong is one line; with the real small model and the real sandbox it labels."""

import json
import subprocess
import sys

import pytest

PROBLEM = {
    "task_id": "double_all",
    "statement": "Return the list with every number doubled, then sorted in descending order.",
    "entry_point": "double_and_sort",
    "split": "train",
    "tests": [{"input": [[1, 3, 2]], "output": [6, 4, 2]}, {"input": [[]], "output": []}],
}
TWO = (
    "def double(numbers):\n    return [2 * number for number in numbers]\n\n\n"
    "def double_and_sort(numbers):\n    return sorted(double(numbers), reverse=True)\n"
)


def _label(folder, *arguments):
    command = [sys.executable, "-m", "dreamprm_cli", "train", "label", "--out", "out", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def _write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("arguments", "told", "code"),
    [
        (("--problems", "none.jsonl"), "cannot read none.jsonl", 42),
        (("--problems", "p.jsonl", "--split", "dev"), "no problem of split 'dev'", 42),
        (("--problems", "p.jsonl", "--engine", "fast"), "no engine 'fast'", 2),
        (("--problems", "p.jsonl", "--samples", "s.jsonl"), "has no program of the problems chosen", 42),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_made(tmp_path, arguments, told, code):
    _write(tmp_path / "p.jsonl", PROBLEM)
    _write(tmp_path / "s.jsonl", {"task_id": "another", "solution": "x = 1"})
    done = _label(tmp_path, *arguments)
    assert told in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.docker
def test_a_pool_is_graded_without_a_model(tmp_path):
    _write(tmp_path / "p.jsonl", PROBLEM)
    programs = [{"task_id": "double_all", "model": "m", "sample": n, "solution": c} for n, c in enumerate([TWO, "x"])]
    _write(tmp_path / "s.jsonl", *programs)
    done = _label(tmp_path, "--problems", "p.jsonl", "--samples", "s.jsonl", "--first", "0", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["programs"], told["passed"], told["labelled_steps"], told["rolled_out_steps"]) == (2, 1, 2, 0)
    rows = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    assert [row["labels"] for row in rows] == [[None, 1.0], [0.0]]


@pytest.mark.docker
@pytest.mark.model
def test_the_real_model_goes_on_from_prefixes_and_a_second_run_does_nothing_again(tmp_path):
    _write(tmp_path / "p.jsonl", PROBLEM)
    _write(tmp_path / "s.jsonl", {"task_id": "double_all", "model": "m", "sample": 0, "solution": TWO})
    arguments = ["--problems", "p.jsonl", "--samples", "s.jsonl", "--first", "2", "--most", "2", "--max-tokens", "60"]
    arguments += ["--policy", "qwen2.5-coder-0.5b", "--rows", "4", "--json"]
    first = _label(tmp_path, *arguments)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert (told["labelled_steps"], told["rolled_out_steps"]) == (2, 1)
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    assert row["mc_total"] == [2, 0]
    assert 0 <= row["mc_pass"][0] <= 2
    drawn = [json.loads(line) for line in (tmp_path / "out" / "rollouts.jsonl").read_text().splitlines()]
    assert all(one["solution"].startswith(TWO[: TWO.index("def double_and")]) for one in drawn)
    second = json.loads(_label(tmp_path, *arguments).stdout)
    assert second["tests_run"] == 0
    assert len((tmp_path / "out" / "rollouts.jsonl").read_text().splitlines()) == 2
