"""Programs and features made in the test: no model, no file. Lets the tests import `tune_kit`."""

import sys
from pathlib import Path

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem
from dreamprm_trainer.data import Item
from dreamprm_trainer.tables import Table

sys.path.insert(0, str(Path(__file__).parent))  # scripted_labels

CODE = "import math\n\n\ndef first(x):\n    return x\n\n\ndef second(x):\n    return first(x)\n"

RECIPE = """
name = "x"
backbone = "qwen2.5-coder-0.5b"
layers = [8, 16]
[[source]]
name = "a"
problems = "p.jsonl"
pools = ["q.jsonl"]
[fit]
train = ["a"]
layers = [16]
aggregation = "mean"
[fit.convex]
l2 = 0.1
[search]
layers = [[8], [8, 16]]
l2 = [0.1]
steps = ["all"]
pairwise = [0.0]
seeds = 2
"""


def _item(problem="P/0", sample=0, passed=True, code=CODE, source="own", own_split="train", **more):
    steps = tuple(split(code))
    return Item(
        source=source,
        split=own_split,
        problem=Problem(problem, "Do it.", entry_point="second"),
        model="m",
        sample=sample,
        code=code,
        steps=steps,
        passed=passed,
        truth=more.pop("truth", (None,) * len(steps)),
        **more,
    )


@pytest.fixture
def recipe_text():
    return RECIPE


@pytest.fixture
def make_item():
    return _item


@pytest.fixture
def planted():
    """(table, direction): 60 problems x 6 programs x 2 steps; passing follows a direction in the middle layer.

    Problems differ by offsets much larger than the signal, as they do in real states.
    """
    rng = np.random.default_rng(0)
    hidden = 16
    direction = rng.normal(size=hidden)
    direction /= np.linalg.norm(direction)
    items, states = [], []
    for problem in range(60):
        offset = rng.normal(size=hidden) * 2
        for sample in range(6):
            noise = rng.normal(size=(2, 3, hidden))
            signal = rng.normal()
            noise[:, 1] += 3 * signal * direction + offset
            items.append(_item(f"P/{problem}", sample, bool(signal + 0.1 * rng.normal() > 0)))
            states.append(noise)
    stacked = np.concatenate(states).astype(np.float16)
    program = np.repeat(np.arange(len(items)), 2)
    target = np.array([float(items[index].passed) for index in program], dtype=np.float32)
    passes, rollouts = np.zeros_like(target), np.zeros_like(target)
    return Table(tuple(items), stacked, program, target, passes, rollouts), direction


@pytest.fixture
def one_thread():
    """Where tensors are tiny, threads would only wait for each other."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
