"""Sizes from shapes are those that the makers publish."""

import json

import pytest

from dreamprm_trainer.shapes import SHAPES, shape_of


@pytest.mark.parametrize(
    ("name", "total", "read"),
    [  # parameters, and those without embeddings, in billions, as the model cards say
        ("qwen2.5-coder-0.5b", 0.49, 0.36),
        ("qwen2.5-coder-1.5b", 1.54, 1.31),
        ("qwen2.5-coder-3b", 3.09, 2.77),
    ],
)
def test_dense_models(name, total, read):
    shape = SHAPES[name]
    assert shape.total / 1e9 == pytest.approx(total, abs=0.006)
    assert shape.read() / 1e9 == pytest.approx(read, abs=0.006)
    assert shape.written == shape.read() + 151_936 * shape.hidden
    assert shape.read(shape.layers // 2) == shape.read() // 2


def test_a_mixture_of_experts():
    shape = SHAPES["qwen3-coder-30b-a3b"]
    assert shape.total / 1e9 == pytest.approx(30.5, abs=0.06)
    assert (shape.written + 151_936 * 2048) / 1e9 == pytest.approx(3.3, abs=0.06)  # "3.3B activated" counts both


def test_adapters_and_keys():
    shape = SHAPES["qwen2.5-coder-1.5b"]
    q_and_o, k_and_v = 2 * (1536 + 1536), 2 * (1536 + 256)
    assert shape.low_rank(8, ("q_proj", "k_proj", "v_proj", "o_proj"), 28) == 28 * 8 * (q_and_o + k_and_v)
    assert shape.kv_bytes == 28 * 2 * 256 * 2


def test_a_folder_says_its_shape(tmp_path):
    config = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "vocab_size": 300,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = shape_of(str(tmp_path))
    assert (shape.heads, shape.kv, shape.tied) == (32, 16, False)
    assert shape.total == 2 * 300 * 32 + 3 * (2 * 32 * (32 + 16) + 3 * 32 * 48)
    (tmp_path / "config.json").write_text("{}")
    assert shape_of(str(tmp_path)) is None
    assert shape_of("openai:gpt-4o-mini") is None
