"""The llama.cpp engine on models of one layer made here, and (marked `model`) on the real 0.5B."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")

import tiny_model
from writing import write

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.models.llama_cpp import library, load_model, physical_cores
from dreamprm_cli.policy import Sampling
from dreamprm_cli.policy.llama_cpp import LlamaCppPolicy
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import Usage

PROMPT = Prompt("You write.", "Go on.", "```python\n")
WARM = Sampling(temperature=1.0, top_p=0.95, max_tokens=24, seed=3)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write_gguf(tmp_path_factory.mktemp("noise") / "noise.gguf", tiny_model.noise())


class Built:
    """llama.cpp as it is, but built for AMX or not; `laid_out` says how its last model was loaded."""

    def __init__(self, amx: bool) -> None:
        self._info = b"AVX512 = 1 | AMX_INT8 = 1 | " if amx else b"AVX512 = 1 | "
        self.laid_out: bool | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(library(), name)

    def llama_print_system_info(self) -> bytes:
        return self._info

    def llama_model_load_from_file(self, path: bytes, settings: object) -> object:
        self.laid_out = settings.use_extra_bufts
        return library().llama_model_load_from_file(path, settings)


@pytest.mark.parametrize("amx", [True, False])
def test_weights_are_not_laid_out_for_amx(noise: Path, amx: bool) -> None:
    built = Built(amx)
    model = load_model(built, noise)
    assert model
    library().llama_model_free(model)
    assert built.laid_out is not amx


@pytest.fixture
def opened(noise: Path) -> Iterator[Callable[..., LlamaCppPolicy]]:
    policies: list[LlamaCppPolicy] = []

    def open_it(path: Path = noise, **options: int) -> LlamaCppPolicy:
        policies.append(LlamaCppPolicy(path, threads=1, **options))
        return policies[-1]

    yield open_it
    for policy in policies:
        policy.close()


def test_it_writes_what_the_model_says_until_the_end(opened, tmp_path):
    path = tiny_model.write_gguf(tmp_path / "chain.gguf", tiny_model.chain("#xé=1\n`".encode()))
    deltas = list(opened(path).stream(replace(PROMPT, prefill="```python\n#"), [4], Sampling(max_tokens=9)))
    # é is two tokens here and comes whole; the backtick is held back until it cannot become a fence.
    assert [(delta.text, delta.tokens) for delta in deltas] == [
        ("x", 1), ("é", 2), ("=", 1), ("1", 1), ("\n", 1), ("`", 2)
    ]  # fmt: skip
    assert [delta.finish_reason for delta in deltas] == [None] * 5 + ["stop"]


def test_it_stops_at_the_fence(opened, tmp_path):
    weights = tiny_model.chain(b"#x=1\n`", repeat=b"`")
    policy = opened(tiny_model.write_gguf(tmp_path / "fence.gguf", weights))
    out = write(policy, replace(PROMPT, prefill="```python\n#"), [0], Sampling(max_tokens=50))
    assert (out[0].text, out[0].finish_reason) == ("x=1\n", "stop")
    assert out[0].tokens == policy.tokens_sampled == 7  # the three backticks were sampled too
    # In mid-line backticks are text.
    out = write(policy, replace(PROMPT, prefill="x = '`"), [0], Sampling(max_tokens=5))
    assert (out[0].text, out[0].finish_reason) == ("`" * 5, "length")


def test_the_prompt_is_decoded_once_for_all_and_again_only_when_it_changed(opened):
    policy = opened(slots=4)
    first = write(policy, PROMPT, range(9), WARM)
    once = policy.prompt_tokens_decoded
    text = f"!system\n{PROMPT.system}!\n!user\n{PROMPT.user}!\n!assistant\n{PROMPT.prefill}"
    assert once == len(text)  # a token a byte, chat marks (!) one each
    assert write(policy, PROMPT, range(9), WARM) == first
    assert policy.prompt_tokens_decoded == once
    policy.forget()
    assert write(policy, PROMPT, range(9), WARM) == first
    assert policy.prompt_tokens_decoded == 2 * once
    assert policy.usage() == Usage(2 * once, policy.tokens_sampled)
    assert policy.tokens_sampled == 3 * sum(one.tokens for one in first.values())


def test_a_prompt_that_shares_its_start_keeps_whole_chunks_and_writes_the_same(opened):
    long = replace(PROMPT, user=PROMPT.user * 40)
    longer = replace(long, prefill="```python\ndef f():\n")
    policy = opened(slots=2)
    write(policy, long, [0, 1], WARM)  # as many as below: more sequences would need a new context
    before = policy.prompt_tokens_decoded
    kept = write(policy, longer, [0, 1], WARM)
    decoded = policy.prompt_tokens_decoded - before
    policy.forget()
    before = policy.prompt_tokens_decoded
    assert write(policy, longer, [0, 1], WARM) == kept
    assert decoded < 128 + len(longer.prefill) < policy.prompt_tokens_decoded - before
    # And back to a prompt of which the one in memory is a continuation.
    assert write(policy, long, [0], WARM) == write(opened(), long, [0], WARM)


def test_a_candidate_depends_on_its_seed_not_on_its_neighbours(opened):
    policy = opened(slots=4)
    together = write(policy, PROMPT, range(7), WARM)
    assert len({one.text for one in together.values()}) == 7
    for index in (0, 6):
        alone = write(policy, PROMPT, [index], WARM)[index]
        assert alone.text == together[index].text
        assert alone.logprob == pytest.approx(together[index].logprob, abs=1e-3)
    assert write(policy, PROMPT, [6, 3, 0], WARM)[3].text == together[3].text
    assert write(policy, PROMPT, [0], replace(WARM, seed=4))[0].text != together[0].text


def test_a_free_slot_goes_to_the_next_candidate_at_once(opened):
    policy = opened(slots=2)
    out = write(policy, PROMPT, range(6), replace(WARM, temperature=3.0, top_p=1.0, max_tokens=300))
    assert any(one.finish_reason == "stop" for one in out.values())
    # Two slots busy at all times need about half as many steps as tokens; waves of two would wait for the longer.
    lengths = [one.tokens for one in out.values()]
    free = [0, 0]
    for length in lengths:
        free[free.index(min(free))] += length - 1  # the first token comes from the prompt's own logits
    prompt_calls = math.ceil(policy.prompt_tokens_decoded / 128)
    assert policy.decode_calls == prompt_calls + max(free)


def test_the_context_ends_a_candidate_with_length(opened):
    policy = opened()
    write(policy, PROMPT, [0], replace(WARM, max_tokens=1))
    prompt = policy.prompt_tokens_decoded
    small = opened(context=prompt + 5)
    out = write(small, PROMPT, [0, 1], Sampling(temperature=0, max_tokens=1000))
    assert [(one.tokens, one.finish_reason) for one in out.values()] == [(5, "length")] * 2
    with pytest.raises(PolicyError, match=f"the prompt has {prompt} tokens"):
        write(opened(context=prompt), PROMPT, [0], WARM)
    # Without a cap, the model's own 512 hold.
    out = write(policy, PROMPT, [0], Sampling(temperature=0, max_tokens=4000))
    assert out[0].tokens == 512 - prompt


def test_closing_a_stream_stops_it_and_frees_the_policy(opened):
    policy = opened(slots=2)
    whole = write(policy, PROMPT, range(4), WARM)
    stream = policy.stream(PROMPT, range(4), WARM)
    next(stream)
    with pytest.raises(PolicyError, match="still writing"):
        next(policy.stream(PROMPT, [0], WARM))
    stream.close()
    sampled = policy.tokens_sampled
    assert list(stream) == []
    assert policy.tokens_sampled == sampled
    assert write(policy, PROMPT, range(4), WARM) == whole
    assert write(policy, PROMPT, [], WARM) == {}
    policy.close()
    policy.close()
    with pytest.raises(PolicyError, match="closed"):
        next(policy.stream(PROMPT, [0], WARM))


def test_closing_the_policy_under_a_stream_ends_the_stream(opened):
    policy = opened(slots=2)
    stream = policy.stream(PROMPT, range(4), WARM)
    next(stream)
    policy.close()
    with pytest.raises(PolicyError, match="closed"):
        list(stream)
    with pytest.raises(PolicyError, match="closed"):
        next(policy.stream(PROMPT, [0], WARM))


def test_logits_that_are_no_numbers_are_an_error(opened, tmp_path):
    weights = tiny_model.noise()
    weights["lm_head.weight"][...] = float("nan")
    with pytest.raises(PolicyError, match="numbers"):
        write(opened(tiny_model.write_gguf(tmp_path / "nan.gguf", weights)), PROMPT, [0], WARM)


def test_chat_marks_in_a_prefill_are_plain_text(opened):
    policy = opened()
    write(policy, replace(PROMPT, prefill=""), [0], replace(WARM, max_tokens=1))
    bare = policy.prompt_tokens_decoded
    policy.forget()
    write(policy, replace(PROMPT, prefill="<|im_end|>"), [0], replace(WARM, max_tokens=1))
    assert policy.prompt_tokens_decoded == 2 * bare + len("<|im_end|>")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model" * 100])
def test_a_file_that_is_no_model_is_one_clear_error(tmp_path, content, capfd):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match="is not a GGUF model") as caught:
        LlamaCppPolicy(path)
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_a_cut_file_and_a_missing_one(noise, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(noise.read_bytes()[:-5000])
    with pytest.raises(PolicyError, match="is not a GGUF model"):
        LlamaCppPolicy(path)
    with pytest.raises(PolicyError, match="no model file"):
        LlamaCppPolicy(tmp_path / "none.gguf")


def test_it_counts_the_cores_it_may_use():
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(allowed)})
            assert physical_cores() == 1
        finally:
            os.sched_setaffinity(0, allowed)


def test_it_agrees_with_transformers(tmp_path):
    pytest.importorskip("transformers")
    import torch
    from transformers import AutoModelForCausalLM

    from dreamprm_cli.policy.transformers import HFPolicy

    weights = tiny_model.noise(1)
    hf = HFPolicy(str(tiny_model.write_hf(tmp_path / "hf", weights)), device="cpu")
    hf._model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    llama = LlamaCppPolicy(tiny_model.write_gguf(tmp_path / "model.gguf", weights), threads=1)
    greedy = Sampling(temperature=0, max_tokens=40)
    ours, theirs = write(llama, PROMPT, [0], greedy)[0], write(hf, PROMPT, [0], greedy)[0]
    assert ours.text == theirs.text
    assert ours.logprob == pytest.approx(theirs.logprob, abs=0.02)  # llama.cpp keeps KV in half precision
    assert llama.prompt_tokens_decoded == hf.prompt_tokens_decoded
    llama.close()


@pytest.mark.model
def test_the_real_model_writes_the_same_programs_again():
    from dreamprm_cli.policy.open import open_policy
    from dreamprm_cli.prompts import cof_prompt
    from dreamprm_cli.types import Problem

    prompt = cof_prompt(Problem("sum", "Read integers from standard input and print their sum."))
    sampling = Sampling(max_tokens=24, seed=1)
    policy = open_policy("qwen2.5-coder-0.5b", slots=3)
    first = write(policy, prompt, range(4), sampling)
    prompt_tokens = policy.usage().input_tokens
    assert 0 < prompt_tokens < 1000
    assert write(policy, prompt, range(4), sampling) == first
    assert policy.usage().input_tokens == prompt_tokens
    policy.close()
    again = open_policy("qwen2.5-coder-0.5b", slots=3)
    assert write(again, prompt, range(4), sampling) == first
    again.close()
    assert all(one.text.startswith(("def ", "import ", "from ")) for one in first.values())
    assert all("```" not in one.text for one in first.values())
    assert all(-3 < one.logprob / one.tokens < 0 for one in first.values())
