"""The real 0.5B backbone on real programs: every way of scoring gives one answer."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.prm.backbone import load_backbone, pick_dtype  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.scorer import PackedScorer  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.prm.verify import agreement  # noqa: E402
from dreamprm_cli.steps import split  # noqa: E402
from dreamprm_cli.types import Problem  # noqa: E402

pytestmark = pytest.mark.model

ROOT = Path(__file__).parent.parent.parent
PROBLEM = Problem(id="p", statement="Merge overlapping or touching intervals; print their number and total length.")
FILES = ("dreamprm_cli/aggregate.py", "dreamprm_cli/policy/__init__.py")


emulated = pytest.mark.skipif(
    pick_dtype(torch.device("cpu")) != torch.bfloat16, reason="this processor emulates bf16: minutes a forward"
)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-5), pytest.param(torch.bfloat16, 1e-3, marks=emulated)]
)
def test_incremental_whole_and_transformers_scores_agree(dtype, limit):
    backbone = load_backbone(locate_backbone("qwen2.5-coder-0.5b"), dtype=dtype, device=torch.device("cpu"))
    # As steep as a head that tells good from bad: states have a size of about 4 per dimension.
    weight = np.random.default_rng(0).normal(0, 0.02, 4 * backbone.shape.hidden).astype(np.float32)
    scorer = PackedScorer(backbone, layers=(12, 24), pooling="last+mean", head=Head(weight, 0.0))
    programs = [split((ROOT / name).read_text(encoding="utf-8"))[:4] for name in FILES]
    found = agreement(scorer, PROBLEM, programs)
    assert found.incremental <= limit
    assert found.transformers <= (limit if dtype == torch.float32 else 2e-2)


def test_tokens_are_those_of_transformers_tokenizer():
    from transformers import AutoTokenizer

    source = locate_backbone("qwen2.5-coder-0.5b")
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    text = (ROOT / "dreamprm_cli/aggregate.py").read_text(encoding="utf-8") + "\t\r\n naïve 数 1234 \n\n x\u0301"
    backbone = load_backbone(source, depth=1)
    assert PackedScorer(backbone).tokens.step(text).ids == tokenizer(text).input_ids
    assert tokenizer.decode(tokenizer("<|im_start|>user").input_ids) == "<|im_start|>user"
