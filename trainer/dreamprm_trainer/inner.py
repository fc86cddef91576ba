"""Inner optimisers as pure functions: the step they take, and how that step changes with the gradient.

Both act element by element, so d(step)/d(gradient) is diagonal, and exact: through Adam's second moment too. (SAMA,
arXiv 2310.05674, drops that term and has nothing on the first step.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
from torch import Tensor

Params = Mapping[str, Tensor]


class Inner(Protocol):
    """An optimiser between two steps; frozen, so one step may be looked at without being taken."""

    def step(self, params: Params, grads: Params) -> dict[str, Tensor]:
        """The parameters after one step."""

    def diagonal(self, grads: Params) -> dict[str, Tensor]:
        """d(params - step) / d(gradient), elementwise, of that step."""

    def after(self, grads: Params) -> Self:
        """The optimiser as it stands after that step."""


@dataclass(frozen=True, slots=True)
class SGD:
    """params - lr * grad."""

    lr: float

    def step(self, params: Params, grads: Params) -> dict[str, Tensor]:
        return {name: value - self.lr * grads[name] for name, value in params.items()}

    def diagonal(self, grads: Params) -> dict[str, Tensor]:
        return {name: torch.full_like(grad, self.lr) for name, grad in grads.items()}

    def after(self, grads: Params) -> SGD:
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Adam:
    """AdamW as torch.optim has it: bias-corrected moments, weight decay apart from the gradient (so not in D)."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    steps: int = 0
    first: Mapping[str, Tensor] = field(default_factory=dict)
    second: Mapping[str, Tensor] = field(default_factory=dict)

    def _moments(self, name: str, grad: Tensor) -> tuple[Tensor, Tensor]:
        """(m, v) with this gradient in, before bias correction."""
        b1, b2 = self.betas
        if name not in self.first:
            return (1 - b1) * grad, (1 - b2) * grad.square()
        return (
            b1 * self.first[name] + (1 - b1) * grad,
            b2 * self.second[name] + (1 - b2) * grad.square(),
        )

    def step(self, params: Params, grads: Params) -> dict[str, Tensor]:
        result = {}
        for name, value in params.items():
            m, v = self._moments(name, grads[name])
            c1, c2 = (1 - beta ** (self.steps + 1) for beta in self.betas)
            result[name] = value - self.lr * (self.weight_decay * value + (m / c1) / ((v / c2).sqrt() + self.eps))
        return result

    def diagonal(self, grads: Params) -> dict[str, Tensor]:
        return {
            name: adam_diagonal(grad, *self._moments(name, grad), self.steps + 1, self.lr, self.betas, self.eps)
            for name, grad in grads.items()
        }

    def after(self, grads: Params) -> Adam:
        moments = {name: self._moments(name, grad) for name, grad in grads.items()}
        return replace(
            self,
            steps=self.steps + 1,
            first={name: m for name, (m, _) in moments.items()},
            second={name: v for name, (_, v) in moments.items()},
        )


def adam_diagonal(
    grad: Tensor, m: Tensor, v: Tensor, step: int, lr: float, betas: tuple[float, float], eps: float
) -> Tensor:
    """d(lr * m^ / (sqrt(v^) + eps)) / d grad, where m and v hold `grad` already and `step` counts from 1.

    With s = sqrt(v^): lr * ((1-b1)/c1 / (s+eps) - m^ * (1-b2) grad/c2 / (s * (s+eps)^2)). Where v is 0 no gradient has
    come by yet, and D is 0: the limit, 1/eps, would drown all other parameters.
    """
    b1, b2 = betas
    c1, c2 = 1 - b1**step, 1 - b2**step
    s = (v / c2).sqrt()
    below = s + eps
    through_v = (m / c1) * ((1 - b2) / c2) * grad / (s * below.square())
    return torch.where(s > 0, lr * ((1 - b1) / c1 / below - through_v), 0.0)
