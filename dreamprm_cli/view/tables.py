"""Small tables: the models there are, and what `doctor` found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from dreamprm_cli.doctor import Check
from dreamprm_cli.models import ModelStatus
from dreamprm_cli.view.text import label

_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "missing": ("missing", "red")}
_STATES = {"ready": "green", "unverified": "yellow", "partial": "yellow", "missing": "dim"}


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def models_table(rows: Sequence[ModelStatus]) -> Table:
    """Name, what of it is here, size, licence, note."""
    table = _table("model", "here", "size", "licence", "")
    for row in rows:
        size = f"{row.info.bytes / 1e9:.2f} GB" if row.info.bytes else "-"
        state = Text(row.state, style=_STATES[row.state])
        table.add_row(Text(row.info.name), state, size, row.info.licence, Text(row.info.note, style="dim"))
    return table


def checks_table(rows: Sequence[Check]) -> Table:
    """One line a check; below what is not ok, how to fix it."""
    table = _table("", "", "")
    table.show_header = False
    for row in rows:
        mark, style = _MARKS[row.state]
        detail = Text(label(row.detail))
        if row.fix:
            detail.append(f"\n{label(row.fix)}", style="dim")
        table.add_row(Text(mark, style=style), Text(label(row.name)), detail)
    return table
