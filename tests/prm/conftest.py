"""A backbone that both engines open."""

from pathlib import Path

import numpy as np
import pytest

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, POSITIONS = 32, 64, 3, 4, 2, 512


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of a random 3-layer Qwen2 over bytes, in fp32 numbers that bf16 holds too, so that no engine rounds it."""
    gguf = pytest.importorskip("gguf")
    tokenizers = pytest.importorskip("tokenizers")
    path: Path = tmp_path_factory.mktemp("tiny-gguf") / "tiny.gguf"
    specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    tokens = [*sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()), "de", *specials]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(LAYERS)
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 3) + [3] * 3)
    writer.add_token_merges(["d e"])  # there must be one
    writer.add_eos_token_id(len(tokens) - 1)
    draw = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        values = draw.normal(0.3 if len(shape) == 1 else 0.0, 0.3, shape).astype(np.float32)
        writer.add_tensor(name, (values.view(np.uint32) & 0xFFFF0000).view(np.float32))

    kv = KV_HEADS * HIDDEN // HEADS
    add("token_embd.weight", len(tokens), HIDDEN)
    add("output.weight", len(tokens), HIDDEN)
    add("output_norm.weight", HIDDEN)
    for k in range(LAYERS):
        for name, rows in (("attn_q", HIDDEN), ("attn_k", kv), ("attn_v", kv)):
            add(f"blk.{k}.{name}.weight", rows, HIDDEN)
            add(f"blk.{k}.{name}.bias", rows)
        for name, rows, columns in (
            ("attn_output", HIDDEN, HIDDEN), ("ffn_gate", INNER, HIDDEN), ("ffn_up", INNER, HIDDEN),
            ("ffn_down", HIDDEN, INNER),
        ):  # fmt: skip
            add(f"blk.{k}.{name}.weight", rows, columns)
        add(f"blk.{k}.attn_norm.weight", HIDDEN)
        add(f"blk.{k}.ffn_norm.weight", HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
