"""Step rewards of programs by a saved checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dreamprm_cli.prm import score_programs
from dreamprm_cli.prm.checkpoint import load, load_adapter
from dreamprm_cli.prm.open import open_packed
from dreamprm_cli.training import Progressed, StageStarted, Tell, silent
from dreamprm_trainer.checkpoint import load_head
from dreamprm_trainer.data import Item
from dreamprm_trainer.features import Cache, extract
from dreamprm_trainer.recipe import Recipe
from dreamprm_trainer.select import rewards
from dreamprm_trainer.tables import build


def step_rewards(
    folder: Path, recipe: Recipe, items: Sequence[Item], cache: Cache, tell: Tell = silent
) -> list[list[float]]:
    """Rewards of each program's scored steps: from cached states, or where the backbone was tuned by the live scorer.

    Raises CheckpointError for a checkpoint that reads other states than the recipe caches.
    """
    if load_adapter(folder) is not None or load(folder).backbone.startswith("./"):
        return _live(folder, items, tell)
    head = load_head(folder, recipe)
    extract(items, cache, None, tell)
    return rewards(head, build(items, cache), recipe.fit.layers, recipe.layers)


def _live(folder: Path, items: Iterable[Item], tell: Tell) -> list[list[float]]:
    by_problem: dict[tuple[str, str], list[tuple[int, Item]]] = {}
    for number, item in enumerate(items):
        by_problem.setdefault((item.source, item.problem.id), []).append((number, item))
    scorer = open_packed(str(folder))
    found: dict[int, list[float]] = {}
    tell(StageStarted(stage="score", unit="problems", total=len(by_problem)))
    tokens = 0
    for done, group in enumerate(by_problem.values(), 1):
        session = scorer.start(group[0][1].problem)
        scored = score_programs(session, [item.steps for _, item in group])
        for (number, item), each in zip(group, scored, strict=True):
            found[number] = [reward for step, reward in zip(item.steps, each, strict=True) if step.scored]
        tokens += session.encoded_tokens
        tell(Progressed(done=done, tokens=tokens))
    return [found[number] for number in range(len(found))]
