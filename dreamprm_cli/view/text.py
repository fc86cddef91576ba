"""Text from models, tests and files, made harmless for a terminal.

Such text never becomes rich markup (it is drawn as segments, Text or Syntax) and holds no character that a
terminal obeys or that hides or reorders others: C0 and C1 controls, bidi marks, zero-width and private characters.
"""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]{0,2048}(?:\x07|\x1b\\|\x9c)"  # OSC, DCS and kin
_CSI = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
_ESCAPE = re.compile(rf"{_STRING}|{_CSI}|\x1b[ -/]*[0-~]")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # these change the width of what stands before them


def clean(text: str, *, ascii: bool = False) -> str:
    """Program text as it may be shown: every character that is not printable becomes a visible "\ufffd".

    Nothing is dropped, so that the program shown is the program saved. Newlines stay, tabs become four spaces.
    """
    text = text.replace("\r\n", "\n").expandtabs(4)
    if not text.replace("\n", "").isprintable():
        text = "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in text)
    if text.isascii():
        return text
    text = _SELECTORS.sub("", text)
    return text.encode("ascii", "replace").decode("ascii") if ascii else text


def label(text: str, *, ascii: bool = False) -> str:
    """One line to show (a name, a title, a notice): escape sequences go as a whole, white space collapses."""
    if not text.isprintable():
        text = " ".join(_ESCAPE.sub("", text).split())
        text = "".join(c for c in text if c.isprintable())
    if text.isascii():
        return text
    text = _SELECTORS.sub("", text)
    return text.encode("ascii", "replace").decode("ascii") if ascii else text


def fit(text: str, width: int, *, ascii: bool = False) -> str:
    """A clean label in exactly `width` terminal cells: padded, or cut with an ellipsis. Wide characters count twice."""
    if width <= 0:
        return ""
    text = label(text, ascii=ascii)
    return set_cell_size(cut(text, width, ascii=ascii), width)


def cut(text: str, width: int, *, ascii: bool = False) -> str:
    """A clean label in at most `width` cells, cut with an ellipsis."""
    if width <= 0:
        return ""
    text = label(text, ascii=ascii)
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + ("~" if ascii else "…")
