"""Checkpoints -> step rewards of programs. Those that read the same states share one encoding of every program."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.models import Report
from dreamprm_cli.prm.checkpoint import Checkpoint, backbone_of, check_backbone, load, resolve
from dreamprm_cli.prm.source import BackboneSource, locate_backbone
from dreamprm_cli.training import Tell, silent
from dreamprm_trainer.data import Item, unique
from dreamprm_trainer.evaluate import MAIN, WITH_LOGPROB
from dreamprm_trainer.features import Cache, extract, widest
from dreamprm_trainer.reading import Reading
from dreamprm_trainer.tables import build

Rewards = list[list[float]]  # of the scored steps of each program; empty where there is none


@dataclass(frozen=True, slots=True, eq=False)
class Ranker:
    """A checkpoint under the name that its results go by."""

    name: str
    folder: Path
    checkpoint: Checkpoint
    backbone: BackboneSource

    @property
    def reading(self) -> Reading:
        own = self.checkpoint
        adapter = self.folder / "adapter_model.safetensors"
        there = adapter.is_file()
        return Reading(
            unit=own.unit,
            pooling=own.pooling,
            adapter_sha256=hashlib.sha256(adapter.read_bytes()).hexdigest() if there else "",
            step_token=own.step_token,
            max_length=own.max_length,
            code_reserve=own.code_reserve,
            adapter=self.folder if there else None,
        )


def open_rankers(
    prm: str,
    rivals: Mapping[str, str],
    taken: Sequence[str] = (),
    report: Report | None = None,
    *,
    beside: bool = True,
) -> list[Ranker]:
    """The reward model, called `prm`, unless it is "none"; the rivals beside it (`PRM/rivals/NAME`) unless they are not
    wanted; those given.

    rivals: name -> checkpoint; one of the same name comes before that beside the model. taken: names of other methods.
    Fetches backbones that are not here. Raises CheckpointError, ModelError; ConfigError for a name that is taken.
    """
    folders: dict[str, Path] = {}
    if prm != "none":
        folders[MAIN] = resolve(prm)
        there = sorted(folders[MAIN].glob("rivals/*/dreamprm.json")) if beside else []
        folders |= {path.parent.name: path.parent for path in there}
    for name, spec in rivals.items():
        if not name or name in (MAIN, WITH_LOGPROB, *taken) or name.startswith(f"{MAIN},"):
            raise ConfigError(f"--rival: {name!r} is the name of another method", "give it a name of its own")
        folders[name] = resolve(spec)
    rankers = []
    for name, folder in folders.items():
        checkpoint = load(folder)
        source = locate_backbone(backbone_of(checkpoint, folder), report=report)
        check_backbone(checkpoint, source)
        rankers.append(Ranker(name, folder, checkpoint, source))
    return rankers


def score(rankers: Sequence[Ranker], items: Sequence[Item], folder: Path, tell: Tell = silent) -> dict[str, Rewards]:
    """Step rewards by ranker, along `items`. folder: of the feature cache; what is in it is not encoded again."""
    if not rankers:
        return {}
    from dreamprm_trainer.select import rewards  # which imports torch

    shared: dict[tuple[str, Reading], list[Ranker]] = {}
    for ranker in rankers:
        shared.setdefault((ranker.backbone.sha256, ranker.reading), []).append(ranker)
    found: dict[str, Rewards] = {}
    for (sha256, reading), members in shared.items():
        layers = sorted({layer for ranker in members for layer in ranker.checkpoint.layers})
        backbone = backbone_of(members[0].checkpoint, members[0].folder)
        cache = widest(Cache(folder, backbone, sha256, tuple(layers), reading))
        extract(items, cache, None, tell)
        table = build(unique(items), cache)
        for ranker in members:
            own = ranker.checkpoint
            each = rewards(own.head, table, own.layers, cache.layers) if table.items else []
            by_text = {(item.problem.id, item.key): steps for item, steps in zip(table.items, each, strict=True)}
            found[ranker.name] = [by_text.get((item.problem.id, item.key), []) for item in items]
    return {ranker.name: found[ranker.name] for ranker in rankers}
