from __future__ import annotations

import re
from typing import Any

import pytest
from view_kit import screen

from dreamprm_cli.view.price import render_price

STAGE: dict[str, Any] = {
    "name": "rollouts", "model": "qwen3-coder-30b-a3b", "tokens_in": 3_941_280, "tokens_out": 21_934_080,
    "flops": 1.54e17, "gpu_hours": 0.7617, "cpu_hours": 372.2,
}  # fmt: skip
TOLD: dict[str, Any] = {
    "train": {"problems": 612, "programs": 612, "steps": 4896},
    "held_out": {"problems": 399, "programs": 399, "steps": 3192},
    "rollouts": {"planned": 68544, "fixed": 68544, "adaptive": 22277}, "sandbox_runs": 69555,
    "stages": [
        STAGE, {**STAGE, "name": "fit, lora", "tokens_out": 0, "flops": None, "gpu_hours": None, "cpu_hours": None},
    ],
    "tokens_in": 7_882_560, "tokens_out": 999, "flops": None, "gpu_hours": None, "cpu_hours": None,
    "download_bytes": 67_235_217_408, "disk_bytes": None, "memory_bytes": 63_014_174_720,
    "assumed": ["600 tokens a problem"], "how": ["one H100: 40%"],
}  # fmt: skip


def test_what_a_recipe_costs() -> None:
    lines = [re.sub(" {2,}", "  ", line) for line in screen(render_price(TOLD, 100), 100)]
    assert lines[0] == "training: 612 problems, 612 programs, 4,896 steps"
    assert lines[2].endswith("(68,544 at a fixed number, 22,277 adaptive); programs to run: 69,555 at most")
    assert "rollouts  qwen3-coder-30b-a3b  3.94 M  21.9 M  154 P  0.76  372" in lines
    assert "fit, lora  qwen3-coder-30b-a3b  3.94 M  0  ?  ?  ?" in lines
    assert "all  7.88 M  999  ?  ?  ?" in lines
    assert "67.2 GB to fetch, ?B on disk, 63 GB of memory" in lines
    assert lines[-2:] == ["assumed: 600 tokens a problem", "one H100: 40%"]


@pytest.mark.parametrize("width", [20, 40, 80])
def test_every_width(width: int) -> None:
    screen(render_price(TOLD, width), width)
