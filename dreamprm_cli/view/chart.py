"""A curve in a few lines of text: braille dots, two by four in a cell, or stars where there is only ASCII."""

from __future__ import annotations

import math
from collections.abc import Sequence

Points = Sequence[tuple[float, float]]  # x, ascending, and y; points whose y is not finite are left out

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # [column][row from the top] of a cell
_AXIS = 6  # cells for the numbers at the left


def chart(points: Points, width: int, height: int, *, ascii: bool = False) -> list[str]:
    """`height` lines of exactly `width` cells: the curve over its own range, highest and lowest y written at the left.

    Blank lines where there is nothing to draw, or no room for it (fewer than 4 cells beside the numbers).
    """
    known = [(x, y) for x, y in points if math.isfinite(y)]
    cells = width - _AXIS
    if not known or cells < 4 or height < 1:
        return [" " * max(0, width)] * height
    low, high = min(y for _, y in known), max(y for _, y in known)
    across, down = (1, 1) if ascii else (2, 4)
    grid = [[0] * cells for _ in range(height)]
    for column, (top, bottom) in enumerate(_trace(known, cells * across, height * down, low, high)):
        for row in range(top, bottom + 1):
            grid[row // down][column // across] |= 1 if ascii else _DOTS[column % 2][row % 4]
    glyphs = "".join if not ascii else None
    lines = []
    for number, row_bits in enumerate(grid):
        label = short(high) if number == 0 else short(low) if number == height - 1 and high > low else ""
        drawn = (" *"[bits] if glyphs is None else _glyph(bits) for bits in row_bits)
        lines.append(f"{label:>{_AXIS - 1}} " + "".join(drawn))
    return lines


def _glyph(bits: int) -> str:
    return chr(_BRAILLE + bits) if bits else " "


def _trace(points: Points, columns: int, rows: int, low: float, high: float) -> list[tuple[int, int]]:
    """For each column of dots up to the last point, the rows (from the top) that the curve crosses there."""
    first, last = points[0][0], points[-1][0]
    span = (last - first) or 1.0
    scale = (rows - 1) / (high - low) if high > low else 0.0
    heights: list[int] = []
    at = 0
    for column in range(columns if last > first else 1):
        x = first + span * column / (columns - 1)
        while at + 2 < len(points) and points[at + 1][0] < x:
            at += 1
        y = _between(points[at], points[min(at + 1, len(points) - 1)], x)
        heights.append(rows - 1 - round((y - low) * scale) if scale else rows // 2)
    crossed = []
    for before, here in zip([heights[0], *heights], heights, strict=False):
        crossed.append((min(before, here), max(before, here)))
    return crossed


def _between(left: tuple[float, float], right: tuple[float, float], x: float) -> float:
    if right[0] <= left[0]:
        return right[1]
    share = min(1.0, max(0.0, (x - left[0]) / (right[0] - left[0])))
    return left[1] + share * (right[1] - left[1])


def short(value: float) -> str:
    """A number in at most five cells: ".612", "1.234", "12.34", "12346", "2e7", "-" when it is not finite."""
    if not math.isfinite(value):
        return "-"
    for digits in (3, 2, 1, 0):
        text = f"{value:.{digits}f}"
        text = text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
        if len(text) <= 5:
            return text
    return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
