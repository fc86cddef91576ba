"""Hugging Face models through transformers, on a GPU or the CPU.

The prompt goes through the model once; its KV is repeated for the candidates of a wave, which then advance one token
a step together. All candidates of a wave have the same length, so nothing is padded or masked; a candidate that ends
leaves the batch. A GPU multiplies matrices of other shapes in another order, so as with every batched engine a nearly
tied token may fall differently when other candidates take part; the same call gives the same text.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import Delta, Sampling, candidate_seed
from dreamprm_cli.policy.stopping import FenceStop
from dreamprm_cli.policy.tokens import prompt_tokens
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import FinishReason, Usage

if TYPE_CHECKING:
    import torch

_SLOTS = {"cuda": 64}
_DEFAULT_SLOTS = 16
# The nucleus is looked for among so many of the likeliest tokens, and among all when they do not hold it.
_WIDTHS = (128, 2048)
_COVERED = 1 - 1e-4  # with top_p of 1, the mass that is enough


class HFPolicy:
    """A causal language model from the hub (`ORG/NAME`) or from a local folder, in bf16 where the machine has it.

    `slots` candidates share a wave (64 on CUDA, else 16). Counters, since opening: `prompt_tokens_decoded`,
    `decode_calls`, `tokens_sampled`.
    """

    prefills = True

    def __init__(
        self, target: str, *, name: str | None = None, device: str | None = None, slots: int | None = None
    ) -> None:
        """`device` in torch's words, by default CUDA when present. Raises PolicyError when nothing can be loaded."""
        self.name = name or f"hf:{target}"
        try:
            import torch
            import transformers
        except ImportError as error:
            raise PolicyError(f"hf: models need transformers ({error})", "pip install 'dreamprm[prm]'") from None
        from dreamprm_cli.prm.backbone import pick_device, pick_dtype

        self._device = torch.device(device) if device else pick_device()
        self._slots = slots or _SLOTS.get(self._device.type, _DEFAULT_SLOTS)
        talk: Any = transformers.utils.logging
        talk.set_verbosity_error()
        talk.disable_progress_bar()
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(target)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(target, torch_dtype=pick_dtype(self._device))
            self._model = model.to(self._device).eval()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise PolicyError(
                f"{self.name} cannot be loaded: {first}",
                "check the name, the network (or HF_HUB_OFFLINE) and the memory",
            ) from error
        self._ends = self._end_tokens()
        self.prompt_tokens_decoded = 0
        self.decode_calls = 0
        self.tokens_sampled = 0

    def _end_tokens(self) -> frozenset[int]:
        ends: set[int] = set()
        for source in (self._tokenizer.eos_token_id, self._model.generation_config.eos_token_id):
            ends.update([source] if isinstance(source, int) else source or ())
        return frozenset(ends)

    def stream(self, prompt: Prompt, indices: Sequence[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """See `Policy.stream`. `prompt.prefill` may be any text; the completion goes on from its last character.

        `tokens` and `logprob` of the deltas count every sampled token, the stop token or fence included.
        Raises PolicyError when the prompt does not fit the model, or the device runs out of memory.
        """
        from transformers import DynamicCache

        if self._model is None:
            raise PolicyError("this policy is closed")
        tokens = prompt_tokens(self._tokenizer, prompt)
        budget = self._budget(len(tokens), sampling.max_tokens)
        if not indices:
            return
        kept = DynamicCache(config=self._model.config)
        first = self._decode([tokens], kept)  # (1, vocabulary)
        self.prompt_tokens_decoded += len(tokens)
        for start in range(0, len(indices), self._slots):
            wave = indices[start : start + self._slots]
            rows = [self._begin(index, prompt.prefill, tokens, sampling) for index in wave]
            cache = copy.deepcopy(kept) if start + self._slots < len(indices) else kept
            cache.batch_repeat_interleave(len(rows))
            yield from self._wave(rows, cache, first.expand(len(rows), -1), sampling, budget)

    def _begin(self, index: int, prefill: str, tokens: Sequence[int], sampling: Sampling) -> _Row:
        import torch

        draws = torch.Generator().manual_seed(candidate_seed(sampling.seed, index))
        return _Row(index, draws, _Detokenizer(self._tokenizer, tokens), FenceStop(prefill))

    def _wave(
        self, rows: list[_Row], cache: Any, logits: torch.Tensor, sampling: Sampling, budget: int
    ) -> Iterator[Delta]:
        """Advance `rows` together to their ends; cache (rows, ...) and logits (rows, vocabulary) are at their start."""
        import torch

        while True:
            uniform = torch.stack([torch.rand((), generator=row.draws, dtype=torch.float64) for row in rows])
            drawn, logprobs = draw(logits, uniform, sampling.temperature, sampling.top_p)
            for row, token, logprob in zip(rows, drawn.tolist(), logprobs.tolist(), strict=True):
                self.tokens_sampled += 1
                yield from row.advance(token, logprob, token in self._ends, budget)
            staying = [place for place, row in enumerate(rows) if not row.finish_reason]
            if not staying:
                return
            if len(staying) < len(rows):
                cache.batch_select_indices(torch.tensor(staying, device=self._device))
                rows = [rows[place] for place in staying]
            logits = self._decode([[row.token] for row in rows], cache)

    def _decode(self, tokens: list[list[int]], cache: Any) -> torch.Tensor:
        """Append tokens (rows, length) to the cache; the logits of the last of each row (rows, vocabulary), fp32."""
        import torch

        self.decode_calls += 1
        try:
            with torch.inference_mode():
                out = self._model(
                    torch.tensor(tokens, device=self._device), past_key_values=cache, use_cache=True, logits_to_keep=1
                )
                return out.logits[:, -1].float()  # type: ignore[no-any-return]
        except torch.OutOfMemoryError as error:
            raise PolicyError(f"{self.name} needs more memory than {self._device} has", "use fewer slots") from error

    def _budget(self, prompt: int, max_tokens: int) -> int:
        trained: int | None = getattr(self._model.config, "max_position_embeddings", None)
        if trained is None:
            return max_tokens
        if prompt >= trained:
            raise PolicyError(
                f"the prompt has {prompt} tokens, the context of {self.name} holds {trained}",
                "shorten the problem statement",
            )
        return min(max_tokens, trained - prompt)

    def usage(self) -> Usage:
        return Usage(self.prompt_tokens_decoded, self.tokens_sampled)

    def close(self) -> None:
        """Let go of the model. The policy cannot be used afterwards; closing twice does no harm."""
        import torch

        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def draw(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token a row by inverting the distribution at `uniform`, and its untempered log-probability in nats.

    logits (rows, vocabulary) fp32; uniform (rows,) fp64 in [0, 1); both results (rows,). The nucleus is the smallest
    set of likeliest tokens whose tempered mass reaches `top_p`. Temperature 0 takes the likeliest token.
    """
    import torch

    untempered = torch.logsumexp(logits, -1)
    if temperature <= 0:
        best = logits.argmax(-1)
        return best, logits.gather(-1, best[:, None])[:, 0] - untempered
    total = torch.logsumexp(logits / temperature, -1, keepdim=True)
    vocabulary = logits.shape[-1]
    for width in (*_WIDTHS, vocabulary):
        width = min(width, vocabulary)
        values, ids = torch.topk(logits, width)  # (rows, width), descending
        mass = (values / temperature - total).double().exp()
        reached = mass.cumsum(-1)
        if width == vocabulary or bool((reached[:, -1] >= min(top_p, _COVERED)).all()):
            break
    nucleus = (reached - mass < top_p) | (torch.arange(width, device=logits.device) == 0)
    reached = (mass * nucleus).cumsum(-1)
    target = uniform.to(logits.device)[:, None] * reached[:, -1:]
    place = torch.searchsorted(reached, target, right=True).clamp(max=nucleus.sum(-1, keepdim=True) - 1)
    return ids.gather(-1, place)[:, 0], values.gather(-1, place)[:, 0] - untempered


class _Detokenizer:
    """Token ids to text, whole characters at a time, with the spaces that the tokenizer puts between words.

    A token's text may depend on the one before it, so each is read in the company of its predecessors.
    """

    def __init__(self, tokenizer: Any, before: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(before[-4:])
        self._told = len(self._ids)  # tokens whose text is out
        self._from = 0  # where reading starts

    def push(self, token: int) -> str:
        self._ids.append(token)
        text = self._fresh()
        if text.endswith("\ufffd"):  # the bytes of a character are not all there
            return ""
        return self._tell(text)

    def finish(self) -> str:
        return self._tell(self._fresh())

    def _fresh(self) -> str:
        return self._text(self._ids[self._from :])[len(self._text(self._ids[self._from : self._told])) :]

    def _tell(self, text: str) -> str:
        if text:
            self._from, self._told = self._told, len(self._ids)
        return text

    def _text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


@dataclass(slots=True)
class _Row:
    """A candidate being written."""

    index: int
    draws: torch.Generator
    text: _Detokenizer
    stop: FenceStop
    token: int = -1
    sampled: int = 0
    finish_reason: FinishReason | None = None
    _pending: list[float] = field(default_factory=list)  # log-probabilities of tokens not yet told in a delta

    def advance(self, token: int, logprob: float, is_end: bool, budget: int) -> Iterator[Delta]:
        """Take the token sampled last and tell what came of it."""
        self.token = token
        self.sampled += 1
        self._pending.append(logprob)
        text = ""
        if is_end:
            self.finish_reason = "stop"
        else:
            text = self.stop.feed(self.text.push(token))
            if self.stop.stopped:
                self.finish_reason = "stop"
            elif self.sampled >= budget:
                self.finish_reason = "length"
        if self.finish_reason:
            text += self.stop.feed(self.text.finish()) + self.stop.finish()
        if text or self.finish_reason:
            yield Delta(self.index, text, sum(self._pending), len(self._pending), self.finish_reason)
            self._pending = []
