"""`dreamprm train label`: what can be wrong is one line; with the real small model and the real sandbox it labels."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.labelling import jobs_of, label_of, plan_of
from dreamprm_trainer.recipe import read_recipe
from dreamprm_trainer.rollouts import Plan

DATED = {"2024-07-01": "train", "2024-09-01": "dev", "2025-03-01": "test", "2025-01-01": "train"}
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
        ((), "--recipe NAME --data DATA", 2),
        (("--recipe", "laptop"), "--data DATA", 2),
        (("--recipe", "laptop", "--data", "."), "--out goes with --problems", 2),
        (("--recipe", "laptop", "--data", ".", "--signature"), "goes with --problems", 2),
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


def _recipe(folder, label="", **source):
    """A recipe of one source `own` over p.jsonl, with a [label] of one program a problem."""
    entry = {"name": "own", "problems": "p.jsonl", "pools": ["labels/own/labels.jsonl"], **source}
    lines = ['name = "mine"', 'backbone = "qwen2.5-coder-0.5b"', "layers = [24]", "[[source]]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    lines += ["[label]", 'policy = "qwen2.5-coder-0.5b"', 'rollout_policy = "qwen2.5-coder-0.5b"', "n = 2", label]
    lines += ["[fit]", 'train = ["own"]', "layers = [24]", 'aggregation = "mean"']
    (folder / "mine.toml").write_text("\n".join(lines))
    return read_recipe(folder / "mine.toml")


def test_a_recipe_says_which_problems_go_into_which_folder(tmp_path):
    _write(tmp_path / "p.jsonl", PROBLEM, {**PROBLEM, "task_id": "held", "split": "test"})
    (job,) = jobs_of(_recipe(tmp_path), tmp_path)
    assert [problem.id for problem in job.problems] == ["double_all"]  # the split that the source asks for
    assert job.out == tmp_path / "labels" / "own"
    with pytest.raises(ConfigError, match="no source 'other'"):
        jobs_of(_recipe(tmp_path), tmp_path, ["other"])
    with pytest.raises(ConfigError, match=r"reads no labels\.jsonl"):
        jobs_of(_recipe(tmp_path, pools=["pool.jsonl"]), tmp_path)


@pytest.mark.parametrize(
    ("label", "plan"),
    [("", Plan(4, 2, 16)), ("k = 3", Plan(3, 2, 3)), ("k = 16\nadaptive = false", Plan(16, 1, 16))],
)
def test_a_recipe_says_how_many_rollouts(tmp_path, label, plan):
    assert plan_of(label_of(_recipe(tmp_path, label))) == plan


def test_sources_that_share_a_folder_are_labelled_together(tmp_path):
    from dreamprm_trainer.recipe import find_recipe

    _write(
        tmp_path / "p.jsonl",
        *({**PROBLEM, "task_id": day, "split": split, "date": day} for day, split in DATED.items()),
    )
    paper = read_recipe(find_recipe("paper"))
    here = tuple(replace(source, problems=str(tmp_path / "p.jsonl")) for source in paper.sources)
    (job,) = jobs_of(replace(paper, sources=here, reference=None), tmp_path)
    assert {problem.id for problem in job.problems} == {"2024-07-01", "2024-09-01", "2025-03-01"}
    assert job.held_out == {day for day, split in DATED.items() if split != "train"} & {one.id for one in job.problems}


def _label_by_recipe(folder, *arguments):
    command = [sys.executable, "-m", "dreamprm_cli", "train", "label", "--recipe", "mine.toml", "--data", "."]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=600)


def test_a_recipe_without_label_says_so(tmp_path):
    _recipe(tmp_path)
    text = (tmp_path / "mine.toml").read_text()
    (tmp_path / "mine.toml").write_text(text[: text.index("[label]")] + text[text.index("[fit]") :])
    done = _label_by_recipe(tmp_path)
    assert done.returncode == 2
    assert "has no [label]" in done.stderr


def test_a_recipe_whose_problems_are_of_another_split_says_so(tmp_path):
    _write(tmp_path / "p.jsonl", {**PROBLEM, "split": "test"})
    _recipe(tmp_path)
    done = _label_by_recipe(tmp_path)
    assert done.returncode == 42
    assert "the recipe 'mine' has no problem for" in done.stderr


@pytest.mark.model
@pytest.mark.docker
def test_a_recipe_is_labelled_where_fit_looks_for_it(tmp_path):
    _write(tmp_path / "p.jsonl", PROBLEM)
    _recipe(tmp_path, "max_tokens = 80")
    done = _label_by_recipe(tmp_path, "--first", "0", "-n", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["programs"] == 1  # -n replaces the recipe's 2
    (row,) = [json.loads(line) for line in (tmp_path / "labels" / "own" / "labels.jsonl").read_text().splitlines()]
    assert row["tokens"] <= 80
    assert row["labels"][-1] == float(row["passed"])


@pytest.mark.docker
def test_a_pool_is_graded_without_a_model(tmp_path):
    _write(tmp_path / "p.jsonl", {**PROBLEM, "canonical": TWO})
    programs = [{"task_id": "double_all", "model": "m", "sample": n, "solution": c} for n, c in enumerate([TWO, "x"])]
    _write(tmp_path / "s.jsonl", *programs)
    done = _label(tmp_path, "--problems", "p.jsonl", "--samples", "s.jsonl", "--first", "0", "--signature", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["programs"], told["passed"], told["labelled_steps"], told["rolled_out_steps"]) == (2, 1, 2, 0)
    rows = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    assert [row["labels"] for row in rows] == [[None, 1.0], [0.0]]
    assert all("```python\ndef double_and_sort(numbers):\n" in row["prompt"] for row in rows)


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
