"""Pictures of results, SVG and PNG: best-of-n curves, reliability, labels before and after a correction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamprm_cli.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any of the common colour blindnesses tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKS = "osv^D<>P"
_INCHES = (6.4, 4.2)


def curves(result: Mapping[str, Any], path: Path) -> list[Path]:
    """Solved rate over n for every method, its interval for the reward model, between pass@1 and the oracle.

    result: of `evaluate`. path: without suffix; the files written.
    """
    figure, axes = _figure()
    sizes = [int(n) for n in result["oracle"]]
    axes.plot(sizes, list(result["oracle"].values()), color="black", linestyle=":", label="oracle")
    for number, (method, by_size) in enumerate(chosen(result).items()):
        own = [int(n) for n in by_size]
        colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
        wide = 2.2 if method == "prm" else 1.2
        rates = [row["solved_rate"] for row in by_size.values()]
        axes.plot(own, rates, color=colour, marker=mark, markersize=4, linewidth=wide, label=method)
        if method == "prm":
            low, high = zip(*(row["ci95"] for row in by_size.values()), strict=True)
            axes.fill_between(own, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_xlabel("programs to choose from, n")
    axes.set_ylabel("problems solved")
    axes.legend(fontsize=7, ncols=2)
    return _write(figure, path)


def chosen(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The methods that are drawn: all but the reward model's other aggregations."""
    return {m: by_size for m, by_size in result["best_of_n"].items() if by_size and not m.startswith("prm,")}


def reliability(result: Mapping[str, Any], path: Path) -> list[Path]:
    """Pass rate over reward for methods whose scores claim to be probabilities; the larger a dot, the more programs."""
    figure, axes = _figure(square=True)
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    for number, (method, one) in enumerate(result["calibration"].items()):
        if not one["curve"]:
            continue
        reward, rate, count = zip(*one["curve"], strict=True)
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(reward, rate, color=colour, linewidth=1.2, label=f"{method} (ECE {one['ece']:.3f})")
        most = max(count)
        axes.scatter(reward, rate, s=[6 + 60 * k / most for k in count], color=colour)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="reward", ylabel="share that passes")
    axes.legend(fontsize=7, loc="upper left")
    return _write(figure, path)


def label_histogram(before: Sequence[int], after: Sequence[int], path: Path) -> list[Path]:
    """Labels in bins of equal width over [0, 1] (see `audit.Audit`), before a correction and after it."""
    figure, axes = _figure()
    width = 1 / max(len(before), 1)
    for number, (name, counts) in enumerate((("Monte-Carlo", before), ("corrected", after))):
        places = [(index + 0.28 + 0.44 * number) * width for index in range(len(counts))]
        axes.bar(places, counts, 0.42 * width, color=_COLOURS[number], label=name)
    axes.set(xlim=(0, 1), xlabel="label", ylabel="steps")
    axes.legend()
    return _write(figure, path)


def require() -> None:
    """Raises ConfigError without matplotlib: to be told before anything is computed."""
    if find_spec("matplotlib") is None:
        raise ConfigError("pictures need matplotlib", "pip install 'dreamprm[train]'")


def _figure(square: bool = False) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, drawn by no window system."""
    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES[1], _INCHES[1]) if square else _INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    return figure, axes


def _write(figure: Figure, path: Path) -> list[Path]:
    """Both files, each replaced at once; equal results give equal files."""
    import matplotlib

    written = []
    metadata: Mapping[str, Mapping[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}}
    for kind, told in metadata.items():
        target = path.with_name(f"{path.name}.{kind}")
        scratch = target.with_name(f".{target.name}.{os.getpid()}")
        with matplotlib.rc_context({"svg.hashsalt": "dreamprm"}):
            figure.savefig(scratch, format=kind, dpi=150, metadata=told)
        scratch.replace(target)
        written.append(target)
    return written
