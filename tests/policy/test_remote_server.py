"""The remote policy against llama-cpp-python's own OpenAI-compatible server, with the small model."""

from __future__ import annotations

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

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.fence import FenceExtractor
from dreamprm_cli.models import cache_dir
from dreamprm_cli.policy import Delta, Sampling
from dreamprm_cli.policy.remote import RemotePolicy
from dreamprm_cli.prompts import Prompt, cof_prompt
from dreamprm_cli.types import Problem

pytestmark = pytest.mark.model

MODEL = cache_dir() / "models" / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
KEY = "sk-loopback-0123456789"
START_S = 120.0
PROBLEM = Problem(
    id="double",
    statement="Write `double(n)`, which returns twice the integer n. One line is enough.",
    entry_point="double",
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own for this module, killed at the end whatever happens."""
    for module in ("llama_cpp", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings"):
        pytest.importorskip(module, reason="needs llama-cpp-python[server]")
    if not MODEL.exists():
        pytest.skip(f"needs {MODEL.name}: dreamprm models pull qwen2.5-coder-0.5b")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(MODEL), "--model_alias", "small"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--api_key", KEY, "--n_ctx", "2048", "--seed", "1"]
    command += ["--interrupt_requests", "false"]  # or every request cuts off the one before it
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            wait_until_up(f"http://127.0.0.1:{port}/v1/models", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()
            server.wait()


def wait_until_up(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {KEY}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            direct.open(request, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def program(deltas: list[Delta]) -> str:
    fence = FenceExtractor(prefilled=False)
    return "".join(fence.feed(delta.text) for delta in deltas) + fence.finish()


def test_three_candidates_stream(url: str) -> None:
    policy = RemotePolicy("small", base_url=url, api_key=KEY)
    began = time.monotonic()
    deltas = list(policy.stream(cof_prompt(PROBLEM), range(3), Sampling(temperature=0.2, max_tokens=160)))
    seconds = time.monotonic() - began

    tokens = 0
    for index in range(3):
        own = [delta for delta in deltas if delta.candidate == index]
        assert len(own) > 10  # it streams
        assert [delta.finish_reason for delta in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].finish_reason in ("stop", "length")
        assert (own[-1].finish_reason == "length") == (sum(delta.tokens for delta in own) >= 155)
        assert "def double(" in program(own)
        tokens += sum(delta.tokens for delta in own)
    usage = policy.usage()
    assert usage.output_tokens >= tokens > 0  # the server's number where it gives one, else what arrived
    assert usage.cost_usd is None
    print(f"\n3 candidates, {usage} in {seconds:.1f} s, refused: {sorted(policy.refused)}")


def test_the_limit_is_a_finish_reason(url: str) -> None:
    policy = RemotePolicy("small", base_url=url, api_key=KEY)
    deltas = list(policy.stream(cof_prompt(PROBLEM), [0], Sampling(max_tokens=5)))
    assert deltas[-1].finish_reason == "length"
    assert 1 <= sum(delta.tokens for delta in deltas) <= 5


def test_the_seed_decides_the_text(url: str) -> None:
    policy = RemotePolicy("small", base_url=url, api_key=KEY)
    prompt = Prompt(system="You are a poet.", user="Write a poem about a word of your choice.", prefill="")

    def text(seed: int) -> str:
        sampling = Sampling(temperature=1.5, top_p=1.0, max_tokens=16, seed=seed)
        return "".join(delta.text for delta in policy.stream(prompt, [0], sampling))

    first = text(2)  # also warms the server's prompt cache, with which it rounds a little differently
    assert text(3) == text(3)
    assert len({first, text(3), text(4)}) > 1


def test_a_closed_stream_frees_the_server(url: str) -> None:
    policy = RemotePolicy("small", base_url=url, api_key=KEY)
    deltas = policy.stream(cof_prompt(PROBLEM), range(2), Sampling(max_tokens=1000))
    next(deltas)
    deltas.close()  # type: ignore[attr-defined]
    began = time.monotonic()
    assert list(policy.stream(cof_prompt(PROBLEM), [0], Sampling(max_tokens=2)))[-1].finish_reason == "length"
    assert time.monotonic() - began < 30  # not behind two times a thousand tokens


def test_a_wrong_key(url: str) -> None:
    policy = RemotePolicy("small", base_url=url, api_key="sk-wrong")
    with pytest.raises(PolicyError, match="401 Invalid API key"):
        list(policy.stream(cof_prompt(PROBLEM), [0], Sampling(max_tokens=2)))
