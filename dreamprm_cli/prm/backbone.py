"""Qwen2 as a reward model needs it: the lower layers, no LM head, many sequences packed into one forward.

Written out (RMSNorm, biased QKV, rotary positions, grouped-query attention, SwiGLU) instead of going through
transformers, for three reasons: it loads without importing transformers (seconds), it packs sequences that share a
prefix without padding, and it keeps the residual stream, norms, rotation and attention in fp32 around bf16 matrix
products, so that a token's states do not depend on what it was packed with. Tests hold it to transformers' own model.

Shapes: T packed tokens, C hidden size, H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.prm.adapter import LowRank
from dreamprm_cli.prm.attention import Arena, Plan
from dreamprm_cli.prm.shape import Qwen2Shape, read_shape
from dreamprm_cli.prm.source import REMAKE, BackboneSource
from dreamprm_cli.prm.tokens import read_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

_ROWS = 64  # of a block on AMX: a function has about as many tokens
_OTHER_ADAPTER = "the adapter belongs to another backbone"


@dataclass(frozen=True, slots=True)
class _Update:
    """A `LowRank` on the device."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class _Linear:
    weight: torch.Tensor  # (out, in)
    bias: torch.Tensor | None
    update: _Update | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = _product(x, self.weight, self.bias)
        if self.update is not None:
            # Kept beside the weight: added into bf16 weights, small updates would be rounded away.
            y = y + _product(_product(x, self.update.down), self.update.up) * self.update.scale
        return y


@cache
def _amx() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(T, in) -> (T, out), each row as if it were alone.

    On AMX the number of rows decides in which order bf16 products are summed, and rewards would differ by a hundredth
    with what is scored together. So there it is always the same number.
    """
    if x.dtype != torch.bfloat16 or x.device.type != "cpu" or not _amx():
        return F.linear(x, weight, bias)
    count = len(x)
    blocks = torch.split(F.pad(x, (0, 0, 0, -count % _ROWS)), _ROWS)
    return torch.cat([F.linear(block, weight, bias) for block in blocks])[:count]


@dataclass(frozen=True, slots=True)
class _Layer:
    norm1: torch.Tensor
    q: _Linear
    k: _Linear
    v: _Linear
    o: _Linear
    norm2: torch.Tensor
    gate: _Linear
    up: _Linear
    down: _Linear


class Backbone:
    """The first layers of a Qwen2 model. Open with `load_backbone`."""

    def __init__(
        self,
        source: BackboneSource,
        shape: Qwen2Shape,
        tensors: Mapping[str, torch.Tensor],
        tokenizer: Tokenizer,
        *,
        depth: int,
        dtype: torch.dtype,
        device: torch.device,
        adapter: Mapping[str, LowRank] | None = None,
    ) -> None:
        self.source, self.shape, self.tokenizer = source, shape, tokenizer
        self.depth, self.dtype, self.device = depth, dtype, device
        updates = dict(adapter or {})

        def placed(values: NDArray[np.float32]) -> torch.Tensor:
            return torch.tensor(values).to(device, dtype)

        def linear(name: str, rows: int, columns: int) -> _Linear:
            weight, bias, low = tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), updates.pop(name, None)
            if tuple(weight.shape) != (rows, columns):
                raise CheckpointError(f"{source.folder}: {name} has shape {tuple(weight.shape)}", REMAKE)
            if low is not None and (low.down.shape[1], low.up.shape[0]) != (columns, rows):
                raise CheckpointError(f"the adapter's update of {name} has the wrong shape", _OTHER_ADAPTER)
            return _Linear(
                weight.to(device, dtype),
                None if bias is None else bias.to(device, dtype),
                None if low is None else _Update(placed(low.down), placed(low.up), low.scale),
            )

        def norm(name: str) -> torch.Tensor:
            return tensors[f"{name}.weight"].to(device, torch.float32)

        self._embed = tensors["embed_tokens.weight"].to(device)
        self._norm = norm("norm")
        c, q, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self._layers = [
            _Layer(
                norm1=norm(f"layers.{i}.input_layernorm"),
                q=linear(f"layers.{i}.self_attn.q_proj", q, c),
                k=linear(f"layers.{i}.self_attn.k_proj", kv, c),
                v=linear(f"layers.{i}.self_attn.v_proj", kv, c),
                o=linear(f"layers.{i}.self_attn.o_proj", c, q),
                norm2=norm(f"layers.{i}.post_attention_layernorm"),
                gate=linear(f"layers.{i}.mlp.gate_proj", shape.inner, c),
                up=linear(f"layers.{i}.mlp.up_proj", shape.inner, c),
                down=linear(f"layers.{i}.mlp.down_proj", c, shape.inner),
            )
            for i in range(depth)
        ]
        if updates:
            raise CheckpointError(
                f"the adapter changes {sorted(updates)[0]}, not a map of the backbone's first {depth} layers",
                _OTHER_ADAPTER,
            )
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32, device=device)
        self._frequencies = shape.rope_theta ** -(half / shape.head_dim)  # (D/2,)

    def arena(self, rows: int = 0) -> Arena:
        """An empty cache that fits this backbone, with room for `rows` tokens to begin with."""
        return Arena(self.depth, self.shape.kv_heads, self.shape.head_dim, self.dtype, self.device, rows)

    @property
    def token_bytes(self) -> int:
        """Size of a token's keys and values."""
        return self.depth * 2 * self.shape.kv_heads * self.shape.head_dim * self.dtype.itemsize

    @torch.inference_mode()
    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        rows: torch.Tensor,
        arena: Arena,
        plan: Plan,
        read: torch.Tensor,
        layers: Sequence[int],
    ) -> torch.Tensor:
        """Run packed tokens, write their keys and values to the arena, return the states that heads read.

        ids, positions, rows: (T,). read: (N,) packed positions. layers: counted from 1, each at most `depth`.
        Returns (N, len(layers) * C) fp32: the state after each layer under the model's final RMSNorm, so that
        the last layer's is what transformers calls `last_hidden_state`.
        """
        shape, eps = self.shape, (self.shape.hidden,)
        x = F.embedding(ids, self._embed).float()  # (T, C)
        angles = positions[:, None].float() * self._frequencies
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]  # (T, 1, D/2)
        states: dict[int, torch.Tensor] = {}
        for index, layer in enumerate(self._layers[: max(layers)]):
            h = F.rms_norm(x, eps, layer.norm1, shape.eps).to(self.dtype)
            q = _rotate(layer.q(h).view(-1, shape.heads, shape.head_dim).float(), cos, sin)
            k = _rotate(layer.k(h).view(-1, shape.kv_heads, shape.head_dim).float(), cos, sin)
            v = layer.v(h).view(-1, shape.kv_heads, shape.head_dim)
            arena.write(index, rows, k, v)
            x += layer.o(plan.attend(q, *arena.layer(index)).flatten(1))
            h = F.rms_norm(x, eps, layer.norm2, shape.eps).to(self.dtype)
            x += layer.down(F.silu(layer.gate(h), inplace=True).mul_(layer.up(h)))
            if index + 1 in layers:
                states[index + 1] = F.rms_norm(x[read], eps, self._norm, shape.eps)
        return torch.cat([states[number] for number in layers], dim=1)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding, halves paired as in transformers. x (T, heads, D); cos, sin (T, 1, D/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the machine multiplies it natively, fp32 elsewhere (emulated bf16 is slower than fp32)."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    cpu = torch.cpu
    native = any(getattr(cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.bfloat16 if native else torch.float32


def load_backbone(
    source: BackboneSource,
    *,
    depth: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    adapter: Mapping[str, LowRank] | None = None,
) -> Backbone:
    """Map the first `depth` layers (default all) of the model in `source.folder`. Raises CheckpointError."""
    device = device or pick_device()
    dtype = dtype or pick_dtype(device)
    shape, tokenizer = read_shape(source.folder), read_tokenizer(source.folder)
    depth = shape.layers if depth is None else depth
    if not 1 <= depth <= shape.layers:
        raise CheckpointError(f"the backbone has {shape.layers} layers, not {depth}", "check `layers` in dreamprm.json")
    try:
        tensors = read_tensors(source.folder, depth)
        return Backbone(source, shape, tensors, tokenizer, depth=depth, dtype=dtype, device=device, adapter=adapter)
    except KeyError as error:
        raise CheckpointError(f"the backbone in {source.folder} lacks the tensor {error}", REMAKE) from None


def read_tensors(folder: Path, depth: int) -> dict[str, torch.Tensor]:
    """Tensors of the first layers, mapped, not read. A `model.` prefix is dropped, other parts are not opened."""
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    name = key.removeprefix("model.")
                    parts = name.split(".")
                    if parts[0] in ("embed_tokens", "norm") or (parts[0] == "layers" and int(parts[1]) < depth):
                        tensors[name] = file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged: {error}", REMAKE) from None
    return tensors
