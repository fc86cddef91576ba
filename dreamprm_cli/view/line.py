"""One line of a screen, made of styled pieces, that is never wider than it may be and never holds unclean text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from dreamprm_cli.view.text import cut, label


class Line:
    """Pieces from left to right within `width` cells. A piece that does not fit is cut with an ellipsis."""

    def __init__(self, width: int, *, ascii: bool = False) -> None:
        self.width = width
        self.ascii = ascii
        self.used = 0
        self._segments: list[Segment] = []

    @property
    def room(self) -> int:
        return self.width - self.used

    def add(self, text: str, style: Style | None = None) -> Self:
        """Append a piece; its text is cleaned here, so callers may pass what a model wrote."""
        text = label(text, ascii=self.ascii)
        cells = cell_len(text)
        if cells > self.room:
            text = cut(text, self.room, ascii=self.ascii)
            cells = cell_len(text)
        if text:
            if self._segments and self._segments[-1].style == style:
                text = self._segments.pop().text + text
            self._segments.append(Segment(text, style))
            self.used += cells
        return self

    def to(self, column: int, style: Style | None = None) -> Self:
        """Blanks up to `column` (counted from 0), none when the line is there already."""
        return self.add(" " * (min(column, self.width) - self.used), style)

    def right(self, other: Line, *, gap: int = 2) -> Self:
        """Append another line flush right, or leave it out when both do not fit."""
        if other.used and self.used + gap + other.used <= self.width:
            self.to(self.width - other.used)
            self._segments += other._segments
            self.used += other.used
        return self

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)


def draw(lines: list[Line]) -> Iterator[Segment]:
    """Lines as a rich render result."""
    for line in lines:
        yield from line
        yield Segment.line()
