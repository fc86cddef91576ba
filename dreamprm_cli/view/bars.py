"""Counts as bars: a row a bin, a bar for each series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style

from dreamprm_cli.view.line import Line, draw
from dreamprm_cli.view.text import label

_EIGHTHS = " ▏▎▍▌▋▊▉"
_LONGEST = 60
_STYLES = (Style(color="bright_blue"), Style(color="yellow"))


@dataclass(frozen=True)
class Bars:
    """A rich renderable, at most `width` cells wide.

    bins: what the names of the bins are. series: name -> counts by bin; every series has the same bins, in order.
    """

    bins: str
    series: Mapping[str, Mapping[str, int]]
    width: int
    ascii: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from draw(self.lines(self.ascii or options.ascii_only))

    def lines(self, ascii: bool) -> list[Line]:
        counts = [count for some in self.series.values() for count in some.values()]
        names = [label(name, ascii=ascii) for name in next(iter(self.series.values()), {})]
        left = max(map(cell_len, [self.bins, *names])) + 2
        number = max((len(str(count)) for count in counts), default=1)
        room = min(_LONGEST, self.width - left - number - 1)
        head = Line(self.width, ascii=ascii).add(self.bins, Style(dim=True)).to(left)
        for place, name in enumerate(self.series):
            head.add(f"{name}  ", _STYLES[place % len(_STYLES)])
        lines = [head]
        for place, name in enumerate(names):
            for which, some in enumerate(self.series.values()):
                count = list(some.values())[place]
                line = Line(self.width, ascii=ascii).add(name if which == 0 else "").to(left)
                if room > 0:
                    line.add(_bar(count / max(*counts, 1), room, ascii), _STYLES[which % len(_STYLES)]).add(" ")
                lines.append(line.add(str(count)))
        return lines


def _bar(share: float, cells: int, ascii: bool) -> str:
    """As long as `share` of `cells`, to an eighth of a cell; what is not nothing is seen."""
    if ascii:
        return "#" * max(round(share * cells), share > 0)
    eighths = max(round(share * cells * 8), share > 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
