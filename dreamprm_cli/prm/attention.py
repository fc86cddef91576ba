"""Causal attention of packed tokens: one arena of keys and values, and who sees which of its rows.

Shapes: T packed tokens of a forward, H query heads, K key-value heads, D head size, R rows of the arena.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

_BLOCK = 128  # queries that share one list of keys; longer ones would mostly attend to masked keys
_PADDED_ROWS = 1 << 22  # on a GPU, queries x keys of one batched call


class Arena:
    """Keys and values of all live tokens, a row each, for every layer. Rows of dropped candidates are used again."""

    def __init__(self, layers: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self._data = torch.empty((layers, 2, 0, heads, head_dim), dtype=dtype, device=device)
        self._free: list[int] = []

    def take(self, count: int) -> torch.Tensor:
        """Indices (count,) of rows to be written."""
        rows, self._free = self._free[:count], self._free[count:]
        if missing := count - len(rows):
            size = self._data.shape[2]
            room = max(missing, size // 2)
            grown = self._data.new_empty((*self._data.shape[:2], size + room, *self._data.shape[3:]))
            grown[:, :, :size] = self._data
            self._data = grown
            rows += range(size, size + missing)
            self._free = list(range(size + missing, size + room))
        return torch.tensor(rows, dtype=torch.long, device=self._data.device)

    def give_back(self, rows: torch.Tensor) -> None:
        self._free = sorted(self._free + rows.tolist())

    def write(self, layer: int, rows: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """keys, values: (T, K, D) for the arena's rows (T,)."""
        self._data[layer, 0].index_copy_(0, rows, keys.to(self._data.dtype))
        self._data[layer, 1].index_copy_(0, rows, values.to(self._data.dtype))

    def layer(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (R, K, D) of a layer."""
        return self._data[layer, 0], self._data[layer, 1]


@dataclass(frozen=True, slots=True)
class Segment:
    """New tokens of one sequence. `rows` (L,) are all its rows in the arena, in order, the `count` new ones last."""

    rows: torch.Tensor
    count: int


@dataclass(frozen=True, slots=True)
class _Group:
    queries: torch.Tensor  # (B, Q) packed positions, padded with any
    keys: torch.Tensor  # (B, L) arena rows, padded with any
    mask: torch.Tensor  # (B, 1, Q, L) 0 where seen, -inf elsewhere
    real: torch.Tensor | None  # (B, Q) False on padding; None when there is none


class Plan:
    """Which packed token sees which rows, worked out once per forward and used in every layer."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        blocks: list[tuple[int, int, torch.Tensor, int]] = []  # first packed position, queries, key rows, keys before
        position = 0
        for segment in segments:
            before = len(segment.rows) - segment.count
            for start in range(0, segment.count, _BLOCK):
                size = min(_BLOCK, segment.count - start)
                blocks.append((position + start, size, segment.rows[: before + start + size], before + start))
            position += segment.count
        self._groups = [self._group(some, device) for some in _batches(blocks, device)]

    @staticmethod
    def _group(blocks: list[tuple[int, int, torch.Tensor, int]], device: torch.device) -> _Group:
        width = max(size for _, size, _, _ in blocks)
        length = max(len(rows) for _, _, rows, _ in blocks)
        starts = torch.tensor([first for first, _, _, _ in blocks], device=device)
        sizes = torch.tensor([size for _, size, _, _ in blocks], device=device)
        before = torch.tensor([b for _, _, _, b in blocks], device=device)
        offsets = torch.arange(width, device=device).expand(len(blocks), width)
        real = offsets < sizes[:, None]  # (B, Q)
        offsets = torch.where(real, offsets, 0)
        keys = torch.nn.utils.rnn.pad_sequence([rows for _, _, rows, _ in blocks], batch_first=True)
        seen = torch.arange(length, device=device) <= (before[:, None] + offsets)[:, :, None]  # (B, Q, L)
        mask = torch.zeros(seen.shape, device=device).masked_fill_(~seen, -torch.inf)
        return _Group(starts[:, None] + offsets, keys, mask[:, None], None if bool(real.all()) else real)

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """queries (T, H, D) fp32; keys, values (R, K, D) -> (T, H, D) fp32."""
        out = torch.empty_like(queries)
        for group in self._groups:
            q = queries[group.queries].transpose(1, 2)  # (B, H, Q, D)
            k = keys[group.keys].to(q.dtype).transpose(1, 2)  # (B, K, L, D)
            v = values[group.keys].to(q.dtype).transpose(1, 2)
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask, enable_gqa=True).transpose(1, 2)
            if group.real is None:
                out[group.queries] = o
            else:
                out[group.queries[group.real]] = o[group.real]
        return out


def _batches(
    blocks: list[tuple[int, int, torch.Tensor, int]], device: torch.device
) -> list[list[tuple[int, int, torch.Tensor, int]]]:
    """On a CPU each block alone, without padding; on a GPU blocks of like length together, for fewer launches."""
    if device.type == "cpu":
        return [[block] for block in blocks]
    batches: list[list[tuple[int, int, torch.Tensor, int]]] = []
    for block in sorted(blocks, key=lambda b: len(b[2])):
        if batches and (len(batches[-1]) + 1) * _BLOCK * len(block[2]) <= _PADDED_ROWS:
            batches[-1].append(block)
        else:
            batches.append([block])
    return batches
