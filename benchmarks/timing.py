"""Time two things side by side: alternating order, every reading kept, the best of each compared."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any


def pair(first: Callable[[], float], second: Callable[[], float], repeats: int) -> dict[str, Any]:
    """Run both `repeats` times, A B, B A, A B ...; each returns its seconds. `ratio` is best(first) / best(second)."""
    readings: dict[str, list[float]] = {"first": [], "second": []}
    for turn in range(repeats):
        order = [("first", first), ("second", second)]
        for name, function in order if turn % 2 == 0 else reversed(order):
            readings[name].append(function())
    return {
        "first_s": summary(readings["first"]),
        "second_s": summary(readings["second"]),
        "ratio": min(readings["first"]) / min(readings["second"]),
        "ratio_of_medians": statistics.median(readings["first"]) / statistics.median(readings["second"]),
    }


def summary(readings: Sequence[float]) -> dict[str, float]:
    return {"best": min(readings), "median": statistics.median(readings), "worst": max(readings)}


def command(arguments: Sequence[str], **options: Any) -> float:
    """Wall seconds of a whole process. Raises CalledProcessError when it fails."""
    begin = time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    return time.perf_counter() - begin
