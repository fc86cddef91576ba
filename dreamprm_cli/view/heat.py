"""A reward in [0, 1] as colour and as glyph.

The colours run from vermilion (distrust) over grey (undecided) to blue (trust), which people with any of the common
colour blindnesses tell apart. All have about the same luminance, 0.16 to 0.18: white text on them has a contrast of at
least 4.5, and they can be read themselves on dark and on light backgrounds (3.2 and more). The glyph says it again
without colour.
"""

from __future__ import annotations

import math
from functools import lru_cache

from rich.style import Style

LEVELS = 8
GLYPHS = "▁▂▃▄▅▆▇█"
ASCII_GLYPHS = ".:-=+*#@"
NEUTRAL = "·"
ASCII_NEUTRAL = "?"

_STOPS = ((0xC2, 0x56, 0x0A), (0xA3, 0x66, 0x33), (0x73, 0x73, 0x73), (0x4A, 0x74, 0x9E), (0x1F, 0x76, 0xC5))
_STEPS = 40  # colours in use; few enough for caches, too many to see the steps
_PALE = 0.45  # share of white in the glyph on a chip
_UNKNOWN_CHIP = Style(color="#d6d6d6", bgcolor="#484848")
_UNKNOWN_INK = Style(dim=True)
_PLAIN = Style()
_RICH_COLORS = ("truecolor", "256")
# Sixteen colours belong to the user's theme, and none of them is a ground that every theme keeps readable: ink only.
_INKS_16 = (Style(color="red"), Style(), Style(color="bright_blue"))


def known(reward: float | None) -> bool:
    """None (not scored yet) and NaN (never scored) are not known."""
    return reward is not None and not math.isnan(reward)


def glyph(reward: float | None, *, ascii: bool = False) -> str:
    """One cell: a bar of eight heights, or the neutral mark."""
    if reward is None or math.isnan(reward):
        return ASCII_NEUTRAL if ascii else NEUTRAL
    level = min(LEVELS - 1, int(_clamp(reward) * LEVELS))
    return (ASCII_GLYPHS if ascii else GLYPHS)[level]


def number(reward: float | None) -> str:
    """Three cells: ".62", "1.0", blank when unknown."""
    if reward is None or math.isnan(reward):
        return "   "
    text = f"{_clamp(reward):.2f}"
    return "1.0" if text == "1.00" else text[1:]


def color(reward: float) -> tuple[int, int, int]:
    """The colour of a known reward as (red, green, blue)."""
    place = _clamp(reward) * (len(_STOPS) - 1)
    low = min(int(place), len(_STOPS) - 2)
    share = place - low
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_STOPS[low], _STOPS[low + 1], strict=True))
    return red, green, blue


def chip(reward: float | None, colors: str | None) -> Style:
    """The style of text on a heat-coloured ground. `colors` is the console's `color_system`."""
    if colors not in _RICH_COLORS:
        return _PLAIN
    if reward is None or math.isnan(reward):
        return _UNKNOWN_CHIP
    return _painted(round(_clamp(reward) * _STEPS))[0]


def tint(reward: float | None, colors: str | None) -> Style:
    """The style of the glyph on a chip: seen where looked for, quieter than the name beside it."""
    if colors not in _RICH_COLORS:
        return ink(reward, colors)
    if reward is None or math.isnan(reward):
        return _UNKNOWN_CHIP
    return _painted(round(_clamp(reward) * _STEPS))[2]


def ink(reward: float | None, colors: str | None) -> Style:
    """The style of heat-coloured text on the terminal's own ground."""
    if reward is None or math.isnan(reward):
        return _UNKNOWN_INK
    if colors in _RICH_COLORS:
        return _painted(round(_clamp(reward) * _STEPS))[1]
    return _INKS_16[min(2, int(_clamp(reward) * 3))]


@lru_cache(maxsize=16)
def good(colors: str | None) -> Style:
    """Marks that say yes, in the colour of trust."""
    return ink(1.0, colors) + Style(bold=True)


@lru_cache(maxsize=16)
def bad(colors: str | None) -> Style:
    """Marks that say no, in the colour of distrust."""
    return ink(0.0, colors) + Style(bold=True)


@lru_cache(maxsize=_STEPS + 1)
def _painted(step: int) -> tuple[Style, Style, Style]:
    """Chip, ink and tint of one colour."""
    rgb = color(step / _STEPS)
    paint = "#{:02x}{:02x}{:02x}".format(*rgb)
    pale = "#{:02x}{:02x}{:02x}".format(*(round(c + (255 - c) * _PALE) for c in rgb))
    return Style(color="#ffffff", bgcolor=paint), Style(color=paint), Style(color=pale, bgcolor=paint)


def _clamp(reward: float) -> float:
    return min(1.0, max(0.0, reward))
