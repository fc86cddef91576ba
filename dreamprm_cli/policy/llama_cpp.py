"""GGUF models through llama.cpp: one prompt decoded once, many candidates written together.

The prompt goes through the model once, into sequence 0. Its KV is copied to a sequence per slot, every step
decodes one token of all live candidates in one batch, and a candidate that ends hands its slot to the next.
The prompt stays until the next call, which decodes only what differs from it.

Reproducible: the same file, machine, library, thread and slot counts, prompt, indices and sampling give the same
text, whatever was asked before. A candidate's random numbers depend on its own seed alone and every sequence has
KV of its own. What is left is that matrix kernels round differently for other batch sizes, so where two tokens are
nearly tied, a call for *other* indices may write another program for the same index.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.models.llama_cpp import Batch, library, load_model, physical_cores
from dreamprm_cli.policy import Delta, Sampling, candidate_seed
from dreamprm_cli.policy.stopping import FenceStop
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import FinishReason, Usage

DEFAULT_SLOTS = 16
# Prompt tokens per decode call. Calls start at multiples of it, and only whole chunks of an earlier prompt are kept:
# so every chunk is always computed in the same batch, and gives the same bits, be it kept or decoded anew.
_CHUNK = 128
_ROUND = 512  # contexts are opened for multiples of so many tokens, so that few prompts need a new one
_TAIL = 1e-4  # see _Sampler
_LEAST = (1e-4, 1e-6, 1e-8, 0.0)  # weights relative to the likeliest token's, from which on tokens are offered


class LlamaCppPolicy:
    """A GGUF model on this machine.

    `slots` candidates are written at once. `context` caps the tokens of a prompt and its completion, by default
    at what the model was trained for. One stream at a time. Counters, since opening:
    `prompt_tokens_decoded`, `decode_calls` (steps and prompt chunks), `tokens_sampled`.
    """

    prefills = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        slots: int | None = None,
        threads: int | None = None,
        context: int | None = None,
    ) -> None:
        """Raises PolicyError when llama-cpp-python is missing or the file is not a model it can load."""
        self._model_path = Path(path)
        self.name = name or f"gguf:{path}"
        self._slots = slots or DEFAULT_SLOTS
        self._threads = threads or physical_cores()
        self._context_cap = context
        try:
            self._lib = library()
        except ImportError as error:
            raise PolicyError(
                f"gguf: models need llama-cpp-python ({error})", "pip install 'dreamprm[local]'"
            ) from None
        self._model = self._load()
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self._vocab_size: int = self._lib.llama_vocab_n_tokens(self._vocab)
        self._context: Any = None
        self._shape = (0, 0)  # tokens a sequence, sequences
        self._prompt: list[int] = []  # what sequence 0 holds
        self._first_logits: Any = None  # (vocabulary,), after the last token of the prompt
        self._pieces: dict[int, bytes] = {}
        self._streaming = False
        self._closed = False
        self._gate = threading.Lock()  # a policy may be closed from another thread than the one that streams
        self.prompt_tokens_decoded = 0
        self.decode_calls = 0
        self.tokens_sampled = 0

    def _load(self) -> Any:
        if not self._model_path.is_file():
            raise PolicyError(f"no model file at {self._model_path}", "fetch one with `dreamprm models pull`")
        model = load_model(self._lib, self._model_path)
        if model is None:
            raise PolicyError(
                f"{self._model_path} is not a GGUF model that this llama.cpp can load",
                "the file may be damaged or newer than llama-cpp-python: fetch it again, or upgrade the package",
            )
        return model

    def stream(self, prompt: Prompt, indices: Sequence[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """See `Policy.stream`. `prompt.prefill` may be any text; the completion goes on from its last character.

        `tokens` and `logprob` of the deltas count every sampled token, the stop token or fence included.
        A candidate that reaches `max_tokens`, or the end of the context, finishes with "length".
        Raises PolicyError when the prompt does not fit the model's context.
        """
        with self._gate:
            self._check_open()
            if self._streaming:
                raise PolicyError("this policy is still writing; close the first stream before the next")
            self._streaming = True
        live: dict[int, _Live] = {}  # by slot; sequence = slot + 1
        try:
            tokens = self._tokenize(prompt)
            budget = self._budget(len(tokens), sampling.max_tokens)
            waiting = list(indices)
            slots = min(self._slots, len(waiting))
            if not slots:
                return
            self._open_context(len(tokens) + budget, slots + 1)
            self._decode_prompt(tokens)
            memory = self._lib.llama_get_memory(self._context)
            batch = Batch(self._lib, slots)
            while waiting or live:
                for slot in range(slots):
                    while waiting and slot not in live:
                        self._check_open()
                        index = waiting.pop(0)
                        sampler = _Sampler(self._lib, sampling, candidate_seed(sampling.seed, index))
                        live[slot] = _Live(index, sampler, FenceStop(prompt.prefill), len(tokens), budget)
                        self._lib.llama_memory_seq_cp(memory, 0, slot + 1, -1, -1)
                        yield from self._advance(live[slot], self._first_logits)
                        self._retire(live, slot)
                order = sorted(live)
                for row, slot in enumerate(order):
                    batch.put(row, live[slot].token, live[slot].position, slot + 1)
                    live[slot].position += 1
                self._check_open()
                if order:
                    self._decode(batch.upto(len(order)))
                for row, slot in enumerate(order):
                    yield from self._advance(live[slot], self._logits(row))
                    self._retire(live, slot)
        finally:
            for slot in list(live):
                live[slot].finish_reason = "error"
                self._retire(live, slot)
            with self._gate:
                self._streaming = False
                if self._closed:
                    self._free()

    def forget(self) -> None:
        """Drop the prompt kept from the last call so that the next call decodes its own afresh."""
        self._prompt = []

    def usage(self) -> Usage:
        return Usage(self.prompt_tokens_decoded, self.tokens_sampled)

    def close(self) -> None:
        """Free the model; a stream that is open, here or in another thread, ends first, at its next step."""
        with self._gate:
            self._closed = True
            if not self._streaming:
                self._free()

    def _free(self) -> None:
        self._close_context()
        if self._model is not None:
            self._lib.llama_model_free(self._model)
            self._model = None

    def _check_open(self) -> None:
        if self._closed:
            raise PolicyError("this policy was closed")

    # -- one step of one candidate

    def _advance(self, candidate: _Live, row: Any) -> Iterator[Delta]:
        """Sample the candidate's next token from its logits `row` (vocabulary,) and tell what came of it."""
        token, logprob = candidate.sampler.sample(row)
        self.tokens_sampled += 1
        candidate.token = token
        candidate.sampled += 1
        candidate.pending += 1
        candidate.pending_logprob += logprob
        text = ""
        if self._lib.llama_vocab_is_eog(self._vocab, token):
            candidate.finish_reason = "stop"
        else:
            text = candidate.stop.feed(self._piece(token))
            if candidate.stop.stopped:
                candidate.finish_reason = "stop"
            elif candidate.sampled >= candidate.budget:
                candidate.finish_reason = "length"
        if candidate.finish_reason:
            text += candidate.stop.finish()
        if text or candidate.finish_reason:
            yield candidate.flush(text)

    def _retire(self, live: dict[int, _Live], slot: int) -> None:
        """Empty the slot if its candidate has ended."""
        if live[slot].finish_reason:
            live.pop(slot).sampler.free()
            if self._context is not None:
                self._lib.llama_memory_seq_rm(self._lib.llama_get_memory(self._context), slot + 1, -1, -1)

    # -- the context

    def _budget(self, prompt: int, max_tokens: int) -> int:
        """Tokens a candidate may sample, so that no sequence overflows its context."""
        trained: int = self._lib.llama_model_n_ctx_train(self._model)
        context = min(trained, self._context_cap or trained)
        if prompt >= context:
            raise PolicyError(
                f"the prompt has {prompt} tokens, the context of {self.name} holds {context}",
                "shorten the problem statement",
            )
        return min(max_tokens, context - prompt)

    def _open_context(self, tokens: int, sequences: int) -> None:
        """A context for so many sequences of so many tokens; one that is open and large enough stays."""
        if tokens <= self._shape[0] and sequences <= self._shape[1]:
            return
        tokens = max(-(-tokens // _ROUND) * _ROUND, self._shape[0])
        sequences = max(sequences, self._shape[1])
        self._close_context()
        params = self._lib.llama_context_default_params()
        params.n_ctx = tokens * sequences
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = max(_CHUNK, sequences)
        params.n_threads = params.n_threads_batch = self._threads
        # Own KV for each sequence: attention then reads a candidate's tokens only, not those of all slots.
        params.kv_unified = False
        self._context = self._lib.llama_init_from_model(self._model, params)
        if not self._context:
            self._context = None
            raise PolicyError(
                f"no memory for {sequences} sequences of {tokens} tokens", "use fewer slots or a smaller token limit"
            )
        self._shape = (tokens, sequences)

    def _close_context(self) -> None:
        if self._context is not None:
            self._lib.llama_free(self._context)
        self._context, self._shape, self._prompt = None, (0, 0), []

    def _decode_prompt(self, tokens: list[int]) -> None:
        """Bring sequence 0 to hold `tokens`, keeping the whole chunks that it already shares with them."""
        if tokens == self._prompt:
            return
        pairs = enumerate(zip(tokens, self._prompt, strict=False))
        shared = next((place for place, (new, old) in pairs if new != old), min(len(tokens), len(self._prompt)))
        start = min(shared, len(tokens) - 1) // _CHUNK * _CHUNK
        self._prompt = []
        memory = self._lib.llama_get_memory(self._context)
        if not self._lib.llama_memory_seq_rm(memory, 0, start, -1):  # a recurrent model cannot go back half-way
            self._lib.llama_memory_seq_rm(memory, 0, -1, -1)
            start = 0
        batch = Batch(self._lib, _CHUNK)
        for first in range(start, len(tokens), _CHUNK):
            chunk = tokens[first : first + _CHUNK]
            self._decode(batch.fill(chunk, first, 0, [len(tokens) - 1 - first]))
            self.prompt_tokens_decoded += len(chunk)
        self._first_logits = self._logits(len(chunk) - 1).copy()
        self._prompt = tokens

    def _decode(self, batch: Any) -> None:
        self.decode_calls += 1
        code = self._lib.llama_decode(self._context, batch)
        if code:
            raise PolicyError(f"llama.cpp could not decode a batch (code {code})", "use fewer slots")

    def _logits(self, row: int) -> Any:
        """Logits of batch row `row`, shape (vocabulary,); a view that lasts until the next decode."""
        import numpy as np

        return np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._context, row), (self._vocab_size,))

    # -- text

    def _tokenize(self, prompt: Prompt) -> list[int]:
        """Chat marks count as such in the template only, never in the prefill, which a model may have written."""
        lib = self._lib
        messages = (lib.llama_chat_message * 2)(
            lib.llama_chat_message(b"system", prompt.system.encode()),
            lib.llama_chat_message(b"user", prompt.user.encode()),
        )
        size = 2 * len((prompt.system + prompt.user).encode()) + 512
        buffer = ctypes.create_string_buffer(size)
        template = lib.llama_model_chat_template(self._model, None)
        length = lib.llama_chat_apply_template(template, messages, 2, True, buffer, size) if template else -1
        if length < 0:  # a base model, or a template llama.cpp does not know
            length = lib.llama_chat_apply_template(b"chatml", messages, 2, True, buffer, size)
        opening = self._token_ids(buffer.raw[:length], special=True)
        return opening + self._token_ids(prompt.prefill.encode(), special=False)

    def _token_ids(self, text: bytes, special: bool) -> list[int]:
        ids = (ctypes.c_int32 * (len(text) + 2))()
        count = self._lib.llama_tokenize(self._vocab, text, len(text), ids, len(ids), special, special)
        return list(ids[:count])

    def _piece(self, token: int) -> bytes:
        if token not in self._pieces:
            buffer = ctypes.create_string_buffer(256)
            length = self._lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
            self._pieces[token] = buffer.raw[: max(length, 0)]
        return self._pieces[token]


class _Sampler:
    """llama.cpp's temperature, top-p and dist samplers in a chain, with a seed of their own.

    The chain is offered only the likeliest tokens: those left out hold less than `_TAIL` of the probability, before
    and after temperature. At temperature 0.8 that costs 0.4 ms a token where a vocabulary of 151,936 costs 2 ms.
    """

    def __init__(self, lib: Any, sampling: Sampling, seed: int) -> None:
        import numpy as np

        self._lib, self._np = lib, np
        self._dtype = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._warmth = max(sampling.temperature, 1.0)
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if sampling.temperature > 0:
            parts = [
                lib.llama_sampler_init_temp(sampling.temperature),
                lib.llama_sampler_init_top_p(sampling.top_p, 1),
                lib.llama_sampler_init_dist(seed),
            ]
        else:
            parts = [lib.llama_sampler_init_greedy()]
        for part in parts:
            lib.llama_sampler_chain_add(self._chain, part)

    def sample(self, row: Any) -> tuple[int, float]:
        """A token and its log-probability under softmax(row), untempered; row: float32 (vocabulary,)."""
        np, lib = self._np, self._lib
        top = row.max()
        weights = np.exp((row - top) / self._warmth)  # flatter than both distributions, or equal
        total = float(weights.sum())
        for least in _LEAST:
            near = np.flatnonzero(weights > least)
            if total - float(weights[near].sum()) < _TAIL * total:
                break
        else:
            raise PolicyError("the model answers with numbers that are none", "its file may be damaged: fetch it again")
        data = np.empty(len(near), self._dtype)
        data["id"], data["logit"] = near, row[near]
        if self._warmth > 1:
            total = float(np.exp(row - top).sum())
        offered = lib.llama_token_data_array(
            data=data.ctypes.data_as(lib.llama_token_data_p), size=len(near), selected=-1, sorted=False
        )
        lib.llama_sampler_apply(self._chain, ctypes.byref(offered))
        token = int(offered.data[offered.selected].id)
        return token, float(row[token] - top) - math.log(total)

    def free(self) -> None:
        self._lib.llama_sampler_free(self._chain)


@dataclass(slots=True)
class _Live:
    """A candidate being written. `position` is where `token`, the last one sampled, goes in its sequence."""

    index: int
    sampler: _Sampler
    stop: FenceStop
    position: int
    budget: int
    token: int = -1
    sampled: int = 0
    pending: int = 0  # tokens, and their log-probability, not yet told in a delta
    pending_logprob: float = 0.0
    finish_reason: FinishReason | None = None

    def flush(self, text: str) -> Delta:
        delta = Delta(self.index, text, self.pending_logprob, self.pending, self.finish_reason)
        self.pending, self.pending_logprob = 0, 0.0
        return delta
