"""From what a user types after `--prm` to an open Scorer."""

from __future__ import annotations

from dreamprm_cli.models import Report
from dreamprm_cli.prm import Scorer


def open_scorer(spec: str, *, device: str = "auto", progress: Report | None = None) -> Scorer | None:
    """The checkpoint `spec` (a folder or a name shipped with the package) on `device`; None for "none"."""
    if spec == "none":
        return None
    raise NotImplementedError
