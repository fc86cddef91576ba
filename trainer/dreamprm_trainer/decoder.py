"""Many problems at once: a Qwen2 decoder in bf16 that keeps every row of its batch busy.

A laptop's bf16 matrix units do little more work for 64 rows than for 8, so candidates of many problems share each
step; a finished candidate's row is taken by the next. A prompt is encoded once and its KV copied to its candidates.
The live policies stream one problem; this one is for mining programs and rollouts by the thousand. Draws are seeded
a candidate, but bf16 sums depend on which rows share a batch: the same command gives the same programs only when it
is not interrupted.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm_cli.policy import Sampling, candidate_seed
from dreamprm_cli.types import FinishReason

_TOP_K = 100  # candidates for top-p; the rest of the vocabulary holds under a thousandth of the mass


@dataclass(frozen=True, slots=True)
class Request:
    """Complete `tokens` once for each index; `key` comes back with every completion."""

    key: str
    tokens: tuple[int, ...]
    indices: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Completion:
    """`logprob` sums the untempered log-probabilities of `tokens`, in nats."""

    key: str
    index: int
    seed: int
    tokens: tuple[int, ...]
    logprob: float
    finish_reason: FinishReason


@dataclass(slots=True)
class _Row:
    """A candidate under way in one row of the batch. `position` is that of the next token to encode."""

    request: Request
    index: int
    seed: int
    draw: random.Random
    position: int
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0


class Decoder:
    """A causal Qwen2 model with a KV cache of `rows` x `length` slots, in the dtype of its weights.

    weights: Hugging Face names without `model.`, and the LM head as `lm_head.weight`; config: that of config.json.
    ends:    token ids that end a completion; they are not part of it, but counted in its logprob.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        config: dict[str, Any],
        ends: frozenset[int],
        rows: int = 96,
        length: int = 2048,
    ) -> None:
        self.ends, self.rows, self.length = ends, rows, length
        self._eps: float = config["rms_norm_eps"]
        self._heads: int = config["num_attention_heads"]
        self._groups: int = config["num_key_value_heads"]
        self._width: int = config["hidden_size"] // self._heads
        self._embedding = weights["embed_tokens.weight"]
        self._norm = weights["norm.weight"]
        self._head = weights["lm_head.weight"]
        self._layers = [_layer(weights, f"layers.{n}") for n in range(config["num_hidden_layers"])]
        shape = (len(self._layers), rows, self._groups, length, self._width)
        self._keys = torch.zeros(shape, dtype=self._embedding.dtype)
        self._values = torch.zeros(shape, dtype=self._embedding.dtype)
        frequency = config["rope_theta"] ** -(torch.arange(0, self._width, 2).float() / self._width)
        angles = torch.arange(length).float()[:, None] * frequency  # (length, width / 2)
        self._cos, self._sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def run(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Completions of all requests, as they finish. A prompt that leaves no room gives empty `length` ones."""
        waiting = deque((request, index) for request in requests for index in request.indices)
        prompt: tuple[Request, Tensor, Tensor, Tensor] | None = None  # the last one encoded: keys, values, logits
        live: dict[int, _Row] = {}
        logits: dict[int, Tensor] = {}
        with torch.inference_mode():
            while waiting or live:
                for slot in range(self.rows):
                    if not waiting or slot in live:
                        continue
                    request, index = waiting.popleft()
                    seed = candidate_seed(request.sampling.seed, index)
                    if len(request.tokens) + request.sampling.max_tokens > self.length:
                        yield Completion(request.key, index, seed, (), 0.0, "length")
                        continue
                    if prompt is None or prompt[0] is not request:
                        prompt = (request, *self._encode(request.tokens))
                    size = len(request.tokens)
                    self._keys[:, slot, :, :size], self._values[:, slot, :, :size] = prompt[1], prompt[2]
                    live[slot] = _Row(request, index, seed, random.Random(seed), size)
                    logits[slot] = prompt[3]
                if not live:
                    continue
                slots = sorted(live)
                for slot, (token, logprob) in zip(
                    slots, self._draw([live[s] for s in slots], torch.stack([logits[s] for s in slots])), strict=True
                ):
                    row = live[slot]
                    row.logprob += logprob
                    ended = token in self.ends
                    if not ended:
                        row.tokens.append(token)
                    if ended or len(row.tokens) >= row.request.sampling.max_tokens:
                        reason: FinishReason = "stop" if ended else "length"
                        yield Completion(row.request.key, row.index, row.seed, tuple(row.tokens), row.logprob, reason)
                        del live[slot]
                slots = sorted(live)
                if slots:
                    logits = dict(zip(slots, self._step(slots, live), strict=True))

    def _draw(self, rows: Sequence[_Row], logits: Tensor) -> list[tuple[int, float]]:
        """A token for each row and its untempered log-probability; logits (R, V)."""
        top, ids = logits.float().topk(_TOP_K, dim=-1)  # (R, K), sorted
        # The fused kernel is ten times faster than logsumexp, and exact enough at the likeliest token.
        total = top[:, 0] - logits.log_softmax(-1).gather(-1, ids[:, :1])[:, 0].float()
        drawn = []
        for row, values, tokens, norm in zip(rows, top.tolist(), ids.tolist(), total.tolist(), strict=True):
            sampling = row.request.sampling
            if sampling.temperature <= 0:
                pick = 0
            else:
                weights = [math.exp((value - values[0]) / sampling.temperature) for value in values]
                mass, kept = sum(weights), 0.0
                nucleus = []
                for weight in weights:
                    nucleus.append(weight)
                    kept += weight
                    if kept >= sampling.top_p * mass:
                        break
                pick = row.draw.choices(range(len(nucleus)), nucleus)[0]
            drawn.append((tokens[pick], values[pick] - norm))
        return drawn

    def _encode(self, tokens: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (layers, groups, T, width) of a prompt, and the logits after it (V)."""
        size = len(tokens)
        x = self._embedding[torch.tensor(tokens)]
        cos, sin = self._cos[:size], self._sin[:size]
        keys, values = [], []
        for layer in self._layers:
            q, k, v = self._project(layer, x, cos, sin)  # (T, heads, width), (T, groups, width)
            keys.append(k.transpose(0, 1))
            values.append(v.transpose(0, 1))
            repeat = self._heads // self._groups
            mixed = F.scaled_dot_product_attention(
                q.transpose(0, 1),
                keys[-1].repeat_interleave(repeat, 0),
                values[-1].repeat_interleave(repeat, 0),
                is_causal=True,
            )
            x = self._finish(layer, x, mixed.transpose(0, 1).reshape(size, -1))
        return torch.stack(keys), torch.stack(values), self._logits(x[-1:])[0]

    def _step(self, slots: Sequence[int], live: dict[int, _Row]) -> Tensor:
        """Encode each live row's last token; logits (R, V) after it."""
        at = [live[slot].position for slot in slots]
        x = self._embedding[torch.tensor([live[slot].tokens[-1] for slot in slots])]
        where, positions = torch.tensor(slots), torch.tensor(at)
        cos, sin = self._cos[positions], self._sin[positions]
        longest = max(at) + 1
        seen = (torch.arange(longest) <= positions[:, None])[:, None, None]  # (R, 1, 1, L)
        whole = len(slots) == self.rows
        for number, layer in enumerate(self._layers):
            q, k, v = self._project(layer, x, cos, sin)
            self._keys[number, where, :, positions] = k
            self._values[number, where, :, positions] = v
            keys, values = self._keys[number, :, :, :longest], self._values[number, :, :, :longest]
            if not whole:
                keys, values = keys[where], values[where]
            # The heads of a group stand where a fused kernel expects queries: no key is copied for its heads.
            query = q.view(len(slots), self._groups, -1, self._width)  # (R, groups, heads / group, width)
            mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
            x = self._finish(layer, x, mixed.reshape(len(slots), -1))
        for slot in slots:
            live[slot].position += 1
        return self._logits(x)

    def _project(self, layer: dict[str, Tensor], x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys and values of x (T, hidden)."""
        mixed = F.linear(self._scale(x, layer["input"]), layer["qkv"], layer["qkv_bias"])
        mixed = mixed.view(len(x), self._heads + 2 * self._groups, self._width)
        turned, v = mixed[:, : self._heads + self._groups].float(), mixed[:, self._heads + self._groups :]
        left, right = turned.chunk(2, -1)
        turned = turned * cos[:, None] + torch.cat((-right, left), -1) * sin[:, None]
        return turned[:, : self._heads].to(x.dtype), turned[:, self._heads :].to(x.dtype), v

    def _finish(self, layer: dict[str, Tensor], x: Tensor, mixed: Tensor) -> Tensor:
        """Attention output and the MLP, each added to the residual stream."""
        x = x + F.linear(mixed, layer["out"])
        gate, up = F.linear(self._scale(x, layer["post"]), layer["gate_up"]).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, layer["down"])

    def _scale(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), self._eps).to(x.dtype)

    def _logits(self, x: Tensor) -> Tensor:
        return F.linear(self._scale(x, self._norm), self._head)


def open_decoder(name: str, rows: int = 96, length: int = 2048) -> tuple[Decoder, Any]:
    """The decoder and tokenizer (of `tokenizers`) of a registry model or `gguf:PATH`, fetched when it is missing.

    A completion ends at the end of the turn or at a token with a code fence in it.
    """
    import json
    from pathlib import Path

    from gguf import GGUFReader, dequantize
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    from dreamprm_cli import models
    from dreamprm_cli.prm.source import locate_backbone

    source = locate_backbone(name)
    weights = load_file(source.folder / "model.safetensors")
    gguf = Path(name.removeprefix("gguf:")) if name.endswith(".gguf") else models.ensure(name)
    tensors = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    weights["lm_head.weight"] = torch.tensor(dequantize(head.data, head.tensor_type)).to(torch.bfloat16)
    tokenizer = Tokenizer.from_file(str(source.folder / "tokenizer.json"))
    stops = {"<|im_end|>", "<|endoftext|>"}
    ends = frozenset(number for token, number in tokenizer.get_vocab().items() if token in stops or "```" in token)
    config = json.loads((source.folder / "config.json").read_text())
    return Decoder(weights, config, ends, rows, length), tokenizer


def _layer(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of one layer, those that read the same input joined."""
    three = [f"{name}.self_attn.{letter}_proj" for letter in "qkv"]
    dtype = weights["embed_tokens.weight"].dtype
    return {
        "input": weights[f"{name}.input_layernorm.weight"],
        "post": weights[f"{name}.post_attention_layernorm.weight"],
        "qkv": torch.cat([weights[f"{one}.weight"] for one in three]),
        "qkv_bias": torch.cat([weights[f"{one}.bias"] for one in three]).to(dtype),
        "out": weights[f"{name}.self_attn.o_proj.weight"],
        "gate_up": torch.cat([weights[f"{name}.mlp.gate_proj.weight"], weights[f"{name}.mlp.up_proj.weight"]]),
        "down": weights[f"{name}.mlp.down_proj.weight"],
    }
