"""Results of a bench on a terminal: every width, without colour or Unicode, and with names that mean harm."""

import re

import pytest
from view_kit import HOSTILE, ansi, screen

from dreamprm_cli.view import adherence, bench
from dreamprm_cli.view.bars import Bars
from dreamprm_cli.view.curves import Curve, Curves


def _row(rate, gap=0.25):
    return {"solved_rate": rate, "ci95": [rate - 0.1, rate + 0.1], "recovered_gap": gap, "gap_ci95": [-0.001, 0.5]}


def _result(**more):
    methods = {"prm": (0.3, 0.4, 0.5), "orm": (0.3, 0.35, 0.45), "random": (0.3, 0.3, 0.3)}
    return {
        "problems": 40, "candidates": 320, "mixed_problems": 30, "pass@1": 0.3,
        "problems_with": {"1": 40, "2": 40, "8": 20}, "oracle": {"1": 0.3, "2": 0.5, "8": 0.7},
        "best_of_n": {
            name: {n: _row(rate, None if n == "1" else 0.25) for n, rate in zip(("1", "2", "8"), rates, strict=True)}
            for name, rates in methods.items()
        },
        "auc_within": {name: {"value": 0.7, "ci95": [0.6, 0.8]} for name in methods},
        "calibration": {"prm": {"ece": 0.08, "curve": []}},
        "mcnemar": {"orm": {"b": 5, "c": 2, "p": 0.453}, "random": {"b": 9, "c": 1, "p": 0.0215}},
        "skipped": {"majority": "no container engine answers"}, "left_out": {"programs without a verdict": 8},
    } | more  # fmt: skip


def test_a_wide_screen_has_every_number():
    lines = screen(bench.render(_result(), 100), 100)
    assert lines[0].startswith("40 problems (30 with passing and failing programs), 320 programs; pass@1 .300;")
    assert "oracle .500 of 2, .700 of 8" in " ".join(lines[:2])
    prm, orm = (next(line for line in lines if line.startswith(name)) for name in ("prm ", "orm "))
    assert prm.split() == ["prm", ".700", "[.600,", ".800]", ".400", ".500", "25%", "[0%,", "50%]"]
    assert orm.endswith("5 : 2  p .453")
    text = "\n".join(lines)
    assert "a prm   b oracle   c orm   d random" in text
    assert "0.700" in text
    assert "calibration error (ECE): prm .080" in text
    assert "no majority: no container engine answers" in text
    assert "left out: 8 programs without a verdict" in text
    assert "20 problems have 8" in text


@pytest.mark.parametrize("width", [30, 50, 72, 95, 140])
def test_nothing_is_wider_than_the_screen(width):
    lines = screen(bench.render(_result(), width), width)  # which checks it
    assert any("prm" in line for line in lines)
    if width < 96:
        assert not any("[" in line for line in lines)


def test_ascii_and_no_colour():
    text = ansi(bench.render(_result(), 90, ascii=True), 90, colors=None)
    assert text.isascii()
    assert "\x1b[3" not in text


def _harmless(text):
    return all(c == "\n" or c.isprintable() for c in re.sub(r"\x1b\[[0-9;]*m", "", text))


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_cannot_harm(kind):
    name = HOSTILE[kind]
    hostile = _result(skipped={name: name})
    hostile["best_of_n"][name] = hostile["best_of_n"]["orm"]
    hostile["auc_within"][name] = hostile["auc_within"]["orm"]
    assert _harmless(ansi(bench.render(hostile, 100), 100, colors=None))


def test_nothing_known_is_a_dash():
    empty = {"value": None, "ci95": [None, None]}
    result = _result(
        calibration={}, mcnemar={}, skipped={}, left_out={}, auc_within=dict.fromkeys(("prm", "orm", "random"), empty)
    )
    lines = screen(bench.render(result, 100), 100)
    assert next(line for line in lines if line.startswith("random")).split()[1] == "-"
    assert not any("ECE" in line or "prm : it" in line for line in lines)


def test_a_curve_goes_through_its_points_and_the_first_is_on_top():
    curves = Curves((Curve("up", ((1, 0.0), (4, 1.0))), Curve("flat", ((1, 0.0), (2, 0.0), (4, 0.0)))), 46)
    lines = screen(curves, 46)
    assert lines[0].startswith("1.000")
    assert lines[0].endswith("a")
    assert lines[11].startswith("0.000 a")  # both begin there
    assert lines[11].rstrip().endswith("b")
    assert lines[12].split() == ["n", "1", "2", "4"]
    assert lines[12].index("4") == lines[0].index("a")
    assert lines[13].split() == ["a", "up", "b", "flat"]
    rows = [line[6:] for line in lines[:12]]
    assert sum(row.count("·") for row in rows) > 60


def test_there_is_no_curve_without_two_points_or_room():
    assert screen(Curves((Curve("one", ((4, 0.5),)),), 80), 80) == []
    assert screen(Curves((Curve("two", ((1, 0.5), (2, 0.6))),), 20), 20) == []
    assert screen(Curves((), 80), 80) == []
    assert len(screen(Curves((Curve("level", ((1, 0.5), (2, 0.5))),), 80), 80)) == 14


def test_bars_are_as_long_as_their_counts():
    lines = screen(Bars("n", {"x": {"0": 0, "1": 50, "2": 100, "3": 1}}, 40), 40)
    assert [line.count("█") for line in lines] == [0, 0, 16, 33, 0]
    assert lines[1].split() == ["0", "0"]
    assert lines[4].split() == ["3", "▍", "1"]  # a third of a cell is seen
    plain = screen(Bars("n", {"x": {"a": 1, "b": 5}}, 40, ascii=True), 40, colors=None)
    assert "".join(plain).isascii()
    assert [line.count("#") for line in plain] == [0, 7, 35]
    assert screen(Bars("n", {}, 40), 40) == ["n"]
    assert screen(Bars("bins", {"x": {"0": 7}}, 8), 8)[1].split() == ["0", "7"]


def test_adherence_shows_shares_counts_and_models():
    shares = {"chain": 0.5, "loose": 0.25, "single": 0.25, "none": 0.0, "broken": 0.0}
    one = {
        "programs": 4, "verdicts": shares, "functions": {"1": 1, "2": 3}, "functions_mean": 1.75, "documented": 0.8,
        "nested": 0.25, "module_code": 0.5, "longest_function_mean": 6.0, "broken": 0.0,
    }  # fmt: skip
    lines = screen(adherence.render({**one, "by_model": {"a [red]": one, "b": one}}, 100), 100)
    text = "\n".join(lines)
    assert "4 programs; 1.75 functions a program, 80% with a docstring" in text
    assert "chain   50%" in text
    assert "a [red]" in text
    assert any(line.split() == ["2", "█" * 60, "3"] for line in lines)
    assert "-" in "\n".join(screen(adherence.render({**one, "documented": None}, 100), 100))
