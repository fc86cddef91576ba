"""A whole `dreamprm solve` with live PRM against the same programs generated without it. Whole processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import pair

PROBLEM = Path(__file__).parent.parent / "examples" / "merge_intervals.md"


def _solve(prm: str, policy: str, n: int, outputs: dict[str, list[str]]) -> float:
    dreamprm = str(Path(sys.executable).parent / "dreamprm")
    arguments = [dreamprm, "solve", str(PROBLEM), "--policy", policy, "--prm", prm, "-n", str(n), "--json"]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        done = subprocess.run(arguments, cwd=folder, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
    outputs[prm] = [candidate["code"] for candidate in json.loads(done.stdout)["candidates"]]
    return seconds


def measure(repeats: int = 5, policy: str = "qwen2.5-coder-1.5b", n: int = 8) -> dict[str, Any]:
    """`first` solves with the default PRM, `second` only generates; both sample the same seeds."""
    outputs: dict[str, list[str]] = {}
    figures = pair(lambda: _solve("default", policy, n, outputs), lambda: _solve("none", policy, n, outputs), repeats)
    same = sum(a == b for a, b in zip(outputs["default"], outputs["none"], strict=True))
    return {"policy": policy, "n": n, **figures, "same_programs": f"{same} of {n}"}
