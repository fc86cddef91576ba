from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from view_kit import HOSTILE, Run, ansi, screen

from dreamprm_cli import events as ev
from dreamprm_cli.types import Step
from dreamprm_cli.view import demo, heat
from dreamprm_cli.view.report import render_program, render_report
from dreamprm_cli.view.state import fold_all
from dreamprm_cli.view.svg import export_svg

SOURCES = (
    ("imports", "imports", "import math\n\n\n", math.nan),
    ("area", "function", "def area(r):\n    return math.pi * r * r\n\n\n", 0.9),
    ("main", "code", "print(area(float(input())))\n", 0.3),
)


def program(sources: tuple[tuple[str, str, str, float], ...] = SOURCES) -> tuple[list[Step], list[float]]:
    steps, line = [], 1
    for name, kind, source, _ in sources:
        steps.append(Step(name, kind, source, line, line + max(0, source.count("\n") - 1)))  # type: ignore[arg-type]
        line += source.count("\n")
    return steps, [reward for *_, reward in sources]


def test_a_program_with_its_heat() -> None:
    steps, rewards = program()
    shown = render_program(
        steps,
        rewards,
        reward=0.6,
        width=60,
        aggregation="mean",
        adherence={"verdict": "chain", "functions": 1, "longest_function": 2, "parses": True},
    )
    assert screen(shown, 60) == [
        "·       1  import math",
        "        2",
        "        3",
        "█ .90   4  def area(r):",
        "█       5      return math.pi * r * r",
        "        6",
        "        7",
        "▃ .30   8  print(area(float(input())))",
        "",
        "reward    ▅ .60  mean of 2 steps",
        "look at   ▃ .30  main  lines 8-8, trusted least",
        "form      chain  functions 1, longest function 2",
    ]


def test_the_margin_has_the_colour_of_the_step_on_every_line() -> None:
    steps, rewards = program()
    lines = ansi(render_program(steps, rewards, width=60), 60).split("\n")
    trust, doubt = (f"48;2;{r};{g};{b}" for r, g, b in (heat.color(0.9), heat.color(0.3)))
    grounds = [re.findall(r"48;2;\d+;\d+;\d+", line) for line in lines[:8]]
    assert [bool(g) for g in grounds] == [False, False, False, True, True, False, False, True]
    assert set(grounds[3]) == set(grounds[4]) == {trust}
    assert set(grounds[7]) == {doubt}


def test_without_any_reward_there_is_no_margin() -> None:
    steps, _ = program()
    assert screen(render_program(steps, [math.nan] * 3, width=60), 60)[3] == " 4  def area(r):"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_nothing_of_a_long_line_is_hidden(width: int) -> None:
    code = "value = [" + ", ".join(f"item_{k}" for k in range(60)) + "]  # 合并区间 end\n"
    lines = screen(render_program([Step("value", "code", code, 1, 1)], [0.5], width=width), width)
    shown = "".join(line[11:] for line in lines)
    assert re.sub(r"\s", "", code) in re.sub(r"\s", "", shown)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_shown_and_do_nothing(name: str) -> None:
    code = f"def f():\n    return '{HOSTILE[name]}'\n"
    shown = render_program([Step(HOSTILE[name], "function", code, 1, 2)], [0.5], reward=0.5, width=60)
    screen(shown, 60)
    text = ansi(shown, 60)
    assert not re.search(r"\x1b(?!\[[0-9;]*m)", text)
    if name == "markup":
        assert "[red]bold[/red]" in re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_language_that_nobody_knows_is_shown_plainly() -> None:
    assert (
        "x = 1" in screen(render_program([Step("", "code", "x = 1\n", 1, 1)], [0.5], width=40, language="zzz"), 40)[0]
    )


def test_an_empty_program() -> None:
    screen(render_program([], [], reward=math.nan, width=40), 40)


def test_the_report_says_that_log_probability_counted() -> None:
    run = Run(n=1).candidate(0, [("a", 0.5)])
    run.add(ev.Chosen, chosen=0, ranking=[0], logprob_weight=2.0)
    (line,) = [line for line in screen(render_report(fold_all(run.events), 80), 80) if line.startswith("log-prob")]
    assert line == "log-prob  -0.50 a token  counts 2 times in the ranking"


def test_the_report_of_a_run() -> None:
    run = Run(n=3).candidate(0, [("a", 0.5), ("b", 0.25)])
    run.candidate(1, [("a", 0.9), ("b", 0.8)], adherence={"verdict": "chain", "documented": 2, "new_count": 3})
    run.add(ev.TestsRan, candidate=1, status="PASS", passed=2, total=2, seconds=0.25, trust="weak")
    run.add(ev.Notice, text="the problem was shortened").end([1, 0])
    lines = screen(render_report(fold_all(run.events), 80), 80)
    assert lines == [
        "Sum                                                           scripted · PRM prm",
        "━" * 80,
        "★ 1  ▇ .85  ✓ 2/2  █ a      .90 ▇ b      .80",
        "  0  ▄ .38         ▅ a      .50 ▃ b      .25",
        "  2 waiting",
        "",
        "█ .90   1  def a():",
        "█       2      pass",
        "▇ .80   3  def b():",
        "▇       4      pass",
        "",
        "chosen    program 1 of 3",
        "reward    ▇ .85  mean of 2 steps",
        "look at   ▇ .80  b  lines 3-4, trusted least",
        "tests     PASS  2 of 2 passed in 0.2 s  weak isolation",
        "form      chain  documented 2, new count 3",
        "used      10 + 20 tokens in + out  0:01  17 tok/s  cost unknown",
        "note      the problem was shortened",
        "saved     runs/r1/solution.py",
    ]


def test_a_known_cost_is_told_and_an_unknown_one_is_not_zero() -> None:
    used = []
    for cost in (0.0123, 0.0, None):
        state = fold_all(Run().candidate(0, [("a", 0.5)]).end([0], cost_usd=cost).events)
        used.append(next(line for line in screen(render_report(state, 80), 80) if line.startswith("used")))
    assert used[0].endswith("$0.0123")
    assert used[1].endswith("$0.0000")
    assert used[2].endswith("cost unknown")


def test_an_interrupted_run_says_how_to_go_on() -> None:
    run = Run(n=8, run="20250101-120000-merge-intervals").candidate(3, [("a", 0.5)]).text(4, "def b")
    state = fold_all(run.end([3], interrupted=True).events)
    for width in (40, 80):
        text = re.sub(r"\s+", " ", " ".join(screen(render_report(state, width), width)))
        assert "1 of 8 programs are finished and kept; go on with dreamprm resume " in text
        assert "20250101-120000-merge-intervals" in text.replace(" ", "")


def test_no_program_at_all() -> None:
    lines = screen(render_report(fold_all(Run(n=1).end([], out=None).events), 80), 80)
    assert "chosen    none: no program was finished" in lines
    assert not any(line.startswith("saved") for line in lines)


def test_a_long_ranking_is_cut_and_counted() -> None:
    run = Run(n=30)
    for index in range(30):
        run.candidate(index, [("main", index / 30)])
    lines = screen(render_report(fold_all(run.end(list(range(29, -1, -1))).events), 80), 80)
    assert [int(line.replace("★", " ").split()[0]) for line in lines[2:12]] == list(range(29, 19, -1))
    assert lines[12].startswith("     and 20 more: 20 finished")


def test_a_cut_off_winner_is_marked() -> None:
    lines = screen(render_report(fold_all(Run().candidate(0, [("a", 0.5)], finish="length").end([0]).events), 80), 80)
    assert "chosen    program 0 of 1  cut off at the token limit" in lines


def test_a_long_path_is_folded_and_complete() -> None:
    path = "/home/somebody/" + "very-long-folder-name/" * 5 + "solution.py"
    state = fold_all(Run().candidate(0, [("a", 0.5)]).end([0], out=path).events)
    assert path in "".join(line[10:] for line in screen(render_report(state, 60), 60))


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
def test_every_width_fits(width: int) -> None:
    for cut in (500, None):
        screen(render_report(fold_all(list(demo.events(9))[:cut]), width), width)


def test_ascii() -> None:
    lines = screen(render_report(fold_all(demo.events(3)), 80, ascii=True), 80)
    assert all(line.isascii() for line in lines)
    assert any(line.startswith("* 0  ") for line in lines)


def test_the_svg_is_valid_complete_and_needs_nothing_else(tmp_path: Path) -> None:
    events = list(demo.events(3))
    export_svg(events, tmp_path / "a.svg")
    export_svg(events, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
    root = ET.fromstring(text)
    shown = "".join(root.itertext()).replace("\xa0", " ")
    for word in ("Merge intervals (scripted demo)", "read_intervals", "total_length", "cost unknown", "█"):
        assert word in shown
    assert "@font-face" not in text
    assert "url(http" not in text
    assert re.search(r'fill="#[0-9a-f]{6}"', text)


def test_the_svg_does_not_depend_on_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_svg(demo.events(2), tmp_path / "a.svg")
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "30")):
        monkeypatch.setenv(name, value)
    export_svg(demo.events(2), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
