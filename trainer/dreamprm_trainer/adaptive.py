"""What adaptive rollouts save, and what they cost in wrong labels, against a fixed number.

python -m dreamprm_trainer.adaptive LABELS.jsonl ...        # of `dreamprm train label --first 16`

A prefix is taken to pass with its passes / K (those with fewer than K rollouts are left out); what a plan
would do with it is then reckoned exactly, over all orders in which its rollouts could have passed. A label is wrong
when it stands on the other side of one half than the rate; exactly one half counts as half wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dreamprm_cli.errors import DreamPRMError, ProblemError
from dreamprm_trainer.problems import Row, read_jsonl
from dreamprm_trainer.rollouts import Plan


@dataclass(frozen=True, slots=True)
class Worth:
    """Of one prefix under a plan: expected rollouts, chance that the label is on the wrong side of one half, and mean
    squared error of passes / rollouts."""

    rollouts: float
    wrong: float
    error: float


def worth(rate: float, plan: Plan) -> Worth:
    """Exact, for a prefix whose rollouts pass independently with probability `rate`."""
    # chance[passes] of having come to `count` rollouts with so many passes, undecided.
    chance: Mapping[int, float] = {0: 1.0}
    count, rollouts, wrong, error = 0, 0.0, 0.0, 0.0
    while chance:
        count += 1
        drawn: dict[int, float] = {}
        for passes, weight in chance.items():
            drawn[passes + 1] = drawn.get(passes + 1, 0.0) + weight * rate
            drawn[passes] = drawn.get(passes, 0.0) + weight * (1 - rate)
        chance = {}
        for passes, weight in drawn.items():
            if plan.stops(passes, count):
                rollouts += weight * count
                wrong += weight * _wrong(passes / count, rate)
                error += weight * (passes / count - rate) ** 2
            elif weight:
                chance[passes] = weight
    return Worth(rollouts, wrong, error)


def _wrong(label: float, rate: float) -> float:
    if rate == 0.5:
        return 0.0
    if label == 0.5:
        return 0.5
    return float((label > 0.5) != (rate > 0.5))


def compare(rates: Sequence[float], plan: Plan, fixed: int) -> dict[str, float]:
    """Means over prefixes. `share`: rollouts of the plan for each of the fixed number."""
    ours = [worth(rate, plan) for rate in rates]
    theirs = [worth(rate, Plan(fixed, 1, fixed)) for rate in rates]
    count = len(rates)
    return {
        "prefixes": count,
        "rollouts": sum(one.rollouts for one in ours) / count,
        "fixed": fixed,
        "share": sum(one.rollouts for one in ours) / count / fixed,
        "wrong_side": sum(one.wrong for one in ours) / count,
        "wrong_side_fixed": sum(one.wrong for one in theirs) / count,
        "rmse": (sum(one.error for one in ours) / count) ** 0.5,
        "rmse_fixed": (sum(one.error for one in theirs) / count) ** 0.5,
        "unanimous": sum(rate in (0.0, 1.0) for rate in rates) / count,
    }


def rates(rows: Sequence[Row], least: int) -> list[float]:
    """passes / rollouts of every distinct prefix with at least so many rollouts."""
    found: dict[tuple[str, str], float] = {}
    for row in rows:
        for number, (passes, rollouts) in enumerate(zip(row["mc_pass"], row["mc_total"], strict=True)):
            if rollouts >= least:
                found[row["task_id"], "".join(row["completions"][: number + 1])] = passes / rollouts
    return list(found.values())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dreamprm_trainer.adaptive", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("labels", type=Path, nargs="+", help="labels.jsonl of runs with a fixed number of rollouts")
    parser.add_argument("--fixed", type=int, default=16)
    parser.add_argument("--out", type=Path, help="JSON of the results")
    args = parser.parse_args(argv)
    plan = Plan(most=args.fixed)
    try:
        known = rates([row for path in args.labels for row in read_jsonl(path)], args.fixed)
        if not known:
            raise ProblemError(f"no prefix has {args.fixed} rollouts", f"label with --first {args.fixed}")
    except DreamPRMError as error:
        print(f"error: {error.message}\n  {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    result = {**compare(known, plan, args.fixed), "plan": asdict(plan)}
    text = json.dumps({key: round(v, 5) if isinstance(v, float) else v for key, v in result.items()}, indent=1) + "\n"
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
