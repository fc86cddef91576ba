"""`dreamprm train` on this repository itself: a part of its functions, its own tests. Goes on after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.own_repos import BUDGET, trained


def measure(data: Path = Path(".dreamprm/own-repos")) -> dict[str, Any]:
    """Figures of the commit that is checked out; data: where the training is kept."""
    here = Path(__file__).resolve().parents[1]
    return {"dreamprm": trained("dreamprm", [here], data, 40, BUDGET, "--no-adopt")}
