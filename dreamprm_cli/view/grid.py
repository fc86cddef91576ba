"""The running view: a row per candidate, a cell per function, each cell coloured by the PRM's trust in it.

    Merge intervals                                        qwen2.5-coder-1.5b · PRM qwen2.5-coder-0.5b
    ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸───────────────────────────────────────────────────────
     0  ▇ .84   ▇ read_intervals .91  ▆ merge_intervals .78  ▇ main .83
     1  ▄ .49   ▇ read_intervals .88  ▂ merge .21            ▸ total_length      for left, right in
     2  waiting
    ⠹ 0:17  142 tok/s  2,310 tokens  3 of 8 done                                      low ▁▂▃▄▅▆▇█ high

`render` is a pure function of the state and the size; `LiveView` calls it some ten times a second.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style

from dreamprm_cli.view import heat
from dreamprm_cli.view.line import Line, draw
from dreamprm_cli.view.state import CandidateView, StepView, ViewState
from dreamprm_cli.view.text import cut, label

BOLD = Style(bold=True)
DIM = Style(dim=True)
WRITING = Style(italic=True)

_CELL, _CELL_MAX = 12, 30  # narrowest and widest cell of a function
_CHROME = 8  # what a function's glyph, reward and padding take beside its name, where there is room for padding
_TIGHT = 17  # cells narrower than this go without padding
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_SPINNER = "|/-\\"
_NOTICE_LINES = 2
_NAME = re.compile(
    r"^([ \t]*)(?:(?:export|default|async|pub|public|private|static|unsafe|const)\s+)*"
    r"(?:def|function|fn|func)\s+(?:\([^)\n]*\)\s*)?([^\W\d][\w$]*)",
    re.MULTILINE,
)


def render(
    state: ViewState, width: int, height: int, ascii: bool = False, *, elapsed: float | None = None
) -> RenderableType:
    """The screen of `state` in at most `width` x `height` cells.

    ascii:   no other glyphs; taken of itself where the console's encoding has no others.
    elapsed: the clock now, in seconds of the run.
    """
    return Grid(state, width, height, ascii, state.elapsed if elapsed is None else elapsed)


@dataclass(frozen=True)
class Columns:
    """Where things stand in a row: marker, index, reward, verdict (0: no such column), then a column per function."""

    index: int
    verdict: int
    starts: tuple[int, ...]
    widths: tuple[int, ...]

    @staticmethod
    def of(state: ViewState, width: int) -> Columns:
        """Columns as wide as the longest name seen in them, the widest giving way first; as many as fit legibly.

        They depend on what all rows hold and not on which rows are shown, so they settle early in a run.
        """
        rows = state.candidates.values()
        index = len(str(max(state.candidates, default=0)))
        verdict = 0
        if any(c.verdict is not None for c in rows):
            verdict = 2 + max(len(verdict_text(c)) for c in rows) if width >= 60 else 2
        start = 2 + index + 1 + 7 + 1 + verdict
        wanted = [_CELL] * max((len(c.cells) + (c.status == "writing") for c in rows), default=0)
        for candidate in rows:
            names = [step_name(step) for step in candidate.cells]
            if candidate.status == "writing":
                names.append(writing(candidate)[0])  # its cell is to come: better make room now than jump later
            for place, name in enumerate(names):
                wanted[place] = min(_CELL_MAX, max(wanted[place], _CHROME + cell_len(label(name))))
        room = width - start + 1
        places = min(len(wanted), room // (_CELL + 1))
        widths = _share(wanted[:places], room - places)
        starts = tuple(start + sum(widths[:place]) + place for place in range(places))
        return Columns(index, verdict, starts or (start,), tuple(widths))

    @property
    def start(self) -> int:
        return self.starts[0]


def _share(wanted: Sequence[int], room: int) -> list[int]:
    """Widths of at most `wanted`, `room` in sum: narrow ones get what they want, the wide ones share the rest."""
    widths = [0] * len(wanted)
    left = room
    for done, place in enumerate(sorted(range(len(wanted)), key=lambda i: wanted[i])):
        widths[place] = min(wanted[place], left // (len(wanted) - done))
        left -= widths[place]
    return widths


@dataclass(frozen=True)
class Grid:
    """A rich renderable; see `render`."""

    state: ViewState
    width: int
    height: int
    ascii: bool
    elapsed: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grid = replace(self, ascii=True) if options.ascii_only else self
        yield from draw(grid.lines(console.color_system))

    @cached_property
    def columns(self) -> Columns:
        return Columns.of(self.state, self.width)

    def lines(self, colors: str | None) -> list[Line]:
        """All lines from top to bottom, at most `height`."""
        top = header(self.state, self.width, colors, self.ascii)
        bottom = [*self._notices(colors), self._footer(colors)]
        room = self.height - len(top) - len(bottom)
        if room < 2:
            top, bottom = top[:1], bottom[-1:]
            room = self.height - 2
        rows = self.state.rows()
        shown, hidden = choose(rows, max(0, room), keep_order=bool(self.state.ranking))
        body = [self.row(c, colors) for c in shown]
        if hidden:
            body.append(self.rest(hidden, colors))
        if len(body) < room:
            body.append(Line(0))
        return [*top, *body, *bottom][: max(1, self.height)]

    def row(self, candidate: CandidateView, colors: str | None) -> Line:
        """One candidate's line."""
        state, columns = self.state, self.columns
        line = Line(self.width, ascii=self.ascii)
        chosen = state.chosen == candidate.index
        marker = ("*" if self.ascii else "★") if chosen else " "
        line.add(f"{marker} ", heat.good(colors))
        line.add(f"{candidate.index:>{columns.index}} ", BOLD if chosen else DIM)
        self._reward(line, candidate, colors)
        if columns.verdict:
            line.to(columns.start - columns.verdict)
            add_verdict(line, candidate, colors, brief=self.width < 60)
        line.to(columns.start)
        if columns.widths:
            self._cells(line, candidate, colors)
        else:
            for step in candidate.cells:
                line.add(heat.glyph(step.reward, ascii=self.ascii), heat.ink(step.reward, colors))
        return line

    def rest(self, hidden: Sequence[CandidateView], colors: str | None) -> Line:
        """One line for the candidates that have no row: how many, what they do, a glyph for each that has a reward."""
        counts = Counter("finished" if c.status == "error" else c.status for c in hidden)
        words = [f"{counts[s]} {s}" for s in ("writing", "finished", "waiting") if counts[s]]
        more = " " * (self.columns.index + 3) + f"and {len(hidden)} more"
        line = Line(self.width, ascii=self.ascii).add(more + ": " + ", ".join(words) + "  ", DIM)
        for candidate in hidden:
            reward = self.state.reward_of(candidate)
            if heat.known(reward) and line.room > 1:
                line.add(heat.glyph(reward, ascii=self.ascii), heat.ink(reward, colors))
        return line

    def _reward(self, line: Line, candidate: CandidateView, colors: str | None) -> None:
        reward = self.state.reward_of(candidate)
        if candidate.status == "waiting":
            line.add("waiting", DIM)
        elif self.state.prm is None and not math.isnan(candidate.mean_logprob):
            line.add(f"{candidate.mean_logprob:7.2f}", DIM)  # what ranks the programs when there is no PRM
        elif not heat.known(reward):
            line.add("       ")
        elif candidate.reward is None:  # provisional
            line.add(f" {heat.glyph(reward, ascii=self.ascii)} ", heat.ink(reward, colors))
            line.add(f"{heat.number(reward)} ", DIM)
        else:
            style = heat.chip(reward, colors) + BOLD
            line.add(" ", style).add(heat.glyph(reward, ascii=self.ascii), heat.tint(reward, colors))
            line.add(f" {heat.number(reward)} ", style)

    def _cells(self, line: Line, candidate: CandidateView, colors: str | None) -> None:
        """Functions from left to right; those without a place as glyphs and `+k`; then what is still being written."""
        columns, cells = self.columns, candidate.cells
        writes = candidate.status == "writing"
        places = len(columns.widths) - (writes or len(cells) > len(columns.widths))
        shown, hidden = cells[:places], cells[places:]
        for step, start, width in zip(shown, columns.starts, columns.widths, strict=False):
            self._cell(line.to(start), step, width, colors)
        if len(shown) < len(columns.starts):
            line.to(columns.starts[len(shown)])
        if hidden:
            line.add(f"+{len(hidden)} ", DIM)
            for step in hidden[: max(0, line.room - 8 if writes else line.room)]:
                line.add(heat.glyph(step.reward, ascii=self.ascii), heat.ink(step.reward, colors))
            line.add(" ")
        if writes and self.state.over:
            line.add("not finished", DIM)
        elif writes:
            self._writing(line, candidate)
        elif candidate.finish_reason in ("length", "error"):
            if len(shown) == len(columns.starts):
                line.add(" ")
            line.add("cut off" if candidate.finish_reason == "length" else "failed", heat.bad(colors))
        elif candidate.status == "finished" and not cells:
            line.add("no functions", DIM)

    def _cell(self, line: Line, step: StepView, width: int, colors: str | None) -> None:
        style, mark = heat.chip(step.reward, colors), heat.glyph(step.reward, ascii=self.ascii)
        end, pad = line.used + width, " " if width >= _TIGHT else ""
        name = cut(step_name(step), width - _CHROME + 2 * (not pad), ascii=self.ascii)
        line.add(pad, style).add(mark, heat.tint(step.reward, colors)).add(f" {name}", style)
        line.to(end - 3 - len(pad), style).add(heat.number(step.reward) + pad, style)

    def _writing(self, line: Line, candidate: CandidateView) -> None:
        name, tail = writing(candidate)
        line.add("> " if self.ascii else "▸ ", DIM)
        if name:
            line.add(name[:40], WRITING).add("  ")
        room = line.room - 1
        if tail and room >= 8:
            tail = label(tail[-room:], ascii=self.ascii)
            while cell_len(tail) > room:
                tail = tail[1:]
            line.add(tail, DIM)

    def _notices(self, colors: str | None) -> list[Line]:
        notices = self.state.notices[-_NOTICE_LINES:] if self.height >= 8 else ()
        return [Line(self.width, ascii=self.ascii).add("! ", heat.bad(colors)).add(text, DIM) for text in notices]

    def _footer(self, colors: str | None) -> Line:
        state = self.state
        line = Line(self.width, ascii=self.ascii)
        if state.over or state.ranking:
            line.add("stopped" if state.interrupted else "done", BOLD)
        else:
            spinner = _ASCII_SPINNER if self.ascii else _SPINNER
            line.add(spinner[int(self.elapsed * 10) % len(spinner)], heat.good(colors))
        line.add(f" {clock(self.elapsed)}")
        speed = state.speed(self.elapsed)
        if speed is not None:
            line.add(f"  {speed:,.0f} tok/s")
        done = f"  {state.count('finished', 'error')} of {len(state.candidates)} done"
        for text in (f"  {state.tokens:,} tokens" if state.tokens else "  starting", done):
            if line.room >= len(text):
                line.add(text, DIM)
        return line.right(legend(self.width, colors, self.ascii)) if state.prm else line


def header(state: ViewState, width: int, colors: str | None, ascii: bool) -> list[Line]:
    """Title and models, and under them a rule that is also the progress bar."""
    top = Line(width, ascii=ascii).add(state.title or "dreamprm", BOLD)
    models = Line(width, ascii=ascii).add(model_name(state.policy), DIM)
    if state.prm:
        models.add(" | PRM " if ascii else " · PRM ", DIM).add(model_name(state.prm), DIM)
    top.right(models)
    total = max(1, len(state.candidates))
    share = state.count("finished", "error") / total
    done = width if state.over and not state.interrupted else int(share * width)
    rule = Line(width, ascii=ascii).add(("=" if ascii else "━") * done, heat.ink(1.0, colors))
    rule.add(("-" if ascii else "─") * (width - done), DIM)
    return [top, rule]


def legend(width: int, colors: str | None, ascii: bool) -> Line:
    """The scale, from distrust to trust."""
    line = Line(width, ascii=ascii).add("low ", DIM)
    for level in range(heat.LEVELS):
        reward = level / (heat.LEVELS - 1)
        line.add(heat.glyph(reward, ascii=ascii), heat.ink(reward, colors))
    return line.add(" high", DIM)


def choose(
    rows: Sequence[CandidateView], room: int, *, keep_order: bool = False
) -> tuple[list[CandidateView], list[CandidateView]]:
    """The rows that get a line each, and the rest, for which one line is set aside. Both keep the order of `rows`.

    What is being written matters most, then the best finished programs, then what waits. `keep_order`: the first rows.
    """
    if len(rows) <= room:
        return list(rows), []
    places = max(0, room - 1)

    def relevance(candidate: CandidateView) -> tuple[int, float]:
        reward = candidate.reward if heat.known(candidate.reward) and candidate.reward is not None else -1.0
        return ("writing", "finished", "error", "waiting").index(candidate.status), -reward

    order = list(range(len(rows))) if keep_order else sorted(range(len(rows)), key=lambda i: relevance(rows[i]))
    kept = set(order[:places])
    return [c for i, c in enumerate(rows) if i in kept], [c for i, c in enumerate(rows) if i not in kept]


def writing(candidate: CandidateView) -> tuple[str, str]:
    """The name of the function being written, where it can be seen, and the last line of its text so far."""
    found = [(len(m[1].expandtabs(4)), m[2]) for m in _NAME.finditer(candidate.unfinished)]
    outer = min((indent for indent, _ in found), default=0)
    name = [name for indent, name in found if indent == outer][-1] if found else ""
    lines = candidate.unfinished.rstrip().rsplit("\n", 1)
    return name, lines[-1].strip()


def step_name(step: StepView) -> str:
    return step.step.name or step.step.kind


def verdict_text(candidate: CandidateView) -> str:
    """ "+ 12/12" for a program that passed, "x 3/12" or "x TLE" otherwise, "" when its tests did not run."""
    verdict = candidate.verdict
    if verdict is None:
        return ""
    share = f"{verdict.passed}/{verdict.total}"
    return f"+ {share}" if verdict.status == "PASS" else f"x {share if verdict.status == 'WA' else verdict.status}"


def add_verdict(line: Line, candidate: CandidateView, colors: str | None, *, brief: bool = False) -> None:
    """A mark for passed or not, and unless `brief` the status and the tests passed."""
    text = verdict_text(candidate)
    if not text:
        return
    good = text.startswith("+")
    mark = text[0] if line.ascii else ("✓" if good else "✗")
    line.add(mark if brief else mark + text[1:], heat.good(colors) if good else heat.bad(colors))


def clock(seconds: float) -> str:
    """ "0:07", "12:34", "1:02:03"."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def model_name(name: str) -> str:
    """A model's name without its folder and file ending."""
    engine, _, rest = name.partition(":")
    if engine == "gguf" or rest == "":
        return PurePath(rest or name).name.removesuffix(".gguf")
    return name
