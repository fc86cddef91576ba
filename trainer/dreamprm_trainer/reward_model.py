"""The reward model as it is trained: transformers' Qwen2, low-rank or full, and a linear head on its states.

It reads what the live scorer reads (`dreamprm_cli.prm.backbone`): the residual stream in fp32, the states of the chosen
layers under the final norm. Parameters that are trained are fp32; those that are not have the type that is computed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.source import BackboneSource
from dreamprm_trainer.tree_attention import NAME, Batch, attend
from dreamprm_trainer.tune_settings import TuneSettings


class RewardModel(nn.Module):
    """Packed trees -> logits where they are read."""

    def __init__(self, backbone: Any, settings: TuneSettings, head: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.layers, self.first = settings.layers, settings.frozen_below
        self.checkpointing, self.dtype = settings.checkpointing, dtype

    @property
    def qwen(self) -> Any:
        """transformers' model, whether PEFT has wrapped it or not."""
        return self.backbone.get_base_model() if hasattr(self.backbone, "get_base_model") else self.backbone

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def forward(self, batch: Batch, below: Tensor | None = None) -> Tensor:
        """Logits (R,). below: (T, C) state after layer `frozen_below`, where that is not 0."""
        states: dict[int, Tensor] = {}
        last = max(self.layers)
        with self._precision(batch):
            start = self._embedded(batch) if below is None else below.float()
            for number, x in self._run(start, batch, self.first, last - 1):
                if number in self.layers:
                    states[number] = self.qwen.norm(x[batch.reads])
            states[last] = self.qwen.norm(self._kept(self._top, x, batch))
        logits: Tensor = self.head(torch.cat([states[number] for number in self.layers], dim=1).float())
        return logits.squeeze(1)

    @torch.no_grad()
    def below(self, batch: Batch) -> Tensor:
        """(T, C) fp32 state after layer `frozen_below`."""
        with self._precision(batch):
            for _, state in self._run(self._embedded(batch), batch, 0, self.first):
                last = state
        return last

    def forget_below(self) -> None:
        """Free the layers under `frozen_below`; their output is cached by now."""
        if self.first:
            self.qwen.embed_tokens = nn.Identity()
            for number in range(self.first):
                self.qwen.layers[number] = nn.Identity()

    def _embedded(self, batch: Batch) -> Tensor:
        x: Tensor = self.qwen.embed_tokens(batch.ids).float()
        return x

    def _precision(self, batch: Batch) -> torch.autocast:
        return torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def _run(self, x: Tensor, batch: Batch, first: int, last: int) -> Iterator[tuple[int, Tensor]]:
        """(layers done, state (T, C)) from `first` to `last`, both included."""
        rotation = self.qwen.rotary_emb(x[None], batch.positions[None])
        yield first, x
        for number in range(first, last):
            layer = self.qwen.layers[number]
            x = self._kept(
                lambda x, layer=layer: layer(x[None], position_embeddings=rotation, groups=batch.groups)[0], x
            )
            yield number + 1, x

    def _top(self, x: Tensor, batch: Batch) -> Tensor:
        """The last layer, (T, C) -> (R, C): of tokens that are not read, keys and values are all that is needed."""
        layer = self.qwen.layers[max(self.layers) - 1]
        attention, reads = layer.self_attn, batch.reads
        h = layer.input_layernorm(x)
        cos, sin = self.qwen.rotary_emb(x[None], batch.positions[None])

        def heads(projected: Tensor) -> Tensor:
            return projected.view(len(projected), -1, attention.head_dim).transpose(0, 1)[None]

        q, k, v = heads(attention.q_proj(h[reads])), heads(attention.k_proj(h)), heads(attention.v_proj(h))
        q, _ = apply_rotary_pos_emb(q, q, cos[:, reads], sin[:, reads])
        k, _ = apply_rotary_pos_emb(k, k, cos, sin)
        seen, _ = attend(attention, q, k, v, None, scaling=attention.scaling, groups=batch.read_groups)
        x = x[reads] + attention.o_proj(seen[0].flatten(1))
        out: Tensor = x + layer.mlp(layer.post_attention_layernorm(x))
        return out

    def _kept(self, part: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """A part of the forward; with `checkpointing` its activations are computed again when they are needed."""
        if not self.checkpointing or not torch.is_grad_enabled():
            return part(*inputs)
        again: Tensor = checkpoint(part, *inputs, use_reentrant=False)
        return again


def build(
    source: BackboneSource, settings: TuneSettings, head: Head | None, dtype: torch.dtype, device: torch.device
) -> RewardModel:
    """Open the backbone with parameters to train; `settings.seed` decides where they start.

    Raises ConfigError where settings and backbone do not fit.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Model
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    full, depth = settings.params == "full", max(settings.layers)
    qwen: Any = Qwen2Model.from_pretrained(
        source.folder, dtype=torch.float32 if full else dtype, attn_implementation=NAME
    )
    if depth > len(qwen.layers):
        raise ConfigError(f"{source.name} has {len(qwen.layers)} layers, not {depth}", "check `layers` in the recipe")
    del qwen.layers[depth:]
    qwen.config.num_hidden_layers = depth
    width = len(settings.layers) * qwen.config.hidden_size
    if head is not None and head.weight.shape != (width,):
        raise ConfigError(f"the head to start from has {head.weight.size} weights, not {width}")
    backbone = qwen
    if full:
        for number, layer in enumerate(qwen.layers):
            layer.requires_grad_(number >= settings.frozen_below)
        qwen.embed_tokens.requires_grad_(not settings.frozen_below)
    else:
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=list(settings.targets),
            layers_to_transform=list(range(settings.frozen_below, depth)),
            layers_pattern="layers",
        )
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            backbone = get_peft_model(qwen, lora)
    return RewardModel(backbone, settings, _linear(head, width), dtype).to(device)


def _linear(head: Head | None, width: int) -> nn.Linear:
    """The head with its calibration folded in; zeros without one."""
    linear = nn.Linear(width, 1)
    with torch.no_grad():
        weight = np.zeros(width, np.float32) if head is None else head.weight / head.temperature
        linear.weight.copy_(torch.from_numpy(weight.astype(np.float32))[None])
        linear.bias.fill_(0.0 if head is None else head.bias / head.temperature + head.offset)
    return linear
