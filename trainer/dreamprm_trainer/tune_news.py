"""A tuning's own events as those of any training, for who watches all of them alike."""

from __future__ import annotations

import math
from typing import Literal

from dreamprm_cli.training import LabelsMoved, Progressed, StageStarted, TrainingNotice, Validated
from dreamprm_cli.training import Tell as Watch
from dreamprm_trainer.tune_events import Event, Moved, Stage, Stepped, Tell
from dreamprm_trainer.tune_events import Validated as TuneValidated

_UNITS = {"pack": "problems", "activations": "trees", "train": "steps", "save": ""}


def heard(watch: Watch, by: Literal["loss", "auc"] = "loss") -> Tell:
    """A listener of a tuning that tells `watch`. by: what says which state is the best."""
    tokens = step = 0
    meta = math.nan
    at = ""

    def tell(event: Event) -> None:
        nonlocal tokens, step, meta, at
        match event:
            case Stage():
                if event.name == at:
                    watch(Progressed(done=event.done))
                    return
                at, tokens, step = event.name, 0, event.done
                watch(StageStarted(stage=event.name, unit=_UNITS[event.name], total=event.total, done=event.done))
            case Stepped():
                tokens, step, meta = tokens + event.tokens, event.step, event.meta
                watch(Progressed(done=event.step, tokens=tokens, loss=event.loss))
            case TuneValidated():
                auc = event.auc if by == "auc" else math.nan
                watch(Validated(at=event.step, loss=event.loss, meta=meta, auc=auc))
                if event.collapsed:
                    watch(TrainingNotice(text="rewards or labels have become one constant"))
            case Moved() if event.what == "labels":
                watch(LabelsMoved(at=step, distance=event.distance))

    return tell
