"""What the trainer saves is what the app loads."""

import numpy as np
import pytest

pytest.importorskip("safetensors")

from pathlib import Path

from dreamprm_cli.aggregate import AGGREGATIONS
from dreamprm_cli.prm.checkpoint import load, resolve


@pytest.mark.parametrize("name", ["default", "small"])
def test_a_shipped_checkpoint_loads_and_carries_its_card(name):
    folder = resolve(name)
    checkpoint = load(folder)
    assert checkpoint.aggregation in AGGREGATIONS
    assert np.isfinite(checkpoint.head.weight).all()
    card = (Path(folder) / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert checkpoint.backbone in card
    assert "95 %" in card
    assert sum(path.stat().st_size for path in Path(folder).iterdir()) < 5e6
