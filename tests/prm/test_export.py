"""The export for vLLM: transformers' own token classifier gives our rewards, and the folder is a checkpoint of ours."""

import json
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.app import run  # noqa: E402
from dreamprm_cli.errors import CheckpointError  # noqa: E402
from dreamprm_cli.prm import score_programs  # noqa: E402
from dreamprm_cli.prm.checkpoint import Checkpoint, save  # noqa: E402
from dreamprm_cli.prm.export import export_vllm  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.open import open_packed  # noqa: E402
from dreamprm_cli.prm.pooling import width  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.prm.verify import verify  # noqa: E402
from dreamprm_cli.prompts import prm_input  # noqa: E402
from dreamprm_cli.steps import split  # noqa: E402
from dreamprm_cli.types import Problem  # noqa: E402

PROBLEM = Problem(id="p", statement="Add two numbers.")
STEPS = split("def one():\n    return 1\n\n\ndef two():\n    return one() + one()\n\n\nprint(two())\n")


def checkpoint(tiny, folder, layers, adapter=None, pooling="last"):
    weight = np.random.default_rng(1).normal(size=32 * len(layers) * width(pooling)).astype(np.float32) / 4
    about = Checkpoint(
        str(tiny), locate_backbone(str(tiny)).sha256, layers, Head(weight, 0.1, temperature=0.7, offset=-0.3), 32,
        pooling, max_length=400, code_reserve=200, forms=("stdin",), logprob_weight=2.0,
    )  # fmt: skip
    save(about, folder, json.loads((tiny / "config.json").read_text()), adapter)
    return str(folder)


def ours(spec):
    scorer = open_packed(spec, device="cpu", dtype="fp32")
    return scorer, score_programs(scorer.start(PROBLEM), [STEPS])[0]


def classified(folder, scorer):
    """Rewards by transformers' token classifier, as vLLM computes them: a sigmoid at the tokens that end a step."""
    from transformers import AutoModelForTokenClassification

    model, loading = AutoModelForTokenClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(loading.values()), loading
    ids, _ = scorer.tokens.problem(prm_input(PROBLEM), scorer.problem_limit)
    reads = []
    for step in STEPS:
        tokens = scorer.tokens.step(step.source)
        reads.append(len(ids) + tokens.read)
        ids = ids + tokens.ids
    with torch.inference_mode():
        return model.eval()(torch.tensor([ids])).logits[0, reads, 0].sigmoid().tolist()


@pytest.mark.parametrize("layer", [3, 2])
def test_a_token_classifier_of_it_gives_our_rewards(tiny, tmp_path, layer):
    spec = checkpoint(tiny, tmp_path / "prm", (layer,))
    scorer, expected = ours(spec)
    export_vllm(spec, tmp_path / "out")
    assert classified(tmp_path / "out", scorer) == pytest.approx(expected, abs=1e-5)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architectures"], config["num_labels"]) == (["Qwen2ForTokenClassification"], 1)
    assert config["num_hidden_layers"] == layer


def test_an_adapter_is_merged(tiny, tmp_path):
    peft = pytest.importorskip("peft")
    import transformers

    model = transformers.AutoModel.from_pretrained(tiny, dtype=torch.float32)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.5)
    wrapped.save_pretrained(tmp_path / "adapter")
    spec = checkpoint(tiny, tmp_path / "prm", (3,), tmp_path / "adapter")
    scorer, expected = ours(spec)
    export_vllm(spec, tmp_path / "out")
    assert classified(tmp_path / "out", scorer) == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(ours(checkpoint(tiny, tmp_path / "plain", (3,)))[1], abs=1e-3)


def test_the_folder_is_a_checkpoint_of_ours_that_stands_alone(tiny, tmp_path):
    spec = checkpoint(tiny, tmp_path / "prm", (2,))
    export_vllm(spec, tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    scorer, rewards = ours(str(moved))
    assert rewards == pytest.approx(ours(spec)[1], abs=1e-5)
    assert (scorer.forms, scorer.logprob_weight, scorer.problem_limit) == (("stdin",), 2.0, 200)
    assert verify(str(moved), device="cpu", dtype="fp32").incremental <= 1e-5


def test_what_vllm_cannot_hold_is_refused_in_a_line(tiny, tmp_path):
    with pytest.raises(CheckpointError, match="reads layers 1 and 3"):
        export_vllm(checkpoint(tiny, tmp_path / "prm", (1, 3)), tmp_path / "out")
    with pytest.raises(CheckpointError, match="the mean over a function's tokens"):
        export_vllm(checkpoint(tiny, tmp_path / "mean", (3,), pooling="last+mean"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="there already"):
        export_vllm(checkpoint(tiny, tmp_path / "one", (3,)), tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["out", "--prm", "one"], 0, "vllm serve out"),
        (["out", "--prm", "one", "--format", "gguf"], 2, "--format"),
        (["out", "--prm", "none"], 2, "nothing to export"),
        (["out", "--prm", "http://127.0.0.1:9"], 2, "nothing to export"),
        (["out", "--prm", "nowhere"], 1, "no PRM checkpoint"),
    ],
)
def test_the_command(tiny, tmp_path, monkeypatch, capsys, arguments, code, said):
    checkpoint(tiny, tmp_path / "one", (3,))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dreamprm", "prm", "export", *arguments])
    with pytest.raises(SystemExit) as end:
        run()
    assert (end.value.code or 0) == code
    assert said in capsys.readouterr().err
    assert (tmp_path / "out").exists() == (code == 0)
