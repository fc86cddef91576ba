"""What a correction did to the labels: histograms before and after, and the steps that moved most.

A fit whose labels moved leaves them beside its checkpoint, a row a program, with its steps' sources, labels before and
after, and the counts that they came from: `labels.jsonl.gz`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.prompts import prm_input
from dreamprm_trainer.data import Item
from dreamprm_trainer.journal import write_rows
from dreamprm_trainer.labels import WHOLE, Steps, steps_of_items
from dreamprm_trainer.problems import Row, read_jsonl
from dreamprm_trainer.tables import Floats

LABELS = "labels.jsonl.gz"
_EXCERPT = 12  # lines


@dataclass(frozen=True, slots=True)
class Moved:
    """A step whose label moved: its place in the table, program and problem, the label's way and its counts."""

    index: int
    program: int
    problem: int
    before: float
    after: float
    passes: int
    rollouts: int


@dataclass(frozen=True, slots=True)
class Audit:
    """before, after: counts in bins of equal width over [0, 1]; crossed: labels that are on the other side of one half
    now; most: the steps that moved most, farthest first."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    mean_moved: float
    crossed: int
    most: tuple[Moved, ...]


def audit(steps: Steps, before: Floats, after: Floats, bins: int = 10, most: int = 20) -> Audit:
    """Compare labels (N,) of the same steps. Raises ValueError where the lengths differ."""
    if not len(steps) == len(before) == len(after):
        raise ValueError(f"{len(steps)} steps, {len(before)} labels before and {len(after)} after")
    distance = np.abs(after - before)
    order = np.argsort(-distance, kind="stable")[:most]
    return Audit(
        before=_histogram(before, bins),
        after=_histogram(after, bins),
        mean_moved=float(distance.mean()) if len(steps) else 0.0,
        crossed=int(((before > 0.5) != (after > 0.5)).sum()),
        most=tuple(
            Moved(
                index=int(index),
                program=int(steps.program[index]),
                problem=int(steps.problem[index]),
                before=float(before[index]),
                after=float(after[index]),
                passes=int(steps.passes[index]),
                rollouts=int(steps.rollouts[index]),
            )
            for index in order
            if distance[index] > 0
        ),
    )


def _histogram(labels: Floats, bins: int) -> tuple[int, ...]:
    return tuple(np.histogram(labels, bins, (0.0, 1.0))[0].tolist())


def rows_of(items: Sequence[Item], before: Floats, after: Floats) -> list[Row]:
    """A row a program; before, after: (N,) of the scored steps of all items in order. Steps never scored have null."""
    rows: list[Row] = []
    known, place = steps_of_items(items).rollouts >= WHOLE, 0
    for item in items:
        at: list[int | None] = [None] * len(item.steps)
        for index, step in enumerate(item.steps):
            if step.scored:
                at[index], place = place, place + 1
        rows.append(
            {
                "task_id": item.problem.id,
                "source": item.source,
                "model": item.model,
                "sample": item.sample,
                "passed": item.passed,
                "prompt": prm_input(item.problem).text,
                "completions": [step.source for step in item.steps],
                "kinds": [step.kind for step in item.steps],
                "names": [step.name or step.kind for step in item.steps],
                "labels": [None if k is None else round(float(before[k]), 5) for k in at],
                "label_corrected": [None if k is None else round(float(after[k]), 5) for k in at],
                "known": [k is not None and bool(known[k]) for k in at],
                "mc_pass": list(item.passes or [0] * len(item.steps)),
                "mc_total": list(item.rollouts or [0] * len(item.steps)),
            }
        )
    return rows


def save(folder: Path, rows: Sequence[Row]) -> Path:
    """Write the rows beside the checkpoint in `folder`."""
    write_rows(rows, folder / LABELS)
    return folder / LABELS


def read(folder: Path) -> list[Row]:
    """Raises ProblemError where no labels were left."""
    if not (folder / LABELS).is_file():
        raise ProblemError(
            f"{folder} holds no {LABELS}: its labels never moved",
            "fit with --mode correct, then look at its checkpoint",
        )
    return read_jsonl(folder / LABELS)


def report(rows: Sequence[Row], bins: int = 10, most: int = 20) -> dict[str, Any]:
    """What `dreamprm train audit --json` prints: the labels that were free to move, before and after.

    `most` holds the steps that moved most, each with its problem, name and the begin of its source.
    """
    free = [
        (row, index)
        for row in rows
        for index, label in enumerate(row["labels"])
        if label is not None and not row["known"][index]
    ]
    numbers = {id(row): number for number, row in enumerate(rows)}
    count = np.array([[row["mc_pass"][index], row["mc_total"][index]] for row, index in free], np.float32).reshape(
        -1, 2
    )
    program = np.array([numbers[id(row)] for row, _ in free], np.int64)
    steps = Steps(np.zeros((len(free), 0), np.float32), program, program, count[:, 0], count[:, 1])
    before, after = (
        np.array([row[key][index] for row, index in free], np.float32) for key in ("labels", "label_corrected")
    )
    found = audit(steps, before, after, bins, most)
    return {
        "steps": len(free),
        "known": sum(sum(row["known"]) for row in rows),
        "before": list(found.before),
        "after": list(found.after),
        "mean_moved": round(found.mean_moved, 5),
        "crossed": found.crossed,
        "most": [_told(*free[moved.index], moved) for moved in found.most],
    }


def _told(row: Mapping[str, Any], index: int, moved: Moved) -> dict[str, Any]:
    lines = row["completions"][index].strip("\n").splitlines()
    return {
        "task_id": row["task_id"],
        "model": row["model"],
        "sample": row["sample"],
        "passed": row["passed"],
        "name": row["names"][index],
        "step": index,
        "before": round(moved.before, 4),
        "after": round(moved.after, 4),
        "mc_pass": moved.passes,
        "mc_total": moved.rollouts,
        "source": "\n".join(lines[:_EXCERPT]) + ("\n..." if len(lines) > _EXCERPT else ""),
    }
