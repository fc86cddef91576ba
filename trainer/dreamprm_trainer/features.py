"""Frozen features: the backbone's states of each step, as the live scorer reads them, cached on disk.

One file a problem, `CACHE/<configuration>/<problem>.npz`, with an array (steps, layers, H) in fp16 for each program
text; H is the hidden size, or twice that where means are read too. The configuration is a digest of backbone, template,
splitter, layers and reading, so a cache is never stale; a killed run goes on with the problems that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamprm_cli.prompts import PRM_TEMPLATE_VERSION, prm_input
from dreamprm_cli.steps import SPLITTER_VERSION
from dreamprm_cli.training import Progressed, StageStarted, Tell, silent
from dreamprm_cli.types import Problem
from dreamprm_trainer.data import Item
from dreamprm_trainer.reading import DEFAULT, Reading

Features = NDArray[np.float16]
_LAYERS = "layers.json"


@dataclass(frozen=True, slots=True)
class Cache:
    """Where features of one backbone, one choice of layers and one way of reading lie."""

    folder: Path
    backbone: str
    backbone_sha256: str
    layers: tuple[int, ...]
    reading: Reading = DEFAULT

    @property
    def home(self) -> Path:
        parts = (self.backbone_sha256, PRM_TEMPLATE_VERSION, SPLITTER_VERSION, self.layers, *self.reading.named)
        # The name alone: a backbone given as an absolute path would otherwise replace the folder.
        return self.folder / f"{Path(self.backbone).name}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:12]}"

    def path(self, problem: Problem) -> Path:
        """A problem's file; its name holds a digest of the text that the backbone reads."""
        text = hashlib.sha256(prm_input(problem).text.encode()).hexdigest()[:12]
        return self.home / f"{problem.id.replace('/', '_')}-{text}.npz"

    def read(self, problem: Problem) -> dict[str, Features]:
        """Program key -> features (steps, layers, H); empty when nothing is cached."""
        path = self.path(problem)
        if not path.exists():
            return {}
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def keys(self, problem: Problem) -> set[str]:
        """Programs of the problem that are cached."""
        path = self.path(problem)
        if not path.exists():
            return set()
        with np.load(path) as arrays:
            return set(arrays.files)

    def write(self, problem: Problem, features: dict[str, Features]) -> None:
        path = self.path(problem)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (layers := self.home / _LAYERS).exists():
            layers.write_text(json.dumps(self.layers), encoding="utf-8")
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            np.savez(file, **features)  # type: ignore[arg-type]
        scratch.replace(path)


def open_cache(folder: Path, backbone: str, layers: Sequence[int], reading: Reading = DEFAULT) -> Cache:
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


def extract(items: Sequence[Item], cache: Cache, minutes: float | None = None, tell: Tell = silent) -> bool:
    """Encode every program that the cache lacks. False when `minutes` were up before the end."""
    by_problem: dict[Path, list[Item]] = defaultdict(list)
    for item in cache.reading.cut(items):
        if item.steps:
            by_problem[cache.path(item.problem)].append(item)
    todo = []
    for group in by_problem.values():
        known = cache.keys(group[0].problem)
        missing = list({item.key: item for item in group if item.key not in known}.values())
        if missing:
            todo.append(missing)
    if not todo:
        return True
    before = len(by_problem) - len(todo)
    tell(StageStarted(stage="features", unit="problems", total=len(by_problem), done=before))
    started = time.monotonic()
    scorer: Any = None
    tokens = 0
    for done, missing in enumerate(todo, 1):
        if minutes is not None and time.monotonic() - started >= minutes * 60:
            return False
        scorer = scorer or open_scorer(cache)
        problem = missing[0].problem
        session = scorer.start(problem)
        flat = [(index, step) for index, item in enumerate(missing) for step in item.steps]
        states = session.append_features(flat).reshape(len(flat), len(cache.layers), -1)
        made, at = cache.read(problem), 0
        for item in missing:
            made[item.key] = states[at : at + len(item.steps)].astype(np.float16)
            at += len(item.steps)
        cache.write(problem, made)
        tokens += session.encoded_tokens
        tell(Progressed(done=before + done, tokens=tokens))
    return True


def open_scorer(cache: Cache) -> Any:
    """The live scorer without a head: training reads what scoring reads."""
    from dreamprm_cli.prm.adapter import load_adapter
    from dreamprm_cli.prm.backbone import load_backbone
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
        pooling=reading.pooling,
        step_token=reading.step_token,
        max_length=reading.max_length,
        code_reserve=reading.code_reserve,
    )
