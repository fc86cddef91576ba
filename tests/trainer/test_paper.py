"""The recipe `paper`, scaled down to a model made here, from its price over labels and fit to what it is worth."""

import json
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from train_kit import code  # noqa: E402

from dreamprm_cli.policy import Sampling  # noqa: E402
from dreamprm_cli.policy.scripted import ScriptedPolicy  # noqa: E402
from dreamprm_cli.prm.adapter import load_adapter  # noqa: E402
from dreamprm_cli.prm.checkpoint import load  # noqa: E402
from dreamprm_trainer import audit, stages  # noqa: E402
from dreamprm_trainer.continuation import Streamed  # noqa: E402
from dreamprm_trainer.counts import count  # noqa: E402
from dreamprm_trainer.data import problem_rows  # noqa: E402
from dreamprm_trainer.fitting import fit  # noqa: E402
from dreamprm_trainer.journal import write_rows  # noqa: E402
from dreamprm_trainer.label import (  # noqa: E402
    grade_programs,
    roll_out_programs,
    sample_programs,
    step_data,
)
from dreamprm_trainer.price import price  # noqa: E402
from dreamprm_trainer.problems import problem_of  # noqa: E402
from dreamprm_trainer.recipe import find_recipe, read_recipe  # noqa: E402
from dreamprm_trainer.rollouts import Plan  # noqa: E402
from dreamprm_trainer.shapes import shape_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TRAIN, DEV = 24, 8


class Writer(ScriptedPolicy):
    """Right programs for even problems; from a prefix four ends, of which three are right, or one for odd problems."""

    name = "writer"

    def stream(self, prompt, indices, sampling):
        number = int(prompt.user.partition("Add ")[2].partition(",")[0])
        if "def first" in prompt.prefill:
            rights = (True, True, False, True) if number % 2 == 0 else (False, False, True, False)
            ends = [code(right, number).partition("\n\n\n")[2] for right in rights]
            self._texts = tuple(end + "#" * place for place, end in enumerate(ends))
        else:
            self._texts = (code(number % 2 == 0, number),)
        return super().stream(prompt, indices, sampling)


class Judging:
    """Runs nothing: a program that raises has failed."""

    def ask(self, task_id, code):
        future, passed = Future(), "QQQQQ" not in code
        future.set_result(
            {"passed": passed, "status": "PASS" if passed else "RE", "tests_passed": int(passed), "tests_total": 1}
        )
        return future


def write_problems(path):
    days = ["2024-07-31"] * TRAIN + ["2024-09-01"] * DEV + ["2024-08-02"]
    splits = ["train"] * TRAIN + ["dev"] * DEV + ["train"]  # the last is too late to be trained on
    rows = [
        {
            "task_id": f"L/{n}", "statement": f"Add {n}, and b.", "entry_point": "second", "split": split, "date": day,
            "tests": {"kind": "asserts", "code": "assert True"},
        }
        for n, (split, day) in enumerate(zip(splits, days, strict=True))
    ]  # fmt: skip
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def scaled(recipe, backbone):
    """The paper's recipe, but for the model and what a small one needs: lengths, rates and epochs."""
    tune = replace(
        recipe.tune, backbone=str(backbone), layers=(3,), lr=1e-2, head_lr=1e-2, warmup=2, epochs=6, cold=1,
        label_lr=0.3, batch_tokens=800, micro_tokens=800, max_length=400, code_reserve=200, dtype="fp32", device="cpu",
    )  # fmt: skip
    fitted = replace(recipe.fit, layers=(3,))
    return replace(recipe, backbone=str(backbone), reference=None, layers=(3,), fit=fitted, tune=tune)


def label(recipe, folder):
    """The stage `label`, with a scripted policy in place of the 30B one and no tests run."""
    settings, problems = recipe.label, {}
    for source in recipe.sources:
        for row, _ in problem_rows(source, [folder], [], Counter()).values():
            problems[row["task_id"]] = problem_of(row)
    writer, out = Streamed(Writer([""])), folder / "labels" / "livecodebench-30b"
    programs = sample_programs(
        list(problems.values()), writer, settings.n, Sampling(settings.temperature), out, lambda progress: None
    )
    graded = grade_programs(programs, Judging(), lambda progress: None)
    plan = Plan(settings.k, 1, settings.k)  # always K
    drawing = Sampling(settings.rollout_temperature)
    rows = roll_out_programs(graded, problems, writer, Judging(), plan, drawing, out, lambda progress: None)
    write_rows([step_data(row, problems[row["task_id"]]) for row in rows], out / "labels.jsonl")


def test_paper_from_price_to_evaluation(tmp_path, backbone, monkeypatch):
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "cache"))
    write_problems(tmp_path / "problems" / "livecodebench.jsonl.gz".removesuffix(".gz"))
    recipe = scaled(read_recipe(find_recipe("paper")), backbone)
    sources = tuple(replace(source, problems=source.problems.removesuffix(".gz")) for source in recipe.sources)
    recipe = replace(recipe, sources=sources)
    place = stages.Place(tmp_path, tmp_path / "states", tmp_path / "prm", tmp_path / "metrics.json")
    shapes = {model: shape_of(model) for model in recipe.models}

    before = price(recipe, count(recipe, [tmp_path]), shapes)
    assert (before.counts.train.problems, before.counts.held_out.problems) == (TRAIN, DEV)
    assert before.rollouts == TRAIN * 7 * 16  # programs of eight functions are assumed
    label(recipe, tmp_path)
    after = price(recipe, count(recipe, [tmp_path]), shapes)
    assert after.rollouts == TRAIN * 16
    assert after.counts.assumed == ()

    told = []
    report = fit(recipe, place, told.append)
    assert (report["params"], report["mode"], report["collapsed"]) == ("lora", "correct", False)
    assert report["train"]["lcb"] == {
        "problems": TRAIN, "programs": TRAIN, "steps": 2 * TRAIN, "rollouts": 16 * TRAIN, "passed": 0.5,
        "models": {"writer": TRAIN},
    }  # fmt: skip
    assert len(report["validation"]["losses"]) > 1
    assert {type(event).__name__ for event in told} >= {
        "TrainingStarted", "StageStarted", "Progressed", "Validated", "LabelsMoved", "TrainingFinished",
    }  # fmt: skip

    checkpoint = load(place.checkpoint)
    adapter = load_adapter(place.checkpoint)
    assert {name.rsplit(".", 1)[1] for name in adapter} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert {low_rank.down.shape[0] for low_rank in adapter.values()} == {8}
    assert {low_rank.scale for low_rank in adapter.values()} == {16 / 8}
    assert (checkpoint.aggregation, checkpoint.metrics["recipe"]) == ("mean", "paper")

    moved = audit.report(audit.read(place.checkpoint))
    trained = TRAIN - round(TRAIN * recipe.fit.meta)
    assert (moved["steps"], moved["known"]) == (trained, trained)
    assert moved["before"][7] + moved["before"][2] == trained  # labels begin at 0.75 and 0.25
    assert moved["mean_moved"] > 0.005
    assert moved["most"][0]["mc_total"] == 16

    results = stages.evaluate(recipe, place)
    assert set(results) == {"lcb-dev"}
    assert results["lcb-dev"]["problems"] == DEV
    assert set(json.loads(place.metrics.read_text())) == {"fit", "validation"}
