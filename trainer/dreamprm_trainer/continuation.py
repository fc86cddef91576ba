"""Programs of a policy from a given beginning: none for a fresh candidate, a prefix's text for a rollout.

The beginning stands in the answer, inside the code fence, so the model goes on writing it as its own. Two engines: a
batch shared by many beginnings (`Batched`, local Qwen2.5 models), or any policy, one beginning at a time (`Streamed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.fence import FenceExtractor
from dreamprm_cli.policy import Policy, Sampling, candidate_seed
from dreamprm_cli.prompts import Prompt, cof_prompt
from dreamprm_cli.types import FinishReason, Problem

if TYPE_CHECKING:
    from dreamprm_trainer.decoder import Decoder, Request


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
    """Many beginnings in one batch of the bf16 decoder. Raises what `open_decoder` raises."""

    def __init__(self, model: str, rows: int = 96, length: int = 2048) -> None:
        from dreamprm_trainer.decoder import open_decoder

        self.model = model
        self._decoder: Decoder
        self._decoder, self._tokenizer = open_decoder(model, rows, length)

    def run(self, beginnings: Callable[[], Beginning | None]) -> Iterator[Written]:
        from dreamprm_trainer.decoder import Request

        asked: dict[str, Beginning] = {}

        def request() -> Request | None:
            beginning = beginnings()
            if beginning is None:
                return None
            asked[beginning.key] = beginning
            text = chat(cof_prompt(beginning.problem)) + beginning.text
            tokens = tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)
            return Request(beginning.key, tokens, beginning.indices, beginning.sampling)

        for made in self._decoder.run(request):
            text = self._tokenizer.decode(list(made.tokens), skip_special_tokens=False)
            code = program(asked[made.key].text + text, prefilled=True)
            drawn = len(made.tokens) + (made.finish_reason == "stop")
            yield Written(made.key, made.index, made.seed, code, drawn, made.logprob, made.finish_reason)

    def close(self) -> None:
        pass


@dataclass(slots=True)
class _Draft:
    text: list[str] = field(default_factory=list)
    tokens: int = 0
    logprob: float = 0.0


class Streamed:
    """Any policy; the indices of one beginning are drawn together. `run` raises PolicyError when the engine is broken,
    and ConfigError where a model that answers afresh (a chat service) is to go on from a text."""

    def __init__(self, policy: Policy, model: str = "") -> None:
        self.model = model or policy.name
        self._policy = policy

    def run(self, beginnings: Callable[[], Beginning | None]) -> Iterator[Written]:
        while (beginning := beginnings()) is not None:
            if beginning.text and not self._policy.prefills:
                raise ConfigError(
                    f"{self.model} answers afresh and cannot go on from a prefix", "roll out with a local model"
                )
            prompt = cof_prompt(beginning.problem)
            prompt = replace(prompt, prefill=prompt.prefill + beginning.text)
            drafts = {index: _Draft() for index in beginning.indices}
            for delta in self._policy.stream(prompt, beginning.indices, beginning.sampling):
                draft = drafts[delta.candidate]
                draft.text.append(delta.text)
                draft.tokens += delta.tokens
                draft.logprob += delta.logprob
                if delta.finish_reason is not None:
                    code = program(beginning.text + "".join(draft.text), self._policy.prefills)
                    seed = candidate_seed(beginning.sampling.seed, delta.candidate)
                    yield Written(
                        beginning.key, delta.candidate, seed, code, draft.tokens, draft.logprob, delta.finish_reason
                    )

    def close(self) -> None:
        self._policy.close()


def open_continuer(model: str, engine: str = "batched", **engine_options: Any) -> Continuer:
    """batched: a registry model or gguf:PATH in the decoder; stream: any policy as `dreamprm solve` opens it."""
    if engine == "batched":
        return Batched(model, **engine_options)
    from dreamprm_cli.policy.open import open_policy

    return Streamed(open_policy(model, **engine_options), model)


def chat(prompt: Prompt) -> str:
    """The prompt in ChatML, up to the prefill that the model goes on from."""
    turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in prompt.messages)
    return f"{turns}<|im_start|>assistant\n{prompt.prefill}"


def program(text: str, prefilled: bool) -> str:
    """The program in a whole completion."""
    fence = FenceExtractor(prefilled)
    return fence.feed(text) + fence.finish()
