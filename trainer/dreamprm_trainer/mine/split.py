"""train, dev and test of a repository's functions: by file, or by the time of their last change.

A file belongs to one part whole. Where a repository has too few files, or one of them holds most of it, whole classes
and top-level functions are dealt out instead, and no module shows the bodies of another part's.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

from dreamprm_trainer.mine.functions import Function

Split = Literal["train", "dev", "test"]
By = Literal["file", "time"]
_SHARES: tuple[tuple[Split, float], ...] = (("test", 0.2), ("dev", 0.15))
_FEW_FILES = 4
_MOST_IN_ONE = 0.6


def by_file(functions: Sequence[Function]) -> dict[str, Split]:
    """Function id -> part."""
    files = defaultdict(list)
    for one in functions:
        files[one.path].append(one)
    most = max(map(len, files.values()), default=0)
    if len(files) < _FEW_FILES or most > _MOST_IN_ONE * len(functions):
        files = defaultdict(list)
        for one in functions:
            files[f"{one.path}::{one.qualname.partition('.')[0]}"].append(one)
    # Drawn by digest: a file keeps its place in the order when others come and go.
    order = sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest())
    return _dealt([files[name] for name in order])


def by_time(functions: Sequence[Function], changed: Mapping[str, int]) -> dict[str, Split]:
    """The functions changed last are the held-out ones. changed: function id -> seconds since 1970."""
    order = sorted(functions, key=lambda one: (-changed.get(one.id, 0), one.id))
    return _dealt([[one] for one in order])


def _dealt(units: Sequence[Sequence[Function]]) -> dict[str, Split]:
    """The first units go to the test part until it has its share, the next ones to dev; a unit that would take more
    than twice what is left goes to train, unless nothing else is there."""
    total = sum(map(len, units))
    found: dict[str, Split] = {}
    taken: set[int] = set()
    for part, share in _SHARES:
        wanted = share * total
        for number, unit in enumerate(units):
            if number not in taken and wanted > 0 and len(unit) <= 2 * wanted:
                taken.add(number)
                wanted -= len(unit)
                found |= dict.fromkeys((one.id for one in unit), part)
    return {one.id: found.get(one.id, "train") for unit in units for one in unit}
