"""What labelling may cost: minutes, tokens or rollouts, and how much of it is spent.

`10m`, `2h`, `200k-tokens`, `500-rollouts`. A whole program that is sampled counts as a rollout from nothing. What was
spent is kept in a file, so that a killed run goes on with what is left.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamprm_cli.errors import ConfigError

Unit = Literal["minutes", "tokens", "rollouts"]
_SHORT = {"m": ("minutes", 1.0), "h": ("minutes", 60.0), "-tokens": ("tokens", 1.0), "-rollouts": ("rollouts", 1.0)}
_TIMES = {"": 1.0, "k": 1e3, "M": 1e6}
_SAVED_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Budget:
    """So many of a unit."""

    amount: float = math.inf
    unit: Unit = "minutes"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Raises ConfigError."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)(m|h|-tokens|-rollouts)", text.strip())
        if found is None or float(found[1]) <= 0 or (found[2] and found[3] in "mh"):
            raise ConfigError(f"no budget {text!r}", "10m, 2h, 200k-tokens or 500-rollouts")
        unit, times = _SHORT[found[3]]
        return cls(float(found[1]) * _TIMES[found[2]] * times, unit)  # type: ignore[arg-type]

    def rollouts(self, tokens: float, seconds: float) -> float:
        """How many it pays for, at so many tokens and seconds each."""
        return self.amount / {"minutes": seconds / 60, "tokens": tokens, "rollouts": 1.0}[self.unit]


class Meter:
    """Counts what is spent of a budget. path: where that is kept; clock: seconds."""

    def __init__(self, budget: Budget, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self._path, self._clock = path, clock
        self._last = self._saved = clock()
        self.spent: dict[Unit, float] = {"minutes": 0.0, "tokens": 0.0, "rollouts": 0.0}
        if path is not None and path.exists():
            self.spent |= json.loads(path.read_text(encoding="utf-8"))

    def add(self, tokens: int = 0, rollouts: int = 0) -> None:
        """Tokens and rollouts that were made, and the time since the last call."""
        now = self._clock()
        self.spent["minutes"] += (now - self._last) / 60
        self._last = now
        self.spent["tokens"] += tokens
        self.spent["rollouts"] += rollouts
        if self._path is not None and (tokens or rollouts or now - self._saved > _SAVED_EVERY_S):
            self._saved = now
            scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            scratch.write_text(json.dumps(self.spent), encoding="utf-8")
            scratch.replace(self._path)

    def left_s(self, share: float = 1.0) -> float:
        """Of that share of a budget of minutes; without end for another."""
        minutes = share * self.budget.amount - self.spent["minutes"]
        return max(0.0, minutes * 60) if self.budget.unit == "minutes" else math.inf

    def allows(self, share: float = 1.0) -> bool:
        """Whether less than that share of the budget is spent."""
        self.add()
        return self.spent[self.budget.unit] < share * self.budget.amount
