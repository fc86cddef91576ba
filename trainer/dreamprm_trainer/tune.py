"""Fine-tuning of the backbone, low-rank or full, to step labels that may move: modes plain, pooled, reweight, correct.

The modes are those of `correct.py`, over shuffled batches instead of whole epochs at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.prm.backbone import pick_dtype
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.source import locate_backbone
from dreamprm_cli.prm.tokens import Tokens
from dreamprm_cli.prompts import problem_form
from dreamprm_trainer.activations import Activations
from dreamprm_trainer.checkpoint import save_tuned
from dreamprm_trainer.examples import Example
from dreamprm_trainer.fit import platt
from dreamprm_trainer.reward_model import build
from dreamprm_trainer.sequences import Sequences, pack
from dreamprm_trainer.tables import Floats
from dreamprm_trainer.team import Team
from dreamprm_trainer.tune_events import Event, Stage, Tell
from dreamprm_trainer.tune_loop import Loop, sigmoid
from dreamprm_trainer.tune_settings import TuneSettings
from dreamprm_trainer.tune_state import State


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """The best state by validation.

    checkpoint:       a folder that `dreamprm_cli.prm.open` opens
    head:             as saved in it, calibrated on the validation set
    labels, weights:  (S,) of the judged steps of `examples`, in order
    rewards:          (V,) of the judged steps of `validation`, in order; NaN for those beyond the length
    validation, auc:  validation losses, and AUCs within problems, in order; meta: losses of meta batches
    collapsed:        the rewards or the labels had become one constant
    """

    checkpoint: Path
    head: Head
    labels: Floats
    weights: Floats
    rewards: Floats
    validation: list[float]
    auc: list[float]
    meta: list[float]
    collapsed: bool


def _silent(event: Event) -> None:
    pass


def tune(
    examples: Sequence[Example],
    validation: Sequence[Example],
    settings: TuneSettings,
    folder: Path,
    tell: Tell = _silent,
    *,
    meta: Sequence[Example] = (),
    head: Head | None = None,
    cache: Path | None = None,
) -> Tuned:
    """Tune to `examples` until `validation` (other problems) gets no better; goes on with what `folder` holds.

    meta:  problems held out of both, whose known steps say where labels or weights should go; needed by all modes
           but plain
    head:  where the head starts (its calibration included); default zeros
    cache: folder of cached activations, shared by runs; default inside `folder`

    Started by `accelerate launch`, every process calls this, and the first one writes and tells. Raises ConfigError
    for sets that are empty or settings that do not fit, CheckpointError for the backbone.
    """
    accelerator = Accelerator(cpu=settings.device == "cpu" or not torch.cuda.is_available())
    first, device = accelerator.is_main_process, accelerator.device
    tell = tell if first else _silent
    source = locate_backbone(settings.backbone)
    tell(Stage(name="pack", total=len(examples) + len(meta) + len(validation)))
    train, held, judge = packed(examples, meta, validation, settings, source.folder)
    dtype = {"auto": pick_dtype(device), "bf16": torch.bfloat16, "fp32": torch.float32}[settings.dtype]
    model = build(source, settings, head, dtype, device)
    below = None
    if settings.frozen_below:
        below = Activations.of(cache or folder / "activations", source.sha256, settings.frozen_below, dtype)
        trees = [*train.trees, *held.trees, *judge.trees]
        mine = below.missing(trees[accelerator.process_index :: accelerator.num_processes])
        below.fill(
            mine,
            model,
            device,
            settings.micro_tokens,
            lambda n: tell(Stage(name="activations", done=n, total=len(mine))),
        )
        model.forget_below()
        accelerator.wait_for_everyone()
    loop = Loop(Team(model, accelerator, below, settings.micro_tokens), train, held, judge, settings, tell)
    mark = _mark(settings, source.sha256, head, (train, held, judge))
    state = State(folder, mark)
    state.restore(loop)
    tell(Stage(name="train", done=loop.position.step, total=loop.steps))
    for best in loop.run():
        if first:
            state.keep(loop, best)
    accelerator.wait_for_everyone()
    state.restore_best(loop)
    tell(Stage(name="save"))
    scores, position = loop.scores(), loop.position
    fitted = _calibrated(loop, scores)
    if first:
        forms = tuple(sorted({problem_form(example.problem) for example in examples}))
        figures = {"validation_loss": min(position.validation), "validation_auc_within": position.auc}
        save_tuned(folder / "checkpoint", model, source, settings, fitted, forms, mark, figures)
    accelerator.wait_for_everyone()
    return Tuned(
        checkpoint=folder / "checkpoint",
        head=fitted,
        labels=loop.moving.labels.numpy(),
        weights=loop.moving.weights.numpy(),
        rewards=sigmoid(scores / np.float32(fitted.temperature) + np.float32(fitted.offset)),
        validation=position.validation,
        auc=position.auc,
        meta=position.meta,
        collapsed=position.collapsed,
    )


def packed(
    examples: Sequence[Example],
    meta: Sequence[Example],
    validation: Sequence[Example],
    settings: TuneSettings,
    folder: Path,
) -> tuple[Sequences, Sequences, Sequences]:
    """The sets as trees; that of meta is empty where the mode has no use for it. ConfigError for an empty one."""
    tokens = Tokens(Tokenizer.from_file(str(folder / "tokenizer.json")))
    plain = settings.mode == "plain"

    def one(some: Sequence[Example], known_only: bool) -> Sequences:
        return pack(
            some,
            tokens,
            room=settings.micro_tokens,
            max_length=settings.max_length,
            code_reserve=settings.code_reserve,
            known_only=known_only,
        )

    sets = one(examples, False), one([] if plain else meta, True), one(validation, False)
    for name, packed in zip(("training", "meta", "validation"), sets, strict=True):
        if not packed.trees and not (plain and name == "meta"):
            raise ConfigError(f"the {name} set has no step to judge", f"mode {settings.mode} needs one")
    if not sets[2].known.any():
        raise ConfigError("no step of the validation set is known to be right or wrong", "grade whole programs of it")
    return sets


def _calibrated(loop: Loop, scores: Floats) -> Head:
    """The model's head with the calibration that makes its rewards likeliest on the validation set."""
    data = loop.validation
    kept = np.isfinite(scores)
    count = np.bincount(data.program, minlength=len(data.passed))
    temperature, offset = platt(scores[kept].astype(np.float64), data.labels[kept], 1 / count[data.program[kept]])
    linear = loop.team.model.head
    weight = linear.weight.detach().float().cpu().numpy()[0].copy()
    return Head(weight, float(linear.bias.detach()), temperature, offset)


def _mark(settings: TuneSettings, backbone_sha256: str, head: Head | None, sets: Sequence[Sequences]) -> str:
    """Digest of everything that decides what a run does."""
    digest = hashlib.sha256(f"{asdict(settings)} {backbone_sha256}".encode())
    if head is not None:
        digest.update(head.weight.tobytes() + repr((head.bias, head.temperature, head.offset)).encode())
    for some in sets:
        for tree in some.trees:
            digest.update(tree.ids.tobytes() + tree.reads.tobytes())
        for array in (some.labels, some.rollouts, some.weight, some.passed):
            digest.update(array.tobytes())
    return digest.hexdigest()
