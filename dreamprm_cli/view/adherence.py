"""How far programs keep to the Chain-of-Function form: `render` draws what `bench --adherence --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dreamprm_cli.view.bars import Bars
from dreamprm_cli.view.text import label

_MEANINGS = {
    "chain": "two functions or more, all documented, none nested, most lines in them",
    "loose": "two functions or more, but not so",
    "single": "one function",
    "none": "no function",
    "broken": "does not parse",
}


def render(report: Mapping[str, Any], width: int, *, ascii: bool = False) -> RenderableType:
    """The shares, how many functions programs have, and a row a model where there are several."""
    shares = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for verdict, meaning in _MEANINGS.items():
        shares.add_row(verdict, _percent(report["verdicts"][verdict]), Text(meaning, style="dim"))
    facts = (
        f"{report['programs']} programs; {report['functions_mean']:.2f} functions a program, "
        f"{_percent(report['documented'])} with a docstring; {_percent(report['nested'])} of the programs nest "
        f"functions, {_percent(report['module_code'])} have code outside functions"
    )
    parts: list[RenderableType] = [Text(facts), Text(), shares, Text()]
    parts.append(Bars("functions", {"programs": report["functions"]}, width, ascii))
    if "by_model" in report:
        models = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("model", "programs", *_MEANINGS, "functions"):
            models.add_column(name)
        for model, one in report["by_model"].items():
            cells = [label(model), str(one["programs"]), *(_percent(one["verdicts"][verdict]) for verdict in _MEANINGS)]
            models.add_row(*map(Text, cells), f"{one['functions_mean']:.2f}")
        parts += [Text(), models]
    return Group(*parts)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"
