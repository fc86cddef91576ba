"""Graded programs and their cached features as arrays: one row a scored step, programs and problems as indices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamprm_trainer.data import Item
from dreamprm_trainer.features import Cache, Features

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """`items` and the features of their scored steps.

    states:  (S, L, H) fp16, S scored steps of all items in order, L cached layers, H as in `features.py`
    program: (S,) index into `items`
    target:  (S,) what the step should be scored: its own truth where known, else the program's outcome
    """

    items: tuple[Item, ...]
    states: Features
    program: Ints
    target: Floats

    @property
    def outcome(self) -> Floats:
        """(P,) 1.0 for each program that passed."""
        return np.array([item.passed for item in self.items], dtype=np.float32)

    @property
    def problem(self) -> Ints:
        """(P,) a number for each program's problem and source: programs are compared within it."""
        numbers: dict[tuple[str, str], int] = {}
        keys = [(item.source, item.problem.id) for item in self.items]
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)

    @property
    def last(self) -> Bools:
        """(S,) whether a step is its program's last scored one."""
        return np.append(self.program[1:] != self.program[:-1], True) if len(self.program) else np.zeros(0, bool)

    def features(self, layers: Sequence[int], cached: Sequence[int]) -> Floats:
        """(S, len(layers) * H): the states of `layers`, of which `cached` are there."""
        picked = [self.states[:, list(cached).index(layer)] for layer in layers]
        return np.concatenate(picked, axis=1).astype(np.float32)


def build(items: Iterable[Item], cache: Cache) -> Table:
    """The table of all items whose features are cached and that have a scored step."""
    kept: list[Item] = []
    states: list[Features] = []
    program: list[int] = []
    target: list[float] = []
    known: dict[str, dict[str, Features]] = {}
    for item in cache.reading.cut(items):
        place = str(cache.path(item.problem))
        if place not in known:
            known[place] = cache.read(item.problem)
        features = known[place].get(item.key)
        scored = [number for number, step in enumerate(item.steps) if step.scored]
        if features is None or not scored:
            continue
        states.append(features[scored])
        program += [len(kept)] * len(scored)
        target += [float(item.passed if item.truth[number] is None else bool(item.truth[number])) for number in scored]
        kept.append(item)
    width = (0, len(cache.layers), 0)
    return Table(
        items=tuple(kept),
        states=np.concatenate(states) if states else np.zeros(width, np.float16),
        program=np.array(program, dtype=np.int64),
        target=np.array(target, dtype=np.float32),
    )


def subset(table: Table, keep: Sequence[int]) -> Table:
    """The programs at the indices `keep`, in that order; an index may come several times (a bootstrap draw)."""
    starts = np.searchsorted(table.program, np.arange(len(table.items) + 1))
    rows = [np.arange(starts[index], starts[index + 1]) for index in keep]
    flat = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    counts = [len(some) for some in rows]
    return Table(
        items=tuple(table.items[index] for index in keep),
        states=table.states[flat],
        program=np.repeat(np.arange(len(keep)), counts).astype(np.int64),
        target=table.target[flat],
    )


def merge(tables: Sequence[Table]) -> Table:
    """All programs of several tables."""
    starts = np.cumsum([0, *(len(table.items) for table in tables)])
    return Table(
        items=tuple(item for table in tables for item in table.items),
        states=np.concatenate([table.states for table in tables]),
        program=np.concatenate([table.program + start for table, start in zip(tables, starts, strict=False)]),
        target=np.concatenate([table.target for table in tables]),
    )
