"""The fitted head as a checkpoint that the app loads, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.prm.checkpoint import Checkpoint, load
from dreamprm_cli.prm.checkpoint import save as save_checkpoint
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.source import locate_backbone
from dreamprm_trainer.recipe import Recipe


def save(folder: Path, head: Head, recipe: Recipe, report: Mapping[str, Any]) -> None:
    """Write the checkpoint. `data_sha256` digests the names and digests of all files that training read."""
    source = locate_backbone(recipe.backbone)
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    listed = "".join(f"{name} {digest}\n" for name, digest in sorted(report["files"].items()))
    checkpoint = Checkpoint(
        backbone=recipe.backbone,
        backbone_sha256=source.sha256,
        layers=recipe.settings.layers,
        head=head,
        hidden=config["hidden_size"],
        aggregation=recipe.aggregation,
        forms=tuple(report["forms"]),
        data_sha256=hashlib.sha256(listed.encode()).hexdigest(),
        metrics={"validation_auc_within": report["ablations"]["all"]["by_source"], "recipe": recipe.name},
    )
    save_checkpoint(checkpoint, folder, config)


def load_head(folder: Path, recipe: Recipe) -> Head:
    """The head, if it reads what the recipe caches. Raises CheckpointError."""
    checkpoint = load(folder)
    if checkpoint.layers != recipe.settings.layers or checkpoint.backbone != recipe.backbone:
        raise CheckpointError(f"{folder} was not fitted with {recipe.path}", "run `fit` with this recipe first")
    return checkpoint.head
