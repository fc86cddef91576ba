"""Many problems at once: a Qwen2 decoder on the CPU that keeps every row of its batch busy.

A laptop's matrix units do little more work for 64 rows than for 8, so candidates of many problems share each step; a
finished candidate's row is taken by the next. A prompt is encoded once and its KV copied to its candidates; what it
shares with an earlier prompt (rollouts of one problem, more rollouts of one prefix) is not encoded again. The live
policies stream one problem; this one is for mining programs and rollouts by the thousand. Draws are seeded a candidate,
but sums in bf16 depend on which rows share a batch: the same command gives the same programs only when it is not
interrupted.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm_cli.policy import Sampling, candidate_seed
from dreamprm_cli.types import FinishReason

_TOP_K = 100  # candidates for top-p; the rest of the vocabulary holds under a thousandth of the mass
_KEPT_BYTES = 2 << 30  # of encoded prompts, those used last


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


@dataclass(frozen=True, slots=True, eq=False)
class _Prompt:
    """An encoded prompt: keys and values (layers, groups, T, width), and the logits after it (V)."""

    keys: Tensor
    values: Tensor
    logits: Tensor

    @property
    def bytes(self) -> int:
        return 2 * self.keys.numel() * self.keys.element_size()


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
        self._prompts: OrderedDict[tuple[int, ...], _Prompt] = OrderedDict()

    def run(self, requests: Callable[[], Request | None]) -> Iterator[Completion]:
        """Completions as they finish. A prompt that leaves no room gives empty `length` ones.

        requests: called whenever a row is free; None when there is nothing to do at present. The run ends when the
        rows are empty as well.
        """
        waiting: deque[tuple[Request, int]] = deque()
        live: dict[int, _Row] = {}
        logits: dict[int, Tensor] = {}
        with torch.inference_mode():
            while True:
                for slot in range(self.rows):
                    if slot in live:
                        continue
                    if not waiting and (request := requests()) is not None:
                        waiting.extend((request, index) for index in request.indices)
                    if not waiting:
                        break
                    request, index = waiting.popleft()
                    seed = candidate_seed(request.sampling.seed, index)
                    if len(request.tokens) + request.sampling.max_tokens > self.length:
                        yield Completion(request.key, index, seed, (), 0.0, "length")
                        continue
                    prompt, size = self._prompt(request.tokens), len(request.tokens)
                    self._keys[:, slot, :, :size], self._values[:, slot, :, :size] = prompt.keys, prompt.values
                    live[slot] = _Row(request, index, seed, random.Random(seed), size)
                    logits[slot] = prompt.logits
                if not live and not waiting:
                    return
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

    def _prompt(self, tokens: tuple[int, ...]) -> _Prompt:
        """The encoded prompt; of one that is new, only what follows its longest beginning that is kept."""
        found = self._prompts.pop(tokens, None)
        if found is None:
            shared, parent = max(
                ((_shared(tokens, other), prompt) for other, prompt in self._prompts.items()),
                key=lambda pair: pair[0],
                default=(0, None),
            )
            shared = min(shared, len(tokens) - 1)  # the last token is encoded again: its logits are wanted
            found = self._encode(tokens, shared, parent)
        self._prompts[tokens] = found
        while len(self._prompts) > 1 and sum(prompt.bytes for prompt in self._prompts.values()) > _KEPT_BYTES:
            self._prompts.popitem(last=False)
        return found

    def _encode(self, tokens: Sequence[int], shared: int, parent: _Prompt | None) -> _Prompt:
        """Encode a prompt whose first `shared` tokens are those of `parent`."""
        size = len(tokens)
        x = self._embedding[torch.tensor(tokens[shared:])]
        cos, sin = self._cos[shared:size], self._sin[shared:size]
        seen = torch.ones(size - shared, size, dtype=torch.bool).tril(shared)
        repeat = self._heads // self._groups
        keys, values = [], []
        for number, layer in enumerate(self._layers):
            q, k, v = self._project(layer, x, cos, sin)  # (T, heads, width), (T, groups, width)
            k, v = k.transpose(0, 1), v.transpose(0, 1)
            if parent is not None and shared:
                k = torch.cat([parent.keys[number, :, :shared], k], 1)
                v = torch.cat([parent.values[number, :, :shared], v], 1)
            keys.append(k)
            values.append(v)
            # A batch of one: without that dimension the fused kernel, ten times as quick, is not taken.
            mixed = F.scaled_dot_product_attention(
                q.transpose(0, 1)[None],
                k.repeat_interleave(repeat, 0)[None],
                v.repeat_interleave(repeat, 0)[None],
                attn_mask=seen,
            )
            x = self._finish(layer, x, mixed[0].transpose(0, 1).reshape(size - shared, -1))
        return _Prompt(torch.stack(keys), torch.stack(values), self._logits(x[-1:])[0])

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


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts begin with in common."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def open_decoder(name: str, rows: int = 96, length: int = 2048) -> tuple[Decoder, Any]:
    """The decoder and tokenizer (of `tokenizers`) of a registry model or `gguf:PATH`, fetched when it is missing.

    It computes in bf16 where the processor multiplies it natively, else in fp32 (several times quicker than emulation).
    A completion ends at the end of the turn or at a token with a code fence in it.
    """
    import json
    from pathlib import Path

    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    from dreamprm_cli import models
    from dreamprm_cli.models.gguf import read_gguf
    from dreamprm_cli.prm.backbone import pick_dtype
    from dreamprm_cli.prm.source import locate_backbone

    source = locate_backbone(name)
    dtype = pick_dtype(torch.device("cpu"))
    weights = {key: value.to(dtype) for key, value in load_file(source.folder / "model.safetensors").items()}
    gguf = Path(name.removeprefix("gguf:")) if name.endswith(".gguf") else models.ensure(name)
    tensors = read_gguf(gguf).tensors
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    weights["lm_head.weight"] = torch.from_numpy(head.values()).to(dtype)
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
