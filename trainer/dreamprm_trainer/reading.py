"""How a backbone reads programs: what a step is, which of its states, which adapter, which tokens. Equal readings give
equal states."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dreamprm_cli.prm.pooling import Pooling
from dreamprm_cli.steps import line_steps, split
from dreamprm_cli.types import Step
from dreamprm_trainer.data import Item

UNITS: dict[str, Callable[[str], list[Step]]] = {"function": split, "line": line_steps}


@dataclass(frozen=True, slots=True)
class Reading:
    """The default is that of a frozen backbone whose steps are functions.

    unit: what a step is, a key of UNITS. adapter: a checkpoint's folder whose LoRA adapter is applied, and its digest.
    The others are the scorer's (see PackedScorer).
    """

    unit: str = "function"
    pooling: Pooling = "last"
    adapter_sha256: str = ""
    step_token: str | None = None
    max_length: int = 4096
    code_reserve: int = 1536
    adapter: Path | None = field(default=None, compare=False)

    @property
    def named(self) -> tuple[object, ...]:
        """What tells it from the default; nothing for the default itself."""
        names = ("unit", "pooling", "adapter_sha256", "step_token", "max_length", "code_reserve")
        return () if self == Reading() else tuple(getattr(self, name) for name in names)

    def cut(self, items: Iterable[Item]) -> list[Item]:
        """The items in the steps that are read; items are cut at functions already."""
        return list(items) if self.unit == "function" else [_cut(item, UNITS[self.unit]) for item in items]


DEFAULT = Reading()


def _cut(item: Item, unit: Callable[[str], list[Step]]) -> Item:
    """The same program in other steps. What is known of a prefix stays with the step that ends where it does."""
    steps = tuple(unit(item.code))
    places = {step.last_line: number for number, step in enumerate(item.steps)}
    old = [places.get(step.last_line) for step in steps]
    return replace(
        item,
        steps=steps,
        truth=tuple(None if n is None else item.truth[n] for n in old),
        passes=tuple(0 if n is None else item.passes[n] for n in old) if item.passes else (),
        rollouts=tuple(0 if n is None else item.rollouts[n] for n in old) if item.rollouts else (),
    )
