"""Small tables: the models there are, and what `doctor` found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dreamprm_cli.doctor import Check
from dreamprm_cli.models import ModelStatus
from dreamprm_cli.view.text import label

_NARROW = 60  # columns below which a table would be a column of syllables
_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "missing": ("missing", "red")}
_STATES = {"ready": "green", "unverified": "yellow", "partial": "yellow", "missing": "dim"}


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def models_table(rows: Sequence[ModelStatus], width: int) -> RenderableType:
    """Name, what of it is here, size, licence, note; in less than _NARROW columns, one below the other."""
    table = _table("model", "here", "size", "licence", "")
    stack: list[RenderableType] = []
    for row in rows:
        size = f"{row.info.bytes / 1e9:.2f} GB" if row.info.bytes else "-"
        state = Text(row.state, style=_STATES[row.state])
        note = Text(row.info.note, style="dim")
        table.add_row(Text(row.info.name), state, size, row.info.licence, note)
        stack += [Text(row.info.name), *_indented(Text.assemble(state, f"  {size}  {row.info.licence}"), note)]
    return Group(*stack) if width < _NARROW else table


def checks_table(rows: Sequence[Check], width: int) -> RenderableType:
    """One line a check; below what is not ok, how to fix it."""
    table = _table("", "", "")
    table.show_header = False
    stack: list[RenderableType] = []
    for row in rows:
        word, style = _MARKS[row.state]
        mark, name, detail = Text(word, style=style), Text(label(row.name)), Text(label(row.detail))
        if row.fix:
            detail.append(f"\n{label(row.fix)}", style="dim")
        table.add_row(mark, name, detail)
        stack += [Text.assemble(mark, "  ", name), *_indented(detail)]
    return Group(*stack) if width < _NARROW else table


def _indented(*lines: Text) -> list[RenderableType]:
    return [Padding(line, (0, 0, 0, 2)) for line in lines if line]
