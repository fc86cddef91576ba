"""Which states of a step the head reads, of each layer: its last token's, or beside it the mean over all its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

Pooling = Literal["last", "last+mean"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


def known(name: str) -> Pooling:
    """Raises ValueError for a name that is none."""
    if name not in POOLINGS:
        raise ValueError(f"unknown pooling {name!r}")
    return cast(Pooling, name)


def width(pooling: Pooling) -> int:
    """Vectors that the head reads of each layer."""
    return 1 if pooling == "last" else 2


def positions(pooling: Pooling, read: int) -> range:
    """Tokens of a step whose states are needed; it is read at token `read`, what follows it is white space."""
    return range(read if pooling == "last" else 0, read + 1)


def pooled(pooling: Pooling, states: NDArray[np.float32], counts: Sequence[int]) -> NDArray[np.float32]:
    """What the head reads of steps: (S, L * width * C), of each layer the last state, then the mean where it is read.

    states: (T, L, C), of the `positions` of all steps in order; counts: how many of them are each step's, (S,).
    """
    ends = np.cumsum(counts, dtype=np.int64)
    last = states[ends - 1]
    if pooling == "last" or not len(ends):
        return last.reshape(len(ends), states.shape[1] * width(pooling) * states.shape[2])
    sizes = np.asarray(counts, dtype=np.float32)[:, None, None]
    mean = np.add.reduceat(states, ends - np.asarray(counts, dtype=np.int64)) / sizes
    both: NDArray[np.float32] = np.stack([last, mean], axis=2)  # (S, L, 2, C)
    return both.reshape(len(ends), -1)
