from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from view_kit import HOSTILE

from dreamprm_cli.view.text import clean, cut, fit, label


def harmless(text: str) -> bool:
    return not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for c in text)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_harmless(name: str) -> None:
    assert harmless(label(HOSTILE[name]))
    assert harmless(clean(HOSTILE[name]))


def test_label_drops_whole_escape_sequences() -> None:
    assert label(HOSTILE["colour"]) == "red"
    assert label(HOSTILE["link"]) == "click"
    assert label(HOSTILE["title"] + "x") == "x"
    assert label(HOSTILE["c1"]) == "red"


def test_label_keeps_what_an_unfinished_sequence_hides() -> None:
    assert "cm0gLXJm" in label(HOSTILE["unfinished"])


def test_label_is_one_line() -> None:
    assert label("  two\n\tlines ") == "two lines"


def test_clean_shows_where_something_was() -> None:
    assert clean("a\x1b[31mb\u202ec") == "a\ufffd[31mb\ufffdc"


def test_clean_keeps_lines_and_expands_tabs() -> None:
    assert clean("a\r\n\tb\n\nc\rd") == "a\n    b\n\nc\ufffdd"


def test_markup_is_only_text() -> None:
    assert label("[red]x[/red]") == clean("[red]x[/red]") == "[red]x[/red]"


def test_ascii_mode_replaces_all_else() -> None:
    assert label("größe\u202e", ascii=True) == "gr??e"
    assert clean("é\n\x1b", ascii=True) == "?\n?"


@given(st.text())
@example("\ud800")
@example("\u202e" * 5)
def test_any_text_is_harmless(text: str) -> None:
    assert harmless(label(text))
    assert "\n" not in label(text)
    assert harmless(clean(text).replace("\n", ""))
    assert clean(text).count("\n") == text.count("\n")
    assert label(text, ascii=True).isascii()
    assert clean(text, ascii=True).isascii()


@given(st.text(alphabet=st.characters(codec="utf-8")), st.integers(min_value=-1, max_value=30))
@example("合并区间", 5)
@example("合并区间", 1)
def test_fit_is_exact_and_cut_is_at_most(text: str, width: int) -> None:
    assert cell_len(fit(text, width)) == max(0, width)
    assert cell_len(cut(text, width)) <= max(0, width)


def test_wide_names_are_cut_by_cells() -> None:
    assert cut("合并区间", 8) == "合并区间"
    assert cut("合并区间", 7) == "合并区…"
    assert cut("合并区间", 6) == "合并…"
    assert fit("合并区间", 6) == "合并… "
    assert cut("merge_intervals", 8, ascii=True) == "merge_i~"
