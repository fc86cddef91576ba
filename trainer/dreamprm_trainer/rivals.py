"""What a reward model has to beat: others fitted on the same programs and states, in `CHECKPOINT/rivals/NAME`.

`eval` and `dreamprm bench` judge them beside it. Each differs from the recipe in one thing:

orm:   the last step alone is trained on and read, so that it knows whole programs only
line:  a step is a line instead of a function, read at its end
plain, pooled, reweight, correct: the solver over epochs in each mode, on equal problems; a share of them, and the
       outcomes of that share, is the meta set (plain does without it)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.training import Tell, silent
from dreamprm_trainer import stages
from dreamprm_trainer.fitting import fitted
from dreamprm_trainer.labels import MODES
from dreamprm_trainer.recipe import Recipe
from dreamprm_trainer.stages import Place


def rivals_of(recipe: Recipe) -> dict[str, Recipe]:
    """Name -> recipe. Raises ConfigError for a tuned backbone: a rival would have to be tuned, too."""
    if recipe.fit.params != "features":
        raise ConfigError(
            "rivals are fitted on frozen states",
            'fit those of a tuned PRM with their own recipes, or params = "features"',
        )
    still = replace(recipe, fit=replace(recipe.fit, solver="auto", mode="plain"))
    moving = replace(recipe, fit=replace(recipe.fit, solver="epochs"))
    return {
        "orm": replace(still, settings=replace(recipe.settings, steps="last"), aggregation="last"),
        "line": replace(still, unit="line", pooling="last"),
        **{mode: moving.asked(mode=mode) for mode in MODES},
    }


def fit_rivals(recipe: Recipe, place: Place, tell: Tell = silent, only: Collection[str] = ()) -> dict[str, Any]:
    """Fit and save them all, or `only` these; record and return their AUCs within validation problems, by name and
    source. Raises ConfigError for a name that is none."""
    known = rivals_of(recipe)
    if unknown := set(only) - set(known):
        raise ConfigError(f"there is no rival {sorted(unknown)[0]!r}", f"one of {', '.join(known)}")
    found: dict[str, Any] = {}
    for name, rival in known.items():
        if only and name not in only:
            continue
        report = fitted(rival, replace(place, checkpoint=place.checkpoint / "rivals" / name), tell)
        found[name] = {"auc_within": report["validation"]["auc_within"], "collapsed": report["collapsed"]}
    stages.record(place, {"rivals": {**stages.recorded(place).get("rivals", {}), **found}})
    return found
