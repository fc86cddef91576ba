"""Functions of the training part that are nearly one of the held-out part: by the syntax tree, whatever their names.

Exact for the Jaccard measure over triples of nodes (`overlap.triples`): the rarest triples of a set are enough to find
every other set that is as near as wanted (prefix filtering, Chaudhuri et al., ICDE 2006).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from dreamprm_trainer.mine.functions import Function

SAME = 0.7
_LEAST = 12  # triples; shorter functions are alike by chance


def across(train: Sequence[Function], held_out: Sequence[Function], same: float = SAME) -> dict[str, str]:
    """id of a training function -> id of the held-out function that it repeats."""
    counts = Counter(one for function in (*train, *held_out) for one in function.shingles)
    index: defaultdict[int, list[Function]] = defaultdict(list)
    for function in held_out:
        for one in _rarest(function, counts, same):
            index[one].append(function)
    found = {}
    for function in train:
        candidates = {other.id: other for one in _rarest(function, counts, same) for other in index.get(one, ())}
        near = [name for name, other in candidates.items() if _jaccard(function.shingles, other.shingles) >= same]
        if near:
            found[function.id] = min(near)
    return found


def _rarest(function: Function, counts: Counter[int], same: float) -> list[int]:
    """Two sets that share `same` of their union share one of these."""
    own = function.shingles
    if len(own) < _LEAST:
        return []
    return sorted(own, key=lambda one: (counts[one], one))[: len(own) - math.ceil(same * len(own) - 1e-9) + 1]


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
