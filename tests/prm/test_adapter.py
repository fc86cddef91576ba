"""LoRA adapters: applied as PEFT applies them, and refused when that cannot be."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from dreamprm_cli.errors import CheckpointError  # noqa: E402
from dreamprm_cli.prm.adapter import load_adapter  # noqa: E402
from dreamprm_cli.prm.backbone import load_backbone  # noqa: E402
from dreamprm_cli.prm.checkpoint import Checkpoint, save  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.scorer import PackedScorer  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.prm.verify import Reference, verify  # noqa: E402
from dreamprm_cli.steps import split  # noqa: E402
from dreamprm_cli.types import Problem  # noqa: E402

PROBLEM = Problem(id="p", statement="Add two numbers.")
STEPS = split("def one():\n    return 1\n\n\nprint(one() + one())\n")


def trained(tiny, folder, auto="AutoModel", **options):
    """A PEFT adapter with weights that matter, saved by PEFT."""
    import transformers

    model = getattr(transformers, auto).from_pretrained(tiny, dtype=torch.float32)
    settings = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], **options}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**settings))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.5)
    wrapped.save_pretrained(folder)
    return folder


def features(tiny, folder=None):
    adapter = None if folder is None else load_adapter(folder)
    backbone = load_backbone(
        locate_backbone(str(tiny)), dtype=torch.float32, device=torch.device("cpu"), adapter=adapter
    )
    scorer = PackedScorer(backbone, layers=(1, 3))
    return scorer, scorer.start(PROBLEM).append_features([(0, step) for step in STEPS])


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_an_adapter_changes_states_as_peft_does(tiny, tmp_path, options):
    scorer, ours = features(tiny, trained(tiny, tmp_path, **options))
    theirs = Reference(scorer, tmp_path).features(PROBLEM, STEPS)
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-4)
    assert np.abs(ours - features(tiny)[1]).max() > 1e-2


def test_an_adapter_of_a_token_classifier_is_the_same_adapter(tiny, tmp_path):
    plain = trained(tiny, tmp_path / "a")
    nested = trained(tiny, tmp_path / "b", "AutoModelForTokenClassification", task_type="TOKEN_CLS")
    np.testing.assert_allclose(features(tiny, plain)[1], features(tiny, nested)[1], atol=1e-6)
    scorer, ours = features(tiny, nested)
    np.testing.assert_allclose(ours, Reference(scorer, nested).features(PROBLEM, STEPS), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"use_dora": True}, {"rank_pattern": {"v_proj": 1}}, {"bias": "lora_only"}, {"modules_to_save": ["norm"]}],
)
def test_adapters_that_do_more_than_add_a_product_are_refused(tiny, tmp_path, options):
    with pytest.raises(CheckpointError, match="cannot be applied"):
        load_adapter(trained(tiny, tmp_path, **options))


def test_an_adapter_of_another_shape_or_depth_is_refused(tiny, tmp_path):
    adapter = load_adapter(trained(tiny, tmp_path))
    assert adapter is not None
    source = locate_backbone(str(tiny))
    with pytest.raises(CheckpointError, match="first 1 layers"):
        load_backbone(source, depth=1, adapter=adapter)
    moved = {name.replace("q_proj", "k_proj"): update for name, update in adapter.items() if "q_proj" in name}
    with pytest.raises(CheckpointError, match="wrong shape"):
        load_backbone(source, adapter=moved)


def test_a_damaged_adapter_is_a_checkpoint_error(tiny, tmp_path):
    path = trained(tiny, tmp_path) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="damaged"):
        load_adapter(tmp_path)


def test_a_checkpoint_with_an_adapter_passes_its_own_check_until_a_file_is_exchanged(tiny, tmp_path):
    source = locate_backbone(str(tiny))
    config = json.loads((tiny / "config.json").read_text())
    head = Head(np.random.default_rng(1).normal(size=64).astype(np.float32) / 8, 0.1)
    checkpoint = Checkpoint(str(tiny), source.sha256, (1, 3), head, 32)
    adapter = trained(tiny, tmp_path / "adapter")
    save(checkpoint, tmp_path / "prm", config, adapter)
    found = verify(str(tmp_path / "prm"), device="cpu", dtype="fp32")
    assert found.steps > 0
    assert found.incremental <= 1e-5

    other = trained(tiny, tmp_path / "other", r=1)
    (tmp_path / "prm" / "adapter_model.safetensors").write_bytes((other / "adapter_model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="not the file that was saved"):
        verify(str(tmp_path / "prm"))
    save(checkpoint, tmp_path / "prm", config)  # over it, this time without an adapter
    assert load_adapter(tmp_path / "prm") is None
