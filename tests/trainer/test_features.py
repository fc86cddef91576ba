"""Cached features are what the live scorer reads, and a cache is filled once."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
tokenizers = pytest.importorskip("tokenizers")

from dreamprm_trainer.features import extract, open_cache, open_scorer  # noqa: E402
from dreamprm_trainer.tables import build  # noqa: E402

HIDDEN, LAYERS, VOCAB = 16, 3, 300


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A folder with a tiny random Qwen2 model whose tokens are bytes."""
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
def cache(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMPRM_CACHE", str(tmp_path / "models"))
    return open_cache(tmp_path / "features", str(backbone), [1, 3])


def test_features_are_the_live_scorers(cache, make_item):
    items = [make_item("P/0", 0), make_item("P/0", 1, code="def second(x):\n    return 2\n"), make_item("P/1", 0)]
    assert extract(items, cache)
    table = build(items, cache)
    assert table.states.shape == (5, 2, HIDDEN)  # the imports are no scored step
    assert table.program.tolist() == [0, 0, 1, 2, 2]
    session = open_scorer(cache).start(items[1].problem)
    live = session.append_features([(0, step) for step in items[1].steps])
    assert np.allclose(table.features((1, 3), (1, 3))[2], live[0], atol=2e-2)


def test_only_what_is_missing_is_encoded(cache, make_item, capsys):
    first, second = make_item("P/0", 0), make_item("P/0", 1, code="def second(x):\n    return 2\n")
    assert extract([first], cache, minutes=0) is False
    assert build([first], cache).items == ()
    assert extract([first, make_item("P/0", 5)], cache)
    before = cache.read(first.problem)
    assert extract([first, second], cache)
    after = cache.read(first.problem)
    assert set(after) == {first.key, second.key}
    assert np.array_equal(before[first.key], after[first.key])
    capsys.readouterr()
    assert extract([first, second], cache)
    assert capsys.readouterr().err == ""


def test_another_configuration_has_another_cache(cache, backbone, make_item):
    item = make_item("P/0")
    extract([item], cache)
    other = open_cache(cache.folder, str(backbone), [1, 2])
    assert other.home != cache.home
    assert other.home.parent == cache.home.parent == cache.folder
    assert build([item], other).items == ()
