"""The linear head: from the backbone's states of a step to a reward in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamprm_cli.types import Step


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """reward = sigmoid((features @ weight + bias) / temperature + offset).

    weight: (F,) fp32, F as in `pooling`; a standardisation of the features is folded into weight and bias.
    temperature and offset are the calibration (1 and 0: none).
    """

    weight: NDArray[np.float32]
    bias: float
    temperature: float = 1.0
    offset: float = 0.0

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """features (N, F) -> logits (N,) before calibration."""
        return features.astype(np.float64) @ self.weight.astype(np.float64) + self.bias

    def rewards(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """features (N, F) -> rewards (N,) in [0, 1]; NaN where the features are."""
        calibrated = self.logits(features) / self.temperature + self.offset
        return 0.5 * (1 + np.tanh(calibrated / 2))  # sigmoid that does not overflow


def step_rewards(head: Head | None, features: NDArray[np.float32], steps: Sequence[Step]) -> list[float]:
    """What a scorer's head says of features (len(steps), F); NaN for steps that are not scored.

    Raises ValueError for a scorer without a head.
    """
    if head is None:
        raise ValueError("this scorer was made for features and has no head")
    return [float(r) if step.scored else math.nan for r, step in zip(head.rewards(features), steps, strict=True)]
