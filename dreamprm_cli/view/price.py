"""What a recipe would cost, as a small table: counts, stages, hours, bytes, and how they were reckoned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dreamprm_cli.view.text import label

_UNITS = ("", "k", "M", "G", "T", "P", "E")


def render_price(told: Mapping[str, Any], width: int) -> RenderableType:
    """told: as `dreamprm train fit --dry-run --json` prints it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage", overflow="fold")
    table.add_column("model", overflow="fold")
    for name in ("tokens in", "out", "FLOPs", "H100 hours", "2-core hours"):
        table.add_column(name, justify="right")
    for stage in told["stages"]:
        table.add_row(
            Text(label(stage["name"])), Text(label(stage["model"])), _short(stage["tokens_in"]),
            _short(stage["tokens_out"]), _short(stage["flops"]), _hours(stage["gpu_hours"]), _hours(stage["cpu_hours"]),
        )  # fmt: skip
    table.add_row(
        "all", "", _short(told["tokens_in"]), _short(told["tokens_out"]), _short(told["flops"]),
        _hours(told["gpu_hours"]), _hours(told["cpu_hours"]), style="bold",
    )  # fmt: skip
    rollouts = told["rollouts"]
    sizes = ", ".join(
        f"{_short(told[key])}B {name}"
        for key, name in (("download_bytes", "to fetch"), ("disk_bytes", "on disk"), ("memory_bytes", "of memory"))
    )
    return Group(
        *(Text(_part(name, told[key])) for name, key in (("training", "train"), ("held out", "held_out"))),
        Text(
            f"rollouts: {rollouts['planned']:,} ({rollouts['fixed']:,} at a fixed number, "
            f"{rollouts['adaptive']:,} adaptive); programs to run: {told['sandbox_runs']:,} at most"
        ),
        Text(),
        table,
        Text(),
        Text(sizes),
        *(Text(f"assumed: {label(line)}", style="dim") for line in told["assumed"]),
        *(Text(label(line), style="dim") for line in told["how"]),
    )


def _part(name: str, part: Mapping[str, Any]) -> str:
    return f"{name}: {part['problems']:,} problems, {part['programs']:,} programs, {part['steps']:,} steps"


def _short(value: float | None) -> str:
    """Three digits and a unit; "?" when not known."""
    if value is None:
        return "?"
    power = 0
    while value >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {_UNITS[power]}" if power else f"{value:.0f} "


def _hours(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value >= 0.01 else "<0.01"
