"""What is tuned, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.labels import MODES, Mode


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Raises ConfigError for values that exclude each other.

    backbone, layers:  as in a recipe: whose model, and the layers whose states the head reads, counted from 1
    params:            "lora" (rank, alpha, targets) or "full"
    mode:              plain, pooled, reweight or correct, as in `correct.py`
    frozen_below:      layers that stay as they are; their output is computed once and cached on disk
    lr, head_lr:       of the backbone and of the head; both rise over `warmup` steps, then fall to 0 over all epochs
    weight_decay, clip: AdamW's, and the greatest norm of a gradient
    epochs, patience:  at most so many; validations without a better result before the end
    watch:             which validation figure decides: "loss" or "auc" (within problems)
    batch_tokens:      of one step; micro_tokens: of one forward (memory); no program is cut
    max_length, code_reserve: as the scorer has them; steps that end beyond max_length are not trained on
    pairwise:          share of the pairwise loss between passing and failing programs of a problem, as in `fit.py`
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
    alpha: int = 16
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    lr: float = 1e-4
    head_lr: float = 1e-4
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: int = 20
    epochs: int = 3
    patience: int = 2
    watch: Literal["loss", "auc"] = "loss"
    batch_tokens: int = 4096
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

    def __post_init__(self) -> None:
        choices = (
            (self.mode, MODES), (self.params, ("lora", "full")), (self.watch, ("loss", "auc")),
            (self.dtype, ("auto", "bf16", "fp32")), (self.device, ("auto", "cpu")),
        )  # fmt: skip
        for value, known in choices:
            if value not in known:
                raise ConfigError(f"{value!r} is not one of {', '.join(known)}")
        if not self.layers or not 0 <= self.frozen_below <= min(self.layers) or self.frozen_below == max(self.layers):
            raise ConfigError(
                f"frozen_below {self.frozen_below} leaves nothing to train, or hides one of the layers {self.layers}",
                "it must be less than the last of `layers` and at most the first",
            )
        if not 0 < self.code_reserve < self.max_length:
            raise ConfigError(f"code_reserve {self.code_reserve} of max_length {self.max_length}")
        if not 0 <= self.pairwise < 1 or not 0 < self.margin < 0.5 or not self.meta_share > 0:
            raise ConfigError("pairwise must be in [0, 1), margin in (0, 0.5), meta_share above 0")
        if min(self.epochs, self.patience, self.batch_tokens, self.micro_tokens, self.rank) < 1:
            raise ConfigError("epochs, patience, batch_tokens, micro_tokens and rank are at least 1")
