"""`dreamprm train` on this repository itself: a part of its functions, its own tests. Goes on after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.own_repos import trained


def measure(data: Path = Path(".dreamprm/own-repos")) -> dict[str, Any]:
    """Figures of the commit that is checked out; data: where the training is kept."""
    return {"dreamprm": trained("dreamprm", Path(__file__).resolve().parents[1], data, 40, "--no-adopt")}
