"""`dreamprm train REPO` in parts: the gate, the report, the default, the estimate, and where a budget goes."""

import json
import shutil
import tomllib
from concurrent.futures import Future
from dataclasses import replace

import pytest
from scripted_labels import policy

from dreamprm_cli.config import load_settings
from dreamprm_cli.errors import CheckpointError, ConfigError, ProblemError
from dreamprm_cli.policy import Sampling
from dreamprm_cli.prm.checkpoint import load, resolve, save
from dreamprm_trainer.budget import Budget, Meter
from dreamprm_trainer.checkpoint import start_head
from dreamprm_trainer.continuation import Streamed
from dreamprm_trainer.own import default, report
from dreamprm_trainer.own.attempts import Attempts, with_tests
from dreamprm_trainer.own.estimate import ROUGH, cost, rates
from dreamprm_trainer.own.options import Options
from dreamprm_trainer.own.pipeline import check_enough, recipe_for
from dreamprm_trainer.problems import read_jsonl
from dreamprm_trainer.rollouts import Plan


def asked(folder, **more):
    return Options(**{"repos": (folder,), "out": folder / "out", "policy": "p", "budget": Budget(), **more})


def held_out(make_item, functions, attempts_right=True):
    """(items, scores). Each function has its own body and a refused one, which the new PRM orders rightly, and two
    attempts, which it orders rightly only if so asked; the shipped PRM says the same of all."""
    rows = (("repository", True), ("repository", False), ("m", True), ("m", False))
    items, new = [], []
    for number in range(functions):
        for sample, (model, passed) in enumerate(rows):
            code = f"x = {number * 10 + sample}\n"
            items.append(make_item(f"P/{number}", sample, passed, code, model=model, own_split="test"))
            new.append(0.9 if passed == (model == "repository" or attempts_right) else 0.1)
    return items, {report.MAIN: new, report.SHIPPED: [0.5] * len(items)}


@pytest.mark.parametrize(
    ("functions", "attempts_right", "better", "why"),
    [
        (report.LEAST, True, True, "better on held-out functions"),
        (report.LEAST - 1, True, False, "only 5 held-out functions"),
        (40, False, False, "not shown to be better"),
    ],
)
def test_the_gate(make_item, functions, attempts_right, better, why):
    found = report.judged(*held_out(make_item, functions, attempts_right))
    assert found["better"] is better
    assert found["why"].startswith(why)
    assert found["difference"]["functions"] == functions
    assert found["difference"]["value"] == pytest.approx(0.5 if attempts_right else 0.0)


def test_what_it_is_worth_is_told_of_each_repository(make_item):
    items, scores = held_out(make_item, 8)
    mixed = [replace(item, source="a" if number < 12 else "b") for number, item in enumerate(items)]
    found = report.judged(mixed, {**scores, report.MAIN: [*scores[report.MAIN][:12], *[0.5] * 20]})["by_repository"]
    assert [found[name]["difference"]["value"] for name in "ab"] == [pytest.approx(0.5), 0.0]
    assert [found[name]["difference"]["functions"] for name in "ab"] == [3, 5]
    assert [found[name]["attempts_difference"]["functions"] for name in "ab"] == [3, 5]


def test_a_prm_that_is_worse_on_attempts_is_refused_whatever_else_it_knows():
    better = {"value": 0.2, "ci95": [0.1, 0.3], "functions": 20}
    none = {"value": None, "ci95": [None, None], "functions": 0}
    as_good = {"value": 0.0, "ci95": [-0.1, 0.1], "functions": report.LEAST_TRIED}
    assert report.gate(better, as_good)[0] is True
    assert report.gate(better, {**as_good, "value": -0.01})[0] is False
    assert report.gate(none, as_good)[0] is False
    assert report.gate({**better, "ci95": [0.0, 0.3]}, as_good)[0] is False


def test_a_prm_that_knows_mutants_alone_is_refused():
    better = {"value": 0.4, "ci95": [0.3, 0.5], "functions": 20}
    assert report.gate(better, {"value": None, "ci95": [None, None], "functions": 0})[0] is False
    few = {"value": 0.5, "ci95": [0.5, 0.5], "functions": report.LEAST_TRIED - 1}
    accepted, why = report.gate(better, few)
    assert not accepted
    assert "attempts of the policy" in why


def test_without_attempts_there_is_no_table_of_them(make_item):
    items, scores = held_out(make_item, 7)
    mine = [number for number, item in enumerate(items) if item.model == "repository"]
    found = report.judged(
        [items[n] for n in mine], {name: [values[n] for n in mine] for name, values in scores.items()}
    )
    assert found["attempts"] is None
    assert found["attempts_difference"]["functions"] == 0
    assert not found["better"]


def test_the_page_says_all_of_it(make_item, tmp_path):
    mined = {
        "commit": "a" * 40, "functions": 60, "covered": 50, "tests": 99, "tasks": 45, "with_killing_test": 40,
        "negatives": 111, "splits": {"train": 30, "dev": 7, "test": 8},
        "left_out": [{"name": f"t{number}", "why": "a|b\nc"} for number in range(50)],
    }  # fmt: skip
    whole = {
        "repositories": {"toolbox": mined},
        "policy": "m",
        "spent": {"minutes": 5.0, "tokens": 12345.0, "rollouts": 100.0},
        "labels": {"programs": 90, "problems": 33, "passed": 20, "labelled_steps": 95, "rolled_out_steps": 5},
        "train": {"toolbox": {"programs": 150, "steps": 160, "problems": 30}},
        "adopted_in": ["toolbox/dreamprm.toml"],
        **report.judged(*held_out(make_item, 8)),
    }
    nothing = {"value": None, "ci95": [None, None], "functions": 0}
    report.write(whole, tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "**The new PRM is better on held-out functions (AUC +0.500 [+0.500, +0.500], 8 functions); it is the" in page
    assert "default by toolbox/dreamprm.toml." in page
    assert "60 functions, 50 covered by 99 tests that pass twice; 45 tasks (30 train, 7 dev, 8 test)" in page
    for method in ("new PRM", "shipped PRM", "random"):
        assert page.count(f"| {method} |") == 2  # attempts, and all
    assert "- `t39`: a\\|b c\n- and 10 more" in page
    assert "alone" not in page
    two = {name: {"difference": whole["difference"], "attempts_difference": nothing} for name in ("a", "b")}
    assert (
        "- on b alone: AUC +0.500 [+0.500, +0.500], 8 functions; on attempts no function with right and wrong programs"
    ) in report.page({**whole, "by_repository": two})
    refused = {**whole, **report.judged(*held_out(make_item, 3)), "adopted_in": []}
    assert report.conclusion(refused).startswith("The shipped PRM stays the default: only 3 held-out functions")


# The default


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'prm = "./p"\n'),
        ("n = 4", 'n = 4\nprm = "./p"\n'),
        ('# why\nprm = "old"\nn = 4\n', '# why\nprm = "./p"\nn = 4\n'),
        ("[sandbox]\nmemory_mb = 9\n", 'prm = "./p"\n\n[sandbox]\nmemory_mb = 9\n'),
        ('n = 4\n[sandbox]\nprm = "no"\n', 'n = 4\nprm = "./p"\n\n[sandbox]\nprm = "no"\n'),
    ],
)
def test_the_line_stands_before_the_first_table_and_all_else_stays(before, after):
    found = default.with_line(before, "./p")
    assert found == after
    assert tomllib.loads(found)["prm"] == "./p"
    assert default.with_line(found, "./p") == found


def checkpoint(folder, text="{}"):
    folder.mkdir(parents=True)
    (folder / "dreamprm.json").write_text(text)
    return folder


def test_solve_in_the_repository_takes_the_adopted_prm(tmp_path, monkeypatch):
    repo = tmp_path / "repo"
    out = repo / ".dreamprm" / "own" / "repo"
    kept = default.keep(checkpoint(out / "candidate"), out / "prm")
    file = default.adopt(repo, kept)
    assert file.read_text() == 'prm = "./.dreamprm/own/repo/prm"\n'
    below = repo / "package"
    below.mkdir()
    monkeypatch.chdir(below)
    assert load_settings().prm == str(kept)
    away = checkpoint(tmp_path / "elsewhere" / "prm")
    default.adopt(repo, away)
    assert load_settings().prm == str(away.resolve())


def test_a_name_in_the_file_stays_a_name(tmp_path, monkeypatch):
    checkpoint(tmp_path / "default")  # a folder of that name is not meant by a file that names none
    (tmp_path / "dreamprm.toml").write_text("n = 4\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings().prm == "default"


def test_what_is_kept_is_replaced_whole(tmp_path):
    folder = tmp_path / "prm"
    default.keep(checkpoint(tmp_path / "a", "1"), folder)
    (folder / "more").write_text("x")
    default.keep(checkpoint(tmp_path / "b", "2"), folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"dreamprm.json": "2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "prm"]


@pytest.mark.parametrize("content", [b"n = [", b"\xff\xfe", b"n = 4\nn = 5\n"])
def test_a_file_that_cannot_be_read_is_left_as_it_is(tmp_path, content):
    (tmp_path / "dreamprm.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"dreamprm\.toml"):
        default.adopt(tmp_path, tmp_path / "p")
    assert (tmp_path / "dreamprm.toml").read_bytes() == content


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "aim").write_text("")
    (tmp_path / "dreamprm.toml").symlink_to(tmp_path / "aim")
    with pytest.raises(ConfigError, match="cannot write"):
        default.adopt(tmp_path, tmp_path / "p")
    assert (tmp_path / "aim").read_text() == ""


# What is asked, and what it costs


def test_repositories_have_names_of_their_own(tmp_path):
    a, b = tmp_path / "x" / "one", tmp_path / "y" / "one"
    assert asked(tmp_path, repos=(a,)).named() == {"one": a}
    with pytest.raises(ConfigError, match="two repositories are called one"):
        asked(tmp_path, repos=(a, b)).named()


def test_the_recipe_starts_from_the_prm_to_beat_and_corrects_labels(tmp_path):
    recipe = recipe_for(["a", "b"], asked(tmp_path, prm="default", seed=3))
    assert (recipe.fit.init, recipe.fit.mode, recipe.fit.seed, recipe.train) == ("default", "correct", 3, ("a", "b"))
    assert recipe.sources[1].pools == ("b/labels.jsonl", "b/pool.jsonl")


@pytest.mark.parametrize("name", ["default", "small"])
def test_the_recipe_reads_what_the_prm_to_beat_reads(tmp_path, name):
    shipped, recipe = load(resolve(name)), recipe_for(["a"], asked(tmp_path, prm=name))
    assert (recipe.backbone, recipe.aggregation) == (shipped.backbone, shipped.aggregation)
    assert {recipe.layers, recipe.fit.layers, recipe.settings.layers, recipe.tune.layers} == {shipped.layers}
    assert (recipe.fit.logprob_weight, recipe.pooling) == (shipped.logprob_weight, shipped.pooling)
    assert (start_head(recipe).weight == shipped.head.weight).all()


def test_a_prm_that_reads_lines_is_no_start(tmp_path):
    folder = shutil.copytree(resolve("small"), tmp_path / "prm")
    save(replace(load(folder), unit="line"), folder, json.loads((folder / "config.json").read_text()))
    with pytest.raises(CheckpointError, match="does not read functions with a frozen backbone"):
        recipe_for(["a"], asked(tmp_path, prm=str(folder)))


@pytest.mark.parametrize("parts", [[], ["train"] * 20, ["train"] * 7 + ["dev", "test"], ["train"] * 8 + ["test"]])
def test_too_little_to_learn_from_or_to_judge_by(parts):
    with pytest.raises(ProblemError, match="too few functions"):
        check_enough(parts)
    check_enough(["train"] * 8 + ["dev", "test"])


def test_the_budget_bounds_the_estimate(tmp_path):
    free = cost(100, 120, asked(tmp_path, n=4), ROUGH)
    assert free["rollouts"] == 600
    assert free["tokens"] == round(600 * ROUGH.tokens)
    assert free["minutes"] == pytest.approx(sum(free["parts"].values()), abs=0.2)
    few = cost(100, 120, asked(tmp_path, n=4, budget=Budget.parse("50-rollouts")), ROUGH)
    assert few["rollouts"] == 50
    short = cost(100, 120, asked(tmp_path, n=4, budget=Budget.parse("10m")), ROUGH)
    assert short["parts"]["label"] == 10
    tokens = cost(100, 120, asked(tmp_path, n=4, budget=Budget.parse("1k-tokens")), ROUGH)
    assert tokens["tokens"] == pytest.approx(1000, abs=ROUGH.tokens)


def test_what_a_label_cost_before_is_what_it_costs(tmp_path):
    small = asked(tmp_path, out=tmp_path, policy="qwen2.5-coder-0.5b", prm="small")
    assert rates(small) == rates(replace(small, policy="openai:x")) == ROUGH
    assert rates(replace(small, policy="qwen2.5-coder-1.5b")).label_s == pytest.approx(3.12 * ROUGH.label_s, rel=0.01)
    (tmp_path / "spent.json").write_text('{"minutes": 10, "tokens": 6000, "rollouts": 60}')
    assert (rates(small).tokens, rates(small).label_s) == (100, 10)
    assert rates(small).mine_s == ROUGH.mine_s


# Where a budget goes


class Judging:
    """Every other program of the task `open` is right, and none of the others."""

    def __init__(self):
        self.asked = []

    def ask(self, task_id, code):
        passed = task_id == "open" and len(self.asked) % 2 == 0
        self.asked.append((task_id, code))
        found = Future()
        found.set_result({"passed": passed, "status": "PASS" if passed else "WA", "tests_passed": 0, "tests_total": 1})
        return found


def task(name, split="train"):
    tests = {"kind": "repository", "n": 1, "ids": ["t"]}
    return {
        "task_id": name,
        "statement": "Do it.",
        "starter_code": "",
        "entry_point": "f",
        "tests": tests,
        "split": split,
    }


def test_the_rest_of_the_programs_goes_where_outcomes_leave_most_open(tmp_path):
    rows = [task(name) for name in ("shut", "open", "also shut")]
    meter = Meter(Budget(9, "rollouts"), tmp_path / "spent.json")  # two thirds are six programs
    attempts = Attempts(4, None, Sampling())
    found = attempts.run(rows, Streamed(policy()), Judging(), tmp_path, meter, lambda event: None)
    assert len(found) >= 6
    drawn = [row["task_id"] for row in read_jsonl(tmp_path / "programs.jsonl")]
    assert {name: drawn[:6].count(name) for name in drawn} == {"shut": 2, "open": 2, "also shut": 2}
    more = Meter(Budget(12, "rollouts"), tmp_path / "spent.json")
    attempts.run(rows, Streamed(policy()), Judging(), tmp_path, more, lambda event: None)
    drawn = [row["task_id"] for row in read_jsonl(tmp_path / "programs.jsonl")]
    assert drawn[6:] == ["open", "open"]
    assert more.spent["rollouts"] == 8


def test_only_training_programs_are_rolled_out_and_nothing_is_done_twice(tmp_path):
    rows = [task("a"), task("b", "dev"), task("c", "test")]
    attempts = Attempts(1, Plan(2, 1, 2), Sampling())

    def run():
        meter = Meter(Budget(), tmp_path / "spent.json")
        found = attempts.run(rows, Streamed(policy()), Judging(), tmp_path, meter, lambda event: None)
        return found, meter.spent["rollouts"]

    found, spent = run()
    assert {row["task_id"]: sum(row["mc_total"]) for row in found} == {"a": 4, "b": 0, "c": 0}
    assert spent == 7
    assert run() == (found, 7)
    assert read_jsonl(tmp_path / "labels.jsonl") == found


def test_tasks_without_tests_are_not_tried():
    assert with_tests([task("a"), {"task_id": "b", "tests": {"kind": "none", "n": 0}}]) == [task("a")]
