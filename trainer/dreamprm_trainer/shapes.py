"""How large a model is, from its shape: what a price, a disk and a memory need to know, without its weights.

Biases and norms are left out: they are a thousandth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of the Qwen family. heads, kv: width of all query heads, of all key heads; wide: of the MLP.

    experts, used: MLPs a layer has, and those that a token goes through; tied: input and output embedding are one.
    """

    hidden: int
    layers: int
    heads: int
    kv: int
    wide: int
    vocabulary: int
    experts: int = 1
    used: int = 1
    tied: bool = True

    @property
    def total(self) -> int:
        """All parameters."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * (self._attention + self.experts * self._mlp)

    def read(self, depth: int | None = None) -> int:
        """Parameters that a token meets in the first `depth` layers (default: all), without the output embedding."""
        return (self.layers if depth is None else depth) * (self._attention + self.used * self._mlp)

    @property
    def written(self) -> int:
        """Parameters that a token meets when the next is to be written."""
        return self.read() + self.vocabulary * self.hidden

    def low_rank(self, rank: int, targets: Sequence[str], depth: int) -> int:
        """Parameters of a LoRA adapter on `targets` of `depth` layers."""
        sizes = {
            "q_proj": self.hidden + self.heads, "k_proj": self.hidden + self.kv, "v_proj": self.hidden + self.kv,
            "o_proj": self.heads + self.hidden, "gate_proj": self.hidden + self.wide,
            "up_proj": self.hidden + self.wide, "down_proj": self.wide + self.hidden,
        }  # fmt: skip
        return depth * rank * sum(sizes[target] for target in targets)

    @property
    def kv_bytes(self) -> int:
        """Of one token's keys and values in 16 bits."""
        return self.layers * 2 * self.kv * 2

    @property
    def _attention(self) -> int:
        return 2 * self.hidden * (self.heads + self.kv)

    @property
    def _mlp(self) -> int:
        router = self.hidden if self.experts > 1 else 0
        return 3 * self.hidden * self.wide + router


# The `config.json` of each, as its makers published it.
SHAPES: Mapping[str, Shape] = {
    "qwen2.5-coder-0.5b": Shape(896, 24, 896, 128, 4864, 151_936),
    "qwen2.5-coder-1.5b": Shape(1536, 28, 1536, 256, 8960, 151_936),
    "qwen2.5-coder-3b": Shape(2048, 36, 2048, 256, 11_008, 151_936),
    "qwen3-coder-30b-a3b": Shape(2048, 48, 4096, 512, 768, 151_936, experts=128, used=8, tied=False),
}


def shape_of(spec: str) -> Shape | None:
    """The shape of a model known by name, or of a folder with a `config.json`; None where it cannot be told."""
    if spec in SHAPES:
        return SHAPES[spec]
    try:
        config = json.loads((Path(spec) / "config.json").read_text(encoding="utf-8"))
        return _of_config(config)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_config(config: Mapping[str, Any]) -> Shape:
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    experts = int(config.get("num_experts") or 1)
    return Shape(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=head * config["num_attention_heads"],
        kv=head * config["num_key_value_heads"],
        wide=config["moe_intermediate_size"] if experts > 1 else config["intermediate_size"],
        vocabulary=config["vocab_size"],
        experts=experts,
        used=int(config.get("num_experts_per_tok") or 1),
        tied=bool(config.get("tie_word_embeddings", False)),
    )
