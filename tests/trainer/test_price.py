"""Prices, against numbers reckoned by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from dreamprm_trainer.price import CPU, GPU, Counts, Part, price
from dreamprm_trainer.recipe import Label, find_recipe, read_recipe
from dreamprm_trainer.shapes import SHAPES, Shape

NONE = Part(0, {})
# Ten parameters a layer are read: 2 * 1 * (1 + 1) + 3 * 1 * 2; two more in the output embedding.
TOY = Shape(hidden=1, layers=4, heads=1, kv=1, wide=2, vocabulary=2)
LABEL = Label(policy="toy", rollout_policy="toy", n=1, k=16, adaptive=False)


@pytest.fixture
def recipe(tmp_path, recipe_text):
    (tmp_path / "x.toml").write_text(recipe_text)
    made = read_recipe(tmp_path / "x.toml")
    fit = replace(made.fit, layers=(4,))
    return replace(
        made, backbone="toy", layers=(2, 4), grid=None, fit=fit, tune=replace(made.tune, layers=(4,), epochs=3)
    )


def _price(recipe, counts):
    return price(recipe, counts, {"toy": TOY})


def test_the_programs_of_method_md(recipe):
    """One program of 8 functions of 80 tokens at K = 16: 35,840 tokens of rollouts."""
    found = _price(replace(recipe, label=LABEL), Counts(Part(1, {8: 1}), NONE, 600.0, 80.0))
    programs, rollouts, fit = found.stages
    assert rollouts.tokens_out == 35_840
    assert rollouts.tokens_in == 7 * 600 + 80 * 28  # each prefix once, for all its rollouts
    assert (programs.tokens_in, programs.tokens_out) == (600, 640)
    assert (found.rollouts, found.fixed, found.adaptive) == (112, 112, round(5.2 * 7))
    assert found.runs == 113
    assert fit.tokens_in == 600 + 640
    told = found.to_json()
    assert told["tokens_out"] == 640 + 35_840
    assert told["train"] == {"problems": 1, "programs": 1, "steps": 8, "tokens": 1240}


def test_adaptive_rollouts_are_never_more_than_k(recipe):
    counts = Counts(Part(2, {1: 1, 3: 2}), NONE, 100.0, 10.0)  # 4 prefixes, which lack 2 + 1 functions each time
    adaptive = _price(replace(recipe, label=replace(LABEL, adaptive=True)), counts)
    assert adaptive.rollouts == round(5.2 * 4) == adaptive.adaptive
    assert adaptive.fixed == 64
    assert adaptive.stages[1].tokens_out == pytest.approx(5.2 * 6 * 10)
    few = _price(replace(recipe, label=replace(LABEL, adaptive=True, k=2)), counts)
    assert few.rollouts == few.fixed == few.adaptive == 8


def test_flops_of_writing_and_hours(recipe):
    found = _price(replace(recipe, label=LABEL), Counts(Part(1, {2: 1}), NONE, 5.0, 3.0))
    programs, rollouts, _ = found.stages
    assert programs.flops == 2 * 40 * 5 + 2 * 42 * 6  # 5 tokens read, 6 written
    assert rollouts.flops == 2 * 40 * (5 + 3) + 2 * 42 * 16 * 3
    assert programs.gpu_hours == pytest.approx((2 * 40 * 5 / GPU.reading + 2 * 42 * 6 / GPU.writing) / 3600)
    assert programs.cpu_hours == pytest.approx((2 * 40 * 5 / CPU.reading + 2 * 42 * 6 / CPU.writing) / 3600)
    assert found.gpu_hours == pytest.approx(sum(stage.gpu_hours for stage in found.stages))


@pytest.mark.parametrize(
    ("params", "mode", "forwards"),
    [
        ("lora", "plain", 2.0),
        ("full", "plain", 3.0),
        ("full", "pooled", 3.0),
        ("lora", "correct", 2.0 * 1.75),
        ("full", "reweight", 3.0 * 1.58),
    ],
)
def test_flops_of_training(recipe, params, mode, forwards):
    """100 training tokens, 50 held-out ones, three epochs, 40 parameters."""
    counts = Counts(Part(1, {9: 10}), Part(1, {4: 10}), 10.0, 1.0)
    asked = recipe.asked(params=params, mode=mode)
    assert _price(asked, counts).stages[-1].flops == pytest.approx(2 * 40 * 3 * (100 * forwards + 50))
    assert _price(asked, counts).stages[-1].tokens_in == 3 * 150
    frozen = replace(asked, tune=replace(asked.tune, frozen_below=1))
    assert _price(frozen, counts).stages[-1].flops == pytest.approx(2 * 30 * 3 * (100 * forwards + 50) + 2 * 10 * 150)


def test_features_read_each_program_once_up_to_the_last_layer_that_is_cached(recipe):
    counts = Counts(Part(1, {9: 10}), Part(1, {4: 10}), 10.0, 1.0)
    found = _price(replace(recipe, layers=(1, 3), fit=replace(recipe.fit, layers=(3,))), counts)
    (stage,) = found.stages
    assert stage.flops == 2 * 30 * 150
    assert found.rollouts == found.runs == 0
    assert found.download == 0  # a folder of one's own
    assert found.disk == 130 * 2 * 1 * 2  # steps x layers x hidden x 2 bytes
    assert found.memory == 2 * TOY.total


def test_memory_of_tuning(recipe):
    counts = Counts(Part(1, {2: 1}), NONE, 10.0, 1.0)
    full = recipe.asked(params="full")
    assert _price(full, counts).memory == 2 * 42 + 16 * 40 + 4096 * 34 * 4
    lora = recipe.asked(params="lora")
    lora = replace(lora, tune=replace(lora.tune, rank=1, targets=("q_proj",), checkpointing=True))
    assert _price(lora, counts).memory == 2 * 42 + 16 * 4 * 2 + 4096 * (34 + 2 * 4)


def test_what_is_fetched(recipe):
    label = Label(policy="qwen2.5-coder-0.5b", rollout_policy="qwen3-coder-30b-a3b", adaptive=False)
    shapes = {**SHAPES, "hf:some/model": None}
    counts = Counts(Part(1, {2: 1}), NONE, 10.0, 1.0)
    own = replace(recipe, backbone="qwen2.5-coder-0.5b", layers=(24,), label=label)
    own = replace(own, fit=replace(own.fit, layers=(24,)))
    found = price(own, counts, shapes)
    assert found.download == 491_400_064 + 2 * SHAPES["qwen3-coder-30b-a3b"].total  # each once
    assert found.disk == found.download + 2 * SHAPES["qwen2.5-coder-0.5b"].total + 2 * 1 * 896 * 2
    assert found.memory > 2 * SHAPES["qwen3-coder-30b-a3b"].total
    unknown = price(replace(own, backbone="hf:some/model"), counts, shapes)
    assert unknown.download is unknown.gpu_hours is unknown.memory is unknown.disk is None
    assert unknown.to_json()["flops"] is None
    assert unknown.stages[-1].tokens_in == 12
    server = price(replace(own, label=replace(label, policy="openai:x")), counts, {**shapes, "openai:x": None})
    assert server.stages[0].gpu_hours is None
    assert server.download is not None


def test_the_papers_own_sizes():
    """612 problems, one program each; method.md's 8 functions of 80 tokens."""
    paper = read_recipe(find_recipe("paper"))
    counts = Counts(Part(612, {8: 612}), Part(399, {8: 399}), 600.0, 80.0)
    found = price(paper, counts, SHAPES)
    assert found.rollouts == 612 * 7 * 16
    assert found.stages[1].tokens_out == 612 * 35_840
    assert found.stages[1].model == "qwen3-coder-30b-a3b"
    assert found.stages[2].tokens_in == 8 * 1011 * (600 + 640)
    assert 0.1 < found.gpu_hours < 10
    assert isinstance(paper.path, Path)
