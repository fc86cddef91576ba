"""Curves of a tuning run for TensorBoard (`pip install tensorboard`): a listener of `tune`, like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.tune_events import Event, Moved, Stepped, Validated


class Board:
    """Call it with every event; `close` it at the end. Raises ConfigError where tensorboard is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError("curves for TensorBoard need tensorboard", "pip install tensorboard") from None
        self._writer = SummaryWriter(str(folder))

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self._draw(event.step, loss=event.loss, meta=event.meta, lr=event.lr, tokens_s=event.tokens / event.seconds)
        elif isinstance(event, Validated):
            self._draw(event.step, validation_loss=event.loss, validation_auc=event.auc)
        elif isinstance(event, Moved):
            self._draw(event.epoch, **{f"{event.what}_moved": event.distance})

    def close(self) -> None:
        self._writer.close()

    def _draw(self, step: int, **values: float) -> None:
        for name, value in values.items():
            if np.isfinite(value):
                self._writer.add_scalar(name, value, step)
