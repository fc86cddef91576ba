"""`dreamprm serve` as a process: it says where it is, scores, and ends when it is told to."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.prm import score_programs  # noqa: E402
from dreamprm_cli.prm.checkpoint import Checkpoint, save  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.open import open_scorer  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.steps import split  # noqa: E402
from dreamprm_cli.types import Problem  # noqa: E402

CODE = "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n"


@pytest.fixture
def checkpoint(tiny, tmp_path):
    head = Head(np.random.default_rng(1).normal(size=64).astype(np.float32) / 8, 0.1)
    about = Checkpoint(str(tiny), locate_backbone(str(tiny)).sha256, (1, 3), head, 32)
    save(about, tmp_path / "prm", json.loads((tiny / "config.json").read_text()))
    return str(tmp_path / "prm")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_stopped(checkpoint, stop):
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamprm_cli", "serve", "--prm", checkpoint, "--port", "0", "--device", "cpu"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "DREAMPRM_PRM_TOKEN": "s3cret"},
    )  # fmt: skip
    try:
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        os.environ["DREAMPRM_PRM_TOKEN"] = "s3cret"
        remote = open_scorer(found[0])
        programs, problem = [split(CODE)], Problem(id="p", statement="Add two numbers.")
        here = score_programs(open_scorer(checkpoint, device="cpu").start(problem), programs)
        assert score_programs(remote.start(problem), programs)[0] == pytest.approx(here[0], abs=1e-3)
    finally:
        os.environ.pop("DREAMPRM_PRM_TOKEN", None)
        process.send_signal(stop)
        rest = process.communicate(timeout=30)[1]
    assert (process.returncode, rest) == (0, "")
