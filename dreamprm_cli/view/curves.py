"""Several curves in one picture of text: a letter at every point, dots between, the most important on top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style

from dreamprm_cli.view.line import Line, draw
from dreamprm_cli.view.text import label

_AXIS = 6  # cells for the numbers at the left
_LEAST, _MOST = 24, 96  # cells across
_HEIGHT = 12
_COLOURS = ("bright_blue", "yellow", "green", "magenta", "cyan", "red", "white")
_DIM = Style(dim=True)


@dataclass(frozen=True)
class Curve:
    """Points (n, y) with ascending n above 0; drawn over the logarithm of n."""

    name: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Curves:
    """A rich renderable, at most `width` cells wide. The first curve lies on top of the others."""

    curves: tuple[Curve, ...]
    width: int
    ascii: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from draw(self.lines(self.ascii or options.ascii_only))

    def lines(self, ascii: bool) -> list[Line]:
        """Nothing where no curve has two points or there is no room."""
        cells = min(self.width - _AXIS, _MOST)
        points = [point for curve in self.curves for point in curve.points]
        if cells < _LEAST or all(len(curve.points) < 2 for curve in self.curves):
            return []
        low, high = min(y for _, y in points), max(y for _, y in points)
        first, last = min(n for n, _ in points), max(n for n, _ in points)
        scale = (cells - 1) / (math.log(last / first) or 1.0)

        def column(n: float) -> int:
            return round(math.log(n / first) * scale)

        def row(y: float) -> int:
            return round((high - y) / (high - low) * (_HEIGHT - 1)) if high > low else _HEIGHT // 2

        grid: list[list[tuple[str, Style] | None]] = [[None] * cells for _ in range(_HEIGHT)]
        for number in reversed(range(len(self.curves))):
            style, dot = _style(number), "." if ascii else "·"
            places = [(column(n), y) for n, y in self.curves[number].points]
            for (left, y), (right, next_y) in pairwise(places):
                for at in range(left + 1, right):
                    grid[row(y + (next_y - y) * (at - left) / (right - left))][at] = (dot, style)
        for number in reversed(range(len(self.curves))):  # no letter under a dot
            for n, y in self.curves[number].points:
                grid[row(y)][column(n)] = (_letter(number), _style(number))
        lines = []
        for number, cells_of_row in enumerate(grid):
            share = {0: high, _HEIGHT - 1: low}.get(number)
            line = Line(self.width, ascii=ascii).add("" if share is None else f"{share:.3f}", _DIM).to(_AXIS)
            for cell in cells_of_row:
                line.add(*(cell or (" ", None)))
            lines.append(line)
        sizes = sorted({n for n, _ in points})
        return [*lines, self._axis(sizes, [column(n) for n in sizes], ascii), *self._legend(ascii)]

    def _axis(self, sizes: Sequence[int], columns: Sequence[int], ascii: bool) -> Line:
        line = Line(self.width, ascii=ascii).add("n", _DIM).to(_AXIS)
        for n, column in zip(sizes, columns, strict=True):
            start = max(0, column - len(str(n)) + 1) + _AXIS
            if start >= line.used + (line.used > _AXIS):
                line.to(start).add(str(n), _DIM)
        return line

    def _legend(self, ascii: bool) -> list[Line]:
        lines = [Line(self.width, ascii=ascii).to(_AXIS)]
        for number, curve in enumerate(self.curves):
            text = f" {label(curve.name, ascii=ascii)}"
            if lines[-1].used > _AXIS and lines[-1].room < cell_len(text) + 4:
                lines.append(Line(self.width, ascii=ascii).to(_AXIS))
            lines[-1].add(_letter(number), _style(number)).add(f"{text}   ")
        return lines


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26)


def _style(number: int) -> Style:
    return Style(color=_COLOURS[number % len(_COLOURS)], bold=number == 0)
