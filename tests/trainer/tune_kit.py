"""Problems whose right programs return and print and whose wrong ones raise, and a run over them."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np

from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem
from dreamprm_trainer.examples import Example, Program
from dreamprm_trainer.labels import WHOLE
from dreamprm_trainer.tune_settings import TuneSettings

NAN = float("nan")


def program(right: bool, draw: random.Random, flips: float = 0.0) -> Program:
    """Two functions, right or wrong together. flips: share of inner labels that are turned."""
    body = "return a + b" if right else "raise QQQQQ"
    name = "".join(draw.choices("abcxyz", k=2))
    last = body if not right else f"print({name}(1, 2))"
    code = f"import os\n\n\ndef {name}(a, b):\n    {body}\n\n\ndef out():\n    {last}\n"
    steps = tuple(split(code))
    scored = [index for index, step in enumerate(steps) if step.scored]
    labels, rollouts = [NAN] * len(steps), [0] * len(steps)
    for index in scored:
        turned = index != scored[-1] and draw.random() < flips
        labels[index] = float(right != turned)
        rollouts[index] = WHOLE if index == scored[-1] else 4
    return Program(steps, tuple(labels), tuple(rollouts), right)


def examples(first: int, count: int, programs: int = 4, flips: float = 0.0) -> list[Example]:
    """Problems `first` and on; the same numbers always give the same ones."""
    result = []
    for number in range(first, first + count):
        draw = random.Random(number)
        some = tuple(program(index % 2 == 0, draw, flips) for index in range(programs))
        result.append(Example(Problem(f"p/{number}", f"Add {number} to a number."), some))
    return result


def settings(backbone: Path, **changes: object) -> TuneSettings:
    values: dict[str, object] = {
        "backbone": str(backbone),
        "layers": (2, 3),
        "lr": 1e-2,
        "head_lr": 1e-2,
        "warmup": 2,
        "batch_tokens": 700,
        "micro_tokens": 350,
        "max_length": 400,
        "code_reserve": 200,
        "epochs": 2,
        "patience": 9,
        "dtype": "fp32",
        "device": "cpu",
    }
    return TuneSettings(**{**values, **changes})  # type: ignore[arg-type]


def run(backbone: Path, folder: Path, told: Any = None, rank: int | None = None, port: int = 0) -> None:
    """A small run of mode correct, its result in `folder / done.npz`. told: a pipe that gets the number of each step.

    rank: of two processes, which meet at `port`.
    """
    import torch

    from dreamprm_trainer.tune import tune
    from dreamprm_trainer.tune_events import Stepped

    torch.set_num_threads(1)
    if rank is not None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def tell(event: object) -> None:
        if told is not None and isinstance(event, Stepped):
            told.send(event.step)

    chosen = settings(backbone, mode="correct", save_every=2, frozen_below=1, cold=0, label_lr=0.3)
    done = tune(examples(0, 6, flips=0.3), examples(40, 2), chosen, folder, tell, meta=examples(30, 3))
    if not rank:
        with (folder / "done.npz").open("wb") as file:
            np.savez(file, weight=done.head.weight, labels=done.labels, validation=done.validation, meta=done.meta)
