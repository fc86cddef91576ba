from __future__ import annotations

import math

import pytest
from rich.color import Color, ColorSystem

from dreamprm_cli.view import heat

REWARDS = [k / 100 for k in range(101)]
DARK, LIGHT = (30, 30, 30), (255, 255, 255)
# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
BLINDNESS = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def linear(rgb: tuple[int, ...]) -> list[float]:
    return [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]


def luminance(rgb: tuple[int, ...]) -> float:
    red, green, blue = linear(rgb)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb: list[float]) -> list[float]:
    """CIE Lab of linear RGB, D65."""
    matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = [sum(m * c for m, c in zip(row, rgb, strict=True)) for row in matrix]
    x, y, z = (
        max(v / w, 0) ** (1 / 3) if v / w > 0.008856 else 7.787 * max(v / w, 0) + 16 / 116
        for v, w in zip(xyz, (0.9505, 1.0, 1.089), strict=True)
    )
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


def test_glyphs_by_level() -> None:
    assert [heat.glyph(r) for r in (0, 0.124, 0.125, 0.5, 0.874, 0.875, 1.0)] == ["▁", "▁", "▂", "▅", "▇", "█", "█"]
    assert [heat.glyph(r, ascii=True) for r in (0, 0.5, 1.0)] == [".", "+", "@"]
    assert len(set(heat.GLYPHS)) == len(set(heat.ASCII_GLYPHS)) == heat.LEVELS


def test_unknown_has_its_own_glyph() -> None:
    for reward in (None, math.nan):
        assert heat.glyph(reward) == "·"
        assert heat.glyph(reward, ascii=True) == "?"
        assert heat.number(reward) == "   "
    assert heat.NEUTRAL not in heat.GLYPHS
    assert heat.ASCII_NEUTRAL not in heat.ASCII_GLYPHS


def test_numbers_take_three_cells() -> None:
    assert [heat.number(r) for r in (0, 0.005, 0.62, 0.994, 0.996, 1, -3, 7)] == [
        ".00", ".01", ".62", ".99", "1.0", "1.0", ".00", "1.0",
    ]  # fmt: skip
    assert all(len(heat.number(r)) == 3 for r in REWARDS)


@pytest.mark.parametrize("reward", REWARDS[::5])
def test_colours_can_be_read(reward: float) -> None:
    paint = heat.color(reward)
    assert contrast(paint, LIGHT) >= 4.5
    assert contrast(paint, DARK) >= 3.0
    for system, least in (("truecolor", 4.5), ("256", 3.7)):
        style = heat.chip(reward, system)
        assert style.color is not None
        assert style.bgcolor is not None
        target = ColorSystem.TRUECOLOR if system == "truecolor" else ColorSystem.EIGHT_BIT
        ground = style.bgcolor.downgrade(target).get_truecolor()
        text = style.color.downgrade(target).get_truecolor()
        assert contrast(tuple(text), tuple(ground)) >= least


def test_colours_run_one_way() -> None:
    reds, blues = zip(*((heat.color(r)[0], heat.color(r)[2]) for r in REWARDS), strict=True)
    assert list(reds) == sorted(reds, reverse=True)
    assert list(blues) == sorted(blues)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_stay_apart_without_full_colour_vision(kind: str) -> None:
    seen = []
    for reward in (0.0, 0.5, 1.0):
        rgb = linear(heat.color(reward))
        seen.append(lab([sum(m * c for m, c in zip(row, rgb, strict=True)) for row in BLINDNESS[kind]]))
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert math.dist(seen[a], seen[b]) > 20  # about ten just noticeable differences


def test_no_ground_colour_where_colours_belong_to_the_theme() -> None:
    for colors in ("standard", "windows", None):
        for reward in (0.1, 0.5, 0.9, None, math.nan):
            assert heat.chip(reward, colors).bgcolor is None
    assert heat.ink(0.1, "standard") != heat.ink(0.5, "standard") != heat.ink(0.9, "standard")


def test_an_unscored_chip_can_be_read() -> None:
    style = heat.chip(None, "truecolor")
    assert isinstance(style.color, Color)
    assert isinstance(style.bgcolor, Color)
    assert contrast(tuple(style.color.get_truecolor()), tuple(style.bgcolor.get_truecolor())) >= 4.5
