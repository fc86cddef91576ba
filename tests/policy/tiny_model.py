"""Qwen2 models of one layer over single bytes, made here and written for both local engines.

`chain` makes a model whose next token depends on the last one only, so that a test decides what it writes;
`noise` makes one with random weights, whose every token depends on all before it.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

_HIDDEN, _HEADS, _FFN, _CONTEXT = 512, 8, 64, 512
_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
Weights = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


def _alphabet() -> list[str]:
    """The character by which byte-level BPE writes each byte (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    odd = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + odd.index(byte)) for byte in range(256)]


END, START, TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TOKENS = [*_alphabet(), END, START, TURN]


def _empty() -> Weights:
    shapes = {
        "model.embed_tokens.weight": (len(TOKENS), _HIDDEN),
        "model.norm.weight": (_HIDDEN,),
        "lm_head.weight": (len(TOKENS), _HIDDEN),
        "model.layers.0.input_layernorm.weight": (_HIDDEN,),
        "model.layers.0.post_attention_layernorm.weight": (_HIDDEN,),
        **{f"model.layers.0.self_attn.{name}_proj.weight": (_HIDDEN, _HIDDEN) for name in "qkvo"},
        **{f"model.layers.0.self_attn.{name}_proj.bias": (_HIDDEN,) for name in "qkv"},
        "model.layers.0.mlp.gate_proj.weight": (_FFN, _HIDDEN),
        "model.layers.0.mlp.up_proj.weight": (_FFN, _HIDDEN),
        "model.layers.0.mlp.down_proj.weight": (_HIDDEN, _FFN),
    }
    return {name: (np.ones if "norm" in name else np.zeros)(shape, np.float32) for name, shape in shapes.items()}


def chain(text: bytes, repeat: bytes = b"") -> Weights:
    """After each byte of `text` it writes the next, after the last the end, or `repeat`; no byte may come twice."""
    weights = _empty()
    ids = [TOKENS.index(_alphabet()[byte]) for byte in text + repeat]
    ids = ids if repeat else [*ids, TOKENS.index(END)]
    for token in range(len(TOKENS)):
        weights["model.embed_tokens.weight"][token, token] = 1
    for last, following in itertools.pairwise(ids):
        weights["lm_head.weight"][following, last] = 1  # the final norm makes this a logit of 22
    assert (weights["lm_head.weight"].sum(0) <= 1).all()
    return weights


def noise(seed: int = 0) -> Weights:
    weights = _empty()
    random = np.random.default_rng(seed)
    for name, weight in weights.items():
        if "norm" not in name:
            scale = 2.0 if "lm_head" in name else 1.0
            weight[...] = scale * random.standard_normal(weight.shape) / np.sqrt(weight.shape[-1])
    return weights


def write_gguf(path: Path, weights: Weights) -> Path:
    import gguf

    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_FFN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 3)
    writer.add_token_merges(["ÿ ÿ"])  # there must be one; its result is no token
    writer.add_eos_token_id(TOKENS.index(TURN))
    writer.add_chat_template(_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 1)
    for name, weight in weights.items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_hf(folder: Path, weights: Weights) -> Path:
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(TOKENS)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=TURN, additional_special_tokens=[END, START])
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": len(TOKENS),
        "hidden_size": _HIDDEN,
        "intermediate_size": _FFN,
        "num_hidden_layers": 1,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "max_position_embeddings": _CONTEXT,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "eos_token_id": TOKENS.index(END),
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
