from __future__ import annotations

import io
import math
import re

import pytest
from rich.cells import cell_len
from rich.console import Console
from view_kit import HOSTILE, Run, ansi, screen

from dreamprm_cli import events as ev
from dreamprm_cli.view import demo
from dreamprm_cli.view.grid import choose, clock, model_name, render, writing
from dreamprm_cli.view.state import CandidateView, ViewState, fold_all

WIDTHS = (20, 40, 60, 80, 120, 200)


def mid_run(n: int = 4) -> ViewState:
    events = list(demo.events(n))
    return fold_all(events[: int(len(events) * 0.75)])


def test_the_running_screen_on_80_columns() -> None:
    assert screen(render(mid_run(), 80, 24), 80) == [
        "Merge intervals (scripted demo)                     scripted:demo · PRM scripted",
        "━━━━━━━━━━━━━━━━━━━━" + "─" * 60,
        "  0  █ .88           ▇ read_inter… .87   █ merge_inter… .88  ▸ total_length",
        "  1  ▄ .49           █ read_inter… .88   ▁ merge        .10  ▸ total_length",
        "  2  ▇ .79           █ read_inter… .88   ▆ sort_by_lef… .71  ▸ merge_intervals",
        "  3  ▂ .14  ✗ 1/12   ▂ merge       .16   ▁ main         .12",
        "",
        "⠏ 0:05  114 tok/s  546 tokens  1 of 4 done                     low ▁▂▃▄▅▆▇█ high",
    ]


def test_the_finished_screen_is_ranked() -> None:
    lines = screen(render(fold_all(demo.events(4)), 160, 24), 160)
    assert [line.split()[:3] for line in lines[2:6]] == [
        ["★", "0", "▇"],
        ["2", "▇", ".78"],
        ["1", "▄", ".42"],
        ["3", "▂", ".14"],
    ]
    assert "█ total_length .91" in re.sub(" +", " ", lines[2])
    assert lines[1] == "━" * 160
    assert lines[-1].startswith("done 0:07  111 tok/s  715 tokens  4 of 4 done")


def test_rows_keep_their_place_while_running() -> None:
    events = list(demo.events(6))
    for cut in range(1, len(events) - 2, 97):
        lines = screen(render(fold_all(events[:cut]), 120, 24), 120)
        assert [line.split()[0] for line in lines[2:8]] == ["0", "1", "2", "3", "4", "5"]


def test_all_functions_show_where_there_is_room() -> None:
    run = Run().candidate(0, [(f"function_{k}", k / 10) for k in range(6)])
    line = screen(render(fold_all(run.events), 200, 24), 200)[2]
    for k in range(6):
        assert f"function_{k} .{k}0" in line


def test_functions_without_room_become_glyphs_and_a_count() -> None:
    run = Run().candidate(0, [(f"function_{k}", k / 10) for k in range(10)])
    line = screen(render(fold_all(run.events), 80, 24), 80)[2]
    shown = re.findall(r"\.\d0", line[12:])
    hidden = 10 - len(shown)
    assert line.endswith(f"+{hidden} " + "▁▁▂▃▄▅▅▆▇█"[len(shown) :])


def test_a_candidate_being_written_shows_function_and_line() -> None:
    run = Run().add(ev.SampleStarted, candidate=0, seed=0)
    run.text(0, 'def total(xs):\n    """Sum."""\n    return su')
    assert screen(render(fold_all(run.events), 80, 24), 80)[2].endswith("▸ total  return su")


def test_names_are_seen_in_unfinished_text() -> None:
    for text, name in (
        ("def a(", "a"),
        ("import os\n\n\ndef a():\n    def inner():\n        pass\n", "a"),
        ("def a():\n    pass\n\n\ndef b(x", "b"),
        ("class Solution:\n    def solve(self):\n        x", "solve"),
        ("async def go(", "go"),
        ("func (s *Stack) Push(v int) {", "Push"),
        ("pub fn merge(v: Vec<i32>) {", "merge"),
        ("export async function main() {", "main"),
        ("def größe(x", "größe"),
        ("x = 1", ""),
        ("", ""),
    ):
        assert writing(CandidateView(0, unfinished=text))[0] == name


def test_many_candidates_the_relevant_rows_and_the_rest_in_one_line() -> None:
    run = Run(n=64)
    for index in range(30):
        run.candidate(index, [("main", index / 30)])
    for index in range(40, 44):
        run.add(ev.SampleStarted, candidate=index, seed=0).text(index, "def busy")
    lines = screen(render(fold_all(run.events), 80, 24), 80)
    assert len(lines) == 24
    rows = [int(line.split()[0]) for line in lines[2:22]]
    assert rows == [*range(14, 30), *range(40, 44)]
    assert lines[22].startswith("     and 44 more: 14 finished, 30 waiting  ▁▁▁▁▂▂▂▂▃▃▃▃▄▄")


def test_rest_counts_are_complete() -> None:
    rows = [CandidateView(k, status="writing" if k % 3 == 0 else "waiting") for k in range(30)]
    for room in range(0, 35):
        shown, hidden = choose(rows, room)
        assert len(shown) + len(hidden) == 30
        assert len(shown) + bool(hidden) <= max(room, 1)
        assert [c.index for c in shown] == sorted(c.index for c in shown)


def test_provisional_and_final_rewards_differ() -> None:
    run = Run(n=2).candidate(0, [("a", 0.5)]).step(1, 0, "a", reward=0.5)
    final, provisional = (
        line.partition("a ")[0] for line in ansi(render(fold_all(run.events), 80, 24), 80).split("\n")[2:4]
    )
    assert final.count(";48;2;") - provisional.count(";48;2;") == 3, "only a final reward is a chip"


def test_cut_off_failed_and_empty_candidates_say_so() -> None:
    run = Run(n=3).candidate(0, [("a", 0.5)], finish="length").candidate(1, [("a", 0.5)], finish="error")
    lines = screen(render(fold_all(run.candidate(2, []).events), 80, 24), 80)
    assert lines[2].endswith("cut off")
    assert lines[3].endswith("failed")
    assert lines[4].endswith("no functions")


def test_verdicts() -> None:
    run = Run(n=4)
    for index, (status, passed) in enumerate((("PASS", 12), ("WA", 3), ("TLE", 2))):
        run.candidate(index, [("a", 0.5)])
        run.add(ev.TestsRan, candidate=index, status=status, passed=passed, total=12, seconds=0.1, trust="strong")
    lines = screen(render(fold_all(run.events), 80, 24), 80)
    assert [line[12:20].strip() for line in lines[2:6]] == ["✓ 12/12", "✗ 3/12", "✗ TLE", ""]
    narrow = screen(render(fold_all(run.events), 40, 24), 40)
    assert "12/12" not in narrow[2]
    assert "✓" in narrow[2]


def test_no_prm_shows_names_and_logprob_but_no_scale() -> None:
    run = Run(prm=None).candidate(0, [("solve", math.nan)])
    lines = screen(render(fold_all(run.events), 80, 24), 80)
    assert lines[2] == "  0   -0.50 · solve"
    assert "high" not in lines[-1]


def test_an_undefined_reward_has_the_neutral_glyph() -> None:
    run = Run(n=2).step(0, 0, "a", reward=math.nan).candidate(1, [("a", math.nan)])
    lines = screen(render(fold_all(run.events), 80, 24), 80)
    assert "· a" in lines[2]
    assert "nan" not in "".join(lines).lower()


def test_wide_names_keep_the_columns_straight() -> None:
    run = Run(n=2).candidate(0, [("合并所有重叠的区间并计算长度", 0.9), ("main", 0.8)])
    run.candidate(1, [("merge", 0.2), ("main", 0.1)])
    for width in (60, 80, 120):
        lines = screen(render(fold_all(run.events), width, 24), width)
        places = [cell_len(line[: line.index("main")]) for line in lines[2:4]]
        assert places[0] == places[1]
        assert "合并" in lines[2]


def test_ascii_has_the_same_facts() -> None:
    run = Run(n=2, problem={"title": "Größe"}).candidate(0, [("合并", 0.9)]).text(1, "def a").end([0])
    state = fold_all(run.events)
    lines = screen(render(state, 80, 24, ascii=True), 80)
    assert all(line.isascii() for line in lines)
    assert lines[0].startswith("Gr??e")
    assert "* 0  @ .90  @ ??" in lines[2]


def test_ascii_is_taken_where_the_console_has_no_other_glyphs() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    to = Console(file=file, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    to.print(render(mid_run(), 80, 24))
    file.flush()
    assert isinstance(file.buffer, io.BytesIO)
    assert file.buffer.getvalue().isascii()


def test_without_colour_nothing_is_coloured_and_glyphs_remain() -> None:
    text = ansi(render(mid_run(), 80, 24), 80, no_color=True)
    codes = {code for group in re.findall(r"\x1b\[([0-9;]*)m", text) for code in group.split(";")}
    assert codes <= {"0", "1", "2", "3"}  # reset, bold, dim, italic
    assert "▆ sort_by_lef… .71" in text


def test_sixteen_colours_put_nothing_on_a_ground() -> None:
    text = ansi(render(mid_run(), 80, 24), 80, colors="standard")
    assert not re.search(r"\x1b\[(?:[0-9;]*;)?4[0-9]m", text)
    assert re.search(r"\x1b\[(?:[0-9;]*;)?94m", text), "trust is bright blue"
    assert re.search(r"\x1b\[(?:[0-9;]*;)?31m", text), "distrust is red"


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("width", [40, 200])
def test_hostile_text_stays_text(name: str, width: int) -> None:
    bad = HOSTILE[name]
    run = Run(n=2, problem={"title": bad}, policy=bad, prm=bad)
    run.candidate(0, [(bad, 0.5)]).add(ev.Notice, text=bad).text(1, f"def f():\n    {bad}")
    text = ansi(render(fold_all(run.events), width, 24), width)
    assert not re.search(r"\x1b(?!\[[0-9;]*m)", text), "an escape sequence other than a colour"
    screen(render(fold_all(run.events), width, 24), width)  # no other control character, no line too wide


def test_markup_in_a_name_is_shown_as_it_is() -> None:
    run = Run().candidate(0, [("[red]x[/red]", 0.5)])
    assert "[red]x[/red]" in screen(render(fold_all(run.events), 80, 24), 80)[2]


def test_the_newest_notices_stand_above_the_footer() -> None:
    run = Run(n=1)
    for number in range(3):
        run.add(ev.Notice, text=f"notice {number}")
    assert screen(render(fold_all(run.events), 80, 24), 80)[-3:-1] == ["! notice 1", "! notice 2"]


def test_an_interrupted_run_shows_what_is_unfinished() -> None:
    run = Run(n=2).candidate(0, [("a", 0.5)]).text(1, "def b").end([0], interrupted=True)
    lines = screen(render(fold_all(run.events), 80, 24), 80)
    assert lines[3].endswith("not finished")
    assert lines[-1].startswith("stopped")


def test_clock() -> None:
    assert [clock(s) for s in (0, 7.9, 754, 3723)] == ["0:00", "0:07", "12:34", "1:02:03"]


def test_model_names_are_short() -> None:
    assert model_name("gguf:/a/b/qwen-q4_k_m.gguf") == "qwen-q4_k_m"
    assert model_name("/a/b/checkpoint") == "checkpoint"
    assert model_name("openai:gpt") == "openai:gpt"
    assert model_name("hf:Qwen/Qwen2.5") == "hf:Qwen/Qwen2.5"
