"""Fine-tuning of the backbone, low-rank or full, to step labels that may move: modes plain, pooled, reweight, correct.

The modes are those of `correct.py`, step by step over shuffled batches instead of whole epochs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamprm_cli.prm.head import Head
from dreamprm_trainer.correct import Mode
from dreamprm_trainer.examples import Example
from dreamprm_trainer.tables import Floats

Tell = Callable[[object], None]


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """What is tuned, and how.

    backbone, layers:  as in a recipe: whose model, and the layers whose states the head reads, counted from 1
    params:            "lora" (rank, alpha, targets) or "full"
    mode:              plain, pooled, reweight or correct
    frozen_below:      layers that stay as they are; their output is computed once and cached on disk
    lr, head_lr:       of the backbone and of the head; both rise over `warmup` steps, then fall to 0 over all epochs
    weight_decay, clip: AdamW's, and the greatest norm of a gradient
    epochs, patience:  at most so many; validations without a better result before the end
    watch:             which validation figure decides: "loss" or "auc" (within problems)
    batch_tokens:      of one step; micro_tokens: of one forward (memory); a problem is never cut between two programs
    max_length, code_reserve: as the scorer has them; steps that end beyond max_length are not trained on
    pairwise:          share of the pairwise loss between passing and failing programs of a problem
    meta_share:        tokens of a meta batch for each token of a batch
    cold, label_lr, anchor, margin, clean: as in `correct.Settings`
    validate_every, save_every: steps; 0: at the end of each epoch (where both are done in any case)
    checkpointing:     compute activations a second time instead of keeping them
    dtype, device:     auto: bf16 where the machine computes in it, and its GPU
    """

    backbone: str
    layers: tuple[int, ...]
    params: Literal["lora", "full"] = "lora"
    mode: Mode = "plain"
    frozen_below: int = 0
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    lr: float = 1e-4
    head_lr: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: int = 20
    epochs: int = 3
    patience: int = 2
    watch: Literal["loss", "auc"] = "loss"
    batch_tokens: int = 8192
    micro_tokens: int = 4096
    max_length: int = 4096
    code_reserve: int = 1536
    pairwise: float = 0.0
    meta_share: float = 0.25
    cold: int = 1
    label_lr: float = 0.05
    anchor: float = 0.0
    margin: float = 0.02
    clean: float = 1.0
    validate_every: int = 0
    save_every: int = 0
    checkpointing: bool = False
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """The best state by validation.

    checkpoint:       a folder that `dreamprm_cli.prm.open` opens
    head:             as saved in it (calibrated on the validation set)
    labels, weights:  (S,) of the judged steps of `examples`, in order
    validation, auc:  validation losses, and AUCs within problems, in order; meta: losses of meta batches
    collapsed:        the rewards or the labels had become one constant
    """

    checkpoint: Path
    head: Head
    labels: Floats
    weights: Floats
    validation: list[float]
    auc: list[float]
    meta: list[float]
    collapsed: bool


def tune(
    examples: Sequence[Example],
    validation: Sequence[Example],
    settings: TuneSettings,
    folder: Path,
    tell: Tell = lambda event: None,
    *,
    meta: Sequence[Example] = (),
    head: Head | None = None,
    cache: Path | None = None,
) -> Tuned:
    """Tune to `examples` until `validation` (other problems, clean) gets no better; resumes what `folder` holds.

    meta:  problems held out of both, whose whole programs say where labels or weights should go; needed by all modes
           but plain
    head:  where the head starts (its calibration included); default zeros
    cache: folder of cached activations, shared by runs; default inside `folder`

    Raises ConfigError for sets that are empty or settings that do not fit, CheckpointError for the backbone.
    """
    raise NotImplementedError
