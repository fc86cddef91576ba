"""Frozen features: the backbone's states at each step's end, as the live scorer reads them, cached on disk.

One file a problem, `CACHE/<configuration>/<problem>.npz`, with an array (steps, layers, hidden) in fp16 for each
program text. The configuration is a digest of backbone, template, splitter, layers and `Reading`, so a cache is never
stale; a killed run goes on with the problems that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamprm_cli.prompts import PRM_TEMPLATE_VERSION, prm_input
from dreamprm_cli.steps import SPLITTER_VERSION, line_steps, split
from dreamprm_cli.types import Problem, Step
from dreamprm_trainer.data import Item

Features = NDArray[np.float16]
UNITS: dict[str, Callable[[str], list[Step]]] = {"function": split, "line": line_steps}
_LAYERS = "layers.json"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a backbone reads programs; two reward models with equal ones share states.

    unit: what a step is, a key of UNITS. adapter: a checkpoint's folder whose LoRA adapter is applied, and its digest.
    The others are the scorer's (see PackedScorer).
    """

    unit: str = "function"
    adapter_sha256: str = ""
    step_token: str | None = None
    max_length: int = 4096
    code_reserve: int = 1536
    adapter: Path | None = field(default=None, compare=False)

    @property
    def named(self) -> tuple[object, ...]:
        """What tells it from the default; nothing for the default itself."""
        names = ("unit", "adapter_sha256", "step_token", "max_length", "code_reserve")
        return () if self == Reading() else tuple(getattr(self, name) for name in names)


@dataclass(frozen=True, slots=True)
class Cache:
    """Where features of one backbone, one choice of layers and one way of reading lie."""

    folder: Path
    backbone: str
    backbone_sha256: str
    layers: tuple[int, ...]
    reading: Reading = Reading()

    @property
    def home(self) -> Path:
        parts = (
            self.backbone_sha256,
            PRM_TEMPLATE_VERSION,
            SPLITTER_VERSION,
            self.layers,
            *self.reading.named,
        )
        # The name alone: a backbone given as an absolute path would otherwise replace the folder.
        return self.folder / f"{Path(self.backbone).name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"

    def path(self, problem: Problem) -> Path:
        """A problem's file; its name holds a digest of the text that the backbone reads."""
        text = hashlib.sha256(prm_input(problem).text.encode()).hexdigest()[:12]
        return self.home / f"{problem.id.replace('/', '_')}-{text}.npz"

    def read(self, problem: Problem) -> dict[str, Features]:
        """Program key -> features (steps, layers, hidden); empty when nothing is cached."""
        path = self.path(problem)
        if not path.exists():
            return {}
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def write(self, problem: Problem, features: dict[str, Features]) -> None:
        path = self.path(problem)
        path.parent.mkdir(parents=True, exist_ok=True)
        layers = self.home / _LAYERS
        if not layers.exists():
            layers.write_text(json.dumps(self.layers), encoding="utf-8")
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            np.savez(file, **features)  # type: ignore[arg-type]
        scratch.replace(path)

    def cut(self, items: Iterable[Item]) -> list[Item]:
        """The items in the steps that are read."""
        unit = self.reading.unit
        return list(items) if unit == "function" else [_cut(item, UNITS[unit]) for item in items]


def _cut(item: Item, unit: Callable[[str], list[Step]]) -> Item:
    """The same program in other steps. What is known of a prefix stays with the step that ends where it does."""
    steps = tuple(unit(item.code))
    places = {step.last_line: number for number, step in enumerate(item.steps)}
    old = [places.get(step.last_line) for step in steps]
    return replace(
        item,
        steps=steps,
        truth=tuple(None if n is None else item.truth[n] for n in old),
        passes=tuple(0 if n is None else item.passes[n] for n in old) if item.passes else (),
        rollouts=tuple(0 if n is None else item.rollouts[n] for n in old) if item.rollouts else (),
    )


def open_cache(folder: Path, backbone: str, layers: Sequence[int], reading: Reading = Reading()) -> Cache:
    from dreamprm_cli.prm.source import locate_backbone

    return Cache(folder, backbone, locate_backbone(backbone).sha256, tuple(layers), reading)


def widest(cache: Cache) -> Cache:
    """A cache on disk that holds the layers of `cache` among others, if there is one; else `cache` itself.

    What training has encoded is not encoded again to be judged.
    """
    for path in sorted(cache.folder.glob(f"*/{_LAYERS}")):
        wider = replace(cache, layers=tuple(json.loads(path.read_text(encoding="utf-8"))))
        if wider.home == path.parent and set(cache.layers) < set(wider.layers):
            return wider
    return cache


def extract(items: Sequence[Item], cache: Cache, minutes: float | None = None) -> bool:
    """Encode every program that the cache lacks. False when `minutes` were up before the end."""
    started = time.monotonic()
    for news in encode(items, cache):
        spent = time.monotonic() - started
        if minutes is not None and spent >= minutes * 60 and news.problem:
            return False
        if news.tokens:
            rate = news.tokens / spent
            print(f"{news.done}/{news.total} {news.problem}: {rate:.0f} tok/s", file=sys.stderr, flush=True)
    return True


@dataclass(frozen=True, slots=True)
class News:
    """`done` of `total` problems are encoded, `problem` is next ("" at the end); `tokens` have been read so far."""

    done: int
    total: int
    problem: str
    tokens: int


def encode(items: Sequence[Item], cache: Cache) -> Iterator[News]:
    """Encode what the cache lacks, problem by problem, telling before each and at the end."""
    by_problem: dict[Path, list[Item]] = defaultdict(list)
    for item in cache.cut(items):
        if item.steps:
            by_problem[cache.path(item.problem)].append(item)
    scorer: Any = None
    tokens = 0
    for number, group in enumerate(by_problem.values()):
        problem = group[0].problem
        known = cache.read(problem)
        missing = list({item.key: item for item in group if item.key not in known}.values())
        if not missing:
            continue
        yield News(number, len(by_problem), problem.id, tokens)
        scorer = scorer or open_scorer(cache)
        session = scorer.start(problem)
        flat = [(index, step) for index, item in enumerate(missing) for step in item.steps]
        states = session.append_features(flat).reshape(len(flat), len(cache.layers), -1)
        at = 0
        for item in missing:
            known[item.key] = states[at : at + len(item.steps)].astype(np.float16)
            at += len(item.steps)
        cache.write(problem, known)
        tokens += session.encoded_tokens
    yield News(len(by_problem), len(by_problem), "", tokens)


def open_scorer(cache: Cache) -> Any:
    """The live scorer without a head: training reads what scoring reads."""
    from dreamprm_cli.prm.backbone import load_backbone
    from dreamprm_cli.prm.checkpoint import load_adapter
    from dreamprm_cli.prm.scorer import PackedScorer
    from dreamprm_cli.prm.source import locate_backbone

    reading = cache.reading
    backbone = load_backbone(
        locate_backbone(cache.backbone),
        depth=max(cache.layers),
        adapter=None if reading.adapter is None else load_adapter(reading.adapter),
    )
    return PackedScorer(
        backbone,
        layers=cache.layers,
        step_token=reading.step_token,
        max_length=reading.max_length,
        code_reserve=reading.code_reserve,
    )
