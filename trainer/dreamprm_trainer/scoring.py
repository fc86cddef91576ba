"""Checkpoints -> step rewards of programs. Those that read the same states share one encoding of every program."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.prm.checkpoint import Checkpoint, check_backbone, load, resolve
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.source import locate_backbone
from dreamprm_trainer.data import Item, unique
from dreamprm_trainer.features import Cache, News, Reading, encode, widest
from dreamprm_trainer.tables import Table, build

Rewards = list[list[float]]  # of the scored steps of each program; empty where there is none


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """A checkpoint under the name that its results go by."""

    name: str
    folder: Path
    checkpoint: Checkpoint

    @property
    def reading(self) -> Reading:
        own = self.checkpoint
        adapter = self.folder / "adapter_model.safetensors"
        there = adapter.is_file()
        return Reading(
            unit=own.unit,
            adapter_sha256=hashlib.sha256(adapter.read_bytes()).hexdigest() if there else "",
            step_token=own.step_token,
            max_length=own.max_length,
            code_reserve=own.code_reserve,
            adapter=self.folder if there else None,
        )


def open_judges(prm: str, rivals: Mapping[str, str], taken: Sequence[str] = ()) -> list[Judge]:
    """The reward model, called `prm`, unless it is "none"; the rivals beside it (`PRM/rivals/NAME`); those given.

    rivals: name -> checkpoint; one of the same name comes before that beside the model. taken: names of other methods.
    Raises CheckpointError; ConfigError for a name that is taken.
    """
    folders: dict[str, Path] = {}
    if prm != "none":
        folders["prm"] = resolve(prm)
        beside = sorted(folders["prm"].glob("rivals/*/dreamprm.json"))
        folders |= {path.parent.name: path.parent for path in beside}
    for name, spec in rivals.items():
        if not name or name == "prm" or name in taken or name.startswith("prm,"):
            raise ConfigError(f"--rival: {name!r} is the name of another method", "give it a name of its own")
        folders[name] = resolve(spec)
    return [Judge(name, folder, load(folder)) for name, folder in folders.items()]


def score(
    judges: Sequence[Judge], items: Sequence[Item], folder: Path, tell: Callable[[News], None] = lambda news: None
) -> dict[str, Rewards]:
    """Step rewards by judge, along `items`. folder: of the feature cache; what is in it is not encoded again.

    Raises CheckpointError when a backbone is not the one that a head was fitted on.
    """
    shared: dict[tuple[str, Reading], list[Judge]] = {}
    for judge in judges:
        shared.setdefault((judge.checkpoint.backbone_sha256, judge.reading), []).append(judge)
    found: dict[str, Rewards] = {}
    for (_, reading), members in shared.items():
        source = locate_backbone(members[0].checkpoint.backbone)
        check_backbone(members[0].checkpoint, source)
        layers = sorted({layer for judge in members for layer in judge.checkpoint.layers})
        cache = widest(Cache(folder, members[0].checkpoint.backbone, source.sha256, tuple(layers), reading))
        for news in encode(items, cache):
            tell(news)
        once = unique(items)
        table = build(once, cache)
        for judge in members:
            each = rewards(judge.checkpoint.head, table, judge.checkpoint.layers, cache.layers)
            by_text = {(item.problem.id, item.key): own for item, own in zip(table.items, each, strict=True)}
            found[judge.name] = [by_text.get((item.problem.id, item.key), []) for item in items]
    return {judge.name: found[judge.name] for judge in judges}


def rewards(head: Head, table: Table, layers: Sequence[int], cached: Sequence[int]) -> Rewards:
    """Step rewards of each program's scored steps."""
    if not table.items:
        return []
    flat = head.rewards(table.features(layers, cached))
    result: Rewards = [[] for _ in table.items]
    for program, reward in zip(table.program.tolist(), flat.tolist(), strict=True):
        result[program].append(reward)
    return result
