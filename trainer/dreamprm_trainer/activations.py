"""States after the frozen layers, computed once and kept on disk: training above them costs what the layers above cost.

One file a tree, fp16, named by a digest of its tokens, in a folder named by a digest of backbone and layer; so a cache
is never stale, runs share it, and a killed run goes on with the trees that are missing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.reward_model import RewardModel
from dreamprm_trainer.sequences import Tree, batches
from dreamprm_trainer.tree_attention import collate


@dataclass(frozen=True, slots=True)
class Activations:
    """States (T, C) of trees after one layer of one backbone, computed in one type."""

    home: Path

    @classmethod
    def of(cls, folder: Path, backbone_sha256: str, layer: int, dtype: torch.dtype) -> Activations:
        name = hashlib.sha256(repr((backbone_sha256, layer, str(dtype))).encode()).hexdigest()[:12]
        return cls(folder / f"layer{layer}-{name}")

    def path(self, tree: Tree) -> Path:
        text = hashlib.sha256(tree.ids.tobytes() + repr((tree.prefix, tree.branches)).encode())
        return self.home / f"{text.hexdigest()[:24]}.npy"

    def read(self, trees: Sequence[Tree], device: torch.device) -> Tensor:
        """(T, C) fp16 of trees packed in this order."""
        states = [torch.from_numpy(np.load(self.path(tree))) for tree in trees]
        return torch.cat(states).to(device)

    def missing(self, trees: Sequence[Tree]) -> list[Tree]:
        unique = {self.path(tree): tree for tree in trees}
        return [tree for path, tree in unique.items() if not path.exists()]

    def fill(
        self, trees: Sequence[Tree], model: RewardModel, device: torch.device, room: int, told: Callable[[int], None]
    ) -> None:
        """Compute and keep the states of `trees`, `room` tokens at once. told: how many are done."""
        self.home.mkdir(parents=True, exist_ok=True)
        done = 0
        for batch in batches([len(tree) for tree in trees], room):
            some = [trees[index] for index in batch]
            states = model.below(collate(some, device)).half().cpu()
            if not bool(torch.isfinite(states).all()):
                raise ConfigError("states of this backbone do not fit into fp16", "choose another `frozen_below`")
            for tree, own in zip(some, torch.split(states, [len(tree) for tree in some]), strict=True):
                self._write(self.path(tree), own)
            done += len(some)
            told(done)

    @staticmethod
    def _write(path: Path, states: Tensor) -> None:
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            np.save(file, states.numpy())
        scratch.replace(path)
