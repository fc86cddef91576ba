"""A fitted head, or a tuned backbone and its head, as a checkpoint that the app loads; and a head back from one."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.prm.adapter import load_adapter
from dreamprm_cli.prm.checkpoint import Checkpoint, load, resolve
from dreamprm_cli.prm.checkpoint import save as save_checkpoint
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.source import BackboneSource, locate_backbone, made_whole
from dreamprm_trainer.recipe import Recipe
from dreamprm_trainer.tune_settings import TuneSettings

if TYPE_CHECKING:
    from dreamprm_trainer.reward_model import RewardModel


def data_digest(files: Mapping[str, str]) -> str:
    """Of the names and digests of all files that training read."""
    listed = "".join(f"{name} {digest}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def save(folder: Path, head: Head, recipe: Recipe, report: Mapping[str, Any]) -> None:
    """Write the checkpoint of a head on frozen states."""
    source = locate_backbone(recipe.backbone)
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    checkpoint = Checkpoint(
        backbone=recipe.backbone,
        backbone_sha256=source.sha256,
        layers=recipe.fit.layers,
        head=head,
        hidden=config["hidden_size"],
        pooling=recipe.pooling,
        aggregation=recipe.aggregation,
        logprob_weight=recipe.fit.logprob_weight,
        unit=recipe.unit,
        forms=tuple(report["forms"]),
        data_sha256=data_digest(report["files"]),
        metrics=_metrics(recipe, report),
    )
    save_checkpoint(checkpoint, folder, config)


def adopt(tuned: Path, folder: Path, recipe: Recipe, report: Mapping[str, Any]) -> None:
    """Save a tuned checkpoint in `folder`, with what the recipe and the report know of it."""
    config = json.loads((tuned / "config.json").read_text(encoding="utf-8"))
    checkpoint = replace(
        load(tuned),
        aggregation=recipe.aggregation,
        logprob_weight=recipe.fit.logprob_weight,
        forms=tuple(report["forms"]),
        data_sha256=data_digest(report["files"]),
        metrics=_metrics(recipe, report),
    )
    if (tuned / "backbone").is_dir():
        shutil.rmtree(folder / "backbone", ignore_errors=True)
        with made_whole(folder / "backbone") as scratch:
            shutil.copytree(tuned / "backbone", scratch, dirs_exist_ok=True)
    save_checkpoint(checkpoint, folder, config, tuned if load_adapter(tuned) is not None else None)


def _metrics(recipe: Recipe, report: Mapping[str, Any]) -> dict[str, Any]:
    return {"validation_auc_within": report["validation"]["auc_within"], "recipe": recipe.name}


def start_head(recipe: Recipe) -> Head | None:
    """The head of the PRM that the recipe starts from. Raises CheckpointError for one that reads other states."""
    return None if recipe.fit.init is None else load_head(resolve(recipe.fit.init), recipe)


def load_head(folder: Path, recipe: Recipe) -> Head:
    """The head, if it reads what the recipe caches. Raises CheckpointError."""
    checkpoint = load(folder)
    own = checkpoint.backbone, checkpoint.layers, checkpoint.pooling
    if own != (recipe.backbone, recipe.fit.layers, recipe.pooling):
        raise CheckpointError(
            f"{folder} reads layers {list(checkpoint.layers)} ({checkpoint.pooling}) of {checkpoint.backbone}, "
            f"{recipe.path} others",
            "fit with this recipe first, or give another --checkpoint",
        )
    return checkpoint.head


def save_tuned(
    folder: Path,
    model: RewardModel,
    source: BackboneSource,
    settings: TuneSettings,
    head: Head,
    forms: tuple[str, ...],
    data_sha256: str,
    metrics: Mapping[str, Any],
) -> None:
    """Write a checkpoint of adapter and head, or of head and the whole backbone where all of it was trained."""
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    own = source
    if settings.params == "full":
        own = _save_backbone(folder / "backbone", model, source, config)
    checkpoint = Checkpoint(
        backbone=settings.backbone if own is source else "./backbone",
        backbone_sha256=own.sha256,
        layers=settings.layers,
        head=head,
        hidden=config["hidden_size"],
        max_length=settings.max_length,
        code_reserve=settings.code_reserve,
        forms=forms,
        data_sha256=data_sha256,
        metrics=metrics,
    )
    if own is not source:
        save_checkpoint(checkpoint, folder, config)
        return
    with tempfile.TemporaryDirectory() as scratch:
        model.backbone.peft_config["default"].base_model_name_or_path = settings.backbone
        model.backbone.save_pretrained(scratch, save_embedding_layers=False)
        save_checkpoint(checkpoint, folder, config, Path(scratch))


def _save_backbone(
    folder: Path, model: RewardModel, source: BackboneSource, config: Mapping[str, Any]
) -> BackboneSource:
    """A Hugging Face folder with the trained layers, and those below them, in the type that training computed in."""
    from safetensors.torch import save_file

    from dreamprm_cli.prm.backbone import read_tensors

    depth = max(model.layers)
    tensors = read_tensors(source.folder, depth)
    for name, parameter in model.qwen.named_parameters():
        dtype = model.dtype if parameter.dim() == 2 else parameter.dtype
        tensors[name] = parameter.detach().to("cpu", dtype)
    kept = {**config, "num_hidden_layers": depth}
    if "layer_types" in config:
        kept["layer_types"] = config["layer_types"][:depth]
    shutil.rmtree(folder, ignore_errors=True)
    with made_whole(folder) as scratch:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch / "model.safetensors")
        (scratch / "config.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (source.folder / name).is_file():
                shutil.copyfile(source.folder / name, scratch / name)
    return locate_backbone(str(folder))
