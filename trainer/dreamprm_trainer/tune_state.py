"""What a tuning run leaves in its folder, so that a killed one goes on as if nothing had happened.

state.pt   where it stands: parameters, optimiser, labels and position
best.pt    parameters, labels and validation logits at the best validation so far
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.tune_loop import Loop, Position


class State:
    """Both files of a folder. mark: digest of settings and data; files with another mark are refused."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder, self.mark = folder, mark

    def keep(self, loop: Loop, best: bool) -> None:
        if best:
            self._write("best.pt", {"model": loop.team.model.trained, **_labels(loop)})
        # After the best one: a run killed in between finds the same best again.
        self._write(
            "state.pt",
            {
                "model": loop.team.model.trained,
                "optimiser": loop.optimiser.state_dict(),
                "position": asdict(loop.position),
                "scale": (loop.moving.square, loop.moving.count),
                **_labels(loop),
            },
        )

    def restore(self, loop: Loop) -> None:
        """Bring the loop to where an earlier run was, if there was one. Raises ConfigError."""
        kept = self._read("state.pt")
        if kept is None:
            return
        self._load(loop, kept)
        loop.optimiser.load_state_dict(kept["optimiser"])
        loop.position = Position(**kept["position"])
        loop.moving.square, loop.moving.count = kept["scale"]

    def restore_best(self, loop: Loop) -> None:
        kept = self._read("best.pt")
        assert kept is not None, "the first validation is the best so far"
        self._load(loop, kept)

    def _load(self, loop: Loop, kept: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in loop.team.model.trained.items():
                parameter.copy_(kept["model"][name])
        loop.moving.labels, loop.moving.weights = kept["labels"], kept["weights"]

    def _write(self, name: str, content: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f".{name}.{os.getpid()}"
        torch.save({"mark": self.mark, **content}, scratch)
        scratch.replace(self.folder / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        if not path.exists():
            return None
        kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if kept["mark"] != self.mark:
            raise ConfigError(
                f"{path} was left by a run with other settings or data", "name another folder, or remove it"
            )
        return kept


def _labels(loop: Loop) -> dict[str, torch.Tensor]:
    return {"labels": loop.moving.labels, "weights": loop.moving.weights}
