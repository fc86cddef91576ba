"""How far the PRM on llama.cpp is from the PRM in torch.

Both read the same weights. llama.cpp multiplies them as the file stores them, by activations rounded to eight bits,
and keeps keys and values in fp16; torch multiplies what they stand for. So rewards differ by more than rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dreamprm_cli.prm import Scorer, score_programs
from dreamprm_cli.types import Problem, Step

# Several times what `python -m benchmarks prm-llama` finds with the shipped checkpoint: 0.008, and 0.007.
TOLERANCE = 0.03  # of any step's reward
INCREMENTAL = 0.03  # step by step against all at once: batches of other sizes are rounded otherwise


@dataclass(frozen=True, slots=True)
class Difference:
    """Of `steps` rewards. ranks: of pairs of steps whose rewards differ, the share that both put in the same order."""

    steps: int
    incremental: float  # greatest, the second scorer step by step against all at once
    greatest: float
    mean: float
    ranks: float

    def to_json(self) -> dict[str, int | float]:
        return asdict(self)


def compare(first: Scorer, second: Scorer, problem: Problem, programs: Sequence[Sequence[Step]]) -> Difference:
    """Score the same programs with both. Steps that are not scored do not count."""
    a, b = (
        np.array([reward for rewards in score_programs(scorer.start(problem), programs) for reward in rewards])
        for scorer in (first, second)
    )
    live = second.start(problem)
    turns = [(index, step) for index, steps in enumerate(programs) for step in steps]
    one_by_one = np.array([live.append([turn])[0] for turn in turns])
    scored = np.isfinite(a)
    a, b, one_by_one = a[scored], b[scored], one_by_one[scored]
    i, j = np.triu_indices(len(a), 1)
    told = (a[i] - a[j]) * (b[i] - b[j])
    return Difference(
        steps=len(a),
        incremental=float(np.max(np.abs(b - one_by_one))),
        greatest=float(np.max(np.abs(a - b))),
        mean=float(np.mean(np.abs(a - b))),
        ranks=float(np.mean(told[told != 0] > 0)) if (told != 0).any() else 1.0,
    )
