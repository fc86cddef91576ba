"""Causal attention of packed tokens: one arena of keys and values, and who sees which of its rows.

Shapes: T packed tokens of a forward, H query heads, K key-value heads, D head size, R rows of the arena.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_KEYS = 128  # summed at once: of longer lists (on AMD from 200), how many there are would decide in which order
_BLOCK = 64  # queries that share one list of rows: few are masked, and the scores stay in the processor's cache
_BATCH_PAIRS = 1 << 22  # on a GPU, queries x rows of one batched call


class Arena:
    """Keys and values of all live tokens, a row each, for every layer. Rows of dropped candidates are used again.

    It begins with room for `rows` tokens and grows when they are not enough.
    """

    def __init__(
        self, layers: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device, rows: int = 0
    ) -> None:
        self._data = torch.empty((layers, 2, rows, heads, head_dim), dtype=dtype, device=device)
        self._free = list(range(rows))

    @property
    def used(self) -> int:
        """Rows in use."""
        return self._data.shape[2] - len(self._free)

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
class _Block:
    """Consecutive queries of one segment, and the rows that its last one sees."""

    first: int  # packed position of the first query
    count: int
    rows: torch.Tensor  # (before + count,)

    @property
    def before(self) -> int:
        """Rows that all queries see."""
        return len(self.rows) - self.count


@dataclass(frozen=True, slots=True)
class _Group:
    """Blocks of one batched call, padded to Q queries and L rows. The first `shared` rows are seen by all queries."""

    queries: torch.Tensor  # (B, Q) packed positions
    rows: torch.Tensor  # (B, L)
    shared: int
    mask: torch.Tensor  # (B, 1, 1, Q, L - shared) 0 where seen, -inf elsewhere
    real: torch.Tensor | None  # (B, Q) False on padding; None when there is none


class Plan:
    """Which packed token sees which rows, worked out once per forward and used in every layer.

    Attention is written as two products around a softmax because a fused kernel splits its work by the number of
    queries, and so rounds the same token differently in another packing. In bf16 such a difference, once rounded
    across a step of the grid, grows through the layers to some 1e-3 of reward.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        blocks: list[_Block] = []
        position = 0
        for segment in segments:
            before = len(segment.rows) - segment.count
            for start in range(0, segment.count, _BLOCK):
                count = min(_BLOCK, segment.count - start)
                blocks.append(_Block(position + start, count, segment.rows[: before + start + count]))
            position += segment.count
        self._groups = [_group(some, device) for some in _batches(blocks, device)]

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """queries (T, H, D) fp32; keys, values (R, K, D) -> (T, H, D) in the type of the values."""
        heads, kv_heads, dim = queries.shape[1], keys.shape[1], keys.shape[2]
        scaled = (queries * dim**-0.5).unflatten(1, (kv_heads, heads // kv_heads))  # (T, K, G, D), G = H / K
        out = torch.empty_like(scaled, dtype=values.dtype)
        for group in self._groups:
            size, width = group.queries.shape
            q = scaled[group.queries].permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, K, G * Q, D)
            k = keys[group.rows].to(q.dtype).permute(0, 2, 3, 1)  # (B, K, D, L)
            v = values[group.rows].to(q.dtype).transpose(1, 2)  # (B, K, L, D)
            scores = (q @ k).view(size, kv_heads, -1, width, group.rows.shape[1])  # (B, K, G, Q, L)
            scores[..., group.shared :] += group.mask
            weights = scores.softmax(-1).flatten(2, 3)  # (B, K, G * Q, L)
            parts = zip(torch.split(weights, _KEYS, -1), torch.split(v, _KEYS, 2), strict=True)
            o = sum((w @ x for w, x in parts), start=scores.new_zeros(())).to(out.dtype)
            o = o.view(size, kv_heads, -1, width, dim).permute(0, 3, 1, 2, 4)  # (B, Q, K, G, D)
            if group.real is None:
                out[group.queries] = o
            else:
                out[group.queries[group.real]] = o[group.real]
        return out.flatten(1, 2)


def _group(blocks: Sequence[_Block], device: torch.device) -> _Group:
    # At least four queries: products with very few rows take another path, which sums in another order.
    width = max(4, *(block.count for block in blocks))
    first = torch.tensor([block.first for block in blocks], device=device)[:, None]
    count = torch.tensor([block.count for block in blocks], device=device)[:, None]
    before = torch.tensor([block.before for block in blocks], device=device)[:, None]
    offsets = torch.arange(width, device=device).expand(len(blocks), width)
    real = offsets < count  # (B, Q)
    offsets = torch.where(real, offsets, 0)
    rows = torch.nn.utils.rnn.pad_sequence([block.rows for block in blocks], batch_first=True)
    shared = min(block.before for block in blocks)
    hidden = torch.arange(shared, rows.shape[1], device=device) > (before + offsets)[:, :, None]  # (B, Q, L - shared)
    mask = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, -torch.inf)[:, None, None]
    return _Group(first + offsets, rows, shared, mask, None if bool(real.all()) else real)


def _batches(blocks: Sequence[_Block], device: torch.device) -> list[list[_Block]]:
    """On a CPU each block alone, without padding; on a GPU blocks of like length together, for fewer launches."""
    if device.type == "cpu":
        return [[block] for block in blocks]
    batches: list[list[_Block]] = []
    for block in sorted(blocks, key=lambda b: len(b.rows)):
        if batches and (len(batches[-1]) + 1) * _BLOCK * len(block.rows) <= _BATCH_PAIRS:
            batches[-1].append(block)
        else:
            batches.append([block])
    return batches
