"""Programs and features made in the test: no model, no file."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamprm_cli.prm.checkpoint import Checkpoint
from dreamprm_cli.prm.checkpoint import save as save_checkpoint
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.source import locate_backbone
from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem
from dreamprm_trainer.data import Item
from dreamprm_trainer.tables import Table

sys.path.insert(0, str(Path(__file__).parent))  # scripted_labels, train_kit, tune_kit

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
        model=more.pop("model", "m"),
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
    return Table(tuple(items), stacked, program, target), direction


@pytest.fixture
def one_thread():
    """Where tensors are tiny, threads would only wait for each other."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


HIDDEN, LAYERS, VOCAB = 16, 3, 300  # of the backbone


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """A folder with a tiny random Qwen2 model whose tokens are bytes."""
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("backbone")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "qwen2", "hidden_size": HIDDEN, "intermediate_size": 24, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
        "max_position_embeddings": 4096, "vocab_size": VOCAB,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)

    def matrix(*shape):
        return torch.randn(shape, generator=generator) * 0.2

    tensors = {"embed_tokens.weight": matrix(VOCAB, HIDDEN), "norm.weight": torch.ones(HIDDEN)}
    for n in range(LAYERS):
        name = f"layers.{n}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}{norm}.weight"] = torch.ones(HIDDEN)
        for letter, size in (("q", HIDDEN), ("k", HIDDEN // 2), ("v", HIDDEN // 2)):
            tensors[f"{name}self_attn.{letter}_proj.weight"] = matrix(size, HIDDEN)
            tensors[f"{name}self_attn.{letter}_proj.bias"] = matrix(size)
        tensors[f"{name}self_attn.o_proj.weight"] = matrix(HIDDEN, HIDDEN)
        tensors[f"{name}mlp.gate_proj.weight"] = matrix(24, HIDDEN)
        tensors[f"{name}mlp.up_proj.weight"] = matrix(24, HIDDEN)
        tensors[f"{name}mlp.down_proj.weight"] = matrix(HIDDEN, 24)
    safetensors.save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def checkpoint(backbone, tmp_path, monkeypatch):
    """Makes a checkpoint over the tiny backbone, with a random head of its own."""
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "cache"))

    def make(name, seed=0, layers=(3,), **more):
        weight = np.random.default_rng(seed).normal(size=HIDDEN * len(layers)).astype(np.float32)
        made = Checkpoint(
            backbone=str(backbone), backbone_sha256=locate_backbone(str(backbone)).sha256, layers=layers,
            head=Head(weight, 0.1), hidden=HIDDEN, **more,
        )  # fmt: skip
        save_checkpoint(made, tmp_path / name, json.loads((backbone / "config.json").read_text()))
        return str(tmp_path / name)

    return make
