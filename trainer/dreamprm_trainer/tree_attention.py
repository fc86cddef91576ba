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
class Span:
    """Where a tree lies among the packed tokens. masks: of each branch (L, prefix + L), True where a query sees."""

    start: int
    prefix: int
    masks: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Trees of one forward: ids, positions (T,); reads (R,) packed offsets; spans in order."""

    ids: Tensor
    positions: Tensor
    reads: Tensor
    spans: tuple[Span, ...]


def collate(trees: Sequence[Tree], device: torch.device) -> Batch:
    starts = np.cumsum([0, *map(len, trees)])
    return Batch(
        ids=torch.from_numpy(np.concatenate([tree.ids for tree in trees])).to(device),
        positions=torch.from_numpy(np.concatenate([tree.positions for tree in trees])).to(device),
        reads=torch.from_numpy(
            np.concatenate([tree.reads + start for tree, start in zip(trees, starts, strict=False)])
        ).to(device),
        spans=tuple(
            Span(
                start=int(start),
                prefix=tree.prefix,
                masks=tuple(
                    torch.ones((length, tree.prefix + length), dtype=torch.bool, device=device).tril(tree.prefix)
                    for length in tree.branches
                ),
            )
            for tree, start in zip(trees, starts, strict=False)
        ),
    )


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    spans: Sequence[Span],
    **_: Any,
) -> tuple[Tensor, None]:
    """query (1, H, T, D); key, value (1, K, T, D) -> (1, T, H, D), as transformers calls it."""

    def product(own: slice, keys: Tensor, values: Tensor, **seen: Any) -> Tensor:
        return F.scaled_dot_product_attention(query[:, :, own], keys, values, scale=scaling, enable_gqa=True, **seen)

    pieces = []
    for span in spans:
        problem = slice(span.start, span.start + span.prefix)
        keys, values = key[:, :, problem], value[:, :, problem]
        pieces.append(product(problem, keys, values, is_causal=True))
        start = problem.stop
        for mask in span.masks:
            own = slice(start, start + len(mask))
            both = torch.cat([keys, key[:, :, own]], 2), torch.cat([values, value[:, :, own]], 2)
            pieces.append(product(own, *both, attn_mask=mask))
            start = own.stop
    return torch.cat(pieces, 2).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
