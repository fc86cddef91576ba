"""A training's curves for TensorBoard, where somebody asked for them: the package is imported only then."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.training import LabelsMoved, Progressed, StageStarted, Tell, TrainingEvent, Validated


@contextmanager
def curves(folder: Path) -> Iterator[Tell]:
    """A `Tell` that writes losses and moved labels into `folder`, one name a stage.

    Raises ConfigError where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("--tensorboard: TensorBoard is not installed", "pip install tensorboard") from None
    writer: Any = SummaryWriter(str(folder))
    stage = ""

    def tell(event: TrainingEvent) -> None:
        nonlocal stage
        match event:
            case StageStarted():
                stage = event.stage
            case Progressed() if not math.isnan(event.loss):
                writer.add_scalar(f"{stage}/loss", event.loss, event.done)
            case Validated():
                for name, value in (("validation", event.loss), ("meta", event.meta), ("validation_auc", event.auc)):
                    if not math.isnan(value):
                        writer.add_scalar(f"{stage}/{name}", value, event.at)
            case LabelsMoved():
                writer.add_scalar(f"{stage}/labels_moved", event.distance, event.at)

    try:
        yield tell
    finally:
        writer.close()
