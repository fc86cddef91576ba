"""Batches of trees over forwards of bounded size and over processes: logits and gradients as if all were one.

Every process knows the whole batch and takes every n-th of its forwards; what they find is summed. So one process and
several do the same, and a process may have nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dreamprm_trainer.activations import Activations
from dreamprm_trainer.reward_model import RewardModel
from dreamprm_trainer.sequences import Tree, batches
from dreamprm_trainer.tree_attention import collate

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """Trees that go through the model together. place: their reads among all of the batch."""

    trees: tuple[Tree, ...]
    place: slice


Loss = Callable[[Tensor, Forward], Tensor]  # a forward's share of the batch's loss, from its logits


class Team:
    """A model and the processes that share its work. room: tokens of a forward; cache: states below its layers."""

    def __init__(self, model: RewardModel, accelerator: Accelerator, cache: Activations | None, room: int) -> None:
        self.model, self.accelerator, self.cache, self.room = model, accelerator, cache, room

    def backward(self, trees: Sequence[Tree], loss: Loss) -> Tensor:
        """Add the gradient of the summed losses to the parameters; the logits (N,) of all reads, in order."""
        logits = self._nothing(trees)
        for one in self._mine(trees):
            z = self._logits(one)
            loss(z, one).backward()  # type: ignore[no-untyped-call]
            logits[one.place] = z.detach()
        if self.accelerator.num_processes > 1:
            for parameter in self.model.trained.values():
                mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self._sum(mine)
        return self._sum(logits)

    @torch.no_grad()
    def logits(self, trees: Sequence[Tree]) -> Tensor:
        """(N,) of all reads, in order."""
        logits = self._nothing(trees)
        for one in self._mine(trees):
            logits[one.place] = self._logits(one)
        return self._sum(logits)

    def _mine(self, trees: Sequence[Tree]) -> list[Forward]:
        forwards, read = [], 0
        for batch in batches([len(tree) for tree in trees], self.room):
            some = tuple(trees[index] for index in batch)
            count = sum(len(tree.reads) for tree in some)
            forwards.append(Forward(some, slice(read, read + count)))
            read += count
        return forwards[self.accelerator.process_index :: self.accelerator.num_processes]

    def _logits(self, one: Forward) -> Tensor:
        device = self.accelerator.device
        below = None if self.cache is None else self.cache.read(one.trees, device)
        logits: Tensor = self.model(collate(one.trees, device), below)
        return logits

    def _nothing(self, trees: Sequence[Tree]) -> Tensor:
        return torch.zeros(sum(len(tree.reads) for tree in trees), device=self.accelerator.device)

    def _sum(self, values: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(values, reduction="sum")
        return total
