"""A recipe: which programs, how their steps are labelled, which model is fitted to them, and how. TOML in, values out.

A name without a folder or ending (`laptop`) is a shipped recipe; anything else is a file.

[label] says who writes the programs and who goes on from their prefixes. [fit] says what every way of fitting shares,
and has a table for each way; only the table of the way that is taken is read:

    params = "features", solver "convex"   [fit.convex]  fit.py      labels keep still: mode plain only
    params = "features", solver "epochs"   [fit.epochs]  correct.py  every mode
    params = "lora" or "full"              [fit.tune]    tune.py     every mode

Left out, `solver` is what suits the mode: a head on frozen states whose labels keep still is a convex problem, solved
to its one minimum in seconds, with the pairwise loss that ranking wants; labels or weights that move need epochs to
move in. To compare modes with nothing else differing, say `solver = "epochs"` for all of them.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from dreamprm_cli.aggregate import AGGREGATIONS
from dreamprm_cli.errors import ConfigError
from dreamprm_cli.prm.pooling import POOLINGS, Pooling
from dreamprm_trainer import correct
from dreamprm_trainer.data import Source
from dreamprm_trainer.fit import Settings
from dreamprm_trainer.labels import MODES, Mode
from dreamprm_trainer.reading import UNITS
from dreamprm_trainer.tune_settings import TuneSettings

Params = Literal["features", "lora", "full"]
PARAMS: tuple[Params, ...] = ("features", "lora", "full")
SOLVERS = ("auto", "convex", "epochs")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Grid:
    """What a search tries: every combination."""

    layers: tuple[tuple[int, ...], ...]
    l2: tuple[float, ...]
    steps: tuple[str, ...]
    pairwise: tuple[float, ...]
    seeds: int


@dataclass(frozen=True, slots=True)
class Label:
    """How programs and the labels of their steps come about.

    policy, n, temperature: who writes the programs, how many of each problem, how boldly; max_tokens: of a program
    rollout_policy, k, rollout_temperature: who goes on from each prefix, at most how often, how boldly
    adaptive:               stop before `k` where the answer is clear (unanimous after 4, or a Beta sd below 0.08)
    """

    policy: str
    rollout_policy: str
    n: int = 8
    temperature: float = 0.8
    max_tokens: int = 1024
    k: int = 16
    rollout_temperature: float = 0.8
    adaptive: bool = True


@dataclass(frozen=True, slots=True)
class Fit:
    """What is fitted.

    layers: whose states the head reads, counted from 1; start: where labels begin (`labels.STARTS`)
    meta:   share of the training problems whose whole programs say where labels or weights should go; they are
            not trained on but in mode pooled. Mode plain needs none
    validate: sources whose held-out programs say when to stop, and calibrate (default: those that are trained on)
    logprob_weight: of the policy's mean log-probability beside the reward, where programs are ranked
            (`aggregate.standing`)
    refit:  of mode correct over frozen states: when labels have moved, the convex solver fits the head to where they
            ended and to the meta set, so that few problems all count
    init:   a PRM to start from (a folder or a shipped name), for params = "features" and the head of the others
    replay: sources among those trained on that this PRM knows, so that they are not forgotten; not cross-fitted
    """

    layers: tuple[int, ...]
    params: Params = "features"
    mode: Mode = "plain"
    solver: Literal["auto", "convex", "epochs"] = "auto"
    start: str = "mc"
    meta: float = 0.25
    validate: tuple[str, ...] = ()
    logprob_weight: float = 0.0
    refit: bool = False
    init: str | None = None
    replay: tuple[str, ...] = ()
    seed: int = 0

    @property
    def convex(self) -> bool:
        """Whether the head is fitted by the convex solver."""
        solver = ("convex" if self.mode == "plain" else "epochs") if self.solver == "auto" else self.solver
        return self.params == "features" and solver == "convex"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the sections of the file say.

    layers: those cached; train: names of the sources fitted on, and `weights` how much a program of each counts
    (default 1); fit: how; settings, epochs, tune: of its three ways; aggregation: of the rewards; grid: of `search`;
    unit: what a step is, a key of `reading.UNITS`; pooling: which states of it are read; notes: what the model card
    says that no measurement does.
    """

    path: Path
    name: str
    backbone: str
    layers: tuple[int, ...]
    reference: str | None
    sources: tuple[Source, ...]
    train: tuple[str, ...]
    weights: Mapping[str, float]
    fit: Fit
    settings: Settings
    epochs: correct.Settings
    tune: TuneSettings
    aggregation: str
    label: Label | None = None
    grid: Grid | None = None
    unit: str = "function"
    pooling: Pooling = "last"
    notes: tuple[str, ...] = field(default=())

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def validate(self) -> tuple[str, ...]:
        """Sources whose held-out programs say when to stop."""
        return self.fit.validate or self.train

    @property
    def models(self) -> tuple[str, ...]:
        """All that are named."""
        label = self.label
        return tuple(dict.fromkeys((self.backbone, *((label.policy, label.rollout_policy) if label else ()))))

    def over(self, backbone: str, layers: tuple[int, ...], pooling: Pooling) -> Recipe:
        """The recipe on these states of that backbone."""
        return replace(
            self,
            backbone=backbone,
            layers=layers,
            pooling=pooling,
            fit=replace(self.fit, layers=layers),
            settings=replace(self.settings, layers=layers),
            tune=replace(self.tune, backbone=backbone, layers=layers),
        )

    def asked(self, *, params: str | None = None, mode: str | None = None, seed: int | None = None) -> Recipe:
        """The recipe with what flags say instead of it. Raises ConfigError for what does not go together."""
        given = {"params": params, "mode": mode, "seed": seed}
        _known(mode or self.fit.mode, MODES, "mode")
        fit = replace(self.fit, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
        return _checked(
            replace(
                self,
                fit=fit,
                epochs=replace(self.epochs, mode=fit.mode),
                tune=replace(
                    self.tune, mode=fit.mode, seed=fit.seed, params="full" if fit.params == "full" else "lora"
                ),
            )
        )


def shipped() -> dict[str, Path]:
    """Name -> file of the recipes that come with the package (in a checkout: `trainer/recipes`)."""
    here = Path(__file__).parent
    folder = next((some for some in (here / "recipes", here.parent / "recipes") if some.is_dir()), here)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_recipe(spec: str) -> Path:
    """The file of a recipe given by shipped name or by path. Raises ConfigError naming the shipped ones."""
    known = shipped()
    if Path(spec).suffix != ".toml" and Path(spec).name == spec:
        if spec in known:
            return known[spec]
        raise ConfigError(f"no recipe {spec!r}", f"a file, or one of {', '.join(known)}")
    return Path(spec)


def read_recipe(path: Path) -> Recipe:
    """Raises ConfigError naming what is wrong with the file."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"recipe {path}: {error}") from None
    try:
        return _recipe(path, table).asked()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"recipe {path}: missing or wrong entry {error}") from None
    except ConfigError as error:
        raise ConfigError(f"recipe {path}: {error.message.removeprefix(f'recipe {path}: ')}", error.hint) from None


def _recipe(path: Path, table: Mapping[str, Any]) -> Recipe:
    sources = tuple(Source.of(entry) for entry in table["source"])
    fit = dict(table["fit"])
    train, aggregation = tuple(fit.pop("train")), fit.pop("aggregation")
    weights = dict(fit.pop("weights", {}))
    ways = {way: dict(fit.pop(way, {})) for way in ("convex", "epochs", "tune")}
    own = _made(Fit, fit, "fit")
    layers = tuple(table.get("layers", own.layers))
    grid = table.get("search")
    return Recipe(
        path=path,
        name=table["name"],
        backbone=table["backbone"],
        layers=layers,
        reference=table.get("reference"),
        sources=sources,
        train=train,
        weights=weights,
        fit=own,
        settings=_made(Settings, {"layers": own.layers, **ways["convex"]}, "fit.convex"),
        epochs=_made(correct.Settings, ways["epochs"], "fit.epochs"),
        tune=_made(TuneSettings, {"backbone": table["backbone"], "layers": own.layers, **ways["tune"]}, "fit.tune"),
        aggregation=aggregation,
        label=_made(Label, table["label"], "label") if "label" in table else None,
        grid=None if grid is None else _grid(grid),
        unit=table.get("unit", "function"),
        pooling=table.get("pooling", "last"),
        notes=tuple(table.get("notes", ())),
    )


def _made(kind: Callable[..., _T], values: Mapping[str, Any], where: str) -> _T:
    """Raises ConfigError for keys that `kind` does not know or lacks."""
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except TypeError as error:
        raise ConfigError(f"[{where}]: {str(error).partition('() ')[2] or error}") from None


def _grid(table: Mapping[str, Any]) -> Grid:
    return Grid(
        layers=tuple(tuple(some) for some in table["layers"]),
        l2=tuple(table["l2"]),
        steps=tuple(table["steps"]),
        pairwise=tuple(table["pairwise"]),
        seeds=int(table["seeds"]),
    )


def _checked(recipe: Recipe) -> Recipe:
    """The recipe, if its parts go together."""
    fit = recipe.fit
    unknown = {*recipe.train, *recipe.weights, *fit.validate} - {source.name for source in recipe.sources}
    if unknown:
        raise ConfigError(f"no source named {', '.join(sorted(unknown))}")
    if not recipe.train:
        raise ConfigError("nothing to train on: [fit] train names no source")
    if fit.replay and (fit.init is None or not set(fit.replay) < set(recipe.train)):
        raise ConfigError("replay names sources of `train`, not all, that the PRM of `init` knows")
    _known(recipe.aggregation, AGGREGATIONS, "aggregation")
    _known(fit.params, PARAMS, "params")
    _known(recipe.unit, UNITS, "unit")
    _known(recipe.pooling, POOLINGS, "pooling")
    if (recipe.unit, recipe.pooling) != ("function", "last") and fit.params != "features":
        raise ConfigError(
            "lines as steps and means over tokens are of frozen states",
            'leave `unit` and `pooling` out, or params = "features"',
        )
    _known(fit.solver, SOLVERS, "solver")
    if fit.convex and fit.mode != "plain":
        raise ConfigError(
            f"the convex solver moves no labels or weights: mode {fit.mode} needs another",
            'leave solver out of [fit], or say solver = "epochs"',
        )
    if recipe.weights and not fit.convex:
        raise ConfigError("weights of sources are of the convex solver", 'leave them out, or mode = "plain"')
    if not 0 <= fit.logprob_weight < math.inf:
        raise ConfigError(f"logprob_weight = {fit.logprob_weight} is no weight of a log-probability")
    if not 0 <= fit.meta < 1:
        raise ConfigError(f"meta = {fit.meta} is no share of the training problems")
    wanted = {*fit.layers, *(layer for some in (recipe.grid.layers if recipe.grid else ()) for layer in some)}
    if not wanted <= set(recipe.layers):
        raise ConfigError(f"layers {sorted(wanted - set(recipe.layers))} are not among those cached")
    return recipe


def _known(value: str, known: Iterable[str], what: str) -> None:
    if value not in known:
        raise ConfigError(f"unknown {what} {value!r}", f"one of {', '.join(known)}")
