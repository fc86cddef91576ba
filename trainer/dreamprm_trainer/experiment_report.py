"""An experiment's results as a page: each way of correcting against the best control, with paired intervals.

python -m dreamprm_trainer.experiment_report benchmarks/results/planted.json > benchmarks/results/planted.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONTROLS = ("noisy (a)", "pooled (b)", "shrunk (c)", "blended (d)", "td (d)", "reweighted (e)")
RIVALS = ("self-taught", "self-taught td")
OURS = ("corrected", "corrected td", "corrected td, apart", "corrected self-taught")
# metric -> (heading, whether more is better)
METRICS = {
    "label_auc": ("Labels of inner steps: AUC against the truth", True),
    "label_auc_failing": ("The same within failing programs, where the outcome gives nothing away", True),
    "label_brier": ("Labels of inner steps: Brier score (less is better)", False),
    "prm_auc": ("Reward model on unseen problems: AUC of all prefixes", True),
    "prm_auc_inner": ("Reward model on unseen problems: AUC of inner prefixes", True),
    "prm_auc_whole": ("Reward model on unseen problems: AUC of whole programs", True),
    "within": ("Reward model on unseen problems: AUC within problems, a program's reward the mean of its steps'", True),
    "best_of_4": ("Unseen problems solved by the best of 4", True),
    "inner_auc": ("Unseen problems: how the reward of an inner prefix foretells its rollouts (AUC)", True),
}


def report(result: Mapping[str, Any]) -> str:
    """Markdown. Bold: better than the best control, the interval of the paired difference leaves 0 out; (worse): the
    other way round. The best control is chosen for each cell by its mean, in favour of the controls."""
    lines = [
        f"# {result['command'].split('.')[-1].split()[0].capitalize()}: correction against the controls",
        "",
        f"{result['problems']} problems ({result['test_problems']} of them held out), {result['programs']} programs, "
        f"{result['steps']} steps; `{result['command']}`. Means over seeds; in brackets the 95% interval of the paired "
        "difference to the best control of that row.",
    ]
    some = next(iter(result["summary"].values()))
    bounds = [name for name in ("truth",) if name in some]
    for metric, (heading, more) in METRICS.items():
        if metric not in next(iter(some.values())):
            continue
        lines += ["", f"## {heading}", "", "| | best control | " + " | ".join((*RIVALS, *OURS, *bounds)) + " |"]
        lines.append("|---|---|" + "---|" * (len(RIVALS) + len(OURS) + len(bounds)))
        for noise, by in result["summary"].items():
            pick = max if more else min
            best = pick(CONTROLS, key=lambda name: by[name][metric]["mean"])
            cells = [noise, f"{by[best][metric]['mean']:.3f} {best}"]
            cells += [f"{by[name][metric]['mean']:.3f}" for name in RIVALS]
            cells += [_cell(by[name][metric], best, more) for name in OURS]
            cells += [f"{by[name][metric]['mean']:.3f}" for name in bounds]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(entry: Mapping[str, Any], best: str, more: bool) -> str:
    low, high = entry["minus"][best]["ci95"]
    text = f"{entry['mean']:.3f} [{low:+.3f}, {high:+.3f}]"
    better, worse = (low > 0, high < 0) if more else (high < 0, low > 0)
    return f"**{text}**" if better else f"{text} (worse)" if worse else text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dreamprm_trainer.experiment_report", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("result", type=Path)
    args = parser.parse_args(argv)
    sys.stdout.write(report(json.loads(args.result.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
