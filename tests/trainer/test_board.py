"""Curves for TensorBoard, read back with its own reader."""

import math

import pytest

pytest.importorskip("torch")

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.board import Board
from dreamprm_trainer.tune_events import Moved, Stage, Stepped, Validated

EVENTS = (
    Stage(name="train", total=2),
    Stepped(step=1, steps=2, epoch=0, loss=0.7, meta=math.nan, lr=1e-3, tokens=100, seconds=0.5),
    Stepped(step=2, steps=2, epoch=0, loss=0.6, meta=0.5, lr=1e-4, tokens=100, seconds=0.5),
    Moved(epoch=0, what="labels", distance=0.1, quantiles=(0.0, 1.0)),
    Validated(step=2, epoch=0, loss=0.65, auc=0.8, best=True, collapsed=False, seconds=1.0),
)


def test_events_become_curves(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = Board(tmp_path)
    for event in EVENTS:
        board(event)
    board.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    curves = {name: [(one.step, round(one.value, 4)) for one in read.Scalars(name)] for name in read.Tags()["scalars"]}
    assert curves == {
        "loss": [(1, 0.7), (2, 0.6)],
        "meta": [(2, 0.5)],
        "lr": [(1, 0.001), (2, 0.0001)],
        "tokens_s": [(1, 200.0), (2, 200.0)],
        "validation_loss": [(2, 0.65)],
        "validation_auc": [(2, 0.8)],
        "labels_moved": [(0, 0.1)],
    }


def test_without_tensorboard_it_says_what_to_install(tmp_path):
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="tensorboard"):
            Board(tmp_path)
    else:
        Board(tmp_path).close()
