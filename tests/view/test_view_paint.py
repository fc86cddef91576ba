from __future__ import annotations

import random
import threading

from view_kit import Terminal

from dreamprm_cli.view.paint import AboveStream, Painter, Row


def rows(*texts: str) -> list[Row]:
    return [Row(text, len(text)) for text in texts]


def test_only_changed_lines_are_sent() -> None:
    terminal = Terminal(40, 10)
    painter = Painter(terminal)
    painter.paint(rows("one", "two", "three"), (40, 10))
    assert terminal.lines() == ["one", "two", "three"]
    terminal.raw = ""
    painter.paint(rows("one", "TWO", "three"), (40, 10))
    assert "TWO" in terminal.raw
    assert "one" not in terminal.raw
    assert "three" not in terminal.raw
    assert terminal.lines() == ["one", "TWO", "three"]


def test_an_unchanged_frame_sends_nothing() -> None:
    terminal = Terminal(40, 10)
    painter = Painter(terminal)
    painter.paint(rows("one"), (40, 10))
    terminal.raw = ""
    painter.paint(rows("one"), (40, 10))
    assert terminal.raw == ""


def test_a_frame_is_one_synchronized_update_and_clears_no_line_it_keeps() -> None:
    terminal = Terminal(40, 10)
    painter = Painter(terminal)
    painter.paint(rows("one", "two"), (40, 10))
    terminal.raw = ""
    painter.paint(rows("one", "2"), (40, 10))
    assert terminal.raw.startswith("\x1b[?2026h")
    assert terminal.raw.endswith("\x1b[?2026l")
    assert "\x1b[2K" not in terminal.raw


def test_random_blocks_always_end_up_on_the_screen() -> None:
    draw = random.Random(1)
    for _ in range(50):
        terminal = Terminal(12, 8)
        terminal.write("$ dreamprm\r\n")
        painter = Painter(terminal)
        for _ in range(30):
            block = ["x" * draw.choice([0, 3, 11, 12]) for _ in range(draw.randint(1, 7))]
            painter.paint(rows(*block), (12, 8), anew=draw.random() < 0.2)
            assert [line for line in terminal.lines()[1:] if line] == [line for line in block if line]
            assert terminal.lines()[1 : 1 + len(block)] == block
        painter.close()
        assert terminal.cursor_visible
        assert terminal.lines()[-1] == ""


def test_erase_leaves_nothing() -> None:
    terminal = Terminal(40, 10)
    terminal.write("before\r\n")
    painter = Painter(terminal)
    painter.paint(rows("one", "two", "three"), (40, 10))
    painter.erase((40, 10))
    painter.close()
    terminal.write("after")
    assert [line for line in terminal.lines() if line] == ["before", "after"]


def test_a_narrower_terminal_wraps_and_the_block_is_drawn_anew() -> None:
    terminal = Terminal(40, 20)
    terminal.write("before\r\n")
    painter = Painter(terminal)
    painter.paint(rows("a" * 40, "b" * 10, "c" * 40), (40, 20))
    terminal.resize(15)
    painter.paint(rows("A" * 15, "B", "C" * 15), (15, 20))
    assert [line for line in terminal.lines() if line] == ["before", "A" * 15, "B", "C" * 15]


def test_a_wider_terminal() -> None:
    terminal = Terminal(15, 20)
    terminal.write("before\r\n")
    painter = Painter(terminal)
    painter.paint(rows("A" * 15, "B", "C" * 15), (15, 20))
    terminal.resize(40)
    painter.paint(rows("a" * 40, "b", "c" * 40), (40, 20))
    assert [line for line in terminal.lines() if line] == ["before", "a" * 40, "b", "c" * 40]


def test_lines_written_meanwhile_go_above() -> None:
    terminal = Terminal(40, 10)
    painter = Painter(terminal)
    painter.paint(rows("one", "two"), (40, 10))
    painter.above("warning\nsecond line\n", (40, 10))
    painter.paint(rows("one", "2"), (40, 10))
    assert terminal.lines() == ["warning", "second line", "one", "2"]


class _Console:
    """All that the stream asks of a console is its size."""

    size = (40, 10)


def test_a_stream_above_takes_whole_lines_only() -> None:
    terminal = Terminal(40, 10)
    painter = Painter(terminal)
    painter.paint(rows("block"), (40, 10))
    stream = AboveStream(painter, _Console(), terminal)  # type: ignore[arg-type]
    print("half", end="", file=stream)
    assert terminal.lines() == ["block"]
    print(" a line\nprogress 1\rprogress 2", file=stream)
    print("rest", end="", file=stream)
    stream.release()
    assert terminal.lines() == ["half a line", "progress 2", "rest", "block"]
    assert stream.isatty()
    assert stream.writable()


def test_threads_do_not_mix_their_lines() -> None:
    terminal = Terminal(40, 200)
    painter = Painter(terminal)

    def paint() -> None:
        for number in range(50):
            painter.paint(rows(f"frame {number}", "end"), (40, 200))

    thread = threading.Thread(target=paint)
    thread.start()
    for number in range(50):
        painter.above(f"line {number}\n", (40, 200))
    thread.join()
    assert [line for line in terminal.lines() if line] == [*(f"line {k}" for k in range(50)), "frame 49", "end"]
