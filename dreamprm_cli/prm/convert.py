"""A GGUF file becomes, once, a Hugging Face folder: bf16 safetensors, config and fast tokenizer.

For llama.cpp, which reads the file itself, only what it does not tell: config, tokenizer and the final norm's weight.
Written without transformers: the names are few, and so the weights and the tokens, hence the rewards, do not depend
on which transformers is installed. The folder opens with `AutoModel.from_pretrained` and `AutoTokenizer` all the same.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.models.gguf import GGUFFile, read_gguf

# GGUF name -> Hugging Face name; `output` (the LM head) is a policy's alone, a reward model has no use for it.
_TOP = {"token_embd": "embed_tokens", "output_norm": "norm"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# How Qwen2 cuts text before byte-pair merging (the released tokenizer.json).
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL, _USER_DEFINED = 3, 4  # gguf.TokenType
_ENDS = ("<|endoftext|>", "<|im_end|>")

FINAL_NORM = "norm.npy"


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the Qwen2 model of `gguf` into the existing `folder`. Needs torch.

    Matrices are kept in bf16, norms and biases in fp32, as they are few. Raises CheckpointError for a file that is
    not a Qwen2 GGUF or that cannot be written.
    """
    with _opened(gguf, folder) as file:
        _write_about(file, folder)
        _write_weights(file, {own: name for own in file.tensors if (name := hugging_face_name(own))}, folder)


def convert_causal(gguf: Path, folder: Path) -> None:
    """As `convert_gguf`, with the LM head: a whole `Qwen2ForCausalLM`, for engines that write programs.

    Every token at which a turn or a text ends ends a completion, as in llama.cpp.
    """
    with _opened(gguf, folder) as file:
        names = {own: f"model.{name}" for own in file.tensors if (name := hugging_face_name(own))}
        tied = "output.weight" not in file.tensors
        if not tied:
            names["output.weight"] = "lm_head.weight"
        _write_about(file, folder, architectures=["Qwen2ForCausalLM"], tie_word_embeddings=tied)
        ends = [number for number, token in enumerate(file.fields["tokenizer.ggml.tokens"]) if token in _ENDS]
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}) + "\n", encoding="utf-8")
        _write_weights(file, names, folder)


def describe_gguf(gguf: Path, folder: Path) -> None:
    """Write config, tokenizer and the final norm's weight, (C,) fp32, of a Qwen2 GGUF into the existing `folder`.

    Raises CheckpointError as `convert_gguf` does.
    """
    import numpy as np

    with _opened(gguf, folder) as file:
        np.save(folder / FINAL_NORM, file.tensors["output_norm.weight"].values())
        _write_about(file, folder)


@contextlib.contextmanager
def _opened(gguf: Path, folder: Path) -> Iterator[GGUFFile]:
    """A Qwen2 GGUF; what goes wrong in the body is told as a CheckpointError."""
    from safetensors import SafetensorError

    try:
        file = read_gguf(gguf)
        architecture = str(file.fields["general.architecture"])
        if architecture != "qwen2":
            raise CheckpointError(
                f"{gguf.name} holds a {architecture} model",
                "the reward model needs a Qwen2.5 backbone (architecture qwen2)",
            )
        yield file
    except (ValueError, KeyError, IndexError, NotImplementedError) as error:
        raise CheckpointError(f"{gguf} is not a readable GGUF file: {error}", "fetch the file again") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot convert {gguf.name} into {folder.parent}: {error}",
            "free some space there, or set DREAMPRM_CACHE to a folder that can be written",
        ) from None


def _write_weights(file: GGUFFile, names: Mapping[str, str], folder: Path) -> None:
    """model.safetensors, of the tensors in `names` (GGUF's -> Hugging Face's)."""
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for own, name in names.items():
        values = torch.from_numpy(file.tensors[own].values())
        tensors[name] = values.to(torch.bfloat16 if values.ndim == 2 else torch.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _write_about(file: GGUFFile, folder: Path, **changes: Any) -> None:
    """config.json, with `changes`, and the tokenizer's files."""
    vocabulary = file.tensors["token_embd.weight"].shape[0]
    config = qwen2_config(file.fields, vocab_size=vocabulary) | changes
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_tokenizer(file.fields, folder)


def hugging_face_name(name: str) -> str | None:
    """`blk.3.attn_q.bias` -> `layers.3.self_attn.q_proj.bias`; None for tensors that the backbone does not use."""
    stem, _, suffix = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{suffix}"
    parts = stem.split(".", 2)
    if parts[0] == "blk" and parts[2] in _BLOCK:
        return f"layers.{parts[1]}.{_BLOCK[parts[2]]}.{suffix}"
    return None


def gguf_name(name: str) -> str | None:
    """The inverse: `layers.3.self_attn.q_proj.bias` -> `blk.3.attn_q.bias`; None where GGUF has no such tensor."""
    stem, _, suffix = name.rpartition(".")
    top = {theirs: own for own, theirs in _TOP.items()}
    block = {theirs: own for own, theirs in _BLOCK.items()}
    parts = stem.split(".", 2)
    if stem in top:
        return f"{top[stem]}.{suffix}"
    if len(parts) == 3 and parts[0] == "layers" and parts[2] in block:
        return f"blk.{parts[1]}.{block[parts[2]]}.{suffix}"
    return None


def qwen2_config(fields: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    """The `config.json` that the metadata of a Qwen2 GGUF amounts to."""
    return {
        "architectures": ["Qwen2Model"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": fields["qwen2.embedding_length"],
        "intermediate_size": fields["qwen2.feed_forward_length"],
        "num_hidden_layers": fields["qwen2.block_count"],
        "num_attention_heads": fields["qwen2.attention.head_count"],
        "num_key_value_heads": fields["qwen2.attention.head_count_kv"],
        "max_position_embeddings": fields["qwen2.context_length"],
        "rms_norm_eps": fields["qwen2.attention.layer_norm_rms_epsilon"],
        "rope_theta": fields["qwen2.rope.freq_base"],
        "vocab_size": vocab_size,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1",  # as released; without it transformers warns of a flaw of others
    }


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [token for token, kind in zip(tokens, kinds, strict=True) if kind in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    tokenizer.save(str(folder / "tokenizer.json"))

    def token(key: str) -> str | None:
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        return None if index is None else tokens[index]

    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": token("eos"),
        "pad_token": token("padding"),
        "model_max_length": fields["qwen2.context_length"],
        "chat_template": fields.get("tokenizer.chat_template"),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
