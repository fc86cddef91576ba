"""A LoRA adapter as PEFT saves it, read without PEFT or torch, and written as llama.cpp reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamprm_cli.errors import CheckpointError

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
ADAPTER_FILES = (_WEIGHTS, _CONFIG)
# What a PEFT configuration may say without changing that the update is `scale * up @ down`. Anything else is refused.
_PLAIN_LORA = {
    "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "use_rslora", "lora_dropout", "init_lora_weights", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "modules_to_save", "bias", "megatron_core",
    "qalora_group_size", "ensure_weight_tying",
}  # fmt: skip
_PLAIN_START = (True, False, "gaussian")  # other starts change the backbone's weights
_HEADS = ("score", "classifier")  # what PEFT calls the head and saves with the adapter; ours is in head.safetensors


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """A LoRA update of one linear map: `scale * up @ down`. down (r, in), up (out, r), fp32."""

    down: NDArray[np.float32]
    up: NDArray[np.float32]
    scale: float


def load_adapter(folder: Path) -> dict[str, LowRank] | None:
    """The LoRA adapter of a checkpoint by the name of the map it changes; None when the backbone is frozen.

    Raises CheckpointError for kinds of adapters, and options, that the scorer would not apply as PEFT does.
    """
    if not (folder / _WEIGHTS).exists():
        return None
    from safetensors import SafetensorError

    config = read_json(folder / _CONFIG)
    odd = [key for key, value in config.items() if value and key not in _PLAIN_LORA]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        odd.append("another type, or biases")
    if config.get("init_lora_weights", True) not in _PLAIN_START:
        odd.append(f"init_lora_weights {config['init_lora_weights']!r}")
    if set(config.get("modules_to_save") or ()) - set(_HEADS):
        odd.append("modules_to_save")
    if odd:
        raise CheckpointError(f"{folder}: an adapter with {odd[0]} cannot be applied", "train a plain LoRA adapter")
    parts: dict[str, dict[str, NDArray[np.float32]]] = {}
    try:
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        for key, tensor in _read_tensors(folder / _WEIGHTS).items():
            if key.removeprefix("base_model.model.").startswith(_HEADS):
                continue
            name, _, side = key.removeprefix("base_model.model.").removeprefix("model.").partition(".lora_")
            if side not in ("A.weight", "B.weight") or not np.isfinite(tensor).all():
                raise ValueError(f"{key} is not half of a LoRA pair, or not finite")
            parts.setdefault(name, {})[side[0]] = tensor
        return {name: LowRank(pair["A"], pair["B"], scale) for name, pair in parts.items()}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{folder}: the adapter is damaged: {error}", "copy or train it again") from None


def write_gguf(adapter: Mapping[str, LowRank], path: Path) -> None:
    """Write the adapter of a Qwen2 backbone as llama.cpp's `llama_adapter_lora_init` takes it.

    llama.cpp adds `alpha / r * up @ down` with one alpha for all maps; ours is in `up` already: alpha = r there.
    Raises CheckpointError for a map that GGUF has no name for.
    """
    from gguf import GGUFWriter

    from dreamprm_cli.prm.convert import gguf_name

    rank = max(low.down.shape[0] for low in adapter.values())
    writer = GGUFWriter(path, "qwen2")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for name, low in adapter.items():
        own = gguf_name(f"{name}.weight")
        if own is None:
            raise CheckpointError(f"the adapter changes {name}, which llama.cpp cannot", "use --prm-engine torch")
        writer.add_tensor(f"{own}.lora_a", np.ascontiguousarray(low.down, np.float32))
        # llama.cpp divides by each map's own rank.
        scale = np.float32(low.scale * low.down.shape[0] / rank)
        writer.add_tensor(f"{own}.lora_b", np.ascontiguousarray(low.up * scale, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of a safetensors file in fp32. numpy has no bf16: its bits are the upper half of an fp32."""
    from safetensors import deserialize

    plain = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
    tensors = {}
    for key, stored in deserialize(path.read_bytes()):  # type: ignore[no-untyped-call]
        if stored["dtype"] == "BF16":
            values = (np.frombuffer(stored["data"], np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif stored["dtype"] in plain:
            values = np.frombuffer(stored["data"], plain[stored["dtype"]]).astype(np.float32)
        else:
            raise ValueError(f"{key} is of type {stored['dtype']}")
        tensors[key] = values.reshape(stored["shape"])
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a checkpoint's file. Raises CheckpointError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", "the checkpoint is damaged or incomplete") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object", "the checkpoint is damaged")
    return value
