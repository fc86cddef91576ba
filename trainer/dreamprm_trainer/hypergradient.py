"""How the loss on clean data would change with each label, after one training step: no second-order autodiff.

One inner step theta' = theta - u(g) on the training loss, g = (1/N) sum_i w_i grad [softplus(z_i) - y_i z_i], then the
meta loss L(theta'). With v = grad L(theta') and D = du/dg (diagonal, see `inner.py`):

    dL/dy_i =  (w_i / N) <D v, grad z_i(theta)>
    dL/dw_i = -(1 / N) (sigmoid(z_i) - y_i) <D v, grad z_i(theta)>

The products <D v, grad z_i> of all i are one Jacobian-vector product of the logits along D v: exact in forward mode
(`jvp`), or from a second forward at theta + h D v (`difference`), which works with any fused kernel. For a linear head
on frozen features it is a matrix-vector product (`linear`). Published precedent of the JVP form: EMLC (ICCV 2023).
Betty's DARTS rule needs two more backward passes, and Betty 0.2.1 needs Python < 3.11; hence this module.

Logits must be a deterministic function of the parameters: dropout off. Parameters should be fp32: in bf16 the
perturbation of `difference` vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dreamprm_trainer.inner import Inner, Params

Logits = Callable[[Params], Tensor]  # -> (N,) of the training batch
Loss = Callable[[Params], Tensor]  # -> scalar, of the meta batch
Mode = Literal["jvp", "difference"]


@dataclass(frozen=True, slots=True, eq=False)
class Unrolled:
    """One inner step and what it tells.

    params: after the step; logits: (N,) before it; loss: meta loss after it; grads: of the training loss before it;
    labels, weights: (N,) dL/dy and dL/dw.
    """

    params: dict[str, Tensor]
    logits: Tensor
    loss: Tensor
    grads: dict[str, Tensor]
    labels: Tensor
    weights: Tensor


def training_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of w_i * (softplus(z_i) - y_i z_i): cross-entropy with soft labels in [0, 1]."""
    return (weights * (torch.nn.functional.softplus(logits) - labels * logits)).mean()


def unroll(
    logits: Logits, meta: Loss, params: Params, labels: Tensor, weights: Tensor, inner: Inner, mode: Mode = "jvp"
) -> Unrolled:
    """One inner step and the gradients of the meta loss for labels and weights (N,). Keeps no graph."""
    z, grads = gradient(lambda p: (out := logits(p), training_loss(out, labels, weights)), params)
    moved = inner.step(params, grads)
    loss, v = gradient(lambda p: (out := meta(p), out), moved)
    diagonal = inner.diagonal(grads)
    direction = {name: diagonal[name] * value for name, value in v.items()}
    along = products(logits, params, direction, z, mode)
    return Unrolled(moved, z, loss, grads, *label_gradients(z, labels, weights, along))


def label_gradients(logits: Tensor, labels: Tensor, weights: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """(dL/dy, dL/dw), each (N,), from `along` = <D v, grad z_i> (N,)."""
    count = len(logits)
    return weights / count * along, -(torch.sigmoid(logits) - labels) / count * along


def gradient(function: Callable[[Params], tuple[Tensor, Tensor]], params: Params) -> tuple[Tensor, dict[str, Tensor]]:
    """(first result, gradient of the second, a scalar), both detached."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    kept, scalar = function(leaves)
    grads = torch.autograd.grad(scalar, list(leaves.values()))
    return kept.detach(), dict(zip(leaves, grads, strict=True))


def products(logits: Logits, params: Params, direction: Params, at: Tensor | None = None, mode: Mode = "jvp") -> Tensor:
    """(N,) <direction, grad z_i(params)> for every logit. at: the logits at `params`, where they are known already."""
    with torch.no_grad():
        if mode == "jvp":
            given = {name: value.detach() for name, value in params.items()}
            result: Tensor = torch.func.jvp(logits, (given,), (dict(direction),))[1]
            return result
        step = step_size(params, direction)
        if step == 0:
            return torch.zeros_like(logits(params) if at is None else at)
        here = logits(params) if at is None else at
        there = logits({name: value + step * direction[name] for name, value in params.items()})
        return (there - here) / step


def step_size(params: Params, direction: Params, relative: float = 3e-4) -> float:
    """How far to go along `direction`: `relative` times the length of the parameters. 0 for a zero direction.

    Much less, and rounding to fp32 shows; much more, and the curvature of the logits does.
    """
    size = math.sqrt(sum(float(value.square().sum()) for value in params.values()))
    length = math.sqrt(sum(float(value.square().sum()) for value in direction.values()))
    return relative * max(size, 1e-3) / length if length else 0.0


def linear(features: Tensor, direction: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """`products` for z = features @ w + b in closed form: features (N, F), direction (F,) and of the bias."""
    return features @ direction.to(features.dtype) + bias


def double_backward(
    logits: Logits, meta: Loss, params: Params, labels: Tensor, weights: Tensor, inner: Inner
) -> tuple[Tensor, Tensor]:
    """(dL/dy, dL/dw) by differentiating through the step: the oracle of the tests, at two to three times the cost."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    y, w = labels.detach().requires_grad_(), weights.detach().requires_grad_()
    loss = training_loss(logits(leaves), y, w)
    grads = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
    moved = inner.step(leaves, dict(zip(leaves, grads, strict=True)))
    for_y, for_w = torch.autograd.grad(meta(moved), (y, w))
    return for_y, for_w


def on_logits(labels: Tensor, gradient_of_labels: Tensor) -> Tensor:
    """dL/da for labels y = sigmoid(a)."""
    return gradient_of_labels * labels * (1 - labels)
