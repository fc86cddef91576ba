"""`openai:MODEL`: a model behind any server that speaks the OpenAI chat protocol; `vllm+openai:MODEL`: behind vLLM's.

One streaming request per candidate, several at once (`n` is never sent: servers ignore it). What a server refuses
of the optional parameters is left out from then on and listed in `refused`; what may pass (429, 5xx, no
connection, a stalled or cut stream) is tried again, with Retry-After honoured. Text once handed out cannot be taken
back, so a stream that breaks after that ends its candidate with finish_reason "error".

An answer is over when its program is: where the model goes on to explain after the closing fence, its stream is cut,
so that nobody waits and pays for words that are not read. What was used up to there is counted as it arrived.

vLLM's server goes on from a given text, as a local engine does, so it can write rollouts; and it ends an answer at the
closing fence by itself.

A llama-cpp-python server cuts off the answer it is giving when another request comes, unless it was started with
`--interrupt_requests false`: use `concurrency=1` where it was not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import os
import random
import re
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.fence import FenceExtractor
from dreamprm_cli.policy import Delta, Sampling, candidate_seed
from dreamprm_cli.policy.faults import Failure, broken_stream, judge, refused_options
from dreamprm_cli.policy.stopping import FenceStop
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import FinishReason, Usage

_OFFICIAL_URL = "https://api.openai.com/v1"
_NO_KEY = "none"  # the client insists on a key; servers of one's own do not
_MAX_BACKOFF_S = 20.0
_TAIL_S = 5.0  # how long to wait for the usage numbers once the answer is complete
_AFTERWORD = 4  # tokens after the closing fence that are waited for: most answers end there, and tell their usage
_CONTINUE = {
    "add_generation_prompt": False,
    "continue_final_message": True,
    "stop": ["\n```"],
    "include_stop_str_in_output": True,
}
_SECRETS = re.compile(r"\bsk-[\w*.-]+|(?i:\bbearer\s+\S+)")


class RemotePolicy:
    """A policy behind `base_url` (else OPENAI_BASE_URL, else OpenAI's own), with `api_key` (else OPENAI_API_KEY).

    reasoning_effort: "low", "medium", "high" or what else the model knows; a server that refuses it is an error.
    concurrency: requests under way at once.
    timeout_s:   longest silence: to the first chunk, and between chunks. Keep-alive comments are silence.
    retries:     further attempts per candidate, `backoff_s` (doubling, with jitter) or Retry-After apart.
    price:       US dollars per million tokens, (input, output); without it the cost is unknown.
    continues:   the server is vLLM's: answers go on from `prompt.prefill`.
    refused:     optional parameters this server has been found to refuse.

    Raises PolicyError for a missing key or an unusable URL. No message ever holds the key.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        reasoning_effort: str | None = None,
        concurrency: int = 8,
        timeout_s: float = 300.0,
        retries: int = 4,
        price: tuple[float, float] | None = None,
        continues: bool = False,
        backoff_s: float = 0.5,
    ) -> None:
        self.name = f"vllm+openai:{model}" if continues else f"openai:{model}"
        self.prefills = continues
        self.refused: frozenset[str] = frozenset()
        self._model = model
        url = (base_url or os.environ.get("OPENAI_BASE_URL") or "").strip()
        key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        if not url and not key:
            raise PolicyError(
                f"no API key for {self.name}",
                "set OPENAI_API_KEY; or set OPENAI_BASE_URL to a server of your own, which may need no key",
            )
        if not (key.isascii() and key.isprintable()):
            raise PolicyError("the API key holds characters that no key has", "copy it again, without quotes")
        self._url, self._shown_url, self._local = _check_url(url or _OFFICIAL_URL)
        self._key = key or _NO_KEY
        # Not by the client's own parameter: that came later than the versions we support.
        self._extra: dict[str, Any] = {} if reasoning_effort is None else {"reasoning_effort": reasoning_effort}
        if continues:
            self._extra |= _CONTINUE
        self._concurrency = max(1, concurrency)
        self._timeout_s = timeout_s
        self._retries = retries
        self._backoff_s = backoff_s
        self._price = price
        self._input_tokens = 0
        self._output_tokens = 0
        self._unmetered = 0  # requests sent whose tokens the server has not told (yet)

    def stream(self, prompt: Prompt, indices: Sequence[int], sampling: Sampling) -> Generator[Delta, None, None]:
        """See Policy. Requests run on a thread of their own, at their own pace; closing the iterator cancels them.

        A delta's logprob is NaN where the server gives none; its tokens are then counted as one a chunk. The last
        delta of a candidate holds no text. PolicyError when the key or the model is refused, or when all of the
        first requests fail, before the server has said anything of use.
        """
        arrived: SimpleQueue[Delta | BaseException | None] = SimpleQueue()
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._complete_all(prompt, indices, sampling, arrived.put))

        def serve() -> None:
            try:
                with contextlib.closing(loop):
                    try:
                        loop.run_until_complete(work)
                    finally:
                        loop.run_until_complete(loop.shutdown_asyncgens())
            except asyncio.CancelledError:
                pass
            except BaseException as error:  # nothing may die unseen on this thread
                arrived.put(error)
            finally:
                arrived.put(None)

        thread = threading.Thread(target=serve, name=self.name, daemon=True)
        thread.start()
        try:
            while (item := arrived.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has come to its own end
                loop.call_soon_threadsafe(work.cancel)
            thread.join(timeout=5)

    def usage(self) -> Usage:
        """The server's own numbers; where it gives none, the output tokens that arrived, and no cost.

        The prompt of an answer that was cut counts as the server counted it for another answer, if it did.
        """
        cost = None
        if self._price is not None and not self._unmetered:
            cost = (self._input_tokens * self._price[0] + self._output_tokens * self._price[1]) / 1e6
        return Usage(self._input_tokens, self._output_tokens, cost)

    def close(self) -> None:
        """Nothing is held between streams: each has connections of its own."""

    async def _complete_all(
        self, prompt: Prompt, indices: Sequence[int], sampling: Sampling, emit: Callable[[Delta], None]
    ) -> None:
        import openai

        http_client = None
        if self._local:  # a proxy for the outside world cannot reach this machine's own servers
            http_client = openai.DefaultAsyncHttpxClient(trust_env=False)
        client = openai.AsyncOpenAI(
            base_url=self._url,
            api_key=self._key,
            max_retries=0,
            timeout=openai.Timeout(self._timeout_s, connect=min(10.0, self._timeout_s)),
            http_client=http_client,
        )
        messages, prefill = prompt.messages, None
        if self.prefills:
            prefill = prompt.prefill
            messages = [*messages, {"role": "assistant", "content": prefill}]
        call = _Call(client, messages, prefill, sampling, emit, wave=min(self._concurrency, len(indices)))
        waiting = iter(indices)

        async def work() -> None:
            for index in waiting:
                await self._complete(call, index)

        try:
            async with client, asyncio.TaskGroup() as group:
                for _ in range(call.wave):
                    group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            self._input_tokens += call.cut * call.prompt_tokens

    async def _complete(self, call: _Call, index: int) -> None:
        """One candidate, from its first attempt to the delta with its finish reason."""
        attempt = 0
        while True:
            answer = _Answer(index, _Ending(call.prefill))
            try:
                await self._read(call, answer)
            except broken_stream() as error:
                failure = judge(
                    error, opened=answer.opened, model=self._model, key=self._key != _NO_KEY, timeout_s=self._timeout_s
                )
            else:
                break
            if answer.emitted or not failure.retry or attempt == self._retries:
                self._give_up(call, failure)
                answer.finish_reason = "error"
                break
            await asyncio.sleep(self._pause_s(attempt, failure.retry_after_s))
            attempt += 1
        call.emit(Delta(index, answer.ending.rest(), 0.0, 0, answer.finish_reason))

    def _pause_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Random, so that requests which failed together do not come back together."""
        backoff_s = min(_MAX_BACKOFF_S, self._backoff_s * (1 << attempt))
        if retry_after_s is not None:
            return retry_after_s + random.uniform(0, self._backoff_s)
        return backoff_s * random.uniform(0.75, 1.25)

    def _give_up(self, call: _Call, failure: Failure) -> None:
        """A candidate has failed for good: its own misfortune, or a server that cannot work at all?"""
        call.failures += 1
        if not call.served and (failure.fatal or call.failures >= call.wave):
            raise PolicyError(f"{self.name} at {self._shown_url}: {self._presentable(failure.reason)}", failure.hint)

    async def _read(self, call: _Call, answer: _Answer) -> None:
        """One attempt: send the request and hand out its text as it arrives, up to the finish reason and usage."""
        stream = await self._open(call, answer)
        usage = None
        async with stream:
            try:
                while answer.tokens < answer.enough:
                    async with asyncio.timeout(min(self._timeout_s, _TAIL_S) if answer.over else self._timeout_s):
                        chunk = await anext(stream, None)
                    if chunk is None:
                        break
                    usage = _usage(chunk) or usage
                    self._hand_out(call, answer, chunk)
            except broken_stream():
                if not answer.over:
                    raise
            finally:
                if usage is not None:
                    self._unmetered -= 1
                    self._input_tokens += usage[0]
                    self._output_tokens += usage[1] - answer.tokens
                    call.prompt_tokens = usage[0]
                elif answer.ending.seen:
                    call.cut += 1
        if not answer.over:
            raise ConnectionError("the stream ended before the answer did")

    async def _open(self, call: _Call, answer: _Answer) -> Any:
        """Send the request, without what the server refuses; return the stream once its headers are here."""
        import openai

        refused: frozenset[str] = frozenset()
        while True:
            options = self._options(call.sampling, answer.index, self.refused | refused)
            self._unmetered += 1
            try:
                async with asyncio.timeout(self._timeout_s):
                    stream: Any = await call.client.chat.completions.create(
                        model=self._model, messages=call.messages, stream=True, extra_body=self._extra, **options
                    )
            except openai.APIStatusError as error:
                self._unmetered -= 1
                newly_refused = refused_options(error, options)
                if not newly_refused:
                    raise
                refused |= newly_refused
            except openai.APIConnectionError as error:
                self._unmetered -= not isinstance(error, openai.APITimeoutError)
                raise
            else:
                self.refused |= refused
                answer.opened = True
                return stream

    @staticmethod
    def _options(sampling: Sampling, index: int, refused: frozenset[str]) -> dict[str, Any]:
        options: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": candidate_seed(sampling.seed, index),
            "logprobs": True,
            "stream_options": {"include_usage": True},
        }
        if "max_tokens" in refused:
            options["max_completion_tokens"] = sampling.max_tokens
        return {name: value for name, value in options.items() if name not in refused}

    def _hand_out(self, call: _Call, answer: _Answer, chunk: Any) -> None:
        text, tokens, logprob, finish_reason = _piece(chunk)
        if text or tokens:
            answer.emitted = True
            answer.tokens += tokens
            self._output_tokens += tokens
            call.emit(Delta(answer.index, answer.ending.feed(text), logprob, tokens))
        if answer.ending.seen:
            answer.finish_reason = "stop"
            answer.enough = min(answer.enough, answer.tokens + _AFTERWORD)
        if finish_reason is not None:
            answer.complete = True
            answer.finish_reason = "stop" if answer.ending.seen else finish_reason
        call.served |= answer.emitted or answer.complete

    def _presentable(self, text: str) -> str:
        """One printable line without secrets, of bounded length: servers quote keys, and send whole pages."""
        text = _SECRETS.sub("***", text.replace(self._key, "***") if self._key != _NO_KEY else text)
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= 200 else text[:199] + "…"


@dataclass(slots=True)
class _Call:
    """One `stream` call: what its requests share."""

    client: Any
    messages: list[dict[str, str]]
    prefill: str | None  # what the answer goes on from
    sampling: Sampling
    emit: Callable[[Delta], None]
    wave: int  # requests that start at once
    served: bool = False  # the server has given text, or an end of one
    failures: int = 0  # candidates that failed for good
    prompt_tokens: int = 0  # of one request, as the server counts them
    cut: int = 0  # answers that were cut after their program, before the server told their tokens


@dataclass(slots=True)
class _Answer:
    """One attempt at one candidate."""

    index: int
    ending: _Ending
    opened: bool = False
    emitted: bool = False
    complete: bool = False  # the server has given a finish reason
    finish_reason: FinishReason = "error"
    tokens: int = 0
    enough: float = math.inf  # tokens at which reading stops

    @property
    def over(self) -> bool:
        """Nothing of the program is to come."""
        return self.complete or self.ending.seen


class _Ending:
    """Where an answer's program ends: of one that goes on from `prefill` the fence is not handed out; of one that is
    given afresh everything is, up to where reading stops."""

    def __init__(self, prefill: str | None) -> None:
        self._fence = None if prefill is None else FenceStop(prefill)
        self._program = FenceExtractor(prefilled=False)

    @property
    def seen(self) -> bool:
        return self._program.done if self._fence is None else self._fence.stopped

    def feed(self, text: str) -> str:
        """What of it to hand out."""
        if self._fence is not None:
            return self._fence.feed(text)
        self._program.feed(text)
        return text

    def rest(self) -> str:
        """What was held back, once no more comes."""
        return "" if self._fence is None else self._fence.finish()


def _check_url(url: str) -> tuple[str, str, bool]:
    """(the URL, the URL as it may be shown, is it this machine's own)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme not in ("http", "https"):
        raise PolicyError("the base URL is no URL of a server", "OPENAI_BASE_URL looks like http://localhost:8000/v1")
    local = host == "localhost"
    with contextlib.suppress(ValueError):
        local = local or ipaddress.ip_address(host).is_loopback
    where = f"[{host}]" if ":" in host else host
    return url, f"{parts.scheme}://{where}{f':{port}' if port else ''}{parts.path}", local


def _usage(chunk: Any) -> tuple[int, int] | None:
    """(input, output) tokens, from the chunk that has them. Some servers send a running total in every chunk."""
    usage = getattr(chunk, "usage", None)
    counts = (getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None))
    if isinstance(counts[0], int) and isinstance(counts[1], int):
        return counts[0], counts[1]
    return None


def _piece(chunk: Any) -> tuple[str, int, float, FinishReason | None]:
    """(text, tokens, sum of their logprobs, finish reason) of our choice in a chunk. ValueError when malformed."""
    text, tokens, logprob, finish = "", 0, 0.0, None
    try:
        for choice in getattr(chunk, "choices", None) or ():
            if getattr(choice, "index", 0):
                continue  # a choice nobody asked for
            text = getattr(choice.delta, "content", None) or ""
            scored = getattr(getattr(choice, "logprobs", None), "content", None) or ()
            tokens = len(scored) or bool(text)
            logprobs = [token.logprob for token in scored]
            logprob = math.nan if None in logprobs or not logprobs else math.fsum(logprobs)
            finish = getattr(choice, "finish_reason", None)
        # Halves of a surrogate pair, which JSON can hold, would break every file they are written to.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        known: dict[str | None, FinishReason | None] = {None: None, "length": "length", "content_filter": "error"}
        return text, int(tokens), logprob, known.get(finish, "stop")
    except (AttributeError, TypeError):
        raise ValueError("a malformed chunk") from None
