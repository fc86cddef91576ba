"""The shape of a Qwen2 network, as its `config.json` tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.prm.source import REMAKE


@dataclass(frozen=True, slots=True)
class Qwen2Shape:
    """What `config.json` says about the network."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope_theta: float
    max_positions: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Qwen2Shape:
        """Raises CheckpointError for another architecture or a variant that is not handled."""
        if config.get("model_type") != "qwen2":
            raise CheckpointError(
                f"the backbone is a {config.get('model_type')} model", "the reward model needs a Qwen2.5 (qwen2) model"
            )
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default" or config.get("use_sliding_window") or config.get("hidden_act", "silu") != "silu":
            raise CheckpointError(
                f"the backbone uses rope {kind!r}, a sliding window or another activation", "use a plain Qwen2.5 model"
            )
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return cls(
            hidden=hidden,
            inner=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config["num_key_value_heads"]),
            head_dim=int(config.get("head_dim") or hidden // heads),
            eps=float(config["rms_norm_eps"]),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            max_positions=int(config["max_position_embeddings"]),
        )


def read_shape(folder: Path) -> Qwen2Shape:
    """Of the backbone in a Hugging Face folder. Raises CheckpointError."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return Qwen2Shape.of(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read the backbone in {folder}: {error}", REMAKE) from None
