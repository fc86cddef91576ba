"""The real 0.5B backbone behind the server, and behind vLLM where there is one: the rewards of this process."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.errors import ScorerError  # noqa: E402
from dreamprm_cli.prm import score_programs  # noqa: E402
from dreamprm_cli.prm.checkpoint import Checkpoint, save  # noqa: E402
from dreamprm_cli.prm.export import export_vllm  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.open import open_packed, open_scorer  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.prm.verify import verify  # noqa: E402
from dreamprm_cli.prm.vllm import VllmScorer  # noqa: E402
from dreamprm_cli.serve.tree import TreeEngine  # noqa: E402
from dreamprm_cli.steps import split  # noqa: E402
from dreamprm_cli.types import Problem  # noqa: E402

pytestmark = pytest.mark.model

PROBLEM = Problem(id="p", statement="Read n and then n integers. Print the sum of their squares.")
PROGRAMS = [
    split(
        "def read():\n    return list(map(int, open(0).read().split()))[1:]\n\n\nprint(sum(x * x for x in read()))\n"
    ),
    split("import sys\n\n\ndef main():\n    print(len(sys.stdin.read()))\n\n\nmain()\n"),
]
# A Python that has vLLM: it wants an environment of its own.
VLLM = os.environ.get("DREAMPRM_VLLM_PYTHON") or (sys.executable if importlib.util.find_spec("vllm") else None)


def test_the_shipped_prm_is_served_live_with_the_rewards_of_this_process(start):
    here = open_packed("small", device="cpu")
    expected = score_programs(here.start(PROBLEM), PROGRAMS)
    session = open_scorer(start(TreeEngine(here, 256 << 20)).url).start(PROBLEM)
    for index, steps in enumerate(PROGRAMS):
        live = [session.append([(index, step)])[0] for step in steps]
        assert live == pytest.approx(expected[index], abs=1e-3, nan_ok=True)
    batch = here.start(PROBLEM)
    score_programs(batch, PROGRAMS)
    assert session.encoded_tokens == batch.encoded_tokens  # nothing twice


@pytest.mark.skipif(VLLM is None, reason="vLLM is not installed (name a Python that has it: DREAMPRM_VLLM_PYTHON)")
def test_vllm_serves_the_export_with_the_rewards_of_transformers(tmp_path):
    source = locate_backbone("qwen2.5-coder-0.5b")
    config = json.loads((source.folder / "config.json").read_text())
    weight = np.random.default_rng(0).normal(0, 0.02, config["hidden_size"]).astype(np.float32)
    head = Head(weight, 0.1, temperature=0.9, offset=0.1)
    save(Checkpoint(source.name, source.sha256, (12,), head, config["hidden_size"]), tmp_path / "prm", config)
    export_vllm(str(tmp_path / "prm"), tmp_path / "out")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        VLLM, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tmp_path / "out"), "--runner", "pooling",
        "--port", str(port), "--max-model-len", "2048", "--enforce-eager", "--dtype", "float32",
    ]  # fmt: skip
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    env.pop("PYTHONPATH", None)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    try:
        address = f"vllm+http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while True:
            try:
                VllmScorer(address)
                break
            except ScorerError:
                assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
                assert time.monotonic() < deadline
                time.sleep(1)
        found = verify(str(tmp_path / "prm"), device="cpu", dtype="fp32", servers=[address])
        assert found.servers[address] <= 1e-3
    finally:
        process.terminate()
        process.wait(timeout=60)
