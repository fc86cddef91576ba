"""The Chain-of-Function report: counts, and the verdict's rule."""

from dataclasses import asdict

import pytest

from dreamprm_cli.steps import Adherence, adherence, split

CHAIN = '''import sys

def read():
    """Read."""
    return 1


class A:
    def f(self):
        """Do."""


if __name__ == "__main__":
    read()
'''


def test_a_chain() -> None:
    report = adherence(CHAIN)
    assert report == Adherence(
        functions=2, documented=2, nested=0, module_lines=2, longest_function=3, parses=True, verdict="chain"
    )
    assert report.to_json() == asdict(report)
    assert adherence(split(CHAIN)) == report


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("", "none"),
        ("print(1)\n", "none"),
        ('def f():\n    """F."""\n', "single"),
        ('def f():\n    """F."""\ndef g():\n    """G."""\n', "chain"),
        ('def f():\n    """F."""\ndef g():\n    return 1\n', "loose"),
        ('def f():\n    """F."""\ndef g():\n    """G."""\n    def h(): ...\n', "loose"),
        ('def f():\n    """F."""\ndef g():\n    """G."""\n' + "print(1)\n" * 4, "loose"),
        ('def f():\n    """F."""\ndef g(:\n    """G."""\n', "broken"),
        ("def f():\n    return\x00 1\n", "broken"),
        ("x = '\\d'\ndef f(): ...\n", "single"),
        ("x = " + "(" * 5000, "broken"),
    ],
)
def test_the_verdict(code: str, verdict: str) -> None:
    assert adherence(code).verdict == verdict


def test_nested_functions_and_strings_that_look_like_them() -> None:
    code = 'def f():\n    x = "def no(): "\n    def g():\n        async def h(): ...\n    return lambda: 0\n'
    report = adherence(code)
    assert (report.functions, report.nested, report.documented) == (1, 2, 0)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("javascript", "// F.\nfunction f() {\n}\nexport const g = () => {\n  // G.\n  return 1;\n}\n"),
        ("typescript", "/** F. */\nexport function f(): void {\n}\nfunction g() {\n  // G.\n}\n"),
        (
            "java",
            "class A {\n    /** F. */\n    void f() {}\n    int g() {\n        // G.\n        return 1;\n    }\n}\n",
        ),
        ("cpp", "// F.\ntemplate <class T>\nvoid f() {}\nint g() {\n    // G.\n    return 1;\n}\n"),
        ("go", "package main\n\n// F does.\nfunc f() {\n}\n\nfunc g() {\n\t// G.\n}\n"),
        ("rust", "/// F.\n#[inline]\nfn f() {}\nimpl A {\n    // G.\n    fn g() {}\n}\n"),
    ],
)
def test_comments_document_where_there_are_no_docstrings(language: str, code: str) -> None:
    report = adherence(code, language)
    assert (report.functions, report.documented, report.nested, report.verdict) == (2, 2, 0, "chain")


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("javascript", "function f() {\n  function g() {}\n  const h = () => 1;\n  return x.map(y => y);\n}\n"),
        ("cpp", "int f() {\n    auto g = [&](int x) { return x; };\n    auto h = [](int y) { return y; };\n}\n"),
        ("go", "func f() {\n\tg := func() {}\n\tvar h = func() {}\n}\n"),
        ("rust", "fn f() {\n    fn g() {}\n    fn h() {}\n}\n"),
    ],
)
def test_named_functions_inside_functions_are_nested(language: str, code: str) -> None:
    report = adherence(code, language)
    assert (report.functions, report.nested) == (1, 2)


def test_macros_do_not_make_a_cpp_program_broken_but_an_open_brace_does() -> None:
    code = (
        "#define rep(i, n) for (int i = 0; i < n; ++i)\nint main() {\n    rep(i, 3) { x(); }\n    rep(j, 2) y(j);\n}\n"
    )
    assert adherence(code, "cpp").parses
    assert not adherence(code[:-2], "cpp").parses
