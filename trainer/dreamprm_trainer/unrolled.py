"""One training step of a whole module, and what it says of the labels: for full and low-rank fine-tuning.

The step is the optimiser's own (`torch.optim.AdamW` or `SGD`), taken in place. Against a plain step it costs one meta
forward and backward, and one forward without a graph: labels' products are a one-sided finite difference that reuses
the logits of the training forward. In units of a forward, with a meta batch a quarter the size: full fine-tuning 3 ->
4.75 (1.58x), LoRA 2 -> 3.5 (1.75x). Of the memory, the meta batch's activations come when those of the training batch
are gone, and the copies (old parameters, D) are of trainable parameters only.

What a batch is, how many forwards it takes and on how many machines, is the caller's: this module sees a function that
adds a loss's gradient to the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreamprm_trainer.hypergradient import step_size
from dreamprm_trainer.inner import adam_diagonal

Backward = Callable[[], Tensor]  # adds the gradient of a loss to the parameters; logits (N,), or the loss for meta
Forward = Callable[[], Tensor]  # logits (N,) under the module's present parameters


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """logits: (N,) before the step; along: (N,) <D v, grad z_i> (see `hypergradient.py`); loss: of meta, after it."""

    logits: Tensor
    along: Tensor
    loss: float


def plain_step(train: Backward, optimiser: torch.optim.Optimizer, clip: float = math.inf) -> Tensor:
    """One step on the training loss, gradients of norm `clip` at most; the logits (N,) before it."""
    return _step(train, optimiser, clip)[0]


def correct_step(
    train: Backward,
    again: Forward,
    meta: Backward,
    optimiser: torch.optim.AdamW | torch.optim.SGD,
    clip: float = math.inf,
    relative: float = 3e-4,
) -> Told:
    """The same step, and the products of the training logits with the meta loss's gradient after it.

    train, again: the same batch; all three must be deterministic (dropout off). The trainable parameters, which should
    be fp32, end where `plain_step` would have left them. SGD without momentum. What clipping multiplies a gradient by
    is taken as a constant. relative: of the difference, see `hypergradient.step_size`.
    """
    parameters = _trainable(optimiser)
    before = [parameter.detach().clone() for parameter in parameters]
    logits, shortened = _step(train, optimiser, clip)
    directions = _diagonal(optimiser)
    optimiser.zero_grad(set_to_none=True)
    loss = meta()
    with torch.no_grad():
        for direction, parameter in zip(directions, parameters, strict=True):
            direction.mul_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    optimiser.zero_grad(set_to_none=True)
    along = _difference(again, parameters, before, directions, logits, relative)
    return Told(logits, along * shortened, float(loss.detach()))


def _step(train: Backward, optimiser: torch.optim.Optimizer, clip: float) -> tuple[Tensor, float]:
    """(logits before the step, what the gradient was multiplied by)."""
    optimiser.zero_grad(set_to_none=True)
    logits = train().detach()
    shortened = 1.0
    if clip < math.inf:
        norm = float(nn.utils.clip_grad_norm_(_trainable(optimiser), clip))
        shortened = min(1.0, clip / (norm + 1e-6))
    optimiser.step()
    return logits, shortened


@torch.no_grad()
def _difference(
    again: Forward,
    parameters: list[nn.Parameter],
    before: list[Tensor],
    directions: list[Tensor],
    at: Tensor,
    relative: float,
) -> Tensor:
    """(N,) products with the logits' gradients at `before`. `before` is used up; the parameters keep their values."""
    step = step_size(dict(enumerate(before)), dict(enumerate(directions)), relative)  # type: ignore[arg-type]
    if step == 0:
        return torch.zeros_like(at)
    for old, direction, parameter in zip(before, directions, parameters, strict=True):
        old.add_(direction, alpha=step)
        parameter.data, old.data = old.data, parameter.data
    try:
        return (again().detach() - at) / step
    finally:
        for old, parameter in zip(before, parameters, strict=True):
            parameter.data, old.data = old.data, parameter.data


def _trainable(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


@torch.no_grad()
def _diagonal(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """d(step)/d(gradient) of the step just taken, for each trainable parameter."""
    result = []
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            grad, state = parameter.grad, optimiser.state.get(parameter, {})
            if grad is None:
                result.append(torch.zeros_like(parameter))
            elif "exp_avg" in state:
                moments = state["exp_avg"], state["exp_avg_sq"], int(state["step"])
                result.append(adam_diagonal(grad, *moments, group["lr"], group["betas"], group["eps"]))
            else:
                result.append(torch.full_like(parameter, group["lr"]))
    return result
