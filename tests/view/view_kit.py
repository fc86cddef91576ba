"""What the view tests share: consoles of a fixed size, a small terminal, and texts that mean harm."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType

from dreamprm_cli import events as ev
from dreamprm_cli.types import FinishReason

HOSTILE = {
    "colour": "\x1b[31mred\x1b[0m",
    "clear": "\x1b[2J\x1b[H\x1b[3J",
    "c1": "\x9b31mred\x9b0m \x85 \x9d0;title\x9c",
    "link": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "title": "\x1b]0;owned\x07",
    "unfinished": "\x1b]52;c;cm0gLXJm",
    "markup": "[red]bold[/red] [link=http://evil.example]x[/link] [/]",
    "bidi": "access\u202elevel\u2066\u2069 \u200f\u061c",
    "hidden": "a\u200bb\u200dc\ufeffd\u2060e\U000e0041f",
    "nul": "a\x00b\x07c\x08d\x7fe",
    "lines": "a\rb\x0bc\x0cd\u2028e\u2029f",
    "surrogate": "lone \ud83d half",
    "emoji": ":smile: \u2764\ufe0f",
}


def console(width: int, height: int = 50, *, colors: Any = "truecolor", **options: Any) -> Console:
    return Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=colors,
        legacy_windows=False, **{"no_color": False} | options,
    )  # fmt: skip


def written(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def ansi(renderable: RenderableType, width: int, **options: Any) -> str:
    """What a terminal of this width is sent, escape codes in it."""
    to = console(width, **options)
    to.print(renderable)
    return written(to)


def plain(text: str) -> list[str]:
    """The lines of such a text without their colours, right edges trimmed."""
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).split("\n")][:-1]


def screen(renderable: RenderableType, width: int, **options: Any) -> list[str]:
    lines = plain(ansi(renderable, width, **options))
    assert all(cell_len(line) <= width for line in lines), [line for line in lines if cell_len(line) > width]
    assert all(line.isprintable() for line in lines)
    return lines


class Run:
    """Builds the events of a run, times counting up by a tenth of a second."""

    def __init__(self, n: int = 1, **fields: Any) -> None:
        self.t = 0.0
        self.events: list[ev.Event] = []
        start: dict[str, Any] = {
            "run": "r1", "problem": {"id": "p", "title": "Sum"}, "policy": "scripted", "prm": "prm", "n": n,
            "aggregation": "mean", "settings": {},
        }  # fmt: skip
        self.add(ev.RunStarted, **start | fields)

    def add(self, event: type[ev.Event], /, **fields: Any) -> Run:
        self.events.append(event(t=round(self.t, 3), **fields))
        self.t += 0.1
        return self

    def text(self, candidate: int, text: str, tokens: int = 1) -> Run:
        return self.add(ev.TextArrived, candidate=candidate, text=text, tokens=tokens, logprob=-0.1)

    def step(self, candidate: int, number: int, name: str, source: str = "", reward: float | None = None,
             kind: str = "function", line: int = 1) -> Run:  # fmt: skip
        source = source or f"def {name}():\n    pass\n"
        self.add(
            ev.StepFinished, candidate=candidate, step=number, name=name, kind=kind, source=source,
            first_line=line, last_line=line + max(0, source.count("\n") - 1),
        )  # fmt: skip
        if reward is not None:
            self.add(ev.StepScored, candidate=candidate, step=number, reward=reward)
        return self

    def candidate(self, index: int, steps: Iterable[tuple[str, float]], reward: float | None = None, *,
                  finish: FinishReason = "stop", **fields: Any) -> Run:  # fmt: skip
        """A whole candidate: (name, reward) of its steps."""
        steps = list(steps)
        self.add(ev.SampleStarted, candidate=index, seed=index)
        code = ""
        for number, (name, worth) in enumerate(steps):
            source = f"def {name}():\n    pass\n"
            self.text(index, source, tokens=5)
            self.step(index, number, name, source, None if math.isnan(worth) else worth, line=code.count("\n") + 1)
            code += source
        known = [worth for _, worth in steps if not math.isnan(worth)]
        if reward is None:
            reward = sum(known) / len(known) if known else math.nan
        return self.add(
            ev.CandidateFinished, candidate=index, code=code, finish_reason=finish, seed=index,
            tokens=5 * len(steps), mean_logprob=-0.5, reward=reward, **{"adherence": {}} | fields,
        )  # fmt: skip

    def end(self, ranking: list[int] | None = None, **fields: Any) -> Run:
        if ranking is not None:
            self.add(ev.Chosen, chosen=ranking[0] if ranking else None, ranking=ranking)
        values: dict[str, Any] = {
            "interrupted": False, "input_tokens": 10, "output_tokens": 20, "cost_usd": None, "duration_ms": 1500,
            "out": "runs/r1/solution.py",
        }  # fmt: skip
        return self.add(ev.RunFinished, **values | fields)


class Terminal(io.StringIO):
    """A stream that is a terminal: it understands what the view sends, keeps a history, and wraps when resized."""

    _TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b(.)|(\r)|(\n)|([^\x1b\r\n])")

    def __init__(self, width: int = 80, height: int = 24) -> None:
        super().__init__()
        self.width, self.height = width, height
        self.rows = [""]  # history and screen; the screen is the last `height` of them
        self.row = self.column = 0
        self.cursor_visible = True
        self.raw = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.raw += text
        for match in self._TOKEN.finditer(text):
            argument, command, other, carriage, newline, char = match.groups()
            assert other is None, f"unknown escape {match[0]!r}"
            if carriage:
                self.column = 0
            elif newline:
                self.column = 0  # a terminal's driver puts a carriage return before it
                self.row += 1
                if self.row == len(self.rows):
                    self.rows.append("")
            elif char:
                self._put(char)
            else:
                self._command(argument, command)
        return len(text)

    def resize(self, width: int, height: int | None = None) -> None:
        """As most terminals do it: lines that are too long are wrapped, the cursor stays with its text."""
        rows, row = [], 0
        for number, text in enumerate(self.rows):
            if number == self.row:
                row = len(rows) + self.column // width
            text = text.rstrip()
            rows += [text[start : start + width] for start in range(0, len(text), width)] or [""]
        self.rows, self.row, self.column = rows, row, self.column % width
        self.width, self.height = width, height or self.height

    def lines(self) -> list[str]:
        return [row.rstrip() for row in self.rows]

    def _put(self, char: str) -> None:
        assert char.isprintable(), repr(char)
        assert cell_len(self.rows[self.row][: self.column]) < self.width, "wrapped: a line is too wide"
        text = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = text[: self.column] + char + text[self.column + 1 :]
        self.column += 1

    def _command(self, argument: str, command: str) -> None:
        if command == "A":
            self.row = max(self.row - int(argument or 1), len(self.rows) - self.height, 0)
        elif command == "B":
            self.row = min(self.row + int(argument or 1), len(self.rows) - 1)
        elif command == "K":
            self.rows[self.row] = "" if argument == "2" else self.rows[self.row][: self.column]
        elif command in "hl" and argument == "?25":
            self.cursor_visible = command == "h"
        else:
            assert command == "m" or argument == "?2026", f"unknown command {argument}{command}"
