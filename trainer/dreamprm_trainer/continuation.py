"""Programs of a policy from a given beginning: none for a fresh candidate, a prefix's text for a rollout.

The beginning stands in the answer, inside the code fence, so the model goes on writing it as its own. Two engines: a
batch shared by many beginnings (`Batched`, local Qwen2.5 models), or any policy, each beginning a call of its own
(`Streamed`): what is written then depends on the beginning alone, not on what else is under way, nor on which of
several machines writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.fence import FenceExtractor
from dreamprm_cli.policy import Policy, Sampling, candidate_seed
from dreamprm_cli.prompts import Prompt, cof_prompt
from dreamprm_cli.types import FinishReason, Problem

if TYPE_CHECKING:
    from dreamprm_trainer.decoder import Decoder, Request

_PAUSE_S = 0.05
_SERVED = 16


@dataclass(frozen=True, slots=True)
class Beginning:
    """Go on from `text` once for each index; each draws with `candidate_seed(sampling.seed, index)`."""

    key: str
    problem: Problem
    indices: tuple[int, ...]
    sampling: Sampling
    text: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """A whole program, its beginning included. tokens, logprob (a sum, in nats) are of what was written after it."""

    key: str
    index: int
    seed: int
    code: str
    tokens: int
    logprob: float
    finish_reason: FinishReason


class Continuer(Protocol):
    """model: names the policy in the rows that are kept."""

    model: str

    def run(self, beginnings: Callable[[], Beginning | None]) -> Iterator[Written]:
        """Programs as they are finished. `beginnings` is called when there is room; None: nothing at present."""
        ...

    def close(self) -> None: ...


class Batched:
    """Many beginnings in one batch of the decoder, which is loaded when there is something to write. `run` raises what
    `open_decoder` raises."""

    def __init__(self, model: str, rows: int = 96, length: int = 2048) -> None:
        self.model = model
        self._size = rows, length
        self._opened: tuple[Decoder, Any] | None = None

    def run(self, beginnings: Callable[[], Beginning | None]) -> Iterator[Written]:
        first = beginnings()
        if first is None:
            return
        from dreamprm_trainer.decoder import Request, open_decoder

        self._opened = self._opened or open_decoder(self.model, *self._size)
        decoder, tokenizer = self._opened
        begun: dict[str, str] = {}
        ahead = [first]

        def request() -> Request | None:
            beginning = ahead.pop() if ahead else beginnings()
            if beginning is None:
                return None
            prompt = prompt_of(beginning)
            begun[beginning.key] = prompt.begun
            tokens = tuple(tokenizer.encode(chat(prompt), add_special_tokens=False).ids)
            return Request(beginning.key, tokens, beginning.indices, beginning.sampling)

        for made in decoder.run(request):
            text = tokenizer.decode(list(made.tokens), skip_special_tokens=False)
            code = program(begun[made.key] + text, prefilled=True)
            drawn = len(made.tokens) + (made.finish_reason == "stop")
            yield Written(made.key, made.index, made.seed, code, drawn, made.logprob, made.finish_reason)

    def close(self) -> None:
        self._opened = None


@dataclass(slots=True)
class _Draft:
    text: list[str] = field(default_factory=list)
    tokens: int = 0
    logprob: float = 0.0


class Streamed:
    """Any policy; the indices of one beginning are drawn together. width: beginnings under way at once, for engines
    that take many calls. `run` raises PolicyError when the engine is broken, and ConfigError where a model that answers
    afresh (a chat service) is to go on from a text."""

    def __init__(self, policy: Policy, model: str = "", width: int = 1) -> None:
        self.model = model or policy.name
        self._policy, self._width = policy, width

    def run(self, beginnings: Callable[[], Beginning | None]) -> Iterator[Written]:
        return spread(self.write, self._width, beginnings)

    def write(self, beginning: Beginning) -> Iterator[Written]:
        """The programs of one beginning, as they are finished."""
        if beginning.text and not self._policy.prefills:
            raise ConfigError(
                f"{self.model} answers afresh and cannot go on from a prefix", "roll out with a local model"
            )
        prompt = prompt_of(beginning)
        drafts = {index: _Draft() for index in beginning.indices}
        for delta in self._policy.stream(prompt, beginning.indices, beginning.sampling):
            draft = drafts[delta.candidate]
            draft.text.append(delta.text)
            draft.tokens += delta.tokens
            draft.logprob += delta.logprob
            if delta.finish_reason is not None:
                text = "".join([prompt.begun, *draft.text] if self._policy.prefills else draft.text)
                code = program(text, self._policy.prefills)
                seed = candidate_seed(beginning.sampling.seed, delta.candidate)
                yield Written(
                    beginning.key, delta.candidate, seed, code, draft.tokens, draft.logprob, delta.finish_reason
                )

    def close(self) -> None:
        self._policy.close()


def spread(
    write: Callable[[Beginning], Iterable[Written]], width: int, beginnings: Callable[[], Beginning | None]
) -> Iterator[Written]:
    """What `write` makes of the beginnings, `width` of them under way at once, as it is finished."""
    if width == 1:
        while (one := beginnings()) is not None:
            yield from write(one)
        return
    arrived: SimpleQueue[Written | BaseException | None] = SimpleQueue()  # None: one beginning is done

    def work(one: Beginning) -> None:
        try:
            for written in write(one):
                arrived.put(written)
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)

    pool, under_way = ThreadPoolExecutor(width, thread_name_prefix="writer"), 0
    try:
        while True:
            while under_way < width and (one := beginnings()) is not None:
                pool.submit(work, one)
                under_way += 1
            if not under_way:
                return
            try:  # with room left, verdicts that come meanwhile may ask for more
                item = arrived.get(timeout=_PAUSE_S if under_way < width else None)
            except Empty:
                continue
            if item is None:
                under_way -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def open_continuer(model: str, engine: str = "batched", **engine_options: Any) -> Batched | Streamed:
    """batched: a registry model or gguf:PATH in the decoder; stream: any policy as `dreamprm solve` opens it."""
    if engine == "batched":
        return Batched(model, **engine_options)
    from dreamprm_cli.policy.open import open_policy

    return Streamed(open_policy(model, **engine_options), model, calls_at_once(model))


def calls_at_once(model: str) -> int:
    """How many beginnings the engine of a policy takes at once: servers batch calls themselves."""
    return _SERVED if model.startswith(("openai:", "vllm+openai:", "vllm:")) else 1


def prompt_of(beginning: Beginning) -> Prompt:
    """The problem's prompt, going on from the beginning's text if it has one."""
    prompt = cof_prompt(beginning.problem)
    return prompt.after(beginning.text) if beginning.text else prompt


def chat(prompt: Prompt) -> str:
    """The prompt in ChatML, up to the prefill that the model goes on from."""
    turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in prompt.messages)
    return f"{turns}<|im_start|>assistant\n{prompt.prefill}"


def program(text: str, prefilled: bool) -> str:
    """The program in a whole completion."""
    fence = FenceExtractor(prefilled)
    return fence.feed(text) + fence.finish()
