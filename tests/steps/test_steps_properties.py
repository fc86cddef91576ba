"""Any text, in any language: steps join to it, never depend on the chunks, and are final once given out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splitting import check, lines

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.steps import LANGUAGES, StreamSplitter, adherence, split

BRACE_LANGUAGES = [language for language in LANGUAGES if language != "python"]
ENDS = st.sampled_from(["\n"] * 6 + ["\r\n", "\r", " \\\n", ""])
INDENTS = st.sampled_from(["", "", "    ", "    ", "        ", "\t", "  "])
PYTHON = """def f():|def f(a, b=(1,|async def g():|class A:|class B(C): pass|@cache|@d(|pass|return 1|x = 1|x = f(2)
import os|from a import (b,|if x:|else:|elif y:|try:|except E:|finally:|for i in x:|with a as b:|match x:|case 1:|)|]
# note|#|"|'|\"\"\"|'''|\"\"\"Doc.\"\"\"|s = 'a'|f"{x}|f"{x["k"]}"|f'''{x:|}|{{|\\N{|f(|[1,|{|lambda: 0|\\|;
yield|```python|Here's prose (and|def|class|async def|def größe(x): return 'ö'|\x0c|\x00|@|print(|...|\ud800|x = '''"""
BRACES = """function f() {|}|{|};|class A {|class A|struct S {|int f(int a) {|int x = 1;|int a[] = {1, 2};|fn f() {
impl A {|mod m {|func f() {|func (s *S) M() {|type T struct {|namespace n {|template <typename T>
public static void m() {|@Override|#include <x>|#define A {|#define B \\|const f = (x) => {
const y = x => x|return 1;|return 1|if (x) {|} else {|else {|for (;;) {|import { a } from 'b';
use a::{b};|// note|/*|*/|/* a */|/** doc|"|'|`|`${|}`|R"x(|)x"|r#"|"#|\"\"\"|'a'|'{'|x = /[{/]/;|a / b|(
)|[|]|;|,|: a{1},|=> {|= default;|public:|main();|async|export default|abstract|  x|let s = "|'a
A() : b{1} {|~A() {}|operator<() {}|x.map(|})|ö|\x00|\ud800|#[test]|'static"""


def code(words: str) -> st.SearchStrategy[str]:
    fragments = st.sampled_from(words.replace("\n", "|").split("|"))
    line = st.tuples(INDENTS, fragments, st.one_of(st.just(""), fragments), ENDS).map("".join)
    return st.lists(line, max_size=25).map("".join)


any_text = st.text(st.characters(exclude_categories=()), max_size=80)
lively = st.text("\n\n\r '\"\\{}()[]:#@defclass\t\x0c`;/*$", max_size=80)
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4)
cuts = st.lists(st.integers(0, 2000), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.one_of(any_text, lively, code(PYTHON)), sizes, cuts)
def test_python_or_not(text: str, sizes: list[int], cuts: list[int]) -> None:
    steps = check(text, sizes, cuts)
    if len(steps) > 1:
        assert all(any(line.strip() and line.strip()[0] != "#" for line in lines(step.source)) for step in steps)
    assert adherence(text) == adherence(steps)


@pytest.mark.parametrize("language", BRACE_LANGUAGES)
@settings(max_examples=40, deadline=None)
@given(st.one_of(any_text, lively, code(BRACES)), sizes, cuts)
def test_languages_with_braces_or_not(language: str, text: str, sizes: list[int], cuts: list[int]) -> None:
    steps = check(text, sizes, cuts, language)
    assert adherence(text, language) == adherence(steps, language)


def test_an_unknown_language_is_the_one_error() -> None:
    for call in (lambda: split("", "cobol"), lambda: StreamSplitter("cobol"), lambda: adherence("", "cobol")):
        with pytest.raises(ProblemError, match="cobol") as error:
            call()
        assert "python" in error.value.hint
