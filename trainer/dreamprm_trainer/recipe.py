"""A recipe: which programs, which backbone states, which head. TOML in, frozen values out."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm_cli.aggregate import AGGREGATIONS
from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.data import Source
from dreamprm_trainer.fit import Settings


@dataclass(frozen=True, slots=True)
class Grid:
    """What a search tries: every combination."""

    layers: tuple[tuple[int, ...], ...]
    l2: tuple[float, ...]
    steps: tuple[str, ...]
    pairwise: tuple[float, ...]
    seeds: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the sections of the file say.

    layers: those cached; train: names of the sources fitted on, and `weights` how much a program of each counts
    (default 1); settings, aggregation: of the head; grid: of `search`; notes: what the model
    card says that no measurement does.
    """

    path: Path
    name: str
    backbone: str
    layers: tuple[int, ...]
    reference: str | None
    sources: tuple[Source, ...]
    train: tuple[str, ...]
    weights: Mapping[str, float]
    settings: Settings
    aggregation: str
    grid: Grid
    notes: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return self.path.parent


def read_recipe(path: Path) -> Recipe:
    """Raises ConfigError naming what is wrong with the file."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"recipe {path}: {error}") from None
    try:
        return _recipe(path, table)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"recipe {path}: missing or wrong entry {error}") from None


def _recipe(path: Path, table: Mapping[str, Any]) -> Recipe:
    sources = tuple(Source.of(entry) for entry in table["source"])
    fit, grid = dict(table["fit"]), table["search"]
    train, aggregation = tuple(fit.pop("train")), fit.pop("aggregation")
    weights = dict(fit.pop("weights", {}))
    unknown = {*train, *weights} - {source.name for source in sources}
    if unknown:
        raise ConfigError(f"recipe {path}: no source named {', '.join(sorted(unknown))}")
    if aggregation not in AGGREGATIONS:
        raise ConfigError(f"recipe {path}: unknown aggregation {aggregation!r}", f"one of {', '.join(AGGREGATIONS)}")
    layers = tuple(table["layers"])
    settings = Settings(**{**fit, "layers": tuple(fit["layers"])})
    wanted = {*settings.layers, *(layer for some in grid["layers"] for layer in some)}
    if not wanted <= set(layers):
        raise ConfigError(f"recipe {path}: layers {sorted(wanted - set(layers))} are not among those cached")
    return Recipe(
        path=path,
        name=table["name"],
        backbone=table["backbone"],
        layers=layers,
        reference=table.get("reference"),
        sources=sources,
        train=train,
        weights=weights,
        settings=settings,
        aggregation=aggregation,
        grid=Grid(
            layers=tuple(tuple(some) for some in grid["layers"]),
            l2=tuple(grid["l2"]),
            steps=tuple(grid["steps"]),
            pairwise=tuple(grid["pairwise"]),
            seeds=int(grid["seeds"]),
        ),
        notes=tuple(table.get("notes", ())),
    )
