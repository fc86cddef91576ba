"""A training on the user's screen: its stage and pace, and the curves of its losses while they come down.

    default · features · correct                                                       qwen2.5-coder-0.5b
    ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸────────────────────────────────────────────────────────
    loss .512                        validation .583                  labels moved .083
     .693 ⢣                           .693 ⢣                           .083         ⢀⡠⠊
          ⠈⢆                               ⠈⢢⡀                               ⢀⡠⠔⠊⠁
     .512   ⠑⠢⠤⣀⣀                     .581   ⠈⠑⠒⠤⠤⠤                    .000 ⡠⠊⠁
    ⠹ 0:17  fit  40 of 200 epochs  0:42 left at most  best .581 at 31

`TrainingState` is folded from events and the times at which they came; `render` is a pure function of the state and the
size. `TrainingView` puts them on a console; in a pipe it writes a line now and then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from dreamprm_cli import training as tr
from dreamprm_cli.view import heat
from dreamprm_cli.view.chart import chart, short
from dreamprm_cli.view.grid import BOLD, DIM, clock, model_name
from dreamprm_cli.view.line import Line, draw
from dreamprm_cli.view.screen import Screen, can_animate

_POINTS = 256  # of a curve, at most
_NOTICES = 2
_CHART_MAX = 10  # lines of a curve
_WIDE = 60  # columns from which curves stand side by side
_LINE_EVERY_S = 5.0
_SPINNERS = ("|/-\\", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What is to be seen of a training at `t` seconds.

    parts: of a training that has several, the one at index `part` is under way. began: when the stage did; before:
    units done when it did; most_s: how long it takes at most. loss, validation, moved: curves over units of the stage
    `drawn`, auc: within validation problems where that is watched; best: the highest point of `auc` where it is, else
    the lowest of `validation`.
    """

    t: float = 0.0
    title: str = "training"
    backbone: str = ""
    parts: tuple[str, ...] = ()
    part: int = 0
    stage: str = ""
    unit: str = ""
    total: int = 0
    done: int = 0
    began: float = 0.0
    before: int = 0
    most_s: float = math.inf
    tokens: int = 0
    loss: Curve = ()
    validation: Curve = ()
    auc: Curve = ()
    moved: Curve = ()
    drawn: str = ""
    best: tuple[float, float] | None = None
    notices: tuple[str, ...] = ()
    checkpoint: str = ""

    @property
    def over(self) -> bool:
        return bool(self.checkpoint)

    def tokens_per_s(self, now: float) -> float | None:
        """Over the stage so far; None before its first token."""
        spent = now - self.began
        return self.tokens / spent if self.tokens and spent > 0 else None

    def left_s(self, now: float) -> float | None:
        """Seconds to the end of the stage at its pace so far; None when that cannot be told."""
        made, missing, spent = self.done - self.before, self.total - self.done, now - self.began
        if made <= 0 or missing < 0 or not self.total:
            return None
        return min(spent / made * missing, max(0.0, self.most_s - spent))


def fold(state: TrainingState, event: tr.TrainingEvent, t: float) -> TrainingState:
    """The state after `event`, which came at `t` seconds."""
    state = replace(state, t=max(state.t, t))
    match event:
        case tr.TrainingStarted():
            title = state.title if state.parts else " · ".join((event.recipe, event.params, event.mode))
            return replace(state, title=title, backbone=event.backbone)
        case tr.PartStarted():
            return replace(
                state, parts=event.parts, part=event.at, stage="", unit="", total=0, done=0, before=0, tokens=0,
                began=state.t,
            )  # fmt: skip
        case tr.StageStarted():
            return replace(
                state, stage=event.stage, unit=event.unit, total=event.total, done=event.done, before=event.done,
                began=state.t, tokens=0, most_s=event.most_s,
            )  # fmt: skip
        case tr.Progressed():
            state = replace(state, done=event.done, tokens=event.tokens)
            if math.isnan(event.loss):
                return state
            state = _drawing(state)
            return replace(state, loss=_grown(state.loss, event.done, event.loss))
        case tr.Validated():
            state = _drawing(state)
            by_auc = not math.isnan(event.auc)
            figure, sign = (event.auc, -1) if by_auc else (event.loss, 1)
            better = math.isfinite(figure) and (state.best is None or sign * figure < sign * state.best[1])
            return replace(
                state,
                validation=_grown(state.validation, event.at, event.loss),
                auc=_grown(state.auc, event.at, event.auc),
                best=(event.at, figure) if better else state.best,
            )
        case tr.LabelsMoved():
            return replace(state, moved=_grown(state.moved, event.at, event.distance))
        case tr.TrainingNotice():
            return replace(state, notices=(*state.notices, event.text)[-_NOTICES:])
        case tr.TrainingFinished():
            return replace(state, checkpoint=event.checkpoint)
    return state


def _drawing(state: TrainingState) -> TrainingState:
    """Curves stay until another stage has some of its own."""
    if state.drawn == state.stage:
        return state
    return replace(state, drawn=state.stage, loss=(), validation=(), auc=(), moved=(), best=None)


def _grown(curve: Curve, x: float, y: float) -> Curve:
    """The curve with one more point. Its length is bounded: points that are too near to be told apart become one."""
    if not math.isfinite(y):
        return curve
    if len(curve) > 1 and curve[-1][0] - curve[-2][0] < (x - curve[0][0]) / _POINTS:
        return (*curve[:-1], (x, (curve[-1][1] + y) / 2))
    curve = (*curve, (x, y))
    return curve if len(curve) <= _POINTS else (*curve[:-1:2], curve[-1])


def render(
    state: TrainingState, width: int, height: int, ascii: bool = False, *, now: float | None = None
) -> RenderableType:
    """The screen of `state` in at most `width` x `height` cells. now: the clock, where it is later than the state."""
    return TrainingScreen(state, width, height, ascii, state.t if now is None else now)


@dataclass(frozen=True)
class TrainingScreen:
    """A rich renderable; see `render`."""

    state: TrainingState
    width: int
    height: int
    ascii: bool
    now: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        screen = replace(self, ascii=True) if options.ascii_only else self
        yield from draw(screen.lines(console.color_system))

    def lines(self, colors: str | None) -> list[Line]:
        """All lines from top to bottom, at most `height`."""
        top = self._header(colors)
        bottom = [self._line().add("! ", heat.bad(colors)).add(text, DIM) for text in self.state.notices]
        bottom.append(self._footer(colors))
        room = self.height - len(top) - len(bottom)
        if room < 2:
            return [top[0], bottom[-1]][-self.height :]
        return [*top, *self._curves(room, colors), *bottom]

    def _line(self) -> Line:
        return Line(self.width, ascii=self.ascii)

    def _header(self, colors: str | None) -> list[Line]:
        state = self.state
        title = state.title.replace(" · ", " | ") if self.ascii else state.title
        top = self._line().add(title, BOLD).right(self._line().add(model_name(state.backbone), DIM))
        share = 1.0 if state.over else state.done / state.total if state.total else 0.0
        done = int(min(1.0, share) * self.width)
        rule = self._line().add(("=" if self.ascii else "━") * done, heat.ink(1.0, colors))
        lines = [top, rule.add(("-" if self.ascii else "─") * (self.width - done), DIM)]
        return [*lines, self._parts(colors)] if state.parts else lines

    def _parts(self, colors: str | None) -> Line:
        """All parts in a row: those that are done, the one under way, those to come."""
        state, line = self.state, self._line()
        done, now, later = ("+", ">", " ") if self.ascii else ("✓", "●", "·")
        for number, name in enumerate(state.parts):
            if state.over or number < state.part:
                line.add(f"{done} {name}  ", heat.good(colors))
            elif number == state.part:
                line.add(f"{now} {name}  ", BOLD)
            else:
                line.add(f"{later} {name}  ", DIM)
        return line

    def _curves(self, room: int, colors: str | None) -> list[Line]:
        """The curves that have points, side by side where they fit, else as many below each other as do."""
        panels = _named_curves(self.state)
        if not panels:
            return []
        if self.width < _WIDE:
            each = min(_CHART_MAX + 1, max(3, room // len(panels)))
            fit = panels[: max(1, room // each)]
            return [line for panel in fit for line in self._row([panel], min(each, room), colors)]
        return self._row(panels, min(room, _CHART_MAX + 1), colors)

    def _row(self, panels: Sequence[tuple[str, Curve]], height: int, colors: str | None) -> list[Line]:
        gap = 2
        each = (self.width - gap * (len(panels) - 1)) // len(panels)
        heads = self._line()
        drawn = []
        for number, (name, curve) in enumerate(panels):
            heads.to(number * (each + gap)).add(f"{name} ", DIM).add(short(curve[-1][1]), BOLD)
            drawn.append(chart(curve, each, height - 1, ascii=self.ascii))
        lines = [heads]
        for row in zip(*drawn, strict=True):
            line = self._line()
            for number, text in enumerate(row):
                line.to(number * (each + gap)).add(text, heat.ink(1.0, colors))
            lines.append(line)
        return lines

    def _footer(self, colors: str | None) -> Line:
        state, line = self.state, self._line()
        if state.over:
            return line.add("done", BOLD).add(f" {clock(state.t)}").add(f"  {state.checkpoint}", DIM)
        spinner = _SPINNERS[0 if self.ascii else 1]
        line.add(spinner[int(self.now * 10) % len(spinner)], heat.good(colors)).add(f" {clock(self.now)}")
        best = [f"best {short(state.best[1])} at {state.best[0]:g}"] if state.best else []
        for text in pace(state, self.now) + best:
            if line.room >= len(text) + 2:
                line.add(f"  {text}", DIM)
        return line


def _named_curves(state: TrainingState) -> list[tuple[str, Curve]]:
    """Those that have points. Where the AUC is watched it stands for the validation."""
    validation = ("validation AUC", state.auc) if state.auc else ("validation", state.validation)
    named = (("loss", state.loss), validation, ("labels moved", state.moved))
    return [(name, curve) for name, curve in named if curve]


def pace(state: TrainingState, now: float) -> list[str]:
    """Stage, how much of it is done, tokens a second, time left: what is known of them."""
    words = [state.stage] if state.stage else []
    if state.total:
        words.append(f"{state.done:,} of {state.total:,} {state.unit}")
    if (speed := state.tokens_per_s(now)) is not None:
        words.append(f"{speed:,.0f} tok/s")
    if (left := state.left_s(now)) is not None:
        words.append(f"{clock(left)} left at most" if state.unit == "epochs" else f"{clock(left)} left")
    return words


def news(state: TrainingState, event: tr.TrainingEvent) -> str | None:
    """What `event` tells as a line, given the state after it."""
    match event:
        case tr.TrainingStarted():
            return f"{state.title}, {model_name(state.backbone)}"
        case tr.PartStarted():
            return f"{state.parts[state.part]} ({state.part + 1} of {len(state.parts)})"
        case tr.StageStarted():
            there = f", {state.done:,} are there" if state.done else ""
            return f"{state.stage}: {state.total:,} {state.unit}{there}" if state.total else state.stage
        case tr.Progressed() | tr.Validated():
            named = _named_curves(state) if state.drawn == state.stage else []
            losses = [f"{name} {short(curve[-1][1])}" for name, curve in named]
            return "  ".join(pace(state, state.t) + losses)
        case tr.TrainingNotice():
            return f"! {event.text}"
        case tr.TrainingFinished():
            return f"saved {event.checkpoint}"
    return None


class TrainingView:
    """A context manager; `update` takes the training's events one by one and stamps them.

    title: until the training says its own. quiet: fold the events and draw nothing. clock: seconds, from anywhere.
    """

    def __init__(
        self,
        console: Console,
        *,
        title: str = "training",
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = TrainingState(title=title)
        self._console = console
        self._clock = clock
        self._start = clock()
        self._next = 0.0  # when the next line of progress is due
        animate = not quiet and can_animate(console)
        self._plain = not quiet and not animate
        self._screen = Screen(console, self._draw) if animate else None

    def update(self, event: tr.TrainingEvent) -> None:
        """Take in the next event."""
        t = self._clock() - self._start
        self.state = fold(self.state, event, t)
        if not self._plain:
            return
        if isinstance(event, tr.Progressed | tr.Validated | tr.LabelsMoved):
            ended = 0 < self.state.total <= self.state.done
            if t < self._next and not ended:
                return
            self._next = t + _LINE_EVERY_S
        if (line := news(self.state, event)) is not None:
            ascii = self._console.options.ascii_only
            text = Line(1000, ascii=ascii).add(f"{clock(t):>5}  ").add(line)
            self._console.print(Text("".join(s.text for s in text)), soft_wrap=True, highlight=False)

    def __enter__(self) -> Self:
        if self._screen is not None:
            self._screen.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen is not None:
            self._screen.close(erase=False)

    def _draw(self, width: int, height: int) -> RenderableType:
        state = self.state
        return render(state, width, height, now=state.t if state.over else self._clock() - self._start)
