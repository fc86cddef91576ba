from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dreamprm_cli.view.chart import chart, short


def test_a_falling_curve() -> None:
    points = [(x, 1.0 - x / 20) for x in range(21)]
    assert chart(points, 26, 3) == [
        "1.000 ⠉⠓⠒⠦⢤⣀⣀             ",
        "            ⠈⠉⠓⠒⠦⠤⣄⣀      ",
        " .000              ⠈⠉⠙⠒⠦⠤⣄",
    ]


def test_the_last_point_stands_at_the_right_edge_and_the_range_fills_the_height() -> None:
    lines = chart([(0, 0.2), (1, 0.9), (2, 0.5)], 30, 4, ascii=True)
    assert [line[:6] for line in lines] == [" .900 ", "      ", "      ", " .200 "]
    assert lines[-1][6] == "*"
    assert lines[0].count("*") >= 1
    assert any(line[-1] == "*" for line in lines[1:3])


def test_nothing_to_draw_and_no_room() -> None:
    assert chart([], 20, 2) == [" " * 20] * 2
    assert chart([(1, math.nan)], 20, 2) == [" " * 20] * 2
    assert chart([(1, 0.5)], 8, 2) == [" " * 8] * 2
    assert chart([(1, 0.5), (2, 0.4)], 20, 0) == []


def test_one_point_and_a_flat_curve_are_drawn() -> None:
    for points in ([(3, 0.25)], [(1, 0.25), (2, 0.25), (9, 0.25)]):
        lines = chart(points, 20, 3)
        assert lines[0].startswith(" .250 ")
        assert any(ord(char) > 0x2800 for line in lines for char in line)
        assert lines[2][:6].strip() == ""  # lowest and highest are the same


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60),
    st.integers(0, 90),
    st.integers(0, 12),
    st.booleans(),
)
def test_lines_are_of_the_size_asked_for_whatever_the_numbers(
    values: list[float], width: int, height: int, ascii: bool
) -> None:
    lines = chart(list(enumerate(values)), width, height, ascii=ascii)
    assert len(lines) == height
    assert all(cell_len(line) == width for line in lines)
    assert not ascii or all(line.isascii() for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.6124, ".612"),
        (-0.25, "-.250"),
        (1.0, "1.000"),
        (10.04, "10.04"),
        (-1.0, "-1.00"),
        (-123456.0, "-1e5"),
        (12345.6, "12346"),
        (2e7, "2e7"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text
