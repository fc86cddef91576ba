"""The transformers engine on models of one layer made here; transformers' own `generate` is the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_model
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from writing import write

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import Sampling
from dreamprm_cli.policy.transformers import HFPolicy, draw
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import Usage

PROMPT = Prompt("You write.", "Go on.", "```python\n")
WARM = Sampling(temperature=1.0, top_p=0.95, max_tokens=24, seed=3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are too small to share
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write_hf(tmp_path_factory.mktemp("noise") / "model", tiny_model.noise())


def exact(policy: HFPolicy) -> HFPolicy:
    """The same policy in fp32, so that it can be compared to the digit."""
    policy._model.float()
    return policy


def test_it_writes_what_generate_writes(noise):
    policy = exact(HFPolicy(str(noise), device="cpu"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(noise)
    text = tokenizer.apply_chat_template(PROMPT.messages, tokenize=False, add_generation_prompt=True) + PROMPT.prefill
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    out = policy._model.generate(
        **inputs, do_sample=False, max_new_tokens=30, return_dict_in_generate=True, output_logits=True
    )
    ids = out.sequences[0, inputs["input_ids"].shape[1] :]
    logprob = sum(float(row[0].log_softmax(-1)[i]) for row, i in zip(out.logits, ids, strict=True))
    ours = write(policy, PROMPT, [0, 1], Sampling(temperature=0, max_tokens=30))
    assert ours[0].text == ours[1].text == tokenizer.decode(ids, skip_special_tokens=True)
    assert (ours[0].tokens, ours[0].finish_reason) == (30, "length")
    assert ours[0].logprob == pytest.approx(logprob, abs=1e-3)
    assert policy.prompt_tokens_decoded == inputs["input_ids"].shape[1]


def test_the_same_call_writes_the_same_in_waves_or_not_and_decodes_the_prompt_once(noise):
    policy = exact(HFPolicy(str(noise), device="cpu", slots=2))
    first = write(policy, PROMPT, range(5), WARM)
    once = policy.prompt_tokens_decoded
    assert write(policy, PROMPT, range(5), WARM) == first
    assert policy.usage() == Usage(2 * once, 2 * sum(one.tokens for one in first.values()))
    assert len({one.text for one in first.values()}) == 5
    wide = exact(HFPolicy(str(noise), device="cpu", slots=8))
    assert {i: one.text for i, one in write(wide, PROMPT, range(5), WARM).items()} == {
        i: one.text for i, one in first.items()
    }
    assert write(wide, PROMPT, [3], WARM)[3].text == first[3].text
    assert write(wide, PROMPT, [3], replace(WARM, seed=4))[3].text != first[3].text


def test_candidates_that_end_early_leave_the_others_alone(noise):
    policy = exact(HFPolicy(str(noise), device="cpu"))
    hot = replace(WARM, temperature=3.0, top_p=1.0, max_tokens=100)
    together = write(policy, PROMPT, range(6), hot)
    ends = {one.finish_reason for one in together.values()}
    assert "stop" in ends
    for index in (0, max(together, key=lambda index: together[index].tokens)):
        assert write(policy, PROMPT, [index], hot)[index].text == together[index].text


def test_text_ends_before_the_fence_or_at_the_end_token(tmp_path):
    ends = HFPolicy(str(tiny_model.write_hf(tmp_path / "end", tiny_model.chain("#xé=1\n`".encode()))), device="cpu")
    deltas = list(ends.stream(replace(PROMPT, prefill="```python\n#"), [4], Sampling(max_tokens=9)))
    assert [(delta.text, delta.tokens) for delta in deltas] == [
        ("x", 1), ("é", 2), ("=", 1), ("1", 1), ("\n", 1), ("`", 2)
    ]  # fmt: skip
    assert [delta.finish_reason for delta in deltas] == [None] * 5 + ["stop"]
    weights = tiny_model.chain(b"#x=1\n`", repeat=b"`")
    fenced = HFPolicy(str(tiny_model.write_hf(tmp_path / "fence", weights)), device="cpu")
    out = write(fenced, replace(PROMPT, prefill="```python\n#"), [0], Sampling(max_tokens=50))
    assert (out[0].text, out[0].finish_reason, out[0].tokens) == ("x=1\n", "stop", 7)


def test_a_closed_stream_and_a_full_context(noise):
    policy = HFPolicy(str(noise), device="cpu")
    stream = policy.stream(PROMPT, range(3), WARM)
    next(stream)
    stream.close()
    sampled = policy.tokens_sampled
    assert list(stream) == []
    assert policy.tokens_sampled == sampled
    before = policy.prompt_tokens_decoded
    out = write(policy, replace(PROMPT, user="x" * 400), [0], Sampling(temperature=0, max_tokens=4000))
    prompt = policy.prompt_tokens_decoded - before
    assert (out[0].tokens, out[0].finish_reason) == (512 - prompt, "length")
    with pytest.raises(PolicyError, match=r"the context of hf:.* holds 512"):
        write(policy, replace(PROMPT, user="x" * 600), [0], WARM)
    assert write(policy, PROMPT, [], WARM) == {}
    policy.close()
    policy.close()
    with pytest.raises(PolicyError, match="closed"):
        next(policy.stream(PROMPT, [0], WARM))


def test_chat_marks_in_a_prefill_are_plain_text(noise):
    policy = HFPolicy(str(noise), device="cpu")
    write(policy, replace(PROMPT, prefill=""), [0], replace(WARM, max_tokens=1))
    bare = policy.prompt_tokens_decoded
    write(policy, replace(PROMPT, prefill="<|im_end|>"), [0], replace(WARM, max_tokens=1))
    assert policy.prompt_tokens_decoded == 2 * bare + len("<|im_end|>")


def test_a_folder_that_is_no_model_is_one_clear_error(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(PolicyError, match="cannot be loaded") as caught:
            HFPolicy(str(folder))
        assert caught.value.hint
        assert "\n" not in caught.value.message


def share(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The distribution that `draw` inverts, token by token. logits (vocabulary,)"""
    mass = (logits.double() / temperature).softmax(-1)
    kept = torch.zeros_like(mass)
    total = 0.0
    for token in logits.argsort(descending=True, stable=True):
        if total >= top_p:
            break
        kept[token] = mass[token]
        total += float(mass[token])
    return kept / kept.sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.8, 1.5]), st.sampled_from([0.1, 0.8, 0.95, 1.0]))
def test_draw_inverts_the_tempered_nucleus(seed, temperature, top_p):
    logits = torch.randn(20, generator=torch.Generator().manual_seed(seed)) * 2
    steps = 4000
    grid = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    tokens, logprobs = draw(logits.expand(steps, -1), grid, temperature, top_p)
    assert torch.bincount(tokens, minlength=20) / steps == pytest.approx(
        share(logits, temperature, top_p), abs=2 / steps
    )
    assert torch.allclose(logprobs, logits.log_softmax(-1)[tokens], atol=1e-5)


def test_draw_looks_beyond_the_likeliest_tokens_where_the_nucleus_does():
    flat = torch.zeros(2, 5000)
    _, logprobs = draw(flat, torch.tensor([0.0, 0.9999], dtype=torch.float64), 1.0, 1.0)
    assert logprobs.tolist() == pytest.approx([-8.517193] * 2)
    drawn, _ = draw(flat[:1].expand(100, -1), torch.arange(100, dtype=torch.float64) / 100, 1.0, 1.0)
    assert len(set(drawn.tolist())) == 100


def test_a_model_without_chat_template_reads_plain_text(noise):
    policy = HFPolicy(str(noise), device="cpu")
    policy._tokenizer.chat_template = None
    write(policy, PROMPT, [0], replace(WARM, max_tokens=1))
    assert policy.prompt_tokens_decoded == len(f"{PROMPT.system}\n\n{PROMPT.user}\n\n{PROMPT.prefill}")
