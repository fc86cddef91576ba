"""The card says what the numbers say, and names hosted models where their programs were used."""

import pytest

from dreamprm_trainer.card import lines
from dreamprm_trainer.evaluate import Pool, evaluate
from dreamprm_trainer.recipe import read_recipe


@pytest.fixture
def recipe(tmp_path, recipe_text):
    (tmp_path / "x.toml").write_text('notes = ["It has seen no Haskell."]\n' + recipe_text)
    return read_recipe(tmp_path / "x.toml")


def _metrics(sign, model="qwen"):
    pools = []
    for number in range(40):
        passed = tuple(k < number % 4 for k in (2, 0, 3, 1))
        scores = {"prm": tuple(sign * float(p) for p in passed), "random": (0.0,) * 4, "logprob": (0.0,) * 4}
        pools.append(Pool(f"P/{number}", passed, scores))
    result = evaluate(pools, (1, 2, 4), resamples=200, probabilities=["prm"])
    fit = {
        "recipe": "x",
        "params": "features",
        "mode": "plain",
        "settings": {
            "solver": "convex",
            "layers": [8, 16],
            "l2": 0.1,
            "steps": "all",
            "pairwise": 0.5,
            "aggregation": "mean",
            "start": "mc",
        },
        "command": "dreamprm train fit",
        "machine": {"processor": "a CPU", "cores": 2},
        "seconds": 3.2,
        "backbone": "qwen2.5-coder-0.5b",
        "files": {"q.jsonl": "abc123"},
        "left_out": {"a: programs without a verdict": 2},
        "train": {
            "a": {"problems": 3, "programs": 9, "steps": 12, "rollouts": 0, "passed": 0.25, "models": {model: 9}}
        },
        "ablations": {"all": {"programs": 9, "auc_within": 0.6, "sd": 0.01, "by_source": {"a": 0.6}}},
    }
    return {"fit": fit, "validation": {"a": result}}


def test_where_a_head_began_is_said(recipe):
    metrics = _metrics(1)
    assert "goes on from" not in "\n".join(lines(metrics, recipe))
    metrics["fit"]["settings"]["init"] = "base"
    assert "It goes on from the head of `base`" in "\n".join(lines(metrics, recipe))


def test_a_model_that_ranks_right_is_said_to_win(recipe):
    text = "\n".join(lines(_metrics(1), recipe))
    assert "**a, best of 4**: it beats a random pick (+0.375" in text
    assert "states after layer 8 and 16" in text
    assert "| a | 3 | 9 | 12 | 0 | 0.25 | qwen (9) |" in text
    assert "fitted on outcomes of whole programs, so" in text
    assert "No program of a hosted model was used" in text
    assert "It has seen no Haskell." in text
    assert "`q.jsonl` abc123" in text


def test_which_states_are_read_is_said(recipe):
    metrics = _metrics(1)
    assert "reads the state at the end of each function and says" in "\n".join(lines(metrics, recipe))
    metrics["fit"]["settings"]["pooling"] = "last+mean"
    assert "and the mean of the states along it, and says" in "\n".join(lines(metrics, recipe))


def test_a_model_that_ranks_wrong_is_said_to_lose(recipe):
    text = "\n".join(lines(_metrics(-1), recipe))
    assert "it is beaten by a random pick" in text
    text = "\n".join(lines(_metrics(0), recipe))
    assert "it is not told apart from a random pick" in text


def test_hosted_models_are_named(recipe):
    assert "Programs of hosted models were used: o1-mini" in "\n".join(lines(_metrics(1, "o1-mini"), recipe))


def test_the_test_set_comes_first_and_decides_the_verdict(recipe):
    metrics = {**_metrics(1), "test": {"unseen": _metrics(-1)["validation"]["a"]}}
    text = "\n".join(lines(metrics, recipe))
    assert "**unseen, best of 4**: it is beaten by" in text
    assert text.index("### unseen") < text.index("### a")


def test_what_a_weight_of_log_probability_is_worth_is_tabled(recipe):
    metrics = _metrics(1)
    assert "How much the log-probability" not in "\n".join(lines(metrics, recipe))
    known = {"by_weight": {"0": 0.5, "2": 0.75}}
    metrics["cross"] = {
        "a": {**metrics["validation"]["a"], **known},
        "b": {**metrics["validation"]["a"], "by_weight": {"0": 0.7, "2": 0.65}},
        "silent": {**metrics["validation"]["a"], "by_weight": {}},
    }
    text = "\n".join(lines(metrics, recipe))
    assert "| held out | times 0 | times 2 |" in text
    assert "| a, cross | 0.500 | 0.750 |" in text
    assert "| in the mean, cross | 0.600 | 0.700 |" in text
    assert "silent, cross" not in text


def _tuned(params):
    metrics = _metrics(1)
    settings = {
        "layers": [28], "rank": 8, "alpha": 16.0, "targets": ["q_proj", "v_proj"], "start": "td 0.5", "lr": 1e-4,
        "head_lr": 1e-3, "epochs": 3, "pairwise": 0.5, "aggregation": "mean",
    }  # fmt: skip
    fit = {**metrics["fit"], "params": params, "mode": "correct", "settings": settings}
    del fit["ablations"]
    fit["train"]["a"]["rollouts"] = 320
    return {**metrics, "fit": fit}


def test_a_tuned_backbone_is_described_as_one(recipe):
    text = "\n".join(lines(_tuned("lora"), recipe))
    assert "qwen2.5-coder-0.5b (Apache-2.0), LoRA r = 8, alpha = 16 on q_proj, v_proj; states after layer 28." in text
    assert "mode correct, labels from `td 0.5`: AdamW, 0.0001 (head 0.001), at most 3 epochs" in text
    assert "on rollouts from their prefixes" in text
    assert "What each source" not in text
    assert "all of it tuned" in "\n".join(lines(_tuned("full"), recipe))


def test_a_head_with_moving_labels_is_described_as_one(recipe):
    metrics = _metrics(1)
    settings = {"solver": "epochs", "layers": [16], "l2": 0.2, "start": "mc", "epochs": 9, "inner": "adam"}
    fit = {**metrics["fit"], "mode": "correct", "settings": {**settings, "aggregation": "mean"}}
    text = "\n".join(lines({**metrics, "fit": fit}, recipe))
    assert "L2 0.2, fitted in mode correct, labels from `mc`: at most 9 epochs of adam" in text
