from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from view_kit import HOSTILE, Run, Terminal, screen

from dreamprm_cli import events as ev
from dreamprm_cli.view import demo
from dreamprm_cli.view.live import LiveView
from dreamprm_cli.view.report import render_report
from dreamprm_cli.view.screen import can_animate


def pipe(**options: Any) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=80, legacy_windows=False, **options), file


def terminal_console(terminal: Terminal) -> Console:
    return Console(
        file=terminal, width=terminal.width, height=terminal.height, force_terminal=True, color_system="truecolor",
        legacy_windows=False, _environ={"TERM": "xterm-256color"},
    )  # fmt: skip


def play(view: LiveView, events: list[ev.Event]) -> None:
    with view:
        for event in events:
            view.update(event)


def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait for the view's own thread, however slow the machine."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def small_run() -> Run:
    run = Run(n=2, policy="gguf:/models/tiny.gguf").candidate(0, [("read", 0.9), ("main", 0.7)])
    run.add(ev.TestsRan, candidate=0, status="PASS", passed=3, total=3, seconds=0.2, trust="strong")
    run.add(ev.Notice, text="the problem was shortened")
    return run.candidate(1, [("solve", 0.2)], finish="length").end([0, 1])


def test_in_a_pipe_every_noteworthy_event_is_a_line() -> None:
    console, file = pipe(_environ={})
    play(LiveView(console, report=False), small_run().events)
    assert file.getvalue().splitlines() == [
        " 0:00  Sum  2 programs by tiny, scored by prm",
        " 0:00  #0   █ .90  read",
        " 0:00  #0   ▆ .70  main",
        " 0:00  #0   ▇ .80  finished  2 functions, 10 tokens",
        " 0:00  #0          ✓ 3/3  3 of 3 tests passed",
        " 0:01  ! the problem was shortened",
        " 0:01  #1   ▂ .20  solve",
        " 0:01  #1   ▂ .20  cut off  1 function, 5 tokens",
        " 0:01  #0   ▇ .80  chosen  of 2",
    ]


def test_without_a_prm_finished_steps_are_the_news() -> None:
    console, file = pipe(_environ={})
    play(LiveView(console, report=False), Run(prm=None).candidate(0, [("solve", float("nan"))]).end([0]).events)
    assert file.getvalue().splitlines() == [
        " 0:00  Sum  1 program by scripted, not scored",
        " 0:00  #0          solve  lines 1-2",
        " 0:00  #0          finished  1 function, 5 tokens",
        " 0:00  #0          chosen  of 1",
    ]


def test_the_report_follows() -> None:
    console, file = pipe(_environ={})
    view = LiveView(console)
    play(view, small_run().events)
    assert file.getvalue().endswith("\n".join(screen(render_report(view.state, 80), 80)[-3:]) + "\n")
    assert "runs/r1/solution.py" in file.getvalue()


def test_quiet_draws_nothing_and_still_folds() -> None:
    for console in (pipe()[0], terminal_console(Terminal())):
        view = LiveView(console, quiet=True)
        play(view, small_run().events)
        assert view.state.chosen == 0
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue() == getattr(console.file, "raw", "") == ""


def test_forced_colour_in_a_pipe_colours_lines_and_moves_no_cursor() -> None:
    console, file = pipe(_environ={"FORCE_COLOR": "1", "TERM": "xterm-256color"})
    play(LiveView(console), small_run().events)
    assert "\x1b[38;" in file.getvalue()
    assert not re.search(r"\x1b(?!\[[0-9;]*m)", file.getvalue())


def test_no_color_in_a_pipe() -> None:
    console, file = pipe(_environ={"NO_COLOR": "1"})
    play(LiveView(console), small_run().events)
    assert "\x1b" not in file.getvalue()


def test_an_ascii_pipe_gets_ascii() -> None:
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding="ascii")
    play(LiveView(Console(file=file, width=80)), list(demo.events(3)))
    file.flush()
    text = buffer.getvalue().decode("ascii")
    assert "@ .9" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_in_a_pipe(name: str) -> None:
    console, file = pipe(_environ={})
    run = Run(problem={"title": HOSTILE[name]}).candidate(0, [(HOSTILE[name], 0.5)])
    play(LiveView(console), run.add(ev.Notice, text=HOSTILE[name]).end([0]).events)
    assert file.getvalue().replace("\n", "").isprintable()


def test_on_a_terminal_the_report_takes_the_grids_place() -> None:
    terminal = Terminal(100, 40)
    terminal.write("$ dreamprm solve\r\n")
    view = LiveView(terminal_console(terminal))
    with view:
        for event in small_run().events:
            view.update(event)
        until(lambda: "tok/s" in terminal.raw)  # the grid is drawn
    assert not any("low ▁" in line for line in terminal.lines()), "and removed"
    assert [line for line in terminal.lines()[1:] if line] == [
        line for line in screen(render_report(view.state, 100), 100) if line
    ]
    assert terminal.cursor_visible


def test_what_others_write_to_stderr_stays_above(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(80, 40)
    monkeypatch.setattr(sys, "stderr", terminal)
    console = Console(
        stderr=True, width=80, height=40, force_terminal=True, color_system=None, legacy_windows=False,
        _environ={"TERM": "xterm-256color"},
    )  # fmt: skip
    events = small_run().events
    with LiveView(console, report=False) as view:
        for event in events[:6]:
            view.update(event)
        until(lambda: "Sum" in terminal.raw)
        print("a warning", file=sys.stderr)
        console.print("said by the program")
        assert sys.stderr is not terminal
    assert sys.stderr is terminal
    lines = terminal.lines()
    assert lines[:2] == ["a warning", "said by the program"]
    assert lines[2].startswith("Sum")
    assert sum(line.startswith("Sum") for line in lines) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_leaves_the_grid_and_a_visible_cursor(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal(80, 24)
    monkeypatch.setattr(sys, "stderr", terminal)

    def run() -> None:
        with LiveView(terminal_console(terminal)) as view:
            for event in small_run().events[:8]:
                view.update(event)
            until(lambda: ".90" in terminal.raw)
            raise error

    with pytest.raises(error):
        run()
    assert terminal.cursor_visible
    assert sys.stderr is terminal
    assert any("read" in line and ".90" in line for line in terminal.lines())
    assert terminal.lines()[-1] == ""


def test_the_clock_goes_on_between_events() -> None:
    terminal = Terminal(80, 24)
    view = LiveView(terminal_console(terminal), speed=20.0)
    with view:
        view.update(Run().events[0])
        until(lambda: len(set(re.findall(r" 0:(\d\d)", terminal.raw))) > 2)


def test_a_resize_redraws() -> None:
    terminal = Terminal(80, 24)
    console = terminal_console(terminal)
    with LiveView(console, report=False) as view:
        for event in small_run().events[:-2]:
            view.update(event)
        until(lambda: "Sum" in terminal.raw)
        terminal.resize(50)
        console.width = 50
        until(lambda: terminal.lines()[1] == "━" * 50)
    lines = [line for line in terminal.lines() if line]
    assert sum(line.startswith("Sum") for line in lines) == 1
    assert lines[1] == "━" * 50


def test_recalled_events_are_not_told_again() -> None:
    console, file = pipe(_environ={})
    events = small_run().events
    view = LiveView(console, report=False)
    with view:
        view.recall(events)
        view.update(ev.RunResumed(t=9.0))
    assert file.getvalue() == " 0:09  resumed: 2 of 2 programs are kept\n"
    assert view.state.resumed


def test_only_real_terminals_are_animated() -> None:
    for environ, stream, expected in (
        ({"TERM": "xterm"}, Terminal(), True),
        ({"TERM": "dumb"}, Terminal(), False),
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, io.StringIO(), False),
        ({"TERM": "xterm"}, io.StringIO(), False),
    ):
        assert can_animate(Console(file=stream, legacy_windows=False, _environ=environ)) is expected


def _spawn(columns: int, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """The demo in a pseudo-terminal of its own; the descriptor of its other end."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    hidden = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "CI")
    environ = {k: v for k, v in os.environ.items() if k not in hidden}
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamprm_cli.view.live", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def _read(descriptor: int, until: bytes | None = None) -> str:
    data = b""
    while until is None or until not in data:
        try:
            piece = os.read(descriptor, 1 << 16)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        data += piece
    return data.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [80, 200])
def test_in_a_real_pseudo_terminal(columns: int) -> None:
    process, descriptor = _spawn(columns, "3", "10")
    terminal = Terminal(columns, 40)
    terminal.write(_read(descriptor))
    assert process.wait() == 0
    assert terminal.cursor_visible
    assert terminal.raw.count("\x1b[?25l") > 2, "frames were drawn"
    assert terminal.lines()[0].startswith("Merge intervals")
    assert terminal.lines()[1] == "━" * columns
    assert terminal.lines()[-2].startswith("saved")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_restores_the_cursor() -> None:
    process, descriptor = _spawn(80, "3")
    begin = _read(descriptor, until=b"tokens")
    process.send_signal(signal.SIGINT)
    end = _read(descriptor)
    process.wait()
    assert (begin + end).rindex("\x1b[?25h") > (begin + end).rindex("\x1b[?25l")
    assert "KeyboardInterrupt" in end.partition("\x1b[?25h")[2], "the traceback comes after the view has gone"
