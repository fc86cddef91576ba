"""A checkpoint as one folder that vLLM serves: backbone, merged adapter and head in one token-classification model.

    config.json, model.safetensors    a Qwen2ForTokenClassification with one label
    tokenizer.json, ...               the backbone's
    dreamprm.json, head.safetensors   which make it a checkpoint of ours too, self-contained

The model has as many layers as the head needs; the final norm stands after the last of them, as our heads expect it.
The calibration is folded into the head, so that vLLM's sigmoid gives the reward.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.models import Report
from dreamprm_cli.prm.adapter import LowRank, load_adapter
from dreamprm_cli.prm.checkpoint import Checkpoint, backbone_of, check_backbone, save
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.open import read_checkpoint
from dreamprm_cli.prm.source import locate_backbone, made_whole

if TYPE_CHECKING:
    import torch


def export_vllm(spec: str, out: Path, *, progress: Report | None = None) -> Checkpoint:
    """Write the checkpoint `spec` into the new folder `out`; what was written.

    Maps that an adapter changes are kept in fp32, in which small updates are not rounded away; all else is as the
    backbone has it. Raises CheckpointError for a head that such a model does not hold, and when `out` is there already.
    """
    from safetensors.torch import save_file

    from dreamprm_cli.prm.backbone import read_tensors

    folder, checkpoint = read_checkpoint(spec)
    if checkpoint.pooling != "last":
        raise CheckpointError(
            f"{spec}: the head reads the mean over a function's tokens, and vLLM rewards each token by itself",
            "export a checkpoint that reads last tokens, or use `dreamprm serve`",
        )
    if len(checkpoint.layers) > 1:
        layers = " and ".join(map(str, checkpoint.layers))
        raise CheckpointError(
            f"{spec}: the head reads layers {layers}, and vLLM has the state after one layer only",
            "export a checkpoint that was trained with one layer, or use `dreamprm serve`",
        )
    if out.exists():
        raise CheckpointError(f"{out} is there already", "name a new folder")
    source = locate_backbone(backbone_of(checkpoint, folder), report=progress)
    check_backbone(checkpoint, source)
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    tensors = read_tensors(source.folder, checkpoint.layers[0])
    merged = {f"model.{name}": tensor for name, tensor in _merge(tensors, load_adapter(folder) or {}, spec).items()}
    head = _calibrated(checkpoint.head)
    with made_whole(out) as scratch:
        save_file({**merged, **_head_tensors(head)}, scratch / "model.safetensors", metadata={"format": "pt"})
        (scratch / "model.safetensors").chmod(0o644)  # who serves it may be another user
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (source.folder / name).exists():
                shutil.copyfile(source.folder / name, scratch / name)
        exported = replace(checkpoint, backbone="./", backbone_sha256=locate_backbone(str(scratch)).sha256, head=head)
        # For one label vLLM's default would be a sigmoid too; this says it.
        save(exported, scratch, {**config, "problem_type": "multi_label_classification"})
    return exported


def _calibrated(head: Head) -> Head:
    """The same rewards, without a calibration: (w x + b) / t + o = (w / t) x + (b / t + o)."""
    weight = (head.weight.astype(np.float64) / head.temperature).astype(np.float32)
    return Head(weight, head.bias / head.temperature + head.offset)


def _head_tensors(head: Head) -> dict[str, torch.Tensor]:
    import torch

    return {
        "score.weight": torch.from_numpy(head.weight.reshape(1, -1).copy()),
        "score.bias": torch.tensor([head.bias], dtype=torch.float32),
    }


def _merge(tensors: Mapping[str, torch.Tensor], adapter: Mapping[str, LowRank], spec: str) -> dict[str, torch.Tensor]:
    """The weights with `scale * up @ down` added."""
    import torch

    merged = {name: tensor.contiguous() for name, tensor in tensors.items()}
    for name, low in adapter.items():
        weight = merged.get(f"{name}.weight")
        if weight is None or tuple(weight.shape) != (low.up.shape[0], low.down.shape[1]):
            raise CheckpointError(f"{spec}: the adapter's {name} is none of the backbone's", "train it again")
        update = torch.from_numpy(low.scale * (low.up.astype(np.float64) @ low.down.astype(np.float64)))
        merged[f"{name}.weight"] = (weight.double() + update).float()
    return merged
