"""Trees packed into one forward, and attention that lets a program see its problem and itself.

Registered with transformers as the attention `dreamprm_tree`. There is no mask over all tokens: each branch meets the
problem's keys and its own in a product of its own, so that work and memory grow with what is seen.

Shapes: T packed tokens, H query heads, K key-value heads, D head size, R places that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from dreamprm_trainer.sequences import Tree

NAME = "dreamprm_tree"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Queries that go together: packed positions (or numbers of reads), where their keys are, and a mask (queries,
    keys), True where a query sees; None: causal."""

    queries: slice
    keys: tuple[slice, ...]
    mask: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Trees of one forward: ids, positions (T,); reads (R,) packed offsets; groups of all tokens, and of the reads."""

    ids: Tensor
    positions: Tensor
    reads: Tensor
    groups: tuple[Group, ...]
    read_groups: tuple[Group, ...]


def collate(trees: Sequence[Tree], device: torch.device) -> Batch:
    starts = np.cumsum([0, *map(len, trees)])[:-1]
    reads = np.concatenate([tree.reads + start for tree, start in zip(trees, starts, strict=True)])
    groups: list[Group] = []
    read_groups: list[Group] = []
    for tree, start in zip(trees, starts.tolist(), strict=True):
        own = problem = slice(start, start + tree.prefix)
        groups.append(Group(problem, (problem,), None))
        for length in tree.branches:
            own = slice(own.stop, own.stop + length)
            mask = torch.ones((length, tree.prefix + length), dtype=torch.bool, device=device).tril(tree.prefix)
            groups.append(Group(own, (problem, own), mask))
            first, last = np.searchsorted(reads, (own.start, own.stop))
            rows = torch.from_numpy(reads[first:last] - own.start).to(device)
            read_groups.append(Group(slice(int(first), int(last)), (problem, own), mask[rows]))
    return Batch(
        ids=torch.from_numpy(np.concatenate([tree.ids for tree in trees])).to(device),
        positions=torch.from_numpy(np.concatenate([tree.positions for tree in trees])).to(device),
        reads=torch.from_numpy(reads).to(device),
        groups=tuple(groups),
        read_groups=tuple(read_groups),
    )


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    groups: Sequence[Group],
    **_: Any,
) -> tuple[Tensor, None]:
    """query (1, H, T or R, D); key, value (1, K, T, D) -> (1, T or R, H, D), as transformers calls it."""
    pieces = []
    for group in groups:
        keys, values = (torch.cat([every[:, :, part] for part in group.keys], 2) for every in (key, value))
        pieces.append(
            F.scaled_dot_product_attention(
                query[:, :, group.queries],
                keys,
                values,
                attn_mask=group.mask,
                is_causal=group.mask is None,
                scale=scaling,
                enable_gqa=True,
            )
        )
    return torch.cat(pieces, 2).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
