"""The scorer through llama.cpp: the backbone's GGUF file as it is, our head in numpy, no torch.

llama.cpp gives logits, or the last layer's states of all tokens at the price of as many rows of logits. A head reads
a few tokens' states after any layers, so they are copied out of the running forward, by the callback that llama.cpp
offers for looking at intermediate results; it also stops the forward once the highest layer has been read.

The problem's keys and values are sequence 0. Sequence 1 is the candidate at hand: it shares the problem's cells and
has cells of its own. When another one's turn comes, its own cells are put aside as bytes and brought back later, so
that a session takes memory for the tokens it holds, however many candidates there are, and attention reads the
tokens of one candidate only.
"""

from __future__ import annotations

import ctypes
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.models.llama_cpp import Batch, library, load_model, physical_cores
from dreamprm_cli.prm.adapter import LowRank, write_gguf
from dreamprm_cli.prm.convert import FINAL_NORM
from dreamprm_cli.prm.head import Head, step_rewards
from dreamprm_cli.prm.pooling import Pooling, pooled, positions, width
from dreamprm_cli.prm.shape import read_shape
from dreamprm_cli.prm.source import GGUFSource
from dreamprm_cli.prm.tokens import StepTokens, Tokens, read_tokenizer
from dreamprm_cli.prompts import prm_input
from dreamprm_cli.types import Problem, Step

_CHUNK = 512  # tokens of one forward
_ROUND = 256  # llama.cpp pads its caches to as many cells
_PROBLEM, _CANDIDATE = 0, 1  # sequences


class LlamaScorer:
    """A Scorer (see `dreamprm_cli.prm`) over a GGUF backbone.

    adapter: a LoRA update of the backbone. The other arguments are those of `PackedScorer`. Raises ImportError
    without llama-cpp-python, CheckpointError when the file or the adapter cannot be loaded.
    """

    device = "cpu"

    def __init__(
        self,
        source: GGUFSource,
        *,
        layers: Sequence[int],
        pooling: Pooling = "last",
        head: Head | None = None,
        adapter: Mapping[str, LowRank] | None = None,
        name: str = "features",
        forms: Sequence[str] = (),
        logprob_weight: float = 0.0,
        step_token: str | None = None,
        max_length: int = 4096,
        code_reserve: int = 1536,
        threads: int | None = None,
    ) -> None:
        self.name, self.forms, self.head = name, tuple(forms), head
        self.logprob_weight = logprob_weight
        self.layers = tuple(layers)
        self.pooling: Pooling = pooling
        self.shape = read_shape(source.folder)
        self.width = len(self.layers) * width(pooling) * self.shape.hidden  # of what the head reads, F
        if not 1 <= min(self.layers) <= max(self.layers) <= self.shape.layers:
            raise CheckpointError(
                f"the backbone has {self.shape.layers} layers, not {max(self.layers)}",
                "check `layers` in dreamprm.json",
            )
        self.tokens = Tokens(read_tokenizer(source.folder), step_token)
        self.problem_limit, self.code_reserve = max_length - code_reserve, code_reserve
        self.norm: NDArray[np.float32] = np.load(source.folder / FINAL_NORM)
        self.threads = threads or physical_cores()
        self.lib = library()
        self.model = load_model(self.lib, source.path)
        if self.model is None:
            raise CheckpointError(
                f"{source.path} is not a GGUF model that this llama.cpp can load",
                "fetch it again, or upgrade llama-cpp-python",
            )
        weakref.finalize(self, self.lib.llama_model_free, self.model)  # and the adapter with it
        self.adapter = self._load_adapter(adapter) if adapter else None

    def start(self, problem: Problem) -> LlamaSession:
        """Encode the problem, once for all its candidates."""
        return LlamaSession(self, problem)

    def _load_adapter(self, adapter: Mapping[str, LowRank]) -> Any:
        with tempfile.TemporaryDirectory(prefix="dreamprm-") as folder:
            path = Path(folder) / "adapter.gguf"
            write_gguf(adapter, path)
            loaded = self.lib.llama_adapter_lora_init(self.model, str(path).encode())
        if not loaded:
            raise CheckpointError("llama.cpp cannot apply the adapter", "it belongs to another backbone")
        return loaded


class LlamaSession:
    """A ScoringSession. Not for several threads at once."""

    def __init__(self, scorer: LlamaScorer, problem: Problem) -> None:
        self._scorer, self._lib = scorer, scorer.lib
        self._probe = _Probe(scorer.lib, scorer.layers, scorer.shape.hidden)
        self._batch = Batch(scorer.lib, _CHUNK)
        # Python handles Ctrl-C in the main thread, in whatever code of ours runs there: in the callback it would be
        # swallowed. So forwards run in a thread of their own and the main one waits.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dreamprm-prm")
        self._context: Any = None
        self._cells = 0
        self._lengths: dict[int, int] = {}  # tokens of a candidate's own
        self._aside: dict[int, ctypes.Array[ctypes.c_char]] = {}  # cells of candidates that are not at hand
        self._at_hand: int | None = None
        self._full: set[int] = set()  # candidates that ran out of positions
        self.encoded_tokens = 0
        ids, self.truncated = scorer.tokens.problem(prm_input(problem), scorer.problem_limit)
        self._problem = len(ids)
        self._hold(self._problem + scorer.code_reserve)
        self._forward(ids, 0, _PROBLEM, [])

    def append(self, steps: Sequence[tuple[int, Step]]) -> list[float]:
        """Rewards of (candidate, next step) pairs, in order; NaN for steps that are not scored."""
        return step_rewards(self._scorer.head, self.append_features(steps), [step for _, step in steps])

    def append_features(self, steps: Sequence[tuple[int, Step]]) -> NDArray[np.float32]:
        """As `append`, but what the head reads: (len(steps), F), as `pooled`.

        Rows of steps that are not scored are there too. A row is NaN where a program ran out of positions.
        """
        features = np.full((len(steps), self._scorer.width), np.nan, dtype=np.float32)
        by_candidate: dict[int, list[tuple[int, StepTokens]]] = {}
        for index, (candidate, step) in enumerate(steps):
            by_candidate.setdefault(candidate, []).append((index, self._scorer.tokens.step(step.source)))
        for candidate, pairs in by_candidate.items():
            indices: list[int] = []
            ids: list[int] = []
            reads: list[range] = []
            for index, tokens in pairs:
                room = self._scorer.shape.max_positions - self._problem - self._lengths.get(candidate, 0) - len(ids)
                if candidate in self._full or len(tokens.ids) > room:
                    self._full.add(candidate)
                    break
                indices.append(index)
                own = positions(self._scorer.pooling, tokens.read)
                reads.append(range(len(ids) + own.start, len(ids) + own.stop))
                ids += tokens.ids
            if ids:
                features[indices] = self._extend(candidate, ids, reads)
        return features

    def drop(self, candidate: int) -> None:
        """Free the cells of a finished candidate; its number may be used again for a new program."""
        self._full.discard(candidate)
        self._lengths.pop(candidate, None)
        self._aside.pop(candidate, None)
        if self._at_hand == candidate:
            self._clear()

    def _extend(self, candidate: int, ids: Sequence[int], reads: Sequence[range]) -> NDArray[np.float32]:
        """Append tokens to a candidate; what the head reads of `reads`, each positions among them: (len(reads), F)."""
        own = self._lengths.get(candidate, 0)
        self._hold(self._problem + own + len(ids))
        self._take_up(candidate)
        start = self._problem + own
        try:
            states = self._forward(ids, start, _CANDIDATE, [position for some in reads for position in some])
        except BaseException:  # the candidate stays as it was
            self._lib.llama_memory_seq_rm(self._memory, _CANDIDATE, start, -1)
            raise
        self._lengths[candidate] = own + len(ids)
        return pooled(self._scorer.pooling, states, [len(some) for some in reads])

    # -- what the cache holds

    @property
    def _memory(self) -> Any:
        return self._lib.llama_get_memory(self._context)

    def _take_up(self, candidate: int) -> None:
        """Make sequence 1 the problem and this candidate's tokens."""
        if self._at_hand == candidate:
            return
        self._put_aside()
        if candidate in self._aside:
            self._load(_CANDIDATE, self._aside.pop(candidate))
        self._lib.llama_memory_seq_cp(self._memory, _PROBLEM, _CANDIDATE, -1, -1)  # shares the cells
        self._at_hand = candidate

    def _put_aside(self) -> None:
        """Empty sequence 1, keeping what is the candidate's own."""
        if self._at_hand is None:
            return
        if self._lengths.get(self._at_hand):
            self._lib.llama_memory_seq_rm(self._memory, _CANDIDATE, 0, self._problem)
            self._aside[self._at_hand] = self._save(_CANDIDATE)
        self._clear()

    def _clear(self) -> None:
        self._lib.llama_memory_seq_rm(self._memory, _CANDIDATE, -1, -1)
        self._at_hand = None

    def _save(self, sequence: int) -> ctypes.Array[ctypes.c_char]:
        """A sequence's keys and values, as bytes."""
        size = self._lib.llama_state_seq_get_size(self._context, sequence)
        data = ctypes.create_string_buffer(size)
        if not self._lib.llama_state_seq_get_data(self._context, self._bytes(data), size, sequence):
            raise CheckpointError("llama.cpp does not give out its cache", "upgrade llama-cpp-python")
        return data

    def _load(self, sequence: int, data: ctypes.Array[ctypes.c_char]) -> None:
        if not self._lib.llama_state_seq_set_data(self._context, self._bytes(data), len(data), sequence):
            raise CheckpointError("llama.cpp does not take its cache back", "upgrade llama-cpp-python")

    @staticmethod
    def _bytes(data: ctypes.Array[ctypes.c_char]) -> Any:
        return ctypes.cast(data, ctypes.POINTER(ctypes.c_uint8))

    def _hold(self, tokens: int) -> None:
        """Have a context for a problem and candidate of so many tokens; a larger one takes over what a smaller held."""
        if tokens <= self._cells:
            return
        cells = -(-max(tokens, self._cells + self._cells // 2) // _ROUND) * _ROUND
        held = None
        if self._context is not None:
            self._put_aside()
            held = self._save(_PROBLEM)
            self._close()
        lib, params = self._lib, self._lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max = cells, 2
        params.n_batch = params.n_ubatch = _CHUNK
        params.n_threads = params.n_threads_batch = self._scorer.threads
        params.kv_unified = True  # sequences share cells
        params.cb_eval = self._probe.callback
        context = lib.llama_init_from_model(self._scorer.model, params)
        if not context:
            raise CheckpointError(f"no memory for {cells} tokens of the PRM", "shorten the problem statement")
        self._context, self._cells = context, cells
        self._close: Callable[[], Any] = weakref.finalize(self, _free, lib, context, self._scorer)
        if self._scorer.adapter is not None:
            adapters = (lib.llama_adapter_lora_p_ctypes * 1)(self._scorer.adapter)
            lib.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0))
        if held is not None:
            self._load(_PROBLEM, held)

    # -- forwards

    def _forward(self, ids: Sequence[int], position: int, sequence: int, reads: Sequence[int]) -> NDArray[np.float32]:
        """Encode `ids` as a sequence's tokens from `position` on; normalised states at `reads`: (len(reads), L, C)."""
        parts = []
        for first in range(0, len(ids), _CHUNK):
            chunk = ids[first : first + _CHUNK]
            wanted = [read - first for read in reads if first <= read < first + len(chunk)]
            # An output takes room for its logits; below the last layer all states are there without one.
            outputs = wanted if max(self._scorer.layers) == self._scorer.shape.layers else []
            batch = self._batch.fill(chunk, position + first, sequence, outputs)
            parts.append(self._probe.watch(len(chunk), wanted, partial(self._decode, batch)))
            self.encoded_tokens += len(chunk)
        return self._normalised(np.concatenate(parts, axis=1)).swapaxes(0, 1)

    def _decode(self, batch: Any) -> None:
        future = self._thread.submit(self._lib.llama_decode, self._context, batch)
        try:
            code = future.result()
        except BaseException:
            wait([future])
            raise
        if code:
            raise CheckpointError(f"llama.cpp could not encode a program (code {code})", "use --prm-engine torch")

    def _normalised(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """The final RMSNorm. states (len(layers), N, C)."""
        scale = 1 / np.sqrt(np.mean(np.square(states), axis=-1, keepdims=True) + np.float32(self._scorer.shape.eps))
        normalised: NDArray[np.float32] = states * scale * self._scorer.norm
        return normalised


def _free(lib: Any, context: Any, scorer: LlamaScorer) -> None:
    """`scorer` is an argument so that its model outlives the context."""
    lib.llama_free(context)


class _Probe:
    """llama.cpp's evaluation callback: copies states after `layers` out of a forward, and ends it after the last."""

    def __init__(self, lib: Any, layers: Sequence[int], hidden: int) -> None:
        from llama_cpp._ggml import libggml

        self._layers, self._hidden, self._top = layers, hidden, max(layers)
        self._names = {f"l_out-{layer - 1}".encode(): layer for layer in layers}
        self._name, self._rows, self._get = libggml.ggml_get_name, libggml.ggml_nrows, libggml.ggml_backend_tensor_get
        self._name.argtypes, self._name.restype = [ctypes.c_void_p], ctypes.c_char_p
        self._rows.argtypes, self._rows.restype = [ctypes.c_void_p], ctypes.c_int64
        self._get.argtypes, self._get.restype = [ctypes.c_void_p] * 2 + [ctypes.c_size_t] * 2, None
        self.callback = lib.ggml_backend_sched_eval_callback(self._look)
        self._tokens = 0
        self._wanted: list[int] = []
        self._states: dict[int, NDArray[np.float32]] = {}

    def watch(self, tokens: int, wanted: list[int], forward: Callable[[], None]) -> NDArray[np.float32]:
        """Run a forward over so many tokens; the states of those `wanted`: (len(layers), len(wanted), C)."""
        self._tokens, self._wanted, self._states = tokens, wanted, {}
        forward()
        if len(self._states) < len(set(self._layers)):
            raise CheckpointError("this llama.cpp does not show the states of all layers", "use --prm-engine torch")
        return np.stack([self._states[layer] for layer in self._layers])

    def _look(self, tensor: int, ask: bool, _: object) -> bool:
        """Asked: whether we want to see it. Else: it is computed; whether to go on."""
        layer = self._names.get(self._name(tensor))
        if ask or layer is None:
            return layer is not None
        states = np.empty((self._rows(tensor), self._hidden), np.float32)
        self._get(tensor, states.ctypes.data, 0, states.nbytes)
        # Of the last layer only outputs are computed, of those below all tokens.
        self._states[layer] = states[self._wanted] if len(states) == self._tokens else states
        return layer != self._top
