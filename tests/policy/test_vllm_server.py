"""The remote policy against vLLM's own OpenAI-compatible server, with the small model."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from writing import write

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import Sampling, candidate_seed
from dreamprm_cli.policy.open import open_policy
from dreamprm_cli.prompts import cof_prompt
from dreamprm_cli.types import Problem

VLLM = os.environ.get("DREAMPRM_VLLM_PYTHON") or (sys.executable if importlib.util.find_spec("vllm") else None)
pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(VLLM is None, reason="vLLM is not installed (DREAMPRM_VLLM_PYTHON names a Python that has it)"),
]

KEY = "sk-loopback-0123456789"
START_S = 900.0
PROBLEM = Problem(id="p", statement="Read n and then n integers. Print the sum of their squares.")
SAMPLING = Sampling(max_tokens=200, seed=1)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own for this module, killed at the end whatever happens."""
    pytest.importorskip("torch")
    from dreamprm_cli.prm.source import locate_causal

    folder = locate_causal("qwen2.5-coder-0.5b")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        str(VLLM), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "small",
        "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY, "--max-model-len", "2048", "--enforce-eager",
    ]  # fmt: skip
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment.pop("PYTHONPATH", None)
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()  # it ends the engine's processes
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()


def wait_until_up(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            direct.open(address, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def counter(url: str, name: str) -> float:
    """A total of the server's own metrics."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url.removesuffix("/v1") + "/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def test_it_writes_programs_from_the_prefill_and_reads_the_prompt_once(url: str) -> None:
    policy = open_policy("vllm+openai:small", base_url=url, api_key=KEY)
    assert policy.prefills
    before = counter(url, "vllm:prefix_cache_hits_total")
    out = write(policy, cof_prompt(PROBLEM), range(4), SAMPLING)
    for one in out.values():
        assert one.text.startswith(("def ", "import ", "from "))  # no fence, no chat: the code goes on
        assert one.text.endswith("\n")
        assert "```" not in one.text
        assert one.finish_reason == "stop"
        assert one.logprob < 0
    assert policy.usage().output_tokens >= sum(one.tokens for one in out.values()) > 100
    assert counter(url, "vllm:prefix_cache_hits_total") - before >= 3 * 128
    assert policy.refused == frozenset()
    again = write(policy, cof_prompt(PROBLEM), range(4), SAMPLING)
    alike = sum(again[index].text == out[index].text for index in out)
    assert alike >= 3  # seeds decide, up to a nearly tied token in another batch


def test_rollouts_go_on_from_prefixes_many_at_once(url: str) -> None:
    from dreamprm_trainer.continuation import Beginning, open_continuer

    text = 'def squares(numbers):\n    """Return the squares of numbers."""\n    return [x * x for x in numbers]\n\n\n'
    beginnings = iter([Beginning(str(k), PROBLEM, (0, 1), SAMPLING, text + "# go\n" * k) for k in range(4)])
    continuer = open_continuer("vllm+openai:small", "stream", base_url=url, api_key=KEY)
    written = list(continuer.run(lambda: next(beginnings, None)))
    assert {(one.key, one.index) for one in written} == {(str(k), index) for k in range(4) for index in (0, 1)}
    for one in written:
        assert one.code.startswith(text)
        assert len(one.code) > len(text) + 20
        assert "```" not in one.code
        assert one.seed == candidate_seed(SAMPLING.seed, one.index)


def test_it_is_an_openai_server_too(url: str) -> None:
    policy = open_policy("openai:small", base_url=url, api_key=KEY)
    out = write(policy, cof_prompt(PROBLEM), range(2), SAMPLING)
    assert all(one.text.startswith("```python\n") for one in out.values())
    assert all(one.logprob < 0 for one in out.values())
    assert policy.usage().input_tokens > 200


def test_a_wrong_name_and_a_wrong_key_are_one_line(url: str) -> None:
    for name, key, what in (("large", KEY, "404"), ("small", "sk-wrong", "401")):
        with pytest.raises(PolicyError, match=what):
            write(open_policy(f"vllm+openai:{name}", base_url=url, api_key=key), cof_prompt(PROBLEM), [0], SAMPLING)
