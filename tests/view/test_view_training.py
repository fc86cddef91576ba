from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console
from view_kit import HOSTILE, Terminal, ansi, screen

from dreamprm_cli import training as tr
from dreamprm_cli.view.training import TrainingState, TrainingView, fold, render

WIDTHS = (20, 40, 60, 80, 120, 200)
STARTED = tr.TrainingStarted(recipe="laptop", backbone="qwen2.5-coder-0.5b", params="features", mode="correct")


def epochs(first: int, last: int, total: int = 40) -> list[tr.TrainingEvent]:
    """A loss that falls, a validation loss that is lowest at 20, labels that move."""
    told: list[tr.TrainingEvent] = []
    for epoch in range(first, last + 1):
        told.append(tr.Progressed(done=epoch, loss=0.7 - epoch / 100))
        told.append(tr.Validated(at=epoch, loss=0.5 + abs(epoch - 20) / 100, meta=0.4))
        told.append(tr.LabelsMoved(at=epoch, distance=epoch / 400))
    return told


def state(events: Sequence[tr.TrainingEvent], seconds: float = 10.0) -> TrainingState:
    """Events that come evenly over so many seconds."""
    result = TrainingState()
    for number, event in enumerate(events, 1):
        result = fold(result, event, seconds * number / len(events))
    return result


def halfway() -> TrainingState:
    fit = tr.StageStarted(stage="fit", unit="epochs", total=40)
    return state([STARTED, fit, *epochs(1, 30)])


def test_the_running_screen_on_80_columns() -> None:
    lines = screen(render(halfway(), 80, 9), 80)
    assert lines[0] == "laptop · features · correct                                   qwen2.5-coder-0.5b"
    assert lines[1] == "━" * 60 + "─" * 20
    assert re.split(" {3,}", lines[2]) == ["loss .400", "validation .600", "labels moved .075"]
    assert re.findall(r"\.\d+", lines[3]) == [".690", ".690", ".075"]
    assert re.findall(r"\.\d+", lines[7]) == [".400", ".500", ".003"]
    assert lines[8][1:] == " 0:10  fit  30 of 40 epochs  0:03 left at most  best .500 at 20"
    assert len(lines) == 9


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 24, 60])
def test_every_size(width: int, height: int) -> None:
    noted = fold(halfway(), tr.TrainingNotice(text="the rewards have become one constant"), 10.0)
    for shown in (TrainingState(), halfway(), noted):
        lines = screen(render(shown, width, height), width)
        assert 1 <= len(lines) <= height


def test_curves_stand_below_each_other_on_a_narrow_screen() -> None:
    lines = screen(render(halfway(), 40, 24), 40)
    assert [line.split()[0] for line in lines if line.startswith(("loss", "validation", "labels"))] == [
        "loss", "validation", "labels",
    ]  # fmt: skip


def test_no_colour_and_ascii() -> None:
    assert "\x1b[3" not in ansi(render(halfway(), 80, 12), 80, no_color=True, colors=None)
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80)
    console.print(render(halfway(), 80, 12))
    console.file.flush()
    text = console.file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "laptop | features | correct" in text
    assert "***" in text
    assert "=" * 60 + "-" * 20 in text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text(name: str) -> None:
    text = HOSTILE[name]
    events = [
        tr.TrainingStarted(recipe=text, backbone=text, params=text, mode=text),
        tr.StageStarted(stage=text, unit=text, total=5),
        tr.Progressed(done=1, loss=0.5),
        tr.TrainingNotice(text=text),
    ]
    screen(render(state(events), 60, 12), 60)
    screen(render(state([*events, tr.TrainingFinished(checkpoint=text)]), 60, 12), 60)


def test_pace_is_that_of_the_stage_since_it_began() -> None:
    began = state([tr.StageStarted(stage="features", unit="problems", total=100, done=40)], seconds=5.0)
    now = fold(began, tr.Progressed(done=50, tokens=3000), 15.0)
    assert now.tokens_per_s(15.0) == 300.0
    assert now.left_s(15.0) == 50.0
    assert began.left_s(15.0) is None
    assert began.tokens_per_s(15.0) is None
    unknown = fold(TrainingState(), tr.StageStarted(stage="fit", unit="evaluations", total=0), 1.0)
    assert fold(unknown, tr.Progressed(done=9, loss=0.5), 2.0).left_s(3.0) is None


def test_a_budget_bounds_the_time_that_is_left() -> None:
    began = state([tr.StageStarted(stage="sample", unit="programs", total=100, most_s=60.0)], seconds=5.0)
    now = fold(began, tr.Progressed(done=10), 25.0)  # 180 seconds at this pace
    assert now.left_s(25.0) == 40.0
    assert now.left_s(90.0) == 0.0


def test_curves_stay_until_another_stage_has_its_own() -> None:
    after = fold(halfway(), tr.StageStarted(stage="sources left out", unit="refits", total=9), 11.0)
    kept = fold(after, tr.Progressed(done=1), 12.0)
    assert len(kept.loss) == 30
    assert kept.best == (20, 0.5)
    fresh = fold(kept, tr.Progressed(done=2, loss=0.3), 13.0)
    assert fresh.loss == ((2, 0.3),)
    assert fresh.validation == fresh.moved == ()
    assert fresh.best is None


def test_where_the_auc_is_watched_it_stands_for_the_validation() -> None:
    told = [tr.StageStarted(stage="train", unit="steps", total=90)]
    for at, loss, auc in ((30, 0.5, 0.6), (60, 0.7, 0.8), (90, 0.6, 0.7)):
        told += [tr.Progressed(done=at, loss=0.4), tr.Validated(at=at, loss=loss, auc=auc)]
    shown = state(told)
    assert shown.best == (60, 0.8)
    lines = screen(render(shown, 80, 9), 80)
    assert re.split(" {3,}", lines[2]) == ["loss .400", "validation AUC .700"]
    assert piped(told, 10.0)[-1].endswith("loss .400  validation AUC .700")


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    shown = state([tr.StageStarted(stage="train", unit="steps", total=5000), *(
        tr.Progressed(done=step, loss=1.0 / step) for step in range(1, 3001)
    )])  # fmt: skip
    assert 100 < len(shown.loss) <= 256
    xs = [x for x, _ in shown.loss]
    assert xs == sorted(xs)
    assert xs[-1] == 3000
    assert xs[0] == 1
    assert max(b - a for a, b in itertools.pairwise(xs)) <= 3000 / 64


def test_losses_that_are_not_numbers_are_no_points() -> None:
    shown = state([tr.StageStarted(stage="fit", unit="epochs", total=3), tr.Progressed(done=1, loss=math.inf),
                   tr.Validated(at=1, loss=math.nan)])  # fmt: skip
    assert shown.loss == shown.validation == ()
    assert shown.best is None


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def piped(events: Sequence[tr.TrainingEvent], step_s: float, **options: Any) -> list[str]:
    file, clock = io.StringIO(), Clock()
    with TrainingView(Console(file=file, width=80, _environ={}), clock=clock, **options) as view:
        for event in events:
            clock.now += step_s
            view.update(event)
    return file.getvalue().splitlines()


def test_in_a_pipe_a_line_now_and_then() -> None:
    stage = tr.StageStarted(stage="fit", unit="epochs", total=40, done=0)
    done = tr.TrainingFinished(checkpoint="prm/laptop")
    lines = piped([STARTED, stage, *epochs(1, 40), tr.TrainingNotice(text="no use"), done], 0.1)
    assert lines[0] == " 0:00  laptop · features · correct, qwen2.5-coder-0.5b"
    assert lines[1] == " 0:00  fit: 40 epochs"
    assert 3 <= len([line for line in lines if "of 40 epochs" in line]) <= 6
    assert lines[-3].endswith("fit  40 of 40 epochs  0:00 left at most  loss .300  validation .700  labels moved .098")
    assert lines[-2:] == [" 0:12  ! no use", " 0:12  saved prm/laptop"]
    assert "\x1b" not in "".join(lines)


def test_a_stage_of_unknown_size_is_only_named() -> None:
    known = tr.StageStarted(stage="features", unit="problems", total=9, done=4)
    assert piped([tr.StageStarted(stage="save", unit="", total=0), known], 1.0) == [
        " 0:01  save", " 0:02  features: 9 problems, 4 are there",
    ]  # fmt: skip


def test_evaluations_of_unknown_number_are_not_all_told() -> None:
    stage = tr.StageStarted(stage="fit", unit="evaluations", total=0)
    after = tr.StageStarted(stage="refits", unit="refits", total=1)
    losses = [tr.Progressed(done=k, loss=1 / k) for k in range(1, 21)]
    assert piped([stage, *losses, after, tr.Progressed(done=1)], 0.1) == [
        " 0:00  fit", " 0:00  fit  loss 1.000", " 0:02  refits: 1 refits", " 0:02  refits  1 of 1 refits  0:00 left",
    ]  # fmt: skip


def test_quiet_says_nothing() -> None:
    assert piped([STARTED, *epochs(1, 3)], 9.0, quiet=True) == []


def test_on_a_terminal_the_last_screen_stays() -> None:
    terminal = Terminal(100, 30)
    console = Console(
        file=terminal, width=100, height=30, force_terminal=True, color_system="truecolor", legacy_windows=False,
        _environ={"TERM": "xterm-256color"},
    )  # fmt: skip
    stage = tr.StageStarted(stage="fit", unit="epochs", total=40)
    with TrainingView(console) as view:
        for event in [STARTED, stage, *epochs(1, 40), tr.TrainingFinished(checkpoint="prm/laptop")]:
            view.update(event)
    lines = [line for line in terminal.lines() if line]
    assert lines[0].startswith("laptop · features · correct")
    assert lines[-1].startswith("done 0:0")
    assert lines[-1].endswith("prm/laptop")
    assert terminal.cursor_visible


def test_parts_are_a_row_of_their_own_and_the_title_stays() -> None:
    parts = ("mine", "label", "fit", "eval")
    began = TrainingState(title="train · toolz")
    label = fold(fold(began, tr.PartStarted(parts=parts, at=0), 0.0), tr.PartStarted(parts=parts, at=1), 5.0)
    lines = screen(render(fold(label, STARTED, 6.0), 80, 9), 80)
    assert lines[0].startswith("train · toolz ")
    assert lines[2] == "✓ mine  ● label  · fit  · eval"
    over = fold(label, tr.TrainingFinished(checkpoint="out/prm"), 9.0)
    assert screen(render(over, 80, 9), 80)[2] == "✓ mine  ✓ label  ✓ fit  ✓ eval"
    for width in WIDTHS:
        for height in (1, 2, 3, 4, 9):
            assert 1 <= len(screen(render(label, width, height), width)) <= height


def test_a_part_is_a_line_in_a_pipe() -> None:
    console = Console(file=io.StringIO(), width=80)
    with TrainingView(console, title="train", clock=itertools.count().__next__) as view:
        view.update(tr.PartStarted(parts=("mine", "label"), at=1))
        view.update(tr.StageStarted(stage="sample", unit="programs", total=8, done=3))
    assert re.findall(r"label \(2 of 2\)|sample: 8 programs, 3 are there", console.file.getvalue()) == [  # type: ignore[attr-defined]
        "label (2 of 2)", "sample: 8 programs, 3 are there",
    ]  # fmt: skip
