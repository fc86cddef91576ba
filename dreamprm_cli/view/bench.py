"""What a bench found, as a table, curves and notes. `render` draws the object that `dreamprm bench --json` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dreamprm_cli.view.curves import Curve, Curves
from dreamprm_cli.view.text import label

_WIDE = 96  # columns from which intervals have room
_RIVALS = 4  # curves beside those of the model, the oracle and chance
_ALWAYS = ("prm", "prm+logprob", "random")


def render(result: Mapping[str, Any], width: int, *, ascii: bool = False) -> RenderableType:
    """Summary, a row a method, best-of-n curves, and what was left out."""
    parts: list[RenderableType] = [_summary(result), Text(), methods(result, width), Text()]
    curves = Curves(tuple(_curves(result)), width, ascii)
    if curves.lines(ascii):
        parts += [curves, Text()]
    return Group(*parts, *(Text(label(note, ascii=ascii), style="dim") for note in notes(result)))


def _summary(result: Mapping[str, Any]) -> Text:
    oracle = ", ".join(f"{_short(value)} of {n}" for n, value in result["oracle"].items() if n != "1") or "-"
    return Text(
        f"{result['problems']} problems ({result['mixed_problems']} with passing and failing programs), "
        f"{result['candidates']} programs; pass@1 {_short(result['pass@1'])}; oracle {oracle}"
    )


def methods(result: Mapping[str, Any], width: int) -> Table:
    """Best-of-n for every n, gap and AUC with their intervals where there is room, McNemar against the model."""
    wide = width >= _WIDE
    sizes = list(result["oracle"])
    shown = [n for n in sizes if n != "1"] or sizes
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("method", no_wrap=True)
    for name in ("AUC", *(f"of {n}" for n in shown), "gap"):
        table.add_column(name, no_wrap=True)
    if result["mcnemar"]:
        table.add_column("prm : it", no_wrap=True)
    for method, by_size in result["best_of_n"].items():
        within, last = result["auc_within"][method], by_size[shown[-1]]
        cells = [
            label(method),
            _cell(within["value"], within["ci95"], _short, wide),
            *(_short(by_size[n]["solved_rate"]) for n in shown),
            _cell(last["recovered_gap"], last["gap_ci95"], _percent, wide),
        ]
        if (test := result["mcnemar"].get(method)) is not None:
            cells.append(f"{test['b']} : {test['c']}  p {_short(test['p'])}")
        table.add_row(*map(Text, cells), style="bold" if method in ("prm", "prm+logprob") else "")
    return table


def _curves(result: Mapping[str, Any]) -> Iterator[Curve]:
    """The model, the oracle, chance, and the best of the others."""
    found = {
        method: tuple((int(n), row["solved_rate"]) for n, row in by_size.items())
        for method, by_size in result["best_of_n"].items()
        if by_size and not method.startswith("prm,")
    }
    others = sorted((name for name in found if name not in _ALWAYS), key=lambda name: -found[name][-1][1])[:_RIVALS]
    for name in ("prm", "prm+logprob"):
        if name in found:
            yield Curve(name, found[name])
    yield Curve("oracle", tuple((int(n), value) for n, value in result["oracle"].items()))
    for name in [*others, *(name for name in found if name == "random")]:
        yield Curve(name, found[name])


def notes(result: Mapping[str, Any]) -> Iterator[str]:
    """How to read the table, and what is not in it."""
    sizes = list(result["problems_with"].items())
    fewer = [f"{count} problems have {n}" for n, count in sizes if count != result["problems"]]
    yield (
        "AUC within problems; of n: problems solved when the best of n programs is taken, in exact expectation; "
        f"gap: what of the way to the oracle is gone at {sizes[-1][0]}; 95 % intervals by bootstrap over problems"
    )
    if fewer:
        yield f"each n counts the problems that have so many programs: {', '.join(fewer)}"
    if result["mcnemar"]:
        yield "prm : it: problems that only the one, or only the other, solves out of all programs; McNemar's exact p"
    errors = [f"{name} {_short(one['ece'])}" for name, one in result["calibration"].items() if one["ece"] is not None]
    if errors:
        yield f"calibration error (ECE): {', '.join(errors)}"
    for method, why in result.get("skipped", {}).items():
        yield f"no {method}: {why}"
    for why, count in result.get("left_out", {}).items():
        yield f"left out: {count} {why}"


def _cell(value: float | None, interval: Sequence[float | None], form: Any, wide: bool) -> str:
    if value is None or interval[0] is None or not wide:
        return str(form(value))
    return f"{form(value)} [{form(interval[0])}, {form(interval[1])}]"


def _short(value: float | None) -> str:
    """Three digits: ".319", "1.000"."""
    return "-" if value is None else f"{value:.3f}".removeprefix("0")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{round(100 * value)}%"
