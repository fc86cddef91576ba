from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from view_kit import HOSTILE, screen

from dreamprm_cli.view.audit import render_audit

FOUND: dict[str, Any] = {
    "steps": 214, "known": 86,
    "before": [61, 12, 0, 40, 0, 41, 0, 20, 0, 40], "after": [30, 44, 9, 20, 8, 40, 3, 20, 20, 20],
    "mean_moved": 0.083, "crossed": 12,
    "most": [
        {"task_id": "Mbpp/12", "name": "add_up", "before": 0.25, "after": 0.871, "mc_pass": 1, "mc_total": 4,
         "passed": True, "source": "def add_up(numbers):\n    return sum(numbers)"},
        {"task_id": "Mbpp/7", "name": "main", "before": 1.0, "after": 0.4, "mc_pass": 0, "mc_total": 0, "passed": False,
         "source": "def main():\n..."},
    ],
}  # fmt: skip


def test_histograms_and_what_moved_most() -> None:
    lines = screen(render_audit(FOUND, 80), 80)
    assert lines[0] == "214 labels could move, 86 were known; moved .083 on average, 12 across one half"
    assert lines[1].split() == ["label", "before", "after"]
    assert lines[2].startswith(".0 - .1   █████")
    assert lines[2].endswith("█ 61")
    assert lines[3].endswith(" 30")
    assert lines[20].startswith(".9 - 1.0")
    assert lines[23] == "Mbpp/12  add_up  .250 → .871  1 of 4 rollouts passed, the program passed"
    assert lines[24:26] == ["    def add_up(numbers):", "        return sum(numbers)"]
    assert lines[27] == "Mbpp/7  main  1.000 → .400  no rollouts, the program failed"


@pytest.mark.parametrize("width", [20, 40, 80, 100])
def test_every_width(width: int) -> None:
    screen(render_audit(FOUND, width), width)
    nothing = {**FOUND, "steps": 0, "before": [0] * 10, "after": [0] * 10, "most": []}
    assert len(screen(render_audit(nothing, width), width)) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text(name: str) -> None:
    moved = {**FOUND["most"][0], "task_id": HOSTILE[name], "name": HOSTILE[name], "source": HOSTILE[name]}
    screen(render_audit({**FOUND, "most": [moved]}, 80), 80)


def test_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=file, width=80).print(render_audit(FOUND, 80))
    file.flush()
    text = file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "####" in text
    assert ".250 > .871" in text
