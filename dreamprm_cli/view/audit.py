"""What a correction did to step labels: their histogram before and after, and the steps that moved most.

214 labels could move, 86 were known; moved .083 on average, 12 across one half
label     before  after
.0 - .1   ██████████████████████████████████████████████████ 61
          █████████████████████████ 30
...
Mbpp/12  add_up  .250 → .871  0 of 2 rollouts passed, the program passed
    def add_up(numbers):
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style

from dreamprm_cli.view import heat
from dreamprm_cli.view.bars import Bars
from dreamprm_cli.view.chart import short
from dreamprm_cli.view.grid import BOLD, DIM
from dreamprm_cli.view.line import Line, draw
from dreamprm_cli.view.text import clean


def render_audit(found: Mapping[str, Any], width: int, ascii: bool = False) -> RenderableType:
    """found: as `dreamprm train audit --json` prints it."""
    return AuditScreen(found, width, ascii)


@dataclass(frozen=True)
class AuditScreen:
    """A rich renderable; see `render_audit`."""

    found: Mapping[str, Any]
    width: int
    ascii: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        screen = replace(self, ascii=True) if options.ascii_only else self
        yield from draw(screen.lines(console.color_system))

    def lines(self, colors: str | None) -> list[Line]:
        found = self.found
        top = self._line().add(f"{found['steps']:,} labels could move, {found['known']:,} were known", BOLD)
        if found["steps"]:
            top.add(f"; moved {short(found['mean_moved'])} on average, {found['crossed']:,} across one half", DIM)
        return [
            top,
            *self._histogram(),
            *(line for moved in found["most"] for line in self._moved(moved, colors)),
        ]

    def _line(self) -> Line:
        return Line(self.width, ascii=self.ascii)

    def _histogram(self) -> list[Line]:
        counts = {name: self.found[name] for name in ("before", "after")}
        if not any(map(any, counts.values())):
            return []
        bins = [f"{_tenth(k / 10)} - {_tenth((k + 1) / 10)}" for k in range(10)]
        series = {name: dict(zip(bins, some, strict=True)) for name, some in counts.items()}
        return Bars("label", series, self.width).lines(self.ascii)

    def _moved(self, moved: Mapping[str, Any], colors: str | None) -> list[Line]:
        line = self._line().add(f"{moved['task_id']}  ").add(str(moved["name"]), BOLD).add("  ")
        for label, gap in ((moved["before"], " > " if self.ascii else " → "), (moved["after"], "")):
            line.add(short(label), heat.ink(label, colors) + Style(bold=True)).add(gap, DIM)
        made = moved["mc_total"]
        line.add(f"  {moved['mc_pass']} of {made} rollouts passed," if made else "  no rollouts,", DIM)
        line.add(f" the program {'passed' if moved['passed'] else 'failed'}", DIM)
        source = clean(moved["source"], ascii=self.ascii).split("\n")
        return [self._line(), line, *(self._line().add("    ").add(text, DIM) for text in source)]


def _tenth(value: float) -> str:
    return f"{value:.1f}".removeprefix("0")
