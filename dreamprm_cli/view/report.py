"""The last screen: how the programs rank, the winner's code with the PRM's trust beside every line, and the account.

`render_report` is for a run, `render_program` for any one program (`dreamprm score`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pygments.token import Comment, Keyword, Name, Number, Operator, String  # type: ignore[import-untyped]
from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax

from dreamprm_cli.types import Step
from dreamprm_cli.view import heat
from dreamprm_cli.view.grid import BOLD, DIM, Grid, clock, header
from dreamprm_cli.view.line import Line, draw
from dreamprm_cli.view.state import CandidateView, StepView, ViewState
from dreamprm_cli.view.text import clean, label

Piece = tuple[str, Style | None]

_ROWS = 10  # of the ranking
_NOTICES = 5
_MARGIN = 7  # cells left of the line numbers
_KEY = 10  # cells of the account's first column
# The terminal's own colours, none that is hard to read on a dark or a light ground.
_THEME = ANSISyntaxTheme(
    {
        Comment: Style(dim=True, italic=True),
        Keyword: Style(color="magenta"),
        Operator.Word: Style(color="magenta"),
        Name.Function: Style(bold=True),
        Name.Class: Style(bold=True),
        Name.Decorator: Style(italic=True),
        Number: Style(color="cyan"),
        String: Style(color="green"),
        String.Doc: Style(color="green", italic=True),
    }
)


def render_report(state: ViewState, width: int, *, ascii: bool = False) -> RenderableType:
    """Ranking, winner, account of a run that is over (or was interrupted), at most `width` cells wide."""
    return Report(state, width, ascii)


def render_program(
    steps: Sequence[Step],
    rewards: Sequence[float],
    *,
    reward: float | None = None,
    language: str = "python",
    width: int,
    aggregation: str = "",
    adherence: Mapping[str, Any] | None = None,
    ascii: bool = False,
) -> RenderableType:
    """A program with its heat: `rewards` runs along `steps` (NaN where not scored), `reward` is of the whole."""
    views = tuple(StepView(step, r) for step, r in zip(steps, rewards, strict=True))
    return Program(views, reward, language, width, aggregation, adherence or {}, ascii)


@dataclass(frozen=True)
class Program:
    """A rich renderable; see `render_program`."""

    steps: tuple[StepView, ...]
    reward: float | None
    language: str
    width: int
    aggregation: str
    adherence: Mapping[str, Any]
    ascii: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        colors, ascii = console.color_system, self.ascii or options.ascii_only
        code = "".join(s.step.source for s in self.steps)
        yield from draw(code_lines(console, code, self.steps, self.language, self.width, ascii))
        account = Account(self.width, colors, ascii)
        if self.reward is not None:
            account.reward(self.reward, self.steps, self.aggregation)
        account.least(self.steps)
        account.form(self.adherence)
        yield from draw([Line(0), *account.lines])


@dataclass(frozen=True)
class Report:
    """A rich renderable; see `render_report`."""

    state: ViewState
    width: int
    ascii: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        report = replace(self, ascii=True) if options.ascii_only else self
        colors = console.color_system
        yield from draw([*header(report.state, report.width, colors, report.ascii), *report.ranking(colors), Line(0)])
        winner = report.winner
        if winner is not None:
            lines = code_lines(
                console, winner.program, winner.steps, report.state.language, report.width, report.ascii
            )  # fmt: skip
            yield from draw([*lines, Line(0)])
        yield from draw(report.account(colors))

    @cached_property
    def winner(self) -> CandidateView | None:
        return None if self.state.chosen is None else self.state.candidates.get(self.state.chosen)

    def ranking(self, colors: str | None) -> Iterator[Line]:
        """The best programs as rows of the grid, the others in one line."""
        grid = Grid(self.state, self.width, 0, self.ascii, self.state.elapsed)
        rows = self.state.rows()
        shown = rows if len(rows) <= _ROWS + 1 else rows[:_ROWS]
        yield from (grid.row(c, colors) for c in shown)
        if len(rows) > len(shown):
            yield grid.rest(rows[len(shown) :], colors)

    def account(self, colors: str | None) -> list[Line]:
        """What was chosen and why, what it cost, where it lies, and how to go on."""
        state, winner = self.state, self.winner
        account = Account(self.width, colors, self.ascii)
        if winner is not None:
            pieces: list[Piece] = [(f"program {winner.index}", BOLD), (f" of {len(state.candidates)}", DIM)]
            if winner.finish_reason == "length":
                pieces.append(("  cut off at the token limit", heat.bad(colors)))
            account.say("chosen", *pieces)
            if winner.reward is not None:
                account.reward(winner.reward, winner.steps, state.aggregation)
            if state.logprob_weight:
                each = f"{winner.mean_logprob:.2f} a token"
                account.say("log-prob", (each, None), (f"  counts {state.logprob_weight:g} times in the ranking", DIM))
            account.least(winner.steps)
            account.verdict(winner)
            account.form(winner.adherence)
        else:
            account.say("chosen", ("none: no program was finished", heat.bad(colors)))
        account.usage(state)
        for notice in state.notices[-_NOTICES:]:
            account.say("note", (notice, None))
        if state.out:
            account.say("saved", (state.out, BOLD))
        if state.interrupted:
            done = f"{state.count('finished', 'error')} of {len(state.candidates)} programs are finished and kept"
            account.say("stopped", (f"{done}; go on with ", None), (f"dreamprm resume {state.run}", BOLD))
        return account.lines


class Account:
    """Lines of a key and what there is to say about it; what is too long goes on below, so nothing is cut off."""

    def __init__(self, width: int, colors: str | None, ascii: bool) -> None:
        self.lines: list[Line] = []
        self._width = width
        self._colors = colors
        self._ascii = ascii

    def say(self, key: str, *pieces: Piece) -> None:
        """One key, and styled pieces that are broken between words."""
        line = self._begin(key)
        for text, style in pieces:
            for word in re.findall(r"\s+|\S+", label(text, ascii=self._ascii)):
                if cell_len(word) > line.room and line.used > _KEY:
                    line = self._begin("")
                    if word.isspace():
                        continue
                chunks = chop_cells(word, max(2, line.room)) if cell_len(word) > line.room else [word]
                for number, chunk in enumerate(chunks):
                    line = self._begin("") if number else line
                    line.add(chunk, style)

    def _begin(self, key: str) -> Line:
        self.lines.append(Line(max(self._width, _KEY + 2), ascii=self._ascii).add(f"{key:<{_KEY}}", DIM))
        return self.lines[-1]

    def _heat(self, reward: float) -> list[Piece]:
        mark = heat.glyph(reward, ascii=self._ascii)
        return [(mark, heat.ink(reward, self._colors)), (f" {heat.number(reward)}", BOLD)]

    def reward(self, reward: float, steps: Sequence[StepView], aggregation: str) -> None:
        if math.isnan(reward):
            return
        count = sum(heat.known(s.reward) for s in steps)
        scored = f"{count} step{'' if count == 1 else 's'}"
        self.say("reward", *self._heat(reward), (f"  {aggregation} of {scored}" if aggregation else f"  {scored}", DIM))

    def least(self, steps: Sequence[StepView]) -> None:
        """The step to read first: the one that the PRM trusts least, when there is a choice."""
        scored = [(s.reward, s.step) for s in steps if s.reward is not None and not math.isnan(s.reward)]
        if len(scored) < 2:
            return
        reward, step = min(scored, key=lambda pair: pair[0])
        place = f"  lines {step.first_line}-{step.last_line}, trusted least"
        self.say("look at", *self._heat(reward), (f"  {step.name or step.kind}", None), (place, DIM))

    def verdict(self, candidate: CandidateView) -> None:
        verdict = candidate.verdict
        if verdict is None:
            return
        passed = verdict.status == "PASS"
        pieces: list[Piece] = [(verdict.status, heat.good(self._colors) if passed else heat.bad(self._colors))]
        pieces.append((f"  {verdict.passed} of {verdict.total} passed in {verdict.seconds:.1f} s", DIM))
        if verdict.trust == "weak":
            pieces.append(("  weak isolation", heat.bad(self._colors)))
        self.say("tests", *pieces)

    def form(self, adherence: Mapping[str, Any]) -> None:
        """Chain-of-Function adherence: the verdict, then the counts behind it."""
        facts = [
            f"{key.replace('_', ' ')} {value}"
            for key, value in adherence.items()
            if not isinstance(value, bool) and key != "verdict"
        ]
        verdict = str(adherence.get("verdict", ""))
        if facts or verdict:
            self.say("form", (verdict + "  " if verdict else "", None), (", ".join(facts), DIM))

    def usage(self, state: ViewState) -> None:
        usage = state.usage
        if usage is None:
            return
        pieces: list[Piece] = [(f"{usage.input_tokens:,} + {usage.output_tokens:,} tokens", None), (" in + out", DIM)]
        if state.duration_ms is not None:
            pieces.append((f"  {clock(state.duration_ms / 1000)}", None))
        speed = state.speed(state.elapsed)
        if speed is not None:
            pieces.append((f"  {speed:,.0f} tok/s", None))
        pieces.append(("  cost unknown" if usage.cost_usd is None else f"  ${usage.cost_usd:,.4f}", DIM))
        self.say("used", *pieces)


def code_lines(
    console: Console, code: str, steps: Sequence[StepView], language: str, width: int, ascii: bool
) -> list[Line]:
    """Numbered, coloured lines of code; in the margin every line has the heat of the step it belongs to.

    Lines that are too long are folded, so that nothing of a program is hidden.
    """
    colors = console.color_system
    code = clean(code, ascii=ascii).rstrip()
    source = code.split("\n")
    owners = _owners(steps, source)
    hot = any(heat.known(s.reward) for s in steps)
    digits = max(2, len(str(len(source))))
    width = max(width, (_MARGIN if hot else 0) + digits + 2 + 8)  # a console narrower than this wraps for itself
    room = width - (_MARGIN if hot else 0) - digits - 2
    painted = (
        Syntax("", language, theme=_THEME, background_color="default").highlight(code).split("\n", allow_blank=True)
    )
    lines: list[Line] = []
    for number, text in enumerate(painted[: len(source)], 1):
        owner = owners.get(number)
        segments = [s for s in text.render(console) if s.text and s.text != "\n"]
        for fold, part in enumerate(_folds(segments, room)):
            line = Line(width, ascii=ascii)
            if hot:
                first = owner is not None and owner.step.first_line == number and not fold
                _margin(line, owner, colors, named=first)
            line.add(f"{number if not fold else '':>{digits}}  ", DIM)
            for segment in part:
                line.add(segment.text, segment.style)
            lines.append(line)
    return lines


def _folds(segments: Sequence[Segment], room: int) -> list[list[Segment]]:
    """A line's pieces in parts of at most `room` cells; a wide character that does not fit goes to the next part."""
    parts: list[list[Segment]] = [[]]
    left = room
    for segment in segments:
        start = 0
        for place, char in enumerate(segment.text):
            cells = cell_len(char)
            if cells > left:
                parts[-1].append(Segment(segment.text[start:place], segment.style))
                parts.append([])
                start, left = place, room
            left -= cells
        parts[-1].append(Segment(segment.text[start:], segment.style))
    return parts


def _margin(line: Line, owner: StepView | None, colors: str | None, *, named: bool) -> None:
    """A flag with the reward on a step's first line, and its pole along the others: seven cells."""
    if owner is not None:
        style, mark = heat.chip(owner.reward, colors), heat.glyph(owner.reward, ascii=line.ascii)
        if heat.known(owner.reward):
            line.add(mark, heat.tint(owner.reward, colors))
            line.add(f" {heat.number(owner.reward)} " if named else " ", style)
        else:
            line.add(mark, DIM)
    line.to(_MARGIN)


def _owners(steps: Sequence[StepView], source: Sequence[str]) -> dict[int, StepView]:
    """Line number -> its step; blank lines between steps belong to none. A line of two steps belongs to the first."""
    owners: dict[int, StepView] = {}
    for view in steps:
        last = min(view.step.last_line, len(source))
        while last >= view.step.first_line and not source[last - 1].strip():
            last -= 1
        for number in range(max(1, view.step.first_line), last + 1):
            owners.setdefault(number, view)
    return owners
